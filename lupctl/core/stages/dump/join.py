"""Shards of a dump, which several jobs computed without knowing of one another, become one file."""

import json
import re
from collections.abc import Iterator
from glob import escape
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.features.chunks import hold_features
from lupctl.core.formats.features.file import (
    Features,
    read_features,
    read_features_head,
    read_features_record,
    write_blocks,
)
from lupctl.core.formats.pack.samples import concatenate_samples
from lupctl.core.stages.dump.job import DumpResult, Shard
from lupctl.core.stages.dump.work import STORY_KEY, Work, build_features_record
from lupctl.core.system.disk.atomic import check_absent
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress

SHARD_NAME = re.compile(r"\.shard-(\d{1,6})-of-(\d{1,6})")
# What depends on the machine that computed, and need not be what the one that joins would have done.
OF_THE_MACHINE = ("device", "precision", "torch")
BLOCK_BYTES = 1 << 24


def find_shards(out: Path) -> dict[Shard, Path]:
    """The finished shards of a features file that are beside it, in their order."""
    found = {}
    for path in out.parent.glob(f"{escape(out.name)}.shard-*-of-*"):
        ending = SHARD_NAME.fullmatch(path.name, len(out.name))
        if ending is not None:
            found[Shard(int(ending[1]), int(ending[2]))] = path
    return dict(sorted(found.items(), key=lambda item: (item[0].of, item[0].number)))


def find_missing(out: Path, of: int) -> tuple[int, ...]:
    """Numbers of the shards that are not there yet."""
    return tuple(number for number in range(1, of + 1) if not Shard(number, of).path(out).exists())


def same_shard(work: Work, shard: Shard) -> bool:
    """Whether the shard that is there is what the job would compute."""
    try:
        head = read_features_head(shard.path(work.job.out))
    except FormatError:
        return False
    return first_difference(work.story, _story(head.record, shard)) is None


def is_finished(work: Work) -> bool:
    """Whether the features file that is there is what the job would write.

    Raises:
        UsageError: it is of something else.
    """
    out = work.job.out
    if work.job.force or not out.exists():
        return False
    try:
        made = read_features_record(out).get(STORY_KEY)
    except DataError:
        made = None
    # As the record has it. What depends on the machine may have been asked for, too; shards may be of several machines.
    story = json.loads(json.dumps(work.story))
    if made is None or (made != story if work.job.shard is None else first_difference(story, made) is not None):
        check_absent(out, force=False)
    return True


def join_shards(work: Work, progress: Progress) -> DumpResult:
    """Writes the features of all shards to one file, a block at a time, and removes the shards.

    Raises:
        DataError: a shard is missing, damaged, or of another network, other images or options; it is named. Or there
            is no image in any of them, or another job joins them.
    """
    out = work.job.out
    with hold_features(out):
        shards = find_shards(out)
        if not shards and out.exists():
            return work.describe(out)  # another job was faster
        parts = _open_all(work, shards)
        if sum(map(len, parts)) == 0:
            raise work.no_images()
        progress.say(f"{out}: joined from {len(parts)} shards")
        quarantine = [line for part in parts for line in part.record["quarantine"]]
        story = parts[0].record["shard"]["story"]
        record = build_features_record(work, quarantine, shard=None, story=story)
        samples = concatenate_samples([part.samples for part in parts])
        dim, kind = parts[0].features.shape[1], parts[0].features.dtype.name
        write_blocks(out, _blocks(parts), samples, record, dim=dim, type_name=kind)
        for path in shards.values():
            path.unlink()
    return work.describe(out)


def first_difference(own: dict[str, Any], other: dict[str, Any]) -> str | None:
    """The first thing in which another story is not that of this command, what depends on the machine aside."""
    return next((key for key in own if key not in OF_THE_MACHINE and own[key] != other.get(key)), None)


def _open_all(work: Work, shards: dict[Shard, Path]) -> list[Features]:
    """All shards, each checked against this command, and against the first one."""
    out = work.job.out
    numbers = sorted({shard.of for shard in shards})
    if len(numbers) > 1:
        raise DataError(
            f"{out}: shards of {' and of '.join(map(str, numbers))} are there",
            hint=f"remove those you do not need: {out}.shard-*",
        )
    (of,) = numbers
    missing = find_missing(out, of)
    if missing:
        are = "is" if len(missing) == 1 else "are"
        raise DataError(
            f"{out}: {len(missing)} of {of} shards {are} missing ({name_some(missing)})",
            hint=f"make it: the same command with --shard {missing[0]}/{of}, or all of it here: with --force",
        )
    parts: list[Features] = []
    for shard, path in shards.items():
        again = f"make it again: the same command with --shard {shard} --force"
        try:
            part = read_features(path)
        except FormatError as error:
            raise DataError(error.message, hint=again) from error
        story = _story(part.record, shard)
        key = first_difference(work.story, story)
        if key is not None:
            found, wanted = story.get(key), work.story[key]
            raise DataError(f"{path}: of {key} {found!r}, this command's is {wanted!r}", hint=again)
        parts.append(part)
        first = parts[0].record["shard"]["story"]
        for key in OF_THE_MACHINE:
            if story.get(key) != first.get(key):
                raise DataError(f"{path}: of {key} {story.get(key)!r}, shard 1 is of {first.get(key)!r}", hint=again)
        images = _images(work, shard)
        if len(part) + len(part.record["quarantine"]) != images or part.features.shape[1] != parts[0].features.shape[1]:
            raise DataError(f"{path}: features of shape {part.features.shape} for {images} images", hint=again)
    return parts


def _images(work: Work, shard: Shard) -> int:
    """How many images a shard is of."""
    count, chunk = len(work.inputs.samples), work.job.chunk
    chunks = shard.chunks(-(-count // chunk))
    return min(chunks.stop * chunk, count) - chunks.start * chunk


def _story(record: Any, shard: Shard) -> dict[str, Any]:
    """What a shard says it is of; nothing where it is not that shard."""
    found = record.get("shard")
    if not isinstance(found, dict) or not isinstance(record.get("quarantine"), list):
        return {}
    if (found.get("number"), found.get("of")) != (shard.number, shard.of):
        return {}
    story = found.get("story")
    return story if isinstance(story, dict) else {}


def _blocks(parts: list[Features]) -> Iterator[NDArray[Any]]:
    for part in parts:
        rows = max(1, BLOCK_BYTES // max(1, part.features.itemsize * part.features.shape[1]))
        for row in range(0, len(part), rows):
            yield part.features[row : row + rows]
