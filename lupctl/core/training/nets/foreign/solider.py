"""One of the two networks of a training checkpoint of SOLIDER: a Swin with DINO's head.

| published | ours |
|---|---|
| `backbone.*`, see `swin_keys` | `embedding.backbone.*` |
| `head.mlp.0.*`, `head.mlp.2.*`, `head.mlp.4.*` | the same |
| `head.last_layer.weight_v` | `head.last_layer.weight` |
| `head.last_layer.weight_g` | none: all gains are 1 |

All of it after `module.` where distributed training wrapped the network, as it does the student.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.plan import describe_trunk
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.training.nets.dino import DinoHead
from lupctl.core.training.nets.foreign.fitting import Difference, Recognised, count_rows
from lupctl.core.training.nets.foreign.swin import find_swin, recognise_swin

TRUNK: Final = "backbone."
GAIN, ROWS, OURS = "last_layer.weight_g", "last_layer.weight_v", "last_layer.weight"
# The published gain is not trained, but the teacher's is averaged with the student's like everything, and rounded.
GAIN_ROUNDING: Final = 1e-3


def recognise_trained(state: Mapping[str, Tensor], *, origin: str) -> Recognised:
    """A network as self-distillation trains it, by the keys of `DinoNetwork`; its plan is of the trunk alone.

    Args:
        state: by the keys of the file.
        origin: the file and the network in it, for the error.

    Raises:
        FormatError: its trunk is no Swin with a semantic controller, or gains of its last layer are not 1.
    """
    swin = find_swin(state)
    if swin is None or not swin[0].endswith(TRUNK):
        raise FormatError(
            f"{origin}: not a Swin with DINO's head; --training is for a start of solider, which trains one",
            hint="leave out --training to convert its trunk",
        )
    prefix, dialect = swin
    found = recognise_swin(state, prefix, dialect, origin=origin)
    trunk = found.plan.trunk
    assert isinstance(trunk, SwinPlan)
    if trunk.semantic_weight is None:
        raise FormatError(
            f"{origin}: {describe_trunk(trunk)} without a semantic controller, which solider trains",
            hint="leave out --training to convert its trunk",
        )
    outer = f"{prefix.removesuffix(TRUNK)}head."
    head = {key.removeprefix(outer): value for key, value in state.items() if key.startswith(outer)}
    tensors, differences = fit_head(head, num_features=trunk.dims[-1])
    gains = head.get(GAIN)
    if not differences and gains is not None and bool(((gains - 1).abs() > GAIN_ROUNDING).any()):
        raise FormatError(
            f"{origin}: {outer}{GAIN} has gains other than 1; DINO's last layer is trained here with a gain of 1",
            hint="leave out --training to convert its trunk",
        )
    return replace(
        found,
        tensors={**{f"embedding.{key}": value for key, value in found.tensors.items()}, **tensors},
        matched=found.matched + len(head),
        ignored=tuple(key for key in found.ignored if not key.startswith(outer)),
        differences=(*found.differences, *(replace(one, key=f"{outer}{one.key}") for one in differences)),
    )


def fit_head(head: Mapping[str, Tensor], *, num_features: int) -> tuple[dict[str, Tensor], list[Difference]]:
    """A head's tensors by our keys, and what does not fit, by the published ones after `head.`.

    Args:
        head: by the published keys; its widths are those of its first, fifth and last layer.
        num_features: D of the trunk.
    """
    rows = {key: 1 if key not in head else count_rows(head[key]) for key in ("mlp.0.weight", "mlp.4.weight", ROWS)}
    hidden, bottleneck, outputs = rows.values()
    with torch.device("meta"):
        wanted = DinoHead(num_features, hidden=hidden, bottleneck=bottleneck, outputs=outputs).state_dict()
    names = {key: ROWS if key == OURS else key for key in wanted}
    shapes = {names[key]: tuple(value.shape) for key, value in wanted.items()} | {GAIN: (outputs, 1)}
    found = {key: tuple(value.shape) for key, value in head.items()}
    differences = [Difference(key, found.get(key), shape) for key, shape in shapes.items() if found.get(key) != shape]
    differences += [Difference(key, shape, None) for key, shape in found.items() if key not in shapes]
    return {f"head.{key}": head[name] for key, name in names.items() if name in head}, differences
