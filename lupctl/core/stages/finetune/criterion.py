"""The loss of a fine-tuning step."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from lupctl.core.recipes.finetune_sections import Losses
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.system.jobs.device import autocast
from lupctl.core.system.jobs.messages import average_, gather_plain, gather_with_gradient
from lupctl.core.training.losses.circle import cosines
from lupctl.core.training.losses.identity import smoothed_cross_entropy
from lupctl.core.training.losses.mgn import head_losses, mean_of_nonzero, triplet_features
from lupctl.core.training.losses.triplet import batch_hard_triplet
from lupctl.core.training.losses.weighted import weighted_triplet
from lupctl.core.training.nets.mgn import MgnNetwork
from lupctl.core.training.nets.networks import ReidNetwork


def measure(
    recipe: FinetuneRecipe,
    network: ReidNetwork | MgnNetwork,
    view: Tensor,
    target: Tensor,
    kind: torch.dtype,
    *,
    forward: Callable[[Tensor], Any] | None = None,
) -> dict[str, Tensor]:
    """Run the network on this process's images and compare them with the images of all processes.

    Args:
        recipe: its losses.
        network: in training mode.
        view: (B, 3, H, W).
        target: (B) classes.
        kind: precision of the forward pass.
        forward: runs the network; None for the network itself.

    Returns:
        scalars loss, identity, triplet and accuracy; the step's gradient is the mean over processes of the loss's
        gradient.
    """
    weights = recipe.losses
    with autocast(view.device, kind):
        given = (forward or network)(view)
    if isinstance(network, MgnNetwork):
        parts = measure_mgn(weights, given.float(), network.classifier_weight(), target)
    else:
        features, logits = given
        parts = {
            "identity": smoothed_cross_entropy(logits, target, weights.smoothing),
            "triplet": compare(weights, features, gather_with_gradient(features.float()), target),
            "accuracy": (logits.argmax(dim=1) == target).float().mean(),
        }
    return {"loss": weights.identity * parts["identity"] + weights.triplet * parts["triplet"], **parts}


def measure_mgn(weights: Losses, features: Tensor, classes: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Means of the identity loss over eight heads and the triplet loss over five features; accuracy of head b1."""
    losses = head_losses(
        features,
        classes,
        target,
        scale=weights.circle_scale,
        margin=weights.circle_margin,
        smoothing=weights.smoothing,
    )
    count = (losses.detach() != 0).float().sum(dim=1)
    average_([count])
    own = triplet_features(features)
    everyone = triplet_features(gather_with_gradient(features))
    triplets = [compare(weights, mine, theirs, target) for mine, theirs in zip(own, everyone, strict=True)]
    with torch.no_grad():
        nearest = cosines(features[:, 0], classes[0]).argmax(dim=1)
    return {
        "identity": mean_of_nonzero(losses, count),
        "triplet": torch.stack(triplets).mean(),
        "accuracy": (nearest == target).float().mean(),
    }


def compare(weights: Losses, own: Tensor, everyone: Tensor, target: Tensor) -> Tensor:
    """The triplet loss of this process's images against those of all processes."""
    if weights.mining == "weighted":
        return weighted_triplet(own, target, everyone, gather_plain(target))
    return batch_hard_triplet(own, target, everyone, gather_plain(target), margin=weights.margin)
