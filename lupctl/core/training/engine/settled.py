"""The number type of a run's passes, which stays what it was when the run is continued."""

from dataclasses import dataclass
from typing import Final

import torch

from lupctl.core.choices import Precision
from lupctl.core.system.jobs.precision import measure_cpu, name_precision, pick_precision
from lupctl.core.training.engine.runs import RunFolder

KINDS: Final = {"bf16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Settled:
    """What a run computes in.

    Args:
        kind: type of the passes.
        line: the same for a person, with what there is to say of it; nothing in float32.
    """

    kind: torch.dtype
    line: str


def settle_precision(folder: RunFolder, asked: Precision, kind: str, *, force: bool = False) -> Settled:
    """The number type of a run that begins or continues.

    A run continues in the type that it began in, on whatever device: half a run in each would be a third result.

    Args:
        folder: of the run; it need not exist.
        asked: by the recipe.
        kind: of the devices, cuda or cpu.
        force: the run in the folder is started over.
    """
    device = torch.device(kind)
    begun = None if force else KINDS.get(str(folder.read_saved("precision")))
    chosen = pick_precision(asked, device) if begun is None else begun
    if chosen == torch.float32:
        return Settled(chosen, "")
    reason = "" if begun is None else ", as the run began"
    return Settled(chosen, f"precision: {name_precision(chosen)}{reason}{_slowness(device)}")


def _slowness(device: torch.device) -> str:
    """A warning of bfloat16 on a processor that is not made for it."""
    if device.type != "cpu" or measure_cpu().is_fast:
        return ""
    return f"; slow on this processor: {measure_cpu().describe()}"
