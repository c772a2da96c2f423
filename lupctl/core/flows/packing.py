"""Packing datasets, one after another."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING

from lupctl.core.choices import MAX_BAD, SHARD_BYTES, ImageCheck
from lupctl.core.errors import LupError, UsageError
from lupctl.core.resolve.data.datasets import Target, find_packable, pick_targets
from lupctl.core.resolve.data.layouts import NO_NOISE, Reading
from lupctl.core.resolve.data.merged import build_merged_source, merge_target
from lupctl.core.resolve.data.packs import report_raw
from lupctl.core.resolve.data.sources import build_target_source, check_notice
from lupctl.core.resolve.data.splits import NO_SPLIT, NOISE_AND_SPLIT, offer_for_target, open_packed, split_source
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.pack import PackPlan, PackResult


@dataclass(frozen=True)
class PackOptions:
    """What to pack, and how.

    Args:
        names: datasets, folders, or with `merged` packs too; none for everything under `raw/`.
        dataset: name of the pack, for a single one of them.
        merged: puts everything named into one unlabelled pack of this name.
        out: path of the pack, for a single one of them.
        reading: how raw data is read.
        split: how labelled images are divided into train, query and gallery, as typed; None if not given.
        split_seed: of what is drawn; None if not given.
        size: height and width every image is resized to.
        check: how images are checked; None if not given.
        max_bad: share of images that may be left out.
        shard_bytes: most encoded bytes in one file.
        workers: decoding threads; None picks.
        accept_terms: the notice of a withdrawn dataset is acknowledged.
        force: replaces existing packs.
        dry_run: plans only.
        command: for the record.
    """

    names: tuple[str, ...] = ()
    dataset: str | None = None
    merged: str | None = None
    out: Path | None = None
    reading: Reading = field(default_factory=Reading)
    split: str | None = None
    split_seed: int | None = None
    size: tuple[int, int] | None = None
    check: ImageCheck | None = None
    max_bad: float = MAX_BAD
    shard_bytes: int = SHARD_BYTES
    workers: int | None = None
    accept_terms: bool = False
    force: bool = False
    dry_run: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class Packed:
    """The outcome for several datasets.

    Args:
        plans: of each dataset that could be read.
        results: of those that were packed.
        errors: of those that were not.
    """

    plans: "list[tuple[Target, PackPlan]]" = field(default_factory=list)
    results: "list[PackResult]" = field(default_factory=list)
    errors: list[LupError] = field(default_factory=list)


def pack_datasets(space: Workspace, options: PackOptions, progress: Progress) -> Packed:
    """Packs the datasets without an up-to-date pack. One bad dataset does not stop the others.

    Raises:
        DataError: there is no raw data.
        UsageError: options that do not go together.
    """
    targets = find_what_to_pack(space, options, progress)
    if options.merged is not None and options.split is not None:
        raise UsageError("--split has no meaning with --merge, which leaves labels out", hint="leave --split out")
    if options.reading.label_noise not in (None, NO_NOISE) and options.split not in (None, NO_SPLIT):
        raise UsageError(NOISE_AND_SPLIT, hint="leave --split out")
    if options.size and options.check == "header":
        raise UsageError("--check header: resizing decodes the images anyway", hint="leave --check or --size out")
    packed = Packed()
    for target in targets:
        try:
            _pack_target(space, target, options, packed, progress)
        except LupError as error:
            packed.errors.append(error)
    return packed


def find_what_to_pack(space: Workspace, options: PackOptions, progress: Progress) -> list[Target]:
    """The datasets to pack.

    Raises:
        DataError: there is no raw data.
        UsageError: options that do not go together.
    """
    if options.merged is not None:
        return [merge_target(space, options.merged, out=options.out, dataset=options.dataset)]
    if options.names or options.dataset or options.out:
        for name in options.names:
            report_raw(space, name, progress)
        return pick_targets(space, options.names, name=options.dataset, out=options.out)
    return find_packable(space, progress)


def _pack_target(space: Workspace, target: Target, options: PackOptions, packed: Packed, progress: Progress) -> None:
    """Packs one dataset, unless its pack is up to date; adds to `packed`."""
    from lupctl.core.data.packing.filling import PackSettings
    from lupctl.core.stages.pack import pack, plan_pack, tidy_up

    again = _again(space, target, options)
    if options.merged is None:
        known = open_packed(target, options.split)
        source = known or build_target_source(target, replace(options.reading, again=again), progress=progress)
        source = split_source(source, target, options.split, options.split_seed, progress=progress)
    else:
        source = build_merged_source(space, options.names, options.merged, options.reading, progress=progress)
    plan = plan_pack(source, out=target.out, size=options.size, check=options.check or "header")
    packed.plans.append((target, plan))
    if plan.state == "current" and not options.force:
        progress.say(f"{target.dataset}: {plan.path} is up to date")
        if not options.dry_run:
            tidy_up(target.out)
        return
    if plan.state == "changed" and not options.force:
        raise _changed(plan, again)
    if options.merged is None:
        offer_for_target(space, target, source, progress)
    check_notice(source, accepted=options.accept_terms, progress=progress)
    if options.dry_run:
        return
    settings = PackSettings(options.size, options.check or "decode", options.max_bad, options.shard_bytes)
    packed.results.append(
        pack(
            source,
            out=target.out,
            progress=progress,
            settings=settings,
            force=options.force,
            workers=options.workers,
            command=options.command,
        )
    )


def _changed(plan: "PackPlan", again: str) -> UsageError:
    return UsageError(
        f"{plan.path}: is not up to date and would be overwritten: {plan.reason}", hint=f"{again} --force"
    )


def _again(space: Workspace, target: Target, options: PackOptions) -> str:
    """The command that was typed, for one of its datasets alone."""
    typed = [word for word in options.command[3:] if word != "--dry-run"]
    if options.merged is None and len(options.names) != 1:
        typed = [target.typed, *(word for word in typed if word not in options.names)]
    words = ["lupctl", "data", "pack", *(typed or [target.typed or target.dataset])]
    words += ["--out", str(options.out)] if options.out else []
    words += ["--home", str(space.home)] if open_workspace().home != space.home else []
    return join(words)
