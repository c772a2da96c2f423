"""Assembles the parts of all videos into one pack."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, ROLE_NAMES, UNKNOWN_CAMERA, Role
from lupctl.core.data.catalog.datasets import find_entry
from lupctl.core.data.video.boxes import UNKNOWN_PERSON
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.crops import read_crops
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.shards import PACK_FORMAT
from lupctl.core.formats.pack.write import PackWriter
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.formats.record import build_record
from lupctl.core.stages.build.job import BuildJob, Outcome, VideoTask
from lupctl.core.stages.build.plan import BuildPlan
from lupctl.core.system.examples import count_things
from lupctl.core.system.progress.lines import Progress

HINT = "type the same command again"
ROLES: tuple[Role, ...] = ("unlabelled", "train")


@dataclass(frozen=True)
class _Part:
    """The crops of one video, and their person numbers in the pack."""

    task: VideoTask
    roles: NDArray[np.uint8]
    persons: NDArray[np.int64]


def assemble(
    job: BuildJob,
    plan: BuildPlan,
    outcomes: Sequence[Outcome],
    *,
    progress: Progress,
    check_stop: Callable[[], None],
) -> Path:
    """Copy the parts into the pack, sorted by (role, name); an interrupted call continues at the first missing shard.

    Args:
        job: the settings.
        plan: its videos.
        outcomes: one for each of the plan's tasks, in order.
        progress: for progress lines and bars.
        check_stop: called for every crop; may raise.

    Raises:
        DataError: no crops, another process is writing this pack, or the disk is full.
    """
    parts = _number_persons(job, plan.tasks, outcomes)
    total = sum(len(part.roles) for part in parts)
    if total == 0:
        raise _no_crop(plan, outcomes)
    entry = find_entry(job.dataset)
    facts = {
        "dataset": job.dataset,
        "source": {
            "layout": "videos",
            "root": str(job.videos),
            "detections": None if job.detections is None else str(job.detections),
            "videos": len(plan.tasks),
            "cutting": job.cutting.facts,
        },
        "terms": entry.terms if entry else "",
        "digest": plan.digest,
        "resized": None,
        "counts": _count_all(outcomes),
    }
    record = build_record("pack", PACK_FORMAT, command=job.command, facts=facts)
    with PackWriter(job.out, record=record, shard_bytes=job.shard_bytes, force=job.force, resume=True) as writer:
        rejected = list_quarantine(plan, outcomes)
        if writer.position == 0:  # else they are in the first shard, which was finished before
            for left_out in rejected:
                writer.reject(left_out["name"], left_out["reason"])
        title = f"assembling {job.dataset}"
        with progress.task(title, total=total, unit="crops") as task:
            for image in _read_all(job, parts, skip=writer.position - len(rejected)):
                check_stop()
                writer.add(image)
                task.advance()
        return writer.finish()


def _number_persons(job: BuildJob, tasks: Sequence[VideoTask], outcomes: Sequence[Outcome]) -> list[_Part]:
    """The videos with crops; persons numbered from 1 without gaps over all of them, unless numbers are global."""
    parts, given = [], 0
    for task, outcome in zip(tasks, outcomes, strict=True):
        if outcome.crops == 0:
            continue
        samples = open_pack(task.part.with_suffix(".h5")).samples
        persons = samples.person
        if not job.global_ids:
            is_known = persons != UNKNOWN_PERSON
            numbers, ranks = np.unique(persons[is_known], return_inverse=True)
            persons = persons.copy()
            persons[is_known] = given + 1 + ranks
            given += len(numbers)
        parts.append(_Part(task, samples.role, persons))
    return parts


def _read_all(job: BuildJob, parts: Sequence[_Part], *, skip: int) -> Iterator[PackedImage]:
    """The rows of the pack in order, without the first `skip`."""
    for role in ROLES:
        for part in parts:
            rows = np.flatnonzero(part.roles == ROLE_CODES[role])
            if skip >= len(rows):
                skip -= len(rows)
                continue
            yield from _read_part(job, part, rows[skip:].tolist())
            skip = 0


def _read_part(job: BuildJob, part: _Part, rows: list[int]) -> Iterator[PackedImage]:
    path = part.task.part.with_suffix(".h5")
    pack, crops = open_pack(path), read_crops(path, hint=HINT)
    assert crops is not None, "every image of a part is a crop"
    for row in rows:
        yield PackedImage(
            encoded=pack.read(row),
            height=int(pack.size[row, 0]),
            width=int(pack.size[row, 1]),
            name=pack.samples.name[row],
            person=int(part.persons[row]),
            camera=part.task.number if job.cameras == "video" else UNKNOWN_CAMERA,
            role=ROLE_NAMES[int(part.roles[row])],
            crop=crops[row],
        )
    pack.close()


def list_quarantine(plan: BuildPlan, outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """Problems with videos and detections, as listed in the pack's record."""
    entries = [*plan.unpaired, *((outcome.name, reason) for outcome in outcomes for reason in outcome.quarantine)]
    return [{"name": name, "reason": reason} for name, reason in entries]


def list_warnings(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """Possible problems with videos that were kept."""
    return [{"name": outcome.name, "reason": reason} for outcome in outcomes for reason in outcome.warnings]


def _count_all(outcomes: Sequence[Outcome]) -> dict[str, object]:
    return {
        "boxes": sum(outcome.boxes for outcome in outcomes),
        "frames": sum(outcome.frames for outcome in outcomes),
        "clipped": sum(outcome.clipped for outcome in outcomes),
        "dropped": _sum_dropped(outcomes),
        "warnings": list_warnings(outcomes),
    }


def _sum_dropped(outcomes: Sequence[Outcome]) -> dict[str, int]:
    dropped: dict[str, int] = {}
    for outcome in outcomes:
        for reason, count in outcome.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    return dropped


def _no_crop(plan: BuildPlan, outcomes: Sequence[Outcome]) -> DataError:
    dropped = _sum_dropped(outcomes)
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items()) or "the videos have no boxes"
    first = next((f"; {outcome.name}: {outcome.quarantine[0]}" for outcome in outcomes if outcome.quarantine), "")
    boxes = sum(outcome.boxes for outcome in outcomes)
    return DataError(
        f"no crops from {count_things(boxes, 'box', 'boxes')} in {count_things(len(plan.tasks), 'video')} "
        f"({reasons}){first}",
        hint="lupctl data build --help lists the filters; --filters none keeps every box",
    )
