"""Losses of the eight heads of a multiple granularity network; the order of the heads is `nets.mgn.HEADS`."""

import torch
from torch import Tensor

from lupctl.core.training.losses.circle import circle_logits, cosines
from lupctl.core.training.losses.identity import evenly_smoothed_losses


def head_losses(
    features: Tensor, weight: Tensor, label: Tensor, *, scale: float, margin: float, smoothing: float
) -> Tensor:
    """Identity loss of every image in every head, by circle logits and even smoothing.

    Args:
        features: (B, 8, E) after the necks.
        weight: (8, C, E) of the classifiers.
        label: (B) classes.
        scale, margin: of the circle logits.
        smoothing: of the labels.

    Returns:
        (8, B).
    """
    logits = circle_logits(cosines(features.transpose(0, 1), weight), label, scale=scale, margin=margin)
    return evenly_smoothed_losses(logits, label, smoothing)


def mean_of_nonzero(losses: Tensor, count: Tensor) -> Tensor:
    """Sum of (8, B) losses in each head over (8) counts of those that are not exactly 0; then the mean of the heads.

    The counts are an argument because several processes share them: the mean of their counts over processes, together
    with the mean of the gradients over processes, gives what one process would compute.
    """
    return (losses.sum(dim=1) / torch.where(count > 0, count, 1)).mean()


def triplet_features(features: Tensor) -> tuple[Tensor, ...]:
    """(B, 8, E) to the five features of the triplet loss: b1, b2, b3, b21 with b22, b31 with b32 and b33."""
    first, second, third, upper, lower, top, middle, bottom = features.unbind(dim=1)
    return first, second, third, torch.cat([upper, lower], dim=1), torch.cat([top, middle, bottom], dim=1)
