"""Packs the images of a source."""

import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from lupctl.core.choices import ROLE_CODES, ImageCheck, Role
from lupctl.core.data.catalog.origin import read_origin
from lupctl.core.data.packing.filling import Filling, PackSettings
from lupctl.core.data.sources.digest import source_digest
from lupctl.core.data.sources.records import Source
from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.pack.facts import packed_check, read_pack_facts
from lupctl.core.formats.pack.lock import remove_leftovers
from lupctl.core.formats.pack.read import read_pack_record
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.shards import PACK_FORMAT
from lupctl.core.formats.pack.split import PackSplit, name_split, packed_split, read_split
from lupctl.core.formats.pack.write import PackWriter
from lupctl.core.formats.record import build_record
from lupctl.core.system.disk.atomic import check_absent
from lupctl.core.system.examples import NUM_EXAMPLES, count_things, describe_special, name_rejected, name_some
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import find_repeated
from lupctl.core.system.threads.ordered import pick_workers

DEFAULTS = PackSettings()

State = Literal["absent", "current", "changed"]


@dataclass(frozen=True)
class PackPlan:
    """What packing a source would do.

    Args:
        images: number of images.
        roles: images per role.
        digest: identifies the source as it is now: names, sizes and times of files, labels.
        num_bytes: bytes of all image files; None if images are made when they are read.
        path: the existing pack, a file or a folder of shards; else where it will be.
        state: whether a pack exists, and whether it was made from the source as it is now.
        reason: what is different, if the existing pack is not current.
    """

    images: int
    roles: dict[Role, int]
    digest: str
    num_bytes: int | None
    path: Path
    state: State
    reason: str = ""


@dataclass(frozen=True)
class PackResult:
    """The result of packing.

    Args:
        path: the pack, a file or a folder of shards.
        dataset: its name.
        images: number of images in it.
        persons: number of persons, without junk, distractors and unknown persons.
        cameras: number of cameras, without unknown ones.
        roles: images per role.
        shards: number of files.
        num_bytes: bytes of all encoded images.
        quarantined: images that were left out, each with `name` and `reason`.
        fingerprint: of the pack.
        check: the check that every image passed.
        seconds: duration.
    """

    path: Path
    dataset: str
    images: int
    persons: int
    cameras: int
    roles: dict[Role, int]
    shards: int
    num_bytes: int
    quarantined: list[dict[str, str]]
    fingerprint: str
    check: ImageCheck
    seconds: float


def plan_pack(
    source: Source, *, out: Path, size: tuple[int, int] | None = None, check: ImageCheck = "header"
) -> PackPlan:
    """Examine the source and what is at `out`; reads names, sizes and times, but no image.

    Args:
        source: what to pack.
        out: the pack, ending in `.h5`.
        size: height and width to resize every image to.
        check: the check that the images of an existing pack must have passed; by default the weakest.

    Raises:
        DataError: the source has no images, unexpected names, or a name twice.
    """
    return _examine(source, out=out, size=size, check=check)[0]


def pack(
    source: Source,
    *,
    out: Path,
    progress: Progress,
    settings: PackSettings = DEFAULTS,
    force: bool = False,
    workers: int | None = None,
    command: Sequence[str] = (),
) -> PackResult:
    """Pack every image of a source that passes the check; the others are listed in the pack's record.

    JPEG and PNG bytes are kept; other encodings become PNG with the same pixels. An interrupted call leaves its
    finished shards in a hidden folder, and the same call continues from there.

    Args:
        source: what to pack.
        out: the pack, ending in `.h5`; a folder of that name without the ending if it needs more than one file.
        progress: for progress lines and bars.
        settings: what is stored, and the check that an image has to pass.
        force: replaces an existing pack.
        workers: decoding threads; by default one per core.
        command: the command line, for the record.

    Raises:
        UsageError: a pack exists and `force` is not set.
        DataError: no images, a name twice, too many images that do not decode, or the disk is full.
    """
    started_at = time.perf_counter()
    check_absent(out, force=force)
    plan, samples = _examine(source, out=out, size=settings.size, check=settings.checked)
    if left_out := source.facts.get("left_out"):
        progress.warn(describe_special(cast(list[str], left_out)))
    facts = {
        "dataset": source.dataset,
        "source": source.facts,
        "terms": source.facts.get("terms", ""),
        "origin": read_origin(Path(str(source.facts["root"]))) if source.facts.get("root") else {},
        "digest": plan.digest,
        "resized": list(settings.size) if settings.size else None,
        "check": settings.checked,
    }
    record = build_record("pack", PACK_FORMAT, command=command, parents=_parents(source), facts=facts)
    with PackWriter(out, record=record, shard_bytes=settings.shard_bytes, force=force, resume=True) as writer:
        if writer.position > 0:
            progress.say(f"continuing after {count_things(writer.position, 'image')} packed before")
        _check_space(out, plan, done=writer.position)
        mean_bytes = None if plan.num_bytes is None else plan.num_bytes // plan.images
        filling = Filling(writer, source, samples, settings, mean_bytes, pick_workers(workers))
        _fill(filling, title=f"packing {source.dataset}", progress=progress)
        path = writer.finish()
    if writer.quarantine:
        some = name_rejected(writer.quarantine)
        whole, verb = count_things(plan.images, "image"), "is" if len(writer.quarantine) == 1 else "are"
        progress.warn(f"{len(writer.quarantine):,} of {whole} cannot be read and {verb} left out: {some}")
    if settings.checked == "header":
        progress.say(f"{path}: images were not decoded (--check header); lupctl data verify --deep decodes them")
    return _describe(path, source.dataset, check=settings.checked, started_at=started_at)


def tidy_up(out: Path) -> None:
    """Remove what a command that was killed at its very end left next to the complete pack at `out`."""
    remove_leftovers(out)


def _examine(source: Source, *, out: Path, size: tuple[int, int] | None, check: ImageCheck) -> tuple[PackPlan, Samples]:
    samples = source.list_images()
    if len(samples) == 0:
        raise DataError(f"{source.dataset}: has no images", hint="lupctl data pack --help")
    repeated = find_repeated(samples.name)
    if len(repeated):
        raise DataError(
            f"{source.dataset}: {count_things(len(repeated), 'name')} given more than once: "
            f"{name_some(samples.name.take(repeated[: NUM_EXAMPLES + 1]))}",
            hint="rename these files",
        )
    roles = {role: int((samples.role == code).sum()) for role, code in ROLE_CODES.items()}
    digest, num_bytes = source_digest(source, samples)
    state, reason = _pack_state(out, digest, size=size, check=check, split=read_split(source.facts))
    return PackPlan(len(samples), roles, digest, num_bytes, _existing(out), state, reason), samples


def _parents(source: Source) -> dict[str, str]:
    """Digests of the parts of a merged source, by the names of their datasets."""
    parts = source.facts.get("parts")
    return {f"source:{part['dataset']}": part["digest"] for part in parts} if isinstance(parts, list) else {}


def _fill(filling: Filling, *, title: str, progress: Progress) -> None:
    """Pack every image, unless too many of them are bad."""
    writer, total, max_bad = filling.writer, len(filling.samples), filling.settings.max_bad
    most_bad = int(max_bad * total)
    with (
        progress.task(title, total=total, unit="images", done=writer.position) as task,
        closing(filling.run()) as filled,
    ):
        for count in filled:
            task.advance(count)
            # With too many bad images there is no point in continuing; at least five are found, for the message.
            if len(writer.quarantine) > max(most_bad, NUM_EXAMPLES - 1):
                break
    if len(writer.quarantine) > most_bad:
        raise _too_many_bad(writer, total=total, most_bad=most_bad, max_bad=max_bad)


def _too_many_bad(writer: PackWriter, *, total: int, most_bad: int, max_bad: float) -> DataError:
    bad = writer.quarantine
    some = name_rejected(bad)
    seen = f"the {total:,} images" if writer.position == total else f"the first {writer.position:,} of {total:,} images"
    return DataError(
        f"{len(bad):,} of {seen} cannot be read, --max-bad {max_bad:g} allows {most_bad:,}: {some}",
        hint="replace or remove these files, or allow more to be left out, as with --max-bad 0.01",
    )


def read_packed_source(out: Path) -> dict[str, Any]:
    """How the pack at `out` was made from its source (layout, root, ...); empty when there is no pack."""
    try:
        source = read_pack_record(_existing(out)).get("source", {})
    except DataError:
        return {}
    return source if isinstance(source, dict) else {}


def _existing(out: Path) -> Path:
    folder = out.with_suffix("")
    return folder if not out.exists() and any(folder.glob("*.h5")) else out


def _pack_state(
    out: Path, digest: str, *, size: tuple[int, int] | None, check: ImageCheck, split: PackSplit | None
) -> tuple[State, str]:
    path = _existing(out)
    if not path.exists():
        return "absent", ""
    try:
        record = read_pack_record(path)
    except FormatError as error:
        return "changed", f"it cannot be read ({error.message})"
    old = packed_split(record)
    if (old and (old.rule, old.seed)) != (split and (split.rule, split.seed)):
        return "changed", "it has no split" if old is None else f"its split is {name_split(old)}"
    if record.get("digest") != digest:
        return "changed", "it was made from other files or in another way"
    if record.get("resized") != (list(size) if size else None):
        return "changed", f"its images were resized to {record.get('resized') or 'nothing'}"
    if check == "decode" and packed_check(record) == "header":
        return "changed", "its images were not decoded when they were packed (--check header)"
    return "current", ""


def _check_space(out: Path, plan: PackPlan, *, done: int) -> None:
    """Fail before the first image if the pack cannot fit on the disk."""
    if plan.num_bytes is None:
        return
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    needed = int(plan.num_bytes * (1 - done / plan.images))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{out}: needs about {needed / 2**20:,.0f} MiB, the disk has {free / 2**20:,.0f} MiB free",
            hint="free some space, or choose another location with --out or --home",
        )


def _describe(path: Path, dataset: str, *, check: ImageCheck, started_at: float) -> PackResult:
    facts = read_pack_facts(path)
    return PackResult(
        path=path,
        dataset=dataset,
        images=facts.images,
        persons=facts.persons,
        cameras=facts.cameras,
        roles=facts.roles,
        shards=facts.files,
        num_bytes=facts.num_bytes,
        quarantined=facts.quarantine,
        fingerprint=facts.fingerprint,
        check=check,
        seconds=time.perf_counter() - started_at,
    )
