"""Contrast within a batch, with or without labels."""

import torch
from torch import Tensor


def batch_contrast(features: Tensor, label: Tensor, temperature: float) -> Tensor:
    """Supervised contrastive loss (Khosla et al. 2020, arXiv 2004.11362, eq. 2).

        loss = mean over i of -(1 / |P_i|) sum over p in P_i of log softmax_ip

    with the softmax of z_i.z_a / T over all a but i, and P_i the others that have the label of i. If the label is the
    number of the image and there are two views of each, this is SimCLR's NT-Xent (Chen et al. 2020, arXiv 2002.05709,
    eq. 1).

    Args:
        features: (N, D) of unit length.
        label: (N); each at least twice.
        temperature: T.
    """
    with torch.autocast(features.device.type, enabled=False):
        similar = features @ features.T / temperature
    own = torch.eye(len(label), dtype=torch.bool, device=label.device)
    positive = (label[:, None] == label[None]) & ~own
    norm = similar.masked_fill(own, float("-inf")).logsumexp(dim=1)
    return (norm - (similar * positive).sum(dim=1) / positive.sum(dim=1)).mean()
