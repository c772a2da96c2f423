"""Whether a pack or raw data is sound."""

import hashlib
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, Role
from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images import decode_rgb
from lupctl.core.formats.pack import Pack, open_pack
from lupctl.core.progress import Progress
from lupctl.core.sources.catalog import find_entry
from lupctl.core.sources.checks import (
    NUM_EXAMPLES,
    Finding,
    Labelled,
    check_copies,
    check_labels,
    check_published,
)
from lupctl.core.sources.records import Source
from lupctl.core.threads import map_in_order, pick_workers


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Args:
        path: the pack, or the folder with the raw data.
        kind: which of the two.
        dataset: its name.
        images: number of images looked at.
        persons: number of persons, without junk, distractors and unknown.
        cameras: number of cameras, without unknown.
        roles: images per role.
        decoded: whether every image was decoded; otherwise its checksum was compared.
        findings: errors first.
        seconds: it took.
    """

    path: Path
    kind: Literal["pack", "raw"]
    dataset: str
    images: int
    persons: int
    cameras: int
    roles: dict[Role, int]
    decoded: bool
    findings: list[Finding]
    seconds: float

    @property
    def num_errors(self) -> int:
        """Findings that make results wrong; with none the data is sound."""
        return sum(finding.severity == "error" for finding in self.findings)


@dataclass(frozen=True)
class _Look:
    """One image: what tells it from others, its height and width where it was decoded, or why it cannot be read."""

    key: int = 0
    size: tuple[int, int] | None = None
    reason: str = ""


def verify_pack(path: Path, *, progress: Progress, deep: bool = False, workers: int | None = None) -> Verdict:
    """Compares every checksum, looks for copies and leaks, and holds the counts against the published ones.

    Args:
        path: the pack.
        progress: where to tell how far it is.
        deep: decodes every image, too, and compares its size.
        workers: threads; by default one per core.

    Raises:
        DataError: there is no such pack.
        FormatError: its structure is damaged, so that nothing in it can be looked at.
    """
    started_at = time.perf_counter()
    made = open_pack(path)
    looks = _look_at_all(
        made.read, made.samples, decode=deep, title="checking pack", workers=workers, progress=progress
    )
    findings = _unreadable(looks, made.samples) + _check_sizes(made, looks) + _check_order(made)
    if made.record.get("quarantine"):
        left_out = made.record["quarantine"]
        examples = [f"{entry['name']}: {entry['reason']}" for entry in left_out[:NUM_EXAMPLES]]
        message = f"{len(left_out):,} unreadable images were left out when it was packed"
        findings.append(Finding("note", "quarantine", message, len(left_out), examples))
    findings += _check_content(made.dataset, made.samples, looks, made.read)
    return _build_verdict(path, "pack", made.dataset, made.samples, findings, decoded=deep, started_at=started_at)


def verify_raw(source: Source, *, path: Path, progress: Progress, workers: int | None = None) -> Verdict:
    """Decodes every image, looks for copies and leaks, and holds the counts against the published ones.

    Args:
        source: the raw data.
        path: its folder, for the verdict.
        progress: where to tell how far it is.
        workers: threads; by default one per core.

    Raises:
        DataError: no image, or names that do not follow the layout's rule.
    """
    started_at = time.perf_counter()
    listing = source.list_images()

    def read(row: int) -> bytes:
        return source.read(listing.names[row])

    looks = _look_at_all(read, listing, decode=True, title="checking images", workers=workers, progress=progress)
    findings = _unreadable(looks, listing) + _check_content(source.dataset, listing, looks, read)
    return _build_verdict(path, "raw", source.dataset, listing, findings, decoded=True, started_at=started_at)


def _look_at_all(
    read: Callable[[int], bytes],
    images: Labelled,
    *,
    decode: bool,
    title: str,
    workers: int | None,
    progress: Progress,
) -> list[_Look]:
    def look(row: int) -> _Look:
        try:
            encoded = read(row)
            pixels = decode_rgb(encoded) if decode else None
        except CorruptImageError as error:
            return _Look(reason=error.message)
        except OSError as error:
            return _Look(reason=f"cannot be read ({error.strerror})")
        key = (zlib.crc32(encoded) << 32) | len(encoded)
        return _Look(key, None if pixels is None else (pixels.shape[0], pixels.shape[1]))

    looks = []
    rows = range(len(images.names))
    found_in_order = map_in_order(look, rows, workers=pick_workers(workers))
    with closing(found_in_order), progress.task(title, total=len(rows), unit="images") as task:
        for found in found_in_order:
            looks.append(found)
            task.advance()
    return looks


def _check_content(dataset: str, images: Labelled, looks: list[_Look], read: Callable[[int], bytes]) -> list[Finding]:
    keys: NDArray[np.uint64] = np.array([found.key for found in looks], np.uint64)
    entry = find_entry(dataset)
    return [
        *check_labels(images),
        *check_copies(images, keys, lambda row: hashlib.sha256(read(row)).digest()),
        *(check_published(images, entry) if entry else []),
    ]


def _unreadable(looks: list[_Look], images: Labelled) -> list[Finding]:
    bad = [row for row, found in enumerate(looks) if found.reason]
    if not bad:
        return []
    examples = [f"{images.names[row]}: {looks[row].reason}" for row in bad[:NUM_EXAMPLES]]
    return [Finding("error", "unreadable", f"{len(bad):,} images cannot be read", len(bad), examples)]


def _check_sizes(made: Pack, looks: list[_Look]) -> list[Finding]:
    wrong = [
        row
        for row, found in enumerate(looks)
        if found.size is not None and found.size != tuple(made.size[row].tolist())
    ]
    wrong += np.flatnonzero((made.size == 0).any(axis=1)).tolist()
    if not wrong:
        return []
    examples = [made.samples.names[row] for row in wrong[:NUM_EXAMPLES]]
    return [
        Finding("error", "sizes", f"{len(wrong):,} images have another size than the pack says", len(wrong), examples)
    ]


def _check_order(made: Pack) -> list[Finding]:
    roles, names = made.samples.role, made.samples.names
    findings = []
    unknown = np.flatnonzero(~np.isin(roles, list(ROLE_CODES.values()))).tolist()
    if unknown:
        examples = [f"{names[row]}: {roles[row]}" for row in unknown[:NUM_EXAMPLES]]
        findings.append(
            Finding("error", "roles", f"{len(unknown):,} images have no known role", len(unknown), examples)
        )
    keys = list(zip(roles.tolist(), names, strict=True))
    wrong = [row for row in range(1, len(keys)) if keys[row] <= keys[row - 1]]
    if wrong:
        examples = [names[row] for row in wrong[:NUM_EXAMPLES]]
        findings.append(
            Finding("error", "order", f"{len(wrong):,} rows are not sorted by role and name", len(wrong), examples)
        )
    if len(set(names)) < len(names):
        count = len(names) - len(set(names))
        findings.append(Finding("error", "names", f"{count:,} names occur more than once", count))
    return findings


def _build_verdict(
    path: Path,
    kind: Literal["pack", "raw"],
    dataset: str,
    images: Labelled,
    findings: list[Finding],
    *,
    decoded: bool,
    started_at: float,
) -> Verdict:
    order = ("error", "warning", "note")
    return Verdict(
        path=path,
        kind=kind,
        dataset=dataset,
        images=len(images.names),
        persons=len(np.unique(images.person[images.person > 0])),
        cameras=len(np.unique(images.camera[images.camera >= 0])),
        roles={role: int((images.role == code).sum()) for role, code in ROLE_CODES.items()},
        decoded=decoded,
        findings=sorted(findings, key=lambda finding: order.index(finding.severity)),
        seconds=time.perf_counter() - started_at,
    )
