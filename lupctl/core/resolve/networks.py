"""The networks and test sets of `eval --all`, and where its matrix and the comparison of `--compare` go."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import RUN_ALONE, newest_finetuning, pick_network
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace, output_path

if TYPE_CHECKING:
    from lupctl.core.stages.evaluate import EvaluationJob


FOLDER = "comparisons"
# File systems allow 255 bytes; the names also get a prefix and a suffix.
MAX_NAME, MAX_START = 200, 50


def find_networks(space: Workspace, names: list[str], progress: Progress) -> dict[str, Path]:
    """The networks that are named, by these names; without any, that of the newest fine-tuning run.

    Raises:
        DataError: there is none.
        UsageError: one is named twice.
    """
    if not names:
        run = newest_finetuning(space, progress)
        return {run.name: run / CHECKPOINT_NAME}
    if len(set(names)) < len(names):
        raise UsageError(f"--all: a run is named twice in {' '.join(names)}", hint="name every run once")
    return {name: pick_network(space, name, progress) for name in names}


def find_test_sets(space: Workspace, rules: "EvaluationJob", progress: Progress) -> dict[str, Path]:
    """The packs of the workspace that can be scored, by dataset; reports those that have queries and cannot.

    Raises:
        DataError: there is none.
    """
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.formats.pack.split import packed_same_camera
    from lupctl.core.ranking.retrieval.answerable import check_answerable

    found: dict[str, Path] = {}
    for path in space.pack_paths():
        pack = open_pack(path)
        if not (pack.samples.role == ROLE_CODES["query"]).any():
            continue
        try:
            rule = rules.same_camera if rules.protocol else packed_same_camera(pack.record)
            check_answerable(pack.samples, same_camera=rule)
        except DataError as error:
            progress.warn(f"{path}: left out: {error.message}")
            continue
        found[pack.dataset] = path
    if not found:
        raise DataError(
            f"{space.packs}: no pack with queries that can be answered",
            hint=f"put a benchmark under {space.raw}, then: lupctl data pack",
        )
    return found


def features_path(checkpoint: Path, pack: Path) -> Path:
    """The path of a network's features of a pack: in its run's folder, or next to a checkpoint that has none."""
    # A checkpoint and what was exported from it may differ in the suffix alone.
    name = checkpoint.name if checkpoint.suffix in RUN_ALONE else checkpoint.stem
    own = "" if checkpoint.name == CHECKPOINT_NAME else f"{name}."
    return checkpoint.parent / f"{own}{pack.resolve().stem}.features.h5"


def matrix_path(space: Workspace, names: list[str], out: Path | None) -> Path:
    """Where a matrix goes: `out`, a file or a folder; else the workspace's folder of comparisons."""
    name = f"all--{join_names(names)}.json"
    return space.home / FOLDER / name if out is None else output_path(out, name)


def comparison_path(space: Workspace, names: list[str], out: Path | None) -> Path:
    """Where a comparison goes: `out`, a file or a folder; else the workspace's folder of comparisons."""
    name = f"{join_names(names)}.json"
    return space.home / FOLDER / name if out is None else output_path(out, name)


def join_names(names: list[str]) -> str:
    """Names of runs as one file name; if too long, the first one, the number of others, and a digest of all."""
    parts = [Path(one).name.removesuffix(".features.h5") for one in names]
    joined = "--".join(parts)
    if len(joined.encode()) <= MAX_NAME:
        return joined
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:8]
    return f"{parts[0][:MAX_START]}--and-{len(parts) - 1}-more-{digest}"
