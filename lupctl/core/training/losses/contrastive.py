"""Loss for instance discrimination."""

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """InfoNCE with one positive and a queue of negatives (He et al. 2020, arXiv 1911.05722, eq. 1).

        loss = mean over i of -log( exp(q_i.k_i / T) / (exp(q_i.k_i / T) + sum over j of exp(q_i.Q_j / T)) )

    Args:
        query: (B, D) of unit length, with gradient.
        key: (B, D) of unit length.
        queue: (D, K), columns of unit length.
        temperature: T.

    Returns:
        the loss, and the share of images whose own key is nearer than every negative.
    """
    with torch.autocast(query.device.type, enabled=False):
        positive = (query * key).sum(dim=1, keepdim=True)  # (B, 1)
        logits = torch.cat([positive, query @ queue], dim=1) / temperature  # (B, 1 + K)
    target = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    with torch.no_grad():
        hits = (logits.argmax(dim=1) == 0).float().mean()
    return F.cross_entropy(logits, target), hits
