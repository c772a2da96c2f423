"""Circle loss as logits of a classifier (Sun et al. 2020, arXiv 2002.10857), in fast-reid's form."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cosines(features: Tensor, weight: Tensor) -> Tensor:
    """(…, B, E) features and (…, C, E) classifier rows to their cosines (…, B, C), in float32."""
    with torch.autocast(features.device.type, enabled=False):
        return F.normalize(features.float(), dim=-1) @ F.normalize(weight.float(), dim=-1).mT


def circle_logits(cosine: Tensor, label: Tensor, *, scale: float, margin: float) -> Tensor:
    """Logits z for a softmax; the weight a is a constant to the gradient.

        true class:   a = max(0, 1 + m - cos)     z = s a (cos - (1 - m))
        others:       a = max(0, cos + m)         z = s a (cos - m)

    Args:
        cosine: (…, B, C).
        label: (B) classes.
        scale: s.
        margin: m.
    """
    fixed = cosine.detach()
    others = (fixed + margin).clamp(min=0) * (cosine - margin)
    own = (1 + margin - fixed).clamp(min=0) * (cosine - (1 - margin))
    is_own = F.one_hot(label, cosine.shape[-1]).bool()
    return scale * torch.where(is_own, own, others)
