"""What was recognised in a file, and how its tensors fit the network's own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.fields import MOST
from lupctl.core.formats.weights.plan import NetworkPlan, NoHead
from lupctl.core.recipes.sections import Pixels
from lupctl.core.training.nets.build import build_network

COUNTER = "num_batches_tracked"
TABLE_ROWS: Final = 10


class MismatchError(FormatError):
    """A file whose tensors almost match those of a network.

    Args:
        message, hint: as for every error.
        rows: the first differences, see `difference_rows`.
    """

    def __init__(self, message: str, hint: str, rows: tuple[tuple[str, str, str], ...] = ()) -> None:
        super().__init__(message, hint)
        self.rows = rows


@dataclass(frozen=True)
class Difference:
    """One tensor that does not fit: its key, its shape in the file and in the network, None if it is absent."""

    key: str
    found: tuple[int, ...] | None
    expected: tuple[int, ...] | None


def difference_rows(differences: Sequence[Difference]) -> tuple[tuple[str, str, str], ...]:
    """The first differences as a table: key, shape in the file, shape in the network."""
    return tuple((one.key, _shape(one.found), _shape(one.expected)) for one in differences[:TABLE_ROWS])


def _shape(shape: tuple[int, ...] | None) -> str:
    return "-" if shape is None else " x ".join(map(str, shape)) or "scalar"


@dataclass(frozen=True)
class Recognised:
    """A published network, in our keys.

    Args:
        plan: the network.
        tensors: by the keys of `build_network(plan)`, all of them.
        matched: number of tensors from the file, including pixel constants.
        ignored: optional keys of the file that were left out.
        missing: optional keys that the file lacks.
        mean, std: pixel constants of RGB in [0, 1], if the file has them.
        differences: what does not fit; the file is refused when there is any.
        prefix: of the keys that were taken.
        pixels: of the published evaluation, where the network says which one that is; None to ask a recipe.
        cameras: number, in packs, of the camera of each row of side information.
        notes: what was taken for what no tensor says.
        is_initial: whether it is a start in spite of its head: weights of ImageNet.
    """

    plan: NetworkPlan
    tensors: dict[str, Tensor]
    matched: int
    ignored: tuple[str, ...]
    missing: tuple[str, ...]
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    differences: tuple[Difference, ...] = ()
    prefix: str = ""
    pixels: Pixels | None = None
    cameras: tuple[int, ...] = ()
    notes: tuple[str, ...] = ()
    is_initial: bool = False

    @property
    def is_start(self) -> bool:
        """Whether it is something to start from, and no re-id model."""
        return self.is_initial or isinstance(self.plan.head, NoHead)


def fit(plan: NetworkPlan, own: Mapping[str, Tensor]) -> Recognised:
    """Compares tensors with those of a network, key by key; absent counters become 0."""
    with torch.device("meta"):
        wanted = {key: tuple(value.shape) for key, value in build_network(plan).state_dict().items()}
    missing = tuple(key for key in wanted if key not in own and key.endswith(COUNTER))
    differences = [Difference(key, None, shape) for key, shape in wanted.items() if key not in own]
    differences = [one for one in differences if not one.key.endswith(COUNTER)]
    differences += [
        Difference(key, tuple(value.shape), wanted.get(key))
        for key, value in own.items()
        if tuple(value.shape) != wanted.get(key)
    ]
    tensors = {**own, **{key: torch.zeros((), dtype=torch.int64) for key in missing}}
    return Recognised(plan, tensors, len(own), (), missing, differences=tuple(differences))


def count_blocks(state: Mapping[str, Tensor], prefix: str) -> int:
    """Number of residual blocks under a prefix, from the numbers in their keys."""
    return len({key.removeprefix(prefix).partition(".")[0] for key in state if key.startswith(prefix)})


def count_rows(weight: Tensor) -> int:
    """Outputs of a layer, from its weight; at least 1, so that an unexpected shape is reported as a difference."""
    return max(1, min(weight.shape[0] if weight.dim() else 0, MOST))
