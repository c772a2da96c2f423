"""Checking raw data and packs, one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, UsageError, raise_all
from lupctl.core.resolve.data.layouts import Reading, refuse_for_packs
from lupctl.core.resolve.data.packs import find_subjects, read_source
from lupctl.core.resolve.data.sources import build_target_source
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.stages.verify import Verdict


@dataclass(frozen=True)
class VerifyOptions:
    """What to check, and how thoroughly.

    Args:
        names: datasets, packs or folders.
        reading: how raw data is read.
        deep: decodes every image of a pack too.
        fast: counts, names and labels only.
        workers: threads; None picks.
    """

    names: tuple[str, ...]
    reading: Reading
    deep: bool = False
    fast: bool = False
    workers: int | None = None


def verify_all(space: Workspace, options: VerifyOptions, progress: Progress) -> "list[Verdict]":
    """A verdict on everything the names stand for; that on a pack is also noted next to it.

    Raises:
        DataError: a name matches nothing, or its structure is damaged.
        UsageError: `deep` and `fast` at once, or an option for raw data where there is none.
    """
    if options.deep and options.fast:
        raise UsageError("--deep decodes every image, --fast reads none", hint="use one of the two")
    from lupctl.core.stages.verify import verify_raw

    verdicts = []
    for name in options.names:
        packs, raws = find_subjects(space, name, progress)
        if not raws:
            refuse_for_packs(options.reading, name)
        for raw in raws:
            source = build_target_source(raw, options.reading, progress=progress)
            assert raw.root is not None, "drawn images have no raw data"
            verdicts.append(
                verify_raw(source, path=raw.root, progress=progress, fast=options.fast, workers=options.workers)
            )
        verdicts += [_verify_pack(path, options, progress) for path in packs]
    return verdicts


def _verify_pack(path: Path, options: VerifyOptions, progress: Progress) -> "Verdict":
    from lupctl.core.formats.pack.verdict import note_verdict, pack_files
    from lupctl.core.stages.verify import verify_pack

    files = pack_files(path)
    verdict = verify_pack(path, progress=progress, deep=options.deep, fast=options.fast, workers=options.workers)
    if not options.fast:  # counts alone say nothing about the images
        errors = {finding.what: finding.message for finding in verdict.findings if finding.severity == "error"}
        fingerprint = verdict.fingerprint or ""
        note_verdict(path, files=files, sound=not errors, deep=options.deep, fingerprint=fingerprint, errors=errors)
    return verdict


def refuse_unsound(verdicts: "Sequence[Verdict]") -> None:
    """Ends a command that found errors; what raw data and its pack have in common is said once.

    Raises:
        DataError: one of them has errors.
    """
    paths: dict[tuple[str, str], list[str]] = {}
    for verdict in verdicts:
        if verdict.num_errors:
            paths.setdefault(_first_error(verdict), []).append(str(verdict.path))
    raise_all([DataError(f"{' and '.join(found)}: {text}", hint=hint) for (text, hint), found in paths.items()])


def _first_error(verdict: "Verdict") -> tuple[str, str]:
    """The message of the first error with examples, and what to do about it."""
    first = verdict.findings[0]
    if first.what == "published":  # the table has the counts that differ
        return first.message, _hint_to_rename(verdict)
    examples = f": {'; '.join(first.examples)}" if first.examples else ""
    if verdict.kind == "pack":
        return f"{first.message}{examples}", "make it again: lupctl data pack --force"
    return f"{first.message}{examples}", "repair or remove these files"


def _hint_to_rename(verdict: "Verdict") -> str:
    """How a part of a benchmark, or another version, is packed under a name of its own."""
    root = verdict.path if verdict.kind == "raw" else Path(str(read_source(verdict.path).get("root", "")))
    if not root.name or not root.exists():
        return "pack its images under another name: lupctl data pack FOLDER --name NAME"
    return f"if it is a part, or another version: lupctl data pack {quote(str(root))} --name {verdict.dataset}-cut"
