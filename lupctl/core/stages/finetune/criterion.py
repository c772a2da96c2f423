"""The loss of a fine-tuning step."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lupctl.core.recipes.finetune_sections import Losses
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.system.jobs.messages import average_, gather_plain, gather_with_gradient
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.training.losses.circle import cosines
from lupctl.core.training.losses.identity import smoothed_cross_entropy
from lupctl.core.training.losses.mgn import head_losses, mean_of_nonzero, triplet_features
from lupctl.core.training.losses.relational import relational_distances
from lupctl.core.training.losses.triplet import batch_hard_triplet
from lupctl.core.training.losses.weighted import weighted_triplet
from lupctl.core.training.nets.build import Classifying
from lupctl.core.training.nets.jpm import JpmNetwork
from lupctl.core.training.nets.mgn import MgnNetwork


def measure(
    recipe: FinetuneRecipe,
    network: Classifying,
    view: Tensor,
    target: Tensor,
    kind: torch.dtype,
    *,
    cameras: Tensor | None = None,
    taught: Tensor | None = None,
    forward: Callable[..., Any] | None = None,
) -> dict[str, Tensor]:
    """Run the network on this process's images and compare them with the images of all processes.

    Args:
        recipe: its losses.
        network: in training mode.
        view: (B, 3, H, W).
        target: (B) classes.
        kind: precision of the forward pass.
        cameras: (B) rows of the network's table of cameras, if it has one.
        taught: (B, T) features of a teacher for these images; None without one.
        forward: runs the network; None for the network itself.

    Returns:
        scalars loss, identity, triplet and accuracy, and distil with a teacher; the step's gradient is the mean over
        processes of the loss's gradient.
    """
    weights = recipe.losses
    assert weights is not None, "filled in by `check_clusters`"
    with autocast(view.device, kind):
        run = forward or network
        given = run(view) if cameras is None else run(view, cameras)
    if isinstance(network, MgnNetwork):
        parts = measure_mgn(weights, given.float(), network.classifier_weight(), target)
    elif isinstance(network, JpmNetwork):
        parts = measure_jpm(weights, given[0], given[1], target)
    else:
        parts = measure_one(weights, given[0], given[1], target)
    loss = weights.identity * parts["identity"] + weights.triplet * parts["triplet"]
    if taught is None:
        return {"loss": loss, **parts}
    assert recipe.distil is not None
    distil = imitate(compared_features(network, given), taught)
    return {"loss": loss + recipe.distil.weight * distil, **parts, "distil": distil}


def compared_features(network: Classifying, given: Any) -> Tensor:
    """(B, D): of what a network gives in training, the features whose distances a teacher's are learned by.

    They are those of the triplet loss: of an mgn all of its heads', of a jpm the global one.
    """
    if isinstance(network, MgnNetwork):
        return given.flatten(1)  # type: ignore[no-any-return]
    return given[0][:, 0] if isinstance(network, JpmNetwork) else given[0]  # type: ignore[no-any-return]


def imitate(own: Tensor, taught: Tensor) -> Tensor:
    """The loss of a teacher, over the images of all processes; the same number in each."""
    return relational_distances(gather_with_gradient(own.float()), gather_plain(taught))


def measure_one(weights: Losses, features: Tensor, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Both losses and the accuracy of one feature before its neck (B, D), and its logits (B, C)."""
    return {
        "identity": smoothed_cross_entropy(logits, target, weights.smoothing),
        "triplet": compare(weights, features, gather_with_gradient(features.float()), target),
        "accuracy": (logits.argmax(dim=1) == target).float().mean(),
    }


def measure_jpm(weights: Losses, features: Tensor, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Both losses of TransReID's jigsaw patch module, and the accuracy of its global feature.

    Args:
        weights: smoothing, margin and mining.
        features: (B, 1 + P, D) before their necks, the global one first.
        logits: (B, 1 + P, C).
        target: (B) classes.
    """
    own, everyone = features.float(), gather_with_gradient(features.float())
    pairs = zip(own.unbind(dim=1), everyone.unbind(dim=1), strict=True)
    return {
        "identity": weigh_parts([smoothed_cross_entropy(one, target, weights.smoothing) for one in logits.unbind(1)]),
        "triplet": weigh_parts([compare(weights, mine, theirs, target) for mine, theirs in pairs]),
        "accuracy": (logits[:, 0].argmax(dim=1) == target).float().mean(),
    }


def weigh_parts(losses: Sequence[Tensor]) -> Tensor:
    """Half of the global feature's loss, and half of the mean of the local ones' (He et al. 2021, arXiv 2102.04378).

    >>> weigh_parts([torch.tensor(1.0), torch.tensor(2.0), torch.tensor(4.0)])
    tensor(2.)
    """
    return 0.5 * losses[0] + 0.5 * torch.stack(list(losses[1:])).mean()


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
