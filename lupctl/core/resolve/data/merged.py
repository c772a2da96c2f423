"""The sources that `lupctl data pack --merge` merges."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.data.datasets import Target, check_name, find_targets, has_raw, raw_names
from lupctl.core.resolve.data.layouts import Reading, refuse_for_packs
from lupctl.core.resolve.data.sources import build_target_source
from lupctl.core.resolve.data.splits import split_source
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.data.sources.merged import MergedSource
    from lupctl.core.data.sources.records import Source


def merge_target(workspace: Workspace, name: str, *, out: Path | None, dataset: str | None) -> Target:
    """Where the merged pack goes.

    Args:
        workspace: where packs are.
        name: of the merged pack.
        out: where it goes instead.
        dataset: the value of `--name`, which must not be given.

    Raises:
        UsageError: the name is taken by raw data, or cannot be a name.
    """
    if dataset is not None:
        raise UsageError("--name and --merge both name the pack", hint=f"--merge {name} alone")
    if name in raw_names(workspace):
        raise UsageError(
            f"--merge {name}: that is the name of a dataset, {workspace.raw / name}; the merged pack needs its own",
            hint="--merge NEWNAME",
        )
    return Target(check_name(name, hint="--merge"), None, out or workspace.packs / f"{name}.h5")


def build_merged_source(
    workspace: Workspace, names: Sequence[str], merged: str, reading: Reading, *, progress: Progress
) -> "MergedSource":
    """The raw data and packs of several names or paths as one source; reports what each name stands for.

    A path of a pack is that pack; a name is the raw data, or the pack where there is no raw data.

    Raises:
        DataError: neither exists, or it cannot be read.
        UsageError: two of them are the same dataset.
    """
    from lupctl.core.data.sources.merged import MergedSource

    if reading.label_noise is not None:
        raise UsageError(
            f"--label-noise {reading.label_noise}: --merge {merged} makes a pack without labels", hint="leave one out"
        )
    wanted = list(names) or raw_names(workspace)
    if not wanted:
        raise DataError(f"nothing to merge: {workspace.raw} holds no dataset", hint="name packs or folders of images")
    parts = [part for name in wanted for part in _open_parts(workspace, name, reading, progress=progress)]
    source = MergedSource(parts, dataset=merged)
    for dataset, count in source.left_out.items():
        progress.say(f"{dataset}: {count:,} queries and gallery images are left out; they must not be trained on")
    return source


def _open_parts(workspace: Workspace, name: str, reading: Reading, *, progress: Progress) -> list["Source"]:
    path = _pack_of(workspace, name)
    if path is not None:
        refuse_for_packs(reading, name)
        from lupctl.core.data.packing.pack_source import PackedSource

        progress.say(f"{name}: the images of {path}")
        return [PackedSource(path)]
    targets = find_targets(workspace, [name])
    for target in targets:
        progress.say(f"{target.dataset}: the images of {target.root or 'drawn persons'}")
    sources = [build_target_source(target, reading, progress=progress) for target in targets]
    # What its pack keeps for the test must not be trained on from its raw data either.
    return [
        split_source(source, target, None, None, progress=progress)
        for source, target in zip(sources, targets, strict=True)
    ]


def _pack_of(workspace: Workspace, name: str) -> Path | None:
    path = Path(name)
    if path.suffix == ".h5" or (path.is_dir() and any(path.glob("*.h5"))):
        return workspace.find_pack(name)
    return None if has_raw(workspace, name) else workspace.named_pack(name)
