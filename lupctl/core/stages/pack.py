"""From the images of a source to a pack."""

import shutil
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lupctl.core.choices import ROLE_CODES, ROLE_NAMES, Role
from lupctl.core.errors import DataError, FormatError
from lupctl.core.files import check_absent
from lupctl.core.formats.pack import PACK_FORMAT, read_pack_record
from lupctl.core.formats.pack_facts import read_pack_facts
from lupctl.core.formats.pack_writer import SHARD_BYTES, PackWriter
from lupctl.core.formats.places import remove_leftovers
from lupctl.core.formats.record import build_record
from lupctl.core.formats.shard_writer import PackedImage
from lupctl.core.names import build_names, find_repeated
from lupctl.core.packing.stored import build_reader
from lupctl.core.progress import Progress
from lupctl.core.sources.digest import source_digest
from lupctl.core.sources.origin import read_origin
from lupctl.core.sources.records import Listing, Source
from lupctl.core.threads import map_in_order, pick_workers

MAX_BAD = 0.001
NUM_EXAMPLES = 5

State = Literal["absent", "current", "changed"]


@dataclass(frozen=True)
class PackPlan:
    """What packing a source would do.

    Args:
        images: number of images.
        roles: images per role.
        digest: stands for the source as it is now: names, sizes and times of files, labels.
        num_bytes: bytes of all image files; None where images are made when they are read.
        path: the pack that is there, a file or a folder of shards; else where it will be.
        state: whether a pack is there, and whether it was made from the source as it is now.
        reason: for a pack that is there and not current, what is different.
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
    """What was packed.

    Args:
        path: the pack, a file or a folder of shards.
        dataset: its name.
        images: number of images in it.
        persons: number of persons, without junk, distractors and unknown.
        cameras: number of cameras, without unknown.
        roles: images per role.
        shards: number of files.
        num_bytes: bytes of all encoded images.
        quarantined: images that were left out, each with `name` and `reason`.
        fingerprint: of the pack.
        seconds: it took.
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
    seconds: float


def plan_pack(source: Source, *, out: Path, size: tuple[int, int] | None = None) -> PackPlan:
    """Looks at the source and at what lies at `out`; reads names, sizes and times, no image.

    Args:
        source: what to pack.
        out: the pack, ending in `.h5`.
        size: height and width every image is to be resized to.

    Raises:
        DataError: the source has no image, strange names, or a name twice.
    """
    return _look_at(source, out=out, size=size)[0]


def pack(
    source: Source,
    *,
    out: Path,
    progress: Progress,
    size: tuple[int, int] | None = None,
    max_bad: float = MAX_BAD,
    shard_bytes: int = SHARD_BYTES,
    force: bool = False,
    workers: int | None = None,
    command: Sequence[str] = (),
) -> PackResult:
    """Packs every image of a source that decodes; the others are listed in the pack's record.

    JPEG and PNG bytes are kept, other encodings become PNG of the same pixels. An interrupted call leaves finished
    shards behind, in a hidden folder, and the same call goes on from there.

    Args:
        source: what to pack.
        out: the pack, ending in `.h5`; a folder of that name without the ending when it takes more than one file.
        progress: where to tell how far it is.
        size: height and width; every image is then resized and encoded again (JPEG, quality 95).
        max_bad: largest share of images, 0 to 1, that may fail to decode.
        shard_bytes: most encoded bytes in one file.
        force: replaces a pack that is there.
        workers: threads; by default one per core.
        command: the command line, for the record.

    Raises:
        UsageError: a pack is there and `force` is not set.
        DataError: no image, a name twice, too many images that do not decode, or the disk is full.
    """
    started_at = time.perf_counter()
    check_absent(out, force=force)
    plan, listing = _look_at(source, out=out, size=size)
    facts = {
        "dataset": source.dataset,
        "source": source.facts,
        "terms": source.facts.get("terms", ""),
        "origin": read_origin(Path(str(source.facts["root"]))) if source.facts.get("root") else {},
        "digest": plan.digest,
        "resized": list(size) if size else None,
    }
    record = build_record("pack", PACK_FORMAT, command=command, parents=_parents(source), facts=facts)
    with PackWriter(out, record=record, shard_bytes=shard_bytes, force=force, resume=True) as writer:
        if writer.position > 0:
            progress.say(f"going on behind {writer.position:,} images that were packed before")
        _check_space(out, plan, done=writer.position)
        _write_images(writer, source, listing, size=size, max_bad=max_bad, workers=workers, progress=progress)
        path = writer.finish()
    if writer.quarantine:
        some = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in writer.quarantine[:NUM_EXAMPLES])
        progress.warn(f"{len(writer.quarantine):,} of {plan.images:,} images cannot be read, left out: {some}")
    return _describe(path, source.dataset, started_at=started_at)


def tidy_up(out: Path) -> None:
    """Removes what a command killed in its last moment left beside the whole pack at `out`."""
    remove_leftovers(out)


def _look_at(source: Source, *, out: Path, size: tuple[int, int] | None) -> tuple[PackPlan, Listing]:
    listing = source.list_images()
    if len(listing) == 0:
        raise DataError(f"{source.dataset}: holds no image", hint="lupctl data pack --help")
    names = build_names(listing.names)
    repeated = find_repeated(names)
    if len(repeated):
        raise DataError(
            f"{source.dataset}: {len(repeated):,} names occur more than once: "
            f"{', '.join(names.take(repeated[:NUM_EXAMPLES]))}",
            hint="rename these files",
        )
    roles = {role: int((listing.role == code).sum()) for role, code in ROLE_CODES.items()}
    digest, num_bytes = source_digest(source, listing)
    state, reason = _pack_state(out, digest, size)
    return PackPlan(len(listing), roles, digest, num_bytes, _existing(out), state, reason), listing


def _parents(source: Source) -> dict[str, str]:
    """What tells the parts of a merged source, by their datasets' names."""
    parts = source.facts.get("parts")
    return {f"source:{part['dataset']}": part["digest"] for part in parts} if isinstance(parts, list) else {}


def _write_images(
    writer: PackWriter,
    source: Source,
    listing: Listing,
    *,
    size: tuple[int, int] | None,
    max_bad: float,
    workers: int | None,
    progress: Progress,
) -> None:
    total, begin = len(listing), writer.position
    most_bad = int(max_bad * total)
    # Elements of a memoryview are Python integers at a third of the cost of numpy's scalars.
    persons, cameras, roles = listing.person.data, listing.camera.data, listing.role.data
    images = map_in_order(build_reader(source, size=size), listing.names[begin:], workers=pick_workers(workers))
    title = f"packing {source.dataset}"
    with closing(images), progress.task(title, total=total, unit="images", done=begin) as task:
        for row, image in enumerate(images, start=begin):
            if image.reason:
                writer.reject(listing.names[row], image.reason)
                # Far beyond what is allowed there is no point in going on; five are read so that they can be named.
                if len(writer.quarantine) > max(most_bad, NUM_EXAMPLES - 1):
                    break
            else:
                writer.add(
                    PackedImage(
                        image.encoded,
                        image.height,
                        image.width,
                        listing.names[row],
                        persons[row],
                        cameras[row],
                        ROLE_NAMES[roles[row]],
                    )
                )
            task.advance()
    if len(writer.quarantine) > most_bad:
        raise _too_many_bad(writer, total=total, most_bad=most_bad, max_bad=max_bad)


def _too_many_bad(writer: PackWriter, *, total: int, most_bad: int, max_bad: float) -> DataError:
    bad = writer.quarantine
    some = "; ".join(f"{entry['name']}: {entry['reason']}" for entry in bad[:NUM_EXAMPLES])
    seen = f"the {total:,} images" if writer.position == total else f"the first {writer.position:,} of {total:,} images"
    return DataError(
        f"{len(bad):,} of {seen} cannot be read, --max-bad {max_bad:g} allows {most_bad:,}: {some}",
        hint="replace or remove these files, or allow more to be left out, as --max-bad 0.01 does",
    )


def read_packed_source(out: Path) -> dict[str, Any]:
    """How the pack at `out` was made from its source (layout, root, ...); empty when there is no pack to tell."""
    try:
        source = read_pack_record(_existing(out)).get("source", {})
    except DataError:
        return {}
    return source if isinstance(source, dict) else {}


def _existing(out: Path) -> Path:
    folder = out.with_suffix("")
    return folder if not out.exists() and any(folder.glob("*.h5")) else out


def _pack_state(out: Path, digest: str, size: tuple[int, int] | None) -> tuple[State, str]:
    path = _existing(out)
    if not path.exists():
        return "absent", ""
    try:
        record = read_pack_record(path)
    except FormatError as error:
        return "changed", f"it cannot be read ({error.message})"
    if record.get("digest") != digest:
        return "changed", "it was made from other files or in another way"
    if record.get("resized") != (list(size) if size else None):
        return "changed", f"its images were resized to {record.get('resized') or 'nothing'}"
    return "current", ""


def _check_space(out: Path, plan: PackPlan, *, done: int) -> None:
    """Refuses before the first image what cannot fit on the disk."""
    if plan.num_bytes is None:
        return
    folder = next(parent for parent in out.absolute().parents if parent.exists())
    needed = int(plan.num_bytes * (1 - done / plan.images))
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{out}: needs about {needed / 2**20:,.0f} MiB, the disk has {free / 2**20:,.0f} MiB free",
            hint="free some space, or name another place with --out or --home",
        )


def _describe(path: Path, dataset: str, *, started_at: float) -> PackResult:
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
        seconds=time.perf_counter() - started_at,
    )
