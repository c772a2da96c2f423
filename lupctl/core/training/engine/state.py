"""Continuing a run: the state that is kept, the settings that must not change, and the number type that does not."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import nn

from lupctl.core.choices import Precision
from lupctl.core.errors import StoppedError, UsageError
from lupctl.core.system.jobs.messages import decide_first
from lupctl.core.system.jobs.precision import (
    describe_bf16,
    expect_precision,
    name_precision,
    pick_precision,
    pick_training_precision,
)
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.workspace import RECIPE_NAME

KINDS: Final = {"bf16": torch.bfloat16, "float32": torch.float32}


def begin_run(folder: RunFolder, tables: Mapping[str, Any], text: str, *, force: bool, progress: Progress) -> bool:
    """Decides whether a run starts, continues or is finished, and writes its recipe to the folder.

    Args:
        folder: locked by this process.
        tables: the resolved recipe and the fingerprints of the data, as nested tables.
        text: the recipe as TOML.
        force: removes the run in the folder.
        progress: reports the decision.

    Returns:
        False when the same run is already finished.

    Raises:
        UsageError: the folder has a run with another recipe or other data, or weights without a recipe.
    """
    folder.clear_partials()
    if force:
        folder.clear()
    if folder.has_begun():
        difference = first_difference(folder.read_setup(), tables)
        if difference is not None:
            key, before, after = difference
            raise UsageError(
                f"{folder.path}: contains a run with {key} = {before!r}, but now it is {after!r}",
                hint="continue with the old value, name another --out, or start over with --force",
            )
        if folder.is_finished():
            progress.say(f"{folder.path}: already finished; --force trains again")
            return False
        progress.say(f"{folder.path}: continuing")
        return True
    strays = folder.find_strays()
    if strays:
        raise UsageError(
            f"{strays[0]}: found without the {RECIPE_NAME} of its run",
            hint="name another --out, or overwrite it with --force",
        )
    folder.write_setup(tables, text)
    return True


@contextmanager
def claimed_run(
    folder: RunFolder, tables: Mapping[str, Any], text: str, *, force: bool, progress: Progress
) -> Iterator[bool]:
    """Locks a run's folder and starts the run, in process 0 of the job; all processes get its answer.

    A new run that fails before its first row of metrics leaves no folder.

    Args:
        folder, tables, text, force, progress: as for `begin_run`.

    Returns:
        False when the same run is already finished.

    Raises:
        DataError: the folder is in use; raised in every process.
        UsageError: it contains another run; likewise.
    """
    fresh: list[bool] = []  # in process 0 only, which has the lock
    with ExitStack() as held:

        def begin() -> bool:
            held.enter_context(folder.held())
            fresh.append(force or not folder.has_begun())
            return begin_run(folder, tables, text, force=force, progress=progress)

        wanted = decide_first(begin)
        try:
            yield wanted
        except StoppedError:
            raise
        except Exception:
            if any(fresh):
                folder.discard()
            raise


def pack_state(
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    precision: torch.dtype,
    damaged: Iterable[str] = (),
) -> dict[str, Any]:
    """Everything a run needs to continue after `step` steps in this precision; `damaged` are images skipped so far."""
    return {
        "step": step,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
        "precision": name_precision(precision),
        "damaged": sorted(damaged),
    }


def restore_state(folder: RunFolder, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, tuple[str, ...]]:
    """Restores model and optimizer to the point where the run stopped.

    Returns:
        steps done, 0 for a fresh run; and the images skipped so far.
    """
    state = folder.load_state()
    if state is None:
        return 0, ()
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    return int(state["step"]), tuple(state["damaged"])


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> tuple[str, Any, Any] | None:
    """The first dotted key in which nested tables differ, with both values.

    >>> first_difference({"optim": {"lr": 0.1}}, {"optim": {"lr": 0.2}})
    ('optim.lr', 0.1, 0.2)
    """
    for key in [*old, *(key for key in new if key not in old)]:
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found = first_difference(before, after, f"{prefix}{key}.")
            if found is not None:
                return found
        elif before != after:
            return f"{prefix}{key}", before, after
    return None


def running_statistics(module: nn.Module) -> list[torch.Tensor]:
    """Batch norm's running means and variances.

    Their update is linear, so the mean over processes at any later time is what one process would have computed.
    """
    return [value for name, value in module.named_buffers() if name.endswith(("running_mean", "running_var"))]


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
    begun = None if force else _kind_of_state(folder, asked, device)
    chosen = pick_training_precision(asked, device) if begun is None else begun
    if chosen == torch.float32:
        return Settled(chosen, "")
    return Settled(chosen, f"precision: {describe_bf16(device, asked, begun=begun is not None)}")


def plan_precision(folder: RunFolder, asked: Precision, kind: str, *, force: bool = False) -> torch.dtype:
    """What `settle_precision` will settle; GPUs that are not here are expected to have bfloat16."""
    begun = None if force else _kind_of_state(folder, asked, torch.device(kind))
    return expect_precision(asked, kind) if begun is None else begun


def _kind_of_state(folder: RunFolder, asked: Precision, device: torch.device) -> torch.dtype | None:
    """Type that the run in a folder began in; None where there is no sound state.

    States of before the type was kept are of what auto meant then: float32 on a CPU.
    """
    if folder.read_saved("step") is None:
        return None
    return KINDS.get(str(folder.read_saved("precision")), pick_precision(asked, device))
