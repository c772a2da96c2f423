"""Relational knowledge distillation: a network learns which images another one finds similar."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lupctl.core.training.losses.triplet import euclidean


def relational_distances(student: Tensor, teacher: Tensor) -> Tensor:
    """Distance-wise relational distillation (Park et al. 2019, arXiv 1904.05068, eq. 4 to 7).

        loss = mean over i != j of h(s_ij / mean s - t_ij / mean t)

    with s and t the Euclidean distances of the two networks' features of images i and j, and h the Huber loss of width
    1. Their features may differ in length, as only distances are compared, and each network's mean distance is 1.
    Features are of unit length here, as retrieval compares directions; the paper's student is not normalised.

    Args:
        student: (B, D) features, with gradient; in several processes those of all, B at least 2.
        teacher: (B, T) features of the same images, in the same order.
    """
    with torch.autocast(student.device.type, enabled=False):
        mine, theirs = _scaled_distances(student), _scaled_distances(teacher.detach())
        # Nothing on the diagonal differs, and its B entries are not among the B (B - 1) pairs.
        return F.huber_loss(mine, theirs, reduction="sum") / (len(student) * (len(student) - 1))


def _scaled_distances(features: Tensor) -> Tensor:
    """(B, B) distances of the directions of features, with a mean of 1 over pairs and 0 on the diagonal."""
    units = F.normalize(features.float() if features.dtype != torch.double else features, dim=1)
    distance = euclidean(units, units)
    distance = distance.masked_fill(torch.eye(len(units), dtype=torch.bool, device=units.device), 0.0)
    mean = distance.sum() / (len(units) * (len(units) - 1))
    return distance / mean.clamp(min=1e-6)
