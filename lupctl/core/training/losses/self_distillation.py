"""Self-distillation over several crops, DINO (Caron et al. 2021, arXiv 2104.14294, equation 3)."""

import torch
from torch import Tensor


def centred_targets(logits: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """What the averaged network says of each crop: softmax((z - c) / t), in float32.

    Args:
        logits: (..., K) z, of the averaged network.
        centre: (K) c, the running mean of its outputs.
        temperature: t.
    """
    return ((logits.float() - centre) / temperature).softmax(dim=-1)


def self_distillation(targets: Tensor, student: Tensor) -> Tensor:
    """Mean cross-entropy of all pairs of a target and another crop of the same image.

    For the T targets q_t and all V crops v, of which the first T are the targets' own,

        mean over the pairs with v != t of  - sum over k of q_t log p_v

    All pairs of an image are one product of matrices, (T, K) by (K, V).

    Args:
        targets: (T, B, K) probabilities.
        student: (V, B, K) log-probabilities.
    """
    number, images, _ = targets.shape
    pairs = torch.bmm(targets.transpose(0, 1), student.permute(1, 2, 0))  # (B, T, V)
    own = pairs.diagonal(dim1=1, dim2=2)
    return (own.sum() - pairs.sum()) / (images * number * (len(student) - 1))
