"""What a short scoring command means, and what a person should know of the two networks it names."""

from pathlib import Path

from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import find_checkpoint
from lupctl.core.resolve.data.packs import is_raw, pick_pack
from lupctl.core.resolve.retrieval.lineage import lineage_of
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace


def find_pack_to_score(space: Workspace, name: str, progress: Progress) -> Path:
    """The pack whose images are scored.

    Raises:
        DataError: there is none.
    """
    path = pick_pack(space, name, progress)
    if is_raw(path):
        raise DataError(f"{path}: not a pack, beside which scores are kept", hint=f"lupctl data pack {path}")
    return path


def find_networks(space: Workspace, before: str | None, after: str | None) -> tuple[Path, Path]:
    """The checkpoints of the network before and after fine-tuning.

    Raises:
        UsageError: one is not named.
        DataError: one does not exist.
    """
    if before is None or after is None:
        which = "--before" if before is None else "--after"
        runs = [*space.finished_runs("pretrain" if before is None else "finetune")]
        newest = runs[0].name if runs else "RUN"
        named = f"--before {before or newest} --after {after or (newest if before is not None else 'RUN')}"
        raise UsageError(f"{which} is missing: the network {which[2:]} fine-tuning is compared", hint=named)
    return find_checkpoint(space, before), find_checkpoint(space, after)


def say_descent(space: Workspace, before: Path, after: Path, progress: Progress) -> None:
    """Warns of two networks that are no pre-training and what was fine-tuned from it; the published pair may be so.

    Args:
        space: where the networks that they started from are.
        before, after: their checkpoints.
        progress: takes the lines.
    """
    from lupctl.core.formats.weights.header import read_header
    from lupctl.core.system.disk.atomic import file_fingerprint

    first, wanted = read_header(before), file_fingerprint(before)
    if first.stage == "finetune":
        progress.warn(f"--before {before}: was fine-tuned itself; a pre-trained network was expected")
    if read_header(after).parents.get("start") == wanted:
        return
    lineage = lineage_of(space, after)
    if any(file_fingerprint(path) == wanted for path in lineage.checkpoints[1:]):
        return
    why = f" ({'; '.join(lineage.unknown)})" if lineage.unknown else ""
    progress.warn(
        f"--after {after}: did not start from {before}, as far as is known{why}; "
        "scores of two networks that learned apart say little of the images"
    )
