"""What a step shows of a network's health: how sure its outputs are, and how much room its features take.

A step leaves tensors on the device. What needs the device to finish, such as a decomposition, is computed when a row of
the metrics is written, which waits for it anyway.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional as F

from lupctl.core.system.jobs.messages import gather_plain, world_size

# Rows of the metrics are at most ten steps apart, so that each of them has one step that was watched.
WATCH_EVERY_STEPS: Final = 10
# Images whose features are looked at, over all processes: a decomposition of 256 x 256 takes some milliseconds.
MOST_ROWS: Final = 256
FEATURES, CHOSEN = "watched_features", "watched_choices"
SAMPLES: Final = (FEATURES, CHOSEN)
# What a row of the metrics has of a watched step.
WATCHED: Final = ("teacher_entropy", "student_entropy", "kl", "information", "rank", "spread", "used")


@torch.no_grad()
def watch_features(parts: Sequence[Tensor]) -> dict[str, Tensor]:
    """What `read_samples` needs of a step's features.

    Args:
        parts: (b / parts, D) features of this process's share, part by part as `each_part` cuts it.
    """
    features = parts[0] if len(parts) == 1 else torch.stack(list(parts), dim=1).flatten(0, 1)
    return {FEATURES: features[: max(MOST_ROWS // world_size(), 1)].detach().float()}


@torch.no_grad()
def watch_outputs(targets: Tensor, student: Tensor, features: Tensor) -> dict[str, Tensor]:
    """What a step of self-distillation shows; nothing in here waits for the device.

    Args:
        targets: (n, K) the teacher's probabilities.
        student: (n, K) log-probabilities that the student gives other views of the same images.
        features: (m, D) of the network that is kept.

    Returns:
        `teacher_entropy`, `student_entropy` and `kl`, KL(teacher || student), in nats and as means over the rows;
        `information`, how much the targets say of which image it is: the entropy of their mean less `teacher_entropy`,
        which is 0 if all are the same, whatever they are; and what `read_samples` needs.
    """
    targets, student = targets.float(), student.float()
    teacher_entropy, mean = _entropy(targets).mean(), targets.mean(dim=0)
    return {
        "teacher_entropy": teacher_entropy,
        "student_entropy": -(student.exp() * student).sum(dim=1).mean(),
        "kl": -(targets * student).sum(dim=1).mean() - teacher_entropy,
        "information": _entropy(mean) - teacher_entropy,
        CHOSEN: targets.argmax(dim=1),
        **watch_features([features]),
    }


def _entropy(shares: Tensor) -> Tensor:
    """Of the last dimension, in nats."""
    return -torch.xlogy(shares, shares).sum(dim=-1)


def read_samples(samples: Mapping[str, Tensor], *, outputs: int | None) -> dict[str, float]:
    """`rank` and `spread` of the features that a step left, and `used` of its targets; empty where it left none.

    All processes call it. Each gets the numbers of all of them.

    Args:
        samples: by name, as `watch_outputs` and `watch_features` give them.
        outputs: K of the targets, if the method has any.
    """
    found: dict[str, float] = {}
    if FEATURES in samples:
        features = gather_plain(samples[FEATURES])
        found |= {"rank": effective_rank(features), "spread": feature_spread(features)}
    if CHOSEN in samples and outputs is not None:
        found["used"] = share_used(gather_plain(samples[CHOSEN]), outputs)
    return found


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy and Vetterli 2007, EUSIPCO, eq. 2 to 4).

    Of features of unit length, from which no mean is subtracted: 1 if all point the same way, at most min(n, D).
    Without the unit length it is the RankMe of Garrido et al. (2023, arXiv 2210.02885).

    >>> round(effective_rank(torch.eye(4)), 6), round(effective_rank(torch.ones(4, 3)), 6)
    (4.0, 1.0)

    Args:
        features: (n, D); NaN if one is not finite.
    """
    unit = F.normalize(features.double(), dim=1)
    n, dim = unit.shape
    # On the CPU from here on: a GPU is no faster at so small a matrix.
    products = (unit @ unit.T if n <= dim else unit.T @ unit).cpu()
    if not products.isfinite().all():
        return math.nan
    # Squares of the singular values; rounding leaves some of them just below 0.
    values = torch.linalg.eigvalsh(products).clamp(min=0).sqrt()
    shares = values / values.sum()
    return float(_entropy(shares).exp())


def feature_spread(features: Tensor) -> float:
    """Standard deviation of a coordinate of unit features, as a multiple of 1 / sqrt(D), in the root mean square.

    It is sqrt(1 - |m|^2) for their mean m: 0 if all point the same way, 1 if they point everywhere (as SimSiam watches:
    Chen and He 2021, arXiv 2011.10566, section 4.1).

    >>> feature_spread(torch.tensor([[1.0, 0.0], [-1.0, 0.0]])), feature_spread(torch.ones(4, 3))
    (1.0, 0.0)

    Args:
        features: (n, D).
    """
    unit = F.normalize(features.double(), dim=1)
    return float((unit - unit.mean(dim=0)).square().sum(dim=1).mean().sqrt())


def share_used(chosen: Tensor, outputs: int) -> float:
    """How many prototypes were the first choice of any row, as a share of the most that there could be.

    >>> share_used(torch.tensor([5, 5, 7, 5]), 100), share_used(torch.tensor([0, 1, 1]), 2)
    (0.5, 1.0)

    Args:
        chosen: (n) first choices.
        outputs: K, how many prototypes there are.
    """
    return len(torch.unique(chosen)) / min(len(chosen), outputs)
