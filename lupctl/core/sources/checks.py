"""What can be wrong with labels and with copies of images, for packs and for raw data alike."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES, ROLE_NAMES, Role
from lupctl.core.sources.catalog import CatalogEntry

Severity = Literal["error", "warning", "note"]
NUM_EXAMPLES = 5


class Labelled(Protocol):
    """Images in parallel columns, as a listing or the samples of a pack."""

    @property
    def names(self) -> Sequence[str]:
        """(N) paths relative to the dataset's root."""

    @property
    def person(self) -> NDArray[np.int64]:
        """(N) the dataset's own numbers."""

    @property
    def camera(self) -> NDArray[np.int16]:
        """(N) as published."""

    @property
    def role(self) -> NDArray[np.uint8]:
        """(N) role codes."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Args:
        severity: an error makes results wrong, a warning may, a note is good to know.
        what: one word for scripts.
        message: one line for people.
        count: how many images or persons it concerns.
        examples: the first five of them, or every count that differs.
    """

    severity: Severity
    what: str
    message: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


def check_published(images: Labelled, entry: CatalogEntry) -> list[Finding]:
    """Counts against the published ones; nothing for a dataset whose counts depend on the user."""
    if not entry.images:
        return []
    found_counts, published_counts = {}, {}
    for role, published in entry.images.items():
        found_counts[f"{role} images"] = int((images.role == ROLE_CODES[role]).sum())
        published_counts[f"{role} images"] = published
        found_counts[f"{role} persons"] = len(_persons_in(images, role))
        published_counts[f"{role} persons"] = entry.persons[role]
    found_counts["distractors"] = int((images.person == DISTRACTOR).sum())
    published_counts["distractors"] = entry.distractors
    found_counts["junk"] = int((images.person == JUNK).sum())
    published_counts["junk"] = entry.junk
    if entry.cameras is not None:
        found_counts["cameras"] = len(np.unique(images.camera[images.camera >= 0]))
        published_counts["cameras"] = entry.cameras
    wrong = [key for key, count in found_counts.items() if count != published_counts[key]]
    if not wrong:
        return [Finding("note", "published", f"all counts are the published ones of {entry.title}")]
    message = f"counts are not the published ones of {entry.title}; scores on it compare with no paper's"
    examples = [f"{key}: {found_counts[key]:,} instead of {published_counts[key]:,}" for key in wrong]
    return [Finding("error", "published", message, len(wrong), examples)]


def check_labels(images: Labelled) -> list[Finding]:
    """Persons, cameras and roles that make a training or an evaluation wrong."""
    findings: list[Finding] = []
    counts = {role: int((images.role == code).sum()) for role, code in ROLE_CODES.items()}
    leaked = sorted(_persons_in(images, "train") & (_persons_in(images, "query") | _persons_in(images, "gallery")))
    if leaked:
        findings.append(
            Finding(
                "error",
                "leaked-persons",
                f"{len(leaked):,} persons are in train and in query or gallery; scores on it would be too good",
                len(leaked),
                [str(person) for person in leaked[:NUM_EXAMPLES]],
            )
        )
    nameless = (images.role == ROLE_CODES["train"]) & (images.person < 0)
    nameless |= (images.role == ROLE_CODES["query"]) & (images.person <= 0)
    findings += _found(images, nameless, "error", "unlabelled", "training or query images carry no person")
    if counts["query"] and not counts["gallery"]:
        findings.append(Finding("error", "no-gallery", "there are queries and no gallery to search", counts["query"]))
    elif counts["query"]:
        findings += _check_queries(images, counts["query"])
    elif counts["gallery"]:
        findings.append(Finding("warning", "no-query", "there is a gallery and no query", counts["gallery"]))
    return findings


def check_copies(images: Labelled, keys: NDArray[np.uint64], digest: Callable[[int], bytes]) -> list[Finding]:
    """Images with the same bytes, an error where one is in train and the other in query or gallery.

    Args:
        images: N images.
        keys: (N) equal for equal bytes, rarely for others; 0 for images that are not to be compared.
        digest: a checksum of one row's bytes that can be trusted; called for rows whose keys are equal only.
    """
    _, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    rows = np.flatnonzero((counts[inverse] > 1) & (keys != 0))
    groups: dict[bytes, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(digest(row), []).append(row)
    copies = [group for group in groups.values() if len(group) > 1]
    across = [group for group in copies if _spans_train_and_test(images.role[group])]
    within = [group for group in copies if not _spans_train_and_test(images.role[group])]
    findings = []
    if across:
        what = "are in train and, byte for byte, in query or gallery; scores on it would be too good"
        findings.append(
            Finding("error", "copies-across", f"{len(across):,} images {what}", len(across), _equal(images, across))
        )
    if within:
        what = "occur more than once, byte for byte"
        findings.append(
            Finding("warning", "copies", f"{len(within):,} images {what}", len(within), _equal(images, within))
        )
    return findings


def _check_queries(images: Labelled, num_queries: int) -> list[Finding]:
    """Queries that no gallery image can answer: the same person from another camera."""
    in_gallery = images.role == ROLE_CODES["gallery"]
    cameras: dict[int, set[int]] = {}
    for person, camera in zip(images.person[in_gallery].tolist(), images.camera[in_gallery].tolist(), strict=True):
        cameras.setdefault(person, set()).add(camera)
    unanswered = np.zeros(len(images.names), np.bool_)
    for row in np.flatnonzero(images.role == ROLE_CODES["query"]).tolist():
        unanswered[row] = not cameras.get(int(images.person[row]), set()) - {int(images.camera[row])}
    none_left = int(unanswered.sum()) == num_queries
    message = "queries have no gallery image of their person from another camera"
    return _found(images, unanswered, "error" if none_left else "warning", "unanswered", message)


def _found(images: Labelled, rows: NDArray[np.bool_], severity: Severity, what: str, message: str) -> list[Finding]:
    count = int(rows.sum())
    if count == 0:
        return []
    examples = [images.names[row] for row in np.flatnonzero(rows)[:NUM_EXAMPLES]]
    return [Finding(severity, what, f"{count:,} {message}", count, examples)]


def _persons_in(images: Labelled, role: Role) -> set[int]:
    """Persons of a role, without junk and distractors."""
    persons = np.unique(images.person[images.role == ROLE_CODES[role]])
    return set(persons[persons > 0].tolist())


def _spans_train_and_test(roles: NDArray[np.uint8]) -> bool:
    found = {ROLE_NAMES[role] for role in roles.tolist()}
    return "train" in found and bool(found & {"query", "gallery"})


def _equal(images: Labelled, groups: Sequence[Sequence[int]]) -> list[str]:
    return [" = ".join(images.names[row] for row in group[:3]) for group in groups[:NUM_EXAMPLES]]
