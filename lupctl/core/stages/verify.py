"""Checks whether a pack or raw data is sound."""

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from lupctl.core.choices import ROLE_CODES, Role
from lupctl.core.data.catalog.datasets import find_entry
from lupctl.core.data.checking.copies import check_copies
from lupctl.core.data.checking.images import ImageChecks, compare_checksums, decode_all
from lupctl.core.data.checking.labels import (
    Counts,
    Finding,
    check_labels,
    check_published,
    count_images,
)
from lupctl.core.data.sources.records import Source
from lupctl.core.formats.images.sizes import Sizes, describe_sizes
from lupctl.core.formats.pack.columns import columns_hold
from lupctl.core.formats.pack.facts import packed_check
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import PackSplit, packed_split
from lupctl.core.system.examples import NUM_EXAMPLES, count_things
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import find_falls, find_repeated

Depth = Literal["counts", "checksums", "decoded"]


@dataclass(frozen=True)
class Verdict:
    """The result of a check.

    Args:
        path: the pack, or the folder with the raw data.
        kind: which of the two.
        dataset: its name.
        images: number of images checked.
        persons: number of persons, without junk, distractors and unknown persons.
        cameras: images per camera, without unknown cameras.
        roles: images per role.
        counts: found and published, by split and what is counted.
        fingerprint: of a pack; None for raw data.
        sizes: heights and widths; None for raw data of which no image was decoded.
        depth: whether every image was decoded, or its checksum compared, or only names and labels were counted.
        findings: errors first.
        seconds: duration of the check.
    """

    path: Path
    kind: Literal["pack", "raw"]
    dataset: str
    images: int
    persons: int
    cameras: dict[int, int]
    roles: dict[Role, int]
    counts: Counts
    fingerprint: str | None
    sizes: Sizes | None
    depth: Depth
    findings: list[Finding]
    seconds: float

    @property
    def num_errors(self) -> int:
        """Findings that make results wrong; with none the data is sound."""
        return sum(finding.severity == "error" for finding in self.findings)


def verify_pack(
    path: Path, *, progress: Progress, deep: bool = False, fast: bool = False, workers: int | None = None
) -> Verdict:
    """Compare every checksum, check for copies and leaks, and compare the counts with the published ones.

    Needs only the pack; its raw data may be gone.

    Args:
        path: the pack.
        progress: for progress lines and bars.
        deep: also decodes every image and compares its size.
        fast: reads no image: structure, labels and counts only.
        workers: threads; by default one per core.

    Raises:
        DataError: there is no such pack.
        FormatError: its structure is damaged, so that nothing in it can be checked.
    """
    started_at = time.perf_counter()
    pack = open_pack(path)
    names, title = pack.samples.name, "checking pack"
    checks = None
    if deep and not fast:
        checks = decode_all(pack.read, names, title=title, workers=workers, progress=progress)
    elif not fast:
        checks = compare_checksums(pack, title=title, workers=workers, progress=progress)
    findings = _check_columns(pack) + _check_sizes(pack, checks) + _check_order(pack)
    if packed_check(pack.record) == "header" and (checks is None or checks.size is None):
        message = "images were not decoded when packed (--check header); lupctl data verify --deep decodes them"
        findings.append(Finding("note", "check", message, len(pack)))
    if pack.record.get("quarantine"):
        left_out = pack.record["quarantine"]
        examples = [f"{entry['name']}: {entry['reason']}" for entry in left_out[:NUM_EXAMPLES]]
        message = f"left out when it was packed: {count_things(len(left_out), 'unreadable image')}"
        findings.append(Finding("note", "quarantine", message, len(left_out), examples))
    return _judge(
        path,
        "pack",
        pack.dataset,
        pack.samples,
        checks=checks,
        read=pack.read,
        fingerprint=pack.fingerprint,
        sizes=describe_sizes(pack.size),
        findings=findings,
        split=packed_split(pack.record),
        started_at=started_at,
    )


def verify_raw(
    source: Source, *, path: Path, progress: Progress, fast: bool = False, workers: int | None = None
) -> Verdict:
    """Decode every image, check for copies and leaks, and compare the counts with the published ones.

    Args:
        source: the raw data.
        path: its folder, for the verdict.
        progress: for progress lines and bars.
        fast: reads no image: names, labels and counts only.
        workers: threads; by default one per core.

    Raises:
        DataError: no images, or names that do not follow the layout's rule.
    """
    started_at = time.perf_counter()
    samples = source.list_images()

    def read(row: int) -> bytes:
        return source.read(samples.name[row])

    checks = sizes = None
    if not fast:
        checks = decode_all(read, samples.name, title="checking images", workers=workers, progress=progress)
        assert checks.size is not None, "every image was decoded"
        sizes = describe_sizes(checks.size[checks.key != 0])
    return _judge(
        path,
        "raw",
        source.dataset,
        samples,
        checks=checks,
        read=read,
        fingerprint=None,
        sizes=sizes,
        findings=[],
        started_at=started_at,
    )


def _judge(
    path: Path,
    kind: Literal["pack", "raw"],
    dataset: str,
    samples: Samples,
    *,
    checks: ImageChecks | None,
    read: Callable[[int], bytes],
    fingerprint: str | None,
    sizes: Sizes | None,
    findings: list[Finding],
    split: PackSplit | None = None,
    started_at: float,
) -> Verdict:
    entry = find_entry(dataset)
    counts = count_images(samples, entry)
    findings = [*findings, *check_labels(samples, split), *(check_published(counts, entry) if entry else [])]
    if checks is not None:
        findings += _unreadable(checks)
        findings += check_copies(samples, checks.key, lambda row: hashlib.sha256(read(row)).digest())
    order = ("error", "warning", "note")
    numbers, found = np.unique(samples.camera[samples.camera >= 0], return_counts=True)
    return Verdict(
        path=path,
        kind=kind,
        dataset=dataset,
        images=len(samples),
        persons=counts["all"]["persons"].found,
        cameras=dict(zip(numbers.tolist(), found.tolist(), strict=True)),
        roles={role: int((samples.role == code).sum()) for role, code in ROLE_CODES.items()},
        counts=counts,
        fingerprint=fingerprint,
        sizes=sizes,
        depth="counts" if checks is None else "checksums" if checks.size is None else "decoded",
        findings=sorted(findings, key=lambda finding: order.index(finding.severity)),
        seconds=time.perf_counter() - started_at,
    )


def _unreadable(checks: ImageChecks) -> list[Finding]:
    if not checks.num_bad:
        return []
    return [
        Finding(
            "error",
            "unreadable",
            f"{count_things(checks.num_bad, 'image')} cannot be read",
            checks.num_bad,
            checks.examples,
        )
    ]


def _check_columns(pack: Pack) -> list[Finding]:
    wrong = []
    begin = 0
    for shard in pack.shards:
        end = begin + len(shard)
        if not columns_hold(shard, pack.samples.part(begin, end), pack.size[begin:end]):
            wrong.append(str(shard.path))
        begin = end
    if not wrong:
        return []
    message = f"{count_things(len(wrong), 'file')} with other names, labels or records than were written"
    return [Finding("error", "columns", message, len(wrong), wrong[:NUM_EXAMPLES])]


def _check_sizes(pack: Pack, checks: ImageChecks | None) -> list[Finding]:
    wrong = (pack.size == 0).any(axis=1)
    if checks is not None and checks.size is not None:
        wrong |= (checks.size != pack.size).any(axis=1) & (checks.key != 0)
    rows = np.flatnonzero(wrong)
    if not len(rows):
        return []
    examples = [pack.samples.name[row] for row in rows[:NUM_EXAMPLES].tolist()]
    message = f"{count_things(len(rows), 'image')} of another size than the pack says"
    return [Finding("error", "sizes", message, len(rows), examples)]


def _check_order(pack: Pack) -> list[Finding]:
    roles, names = pack.samples.role, pack.samples.name
    findings = []
    unknown = np.flatnonzero(~np.isin(roles, list(ROLE_CODES.values())))
    if len(unknown):
        examples = [f"{names[row]}: {roles[row]}" for row in unknown[:NUM_EXAMPLES].tolist()]
        message = f"{count_things(len(unknown), 'image')} without a known role"
        findings.append(Finding("error", "roles", message, len(unknown), examples))
    falls = find_falls(names)
    same_role = roles[falls] == roles[falls - 1]
    wrong = np.union1d(falls[same_role], np.flatnonzero(roles[1:] < roles[:-1]) + 1)
    if len(wrong):
        message = f"{count_things(len(wrong), 'row')} not sorted by role and name"
        examples = list(names.take(wrong[:NUM_EXAMPLES]))
        findings.append(Finding("error", "order", message, len(wrong), examples))
    repeated = find_repeated(names)
    if len(repeated):
        message = f"{count_things(len(repeated), 'name')} given more than once"
        examples = list(names.take(repeated[:NUM_EXAMPLES]))
        findings.append(Finding("error", "names", message, len(repeated), examples))
    return findings
