"""The number type of a run's passes, which stays what it was when the run is continued."""

from dataclasses import dataclass
from typing import Final

import torch

from lupctl.core.choices import Precision
from lupctl.core.system.jobs.precision import measure_cpu, name_precision, pick_precision, pick_training_precision
from lupctl.core.training.engine.runs import RunFolder

KINDS: Final = {"bf16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Settled:
    """What a run computes in.

    Args:
        kind: type of the passes.
        line: the same for a person, with the reason.
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
    begun = None if force else _read_begun(folder, asked, device)
    if begun is not None:
        return Settled(begun, f"precision: {name_precision(begun)}, as the run began{_slowness(begun, device)}")
    chosen = pick_training_precision(asked, device)
    return Settled(chosen, f"precision: {name_precision(chosen)}{_reason(asked, chosen, device)}")


def _read_begun(folder: RunFolder, asked: Precision, device: torch.device) -> torch.dtype | None:
    """What the state in a folder was computed in; None where there is none."""
    found = folder.read_saved("precision")
    if found is not None:
        return KINDS.get(str(found))
    # Before the type was kept, auto was float32 on every CPU.
    return None if folder.read_saved("step") is None else pick_precision(asked, device)


def _reason(asked: Precision, chosen: torch.dtype, device: torch.device) -> str:
    if asked != "auto":
        return " (as the recipe says)" + _slowness(chosen, device)
    if device.type != "cpu":
        return ""
    speed = measure_cpu()
    if chosen == torch.bfloat16:
        return f", {speed.describe()}; --set precision=float32 gives bits that depend less on the processor"
    return f" (bf16: {speed.describe()})"


def _slowness(chosen: torch.dtype, device: torch.device) -> str:
    """A warning of bfloat16 on a processor that is not made for it."""
    if device.type != "cpu" or chosen != torch.bfloat16 or measure_cpu().is_fast:
        return ""
    return f"; slow on this processor: {measure_cpu().describe()}"
