"""`lupctl data verify`: whether raw data and packs are sound."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.cli.data.pack import ThreadsOption
from lupctl.cli.data.reading_options import (
    CamerasOption,
    KeysOption,
    LayoutOption,
    RootOption,
    ValOption,
    VersionOption,
)
from lupctl.cli.data.tables import show_verdict
from lupctl.cli.failures import raise_all
from lupctl.cli.options import DebugOption, HomeOption, JsonOption, QuietOption
from lupctl.cli.output import print_json
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.datasets import Reading, Target, build_target_source, find_target, find_targets, has_raw
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.verify import Verdict

VERIFY_SCHEMA = "lupctl.verify/1"
# Files that name or hold images; a pack ends in .h5.
RAW_SUFFIXES = (".csv", ".mat", ".mdb", ".lmdb")

TargetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="NAME|PATH", help="Datasets, packs, or folders.", autocompletion=complete_dataset),
]
DeepOption = Annotated[bool, typer.Option("--deep", help="Decode every image of a pack, too; raw images always are.")]
FastOption = Annotated[bool, typer.Option("--fast", help="Counts, names and labels only; no image is read.")]


def verify(
    targets: TargetsArgument,
    layout: LayoutOption = None,
    cameras: CamerasOption = None,
    version: VersionOption = None,
    val: ValOption = None,
    keys: KeysOption = None,
    root: RootOption = None,
    deep: DeepOption = False,
    fast: FastOption = False,
    workers: ThreadsOption = None,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Checks raw data and packs: published counts, unreadable images, copies, persons in train and test.

    Raw images are decoded. Of a pack, every checksum is compared; its raw data may be gone.

    Examples:

    `lupctl data verify market1501` (its raw data and its pack)

    `lupctl data verify lup/packs/market1501.h5 --deep`

    `lupctl data verify luperson --fast --json`

    Exits with 3 when an error is found; warnings and notes are printed.
    """
    if deep and fast:
        raise UsageError("--deep decodes every image, --fast reads none", hint="one of the two")
    from lupctl.core.formats.pack.verdict import note_verdict, pack_files
    from lupctl.core.stages import verify as stage

    workspace = open_workspace(home)
    progress = Progress(quiet=quiet)
    reading = Reading(layout, cameras, version=version, with_val=val, keys=keys, root=root)
    verdicts = []
    for name in targets:
        packs, raws = _find_subjects(workspace, name)
        for raw in raws:
            source = build_target_source(raw, reading, progress=progress)
            assert raw.root is not None, "drawn images have no raw data"
            verdicts.append(stage.verify_raw(source, path=raw.root, progress=progress, fast=fast, workers=workers))
        for path in packs:
            files = pack_files(path)
            verdict = stage.verify_pack(path, progress=progress, deep=deep, fast=fast, workers=workers)
            verdicts.append(verdict)
            if not fast:  # counts alone say nothing about the images
                sound = verdict.num_errors == 0
                note_verdict(path, files=files, sound=sound, deep=deep, fingerprint=verdict.fingerprint or "")
    if json:
        sound = all(verdict.num_errors == 0 for verdict in verdicts)
        print_json(VERIFY_SCHEMA, {"sound": sound, "verdicts": [asdict(verdict) for verdict in verdicts]})
    else:
        for verdict in verdicts:
            show_verdict(verdict)
    raise_all([_unsound(verdict) for verdict in verdicts if verdict.num_errors])


def _find_subjects(workspace: Workspace, name: str) -> tuple[list[Path], list[Target]]:
    """The packs and the raw data that a name or a path stands for."""
    path = Path(name)
    in_raw = has_raw(workspace, name)
    has_pack = "/" not in name and workspace.pack_path(name).exists()
    if in_raw or has_pack:
        return (
            [workspace.pack_path(name)] if has_pack else [],
            find_targets(workspace, [name]) if in_raw else [],
        )
    if path.is_dir() and not any(path.glob("*.h5")):
        return [], find_targets(workspace, [name])
    if path.suffix.lower() in RAW_SUFFIXES and path.is_file():
        return [], [find_target(workspace, name)]
    return [workspace.find_pack(name)], []


def _unsound(verdict: "Verdict") -> DataError:
    first = verdict.findings[0]
    examples = f": {'; '.join(first.examples)}" if first.examples else ""
    if first.what == "published":
        hint = "a cut or another version; pack it under a name of its own with --name"
    elif verdict.kind == "pack":
        hint = "make it again: lupctl data pack --force"
    else:
        hint = "repair or remove these files"
    return DataError(f"{verdict.path}: {first.message}{examples}", hint=hint)
