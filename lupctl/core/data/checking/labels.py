"""What can be wrong with labels and with copies of images, for packs and for raw data alike."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES, Role
from lupctl.core.data.catalog.datasets import CatalogEntry
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.examples import NUM_EXAMPLES

Severity = Literal["error", "warning", "note"]


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


@dataclass(frozen=True)
class Count:
    """How many there are.

    Args:
        expected: as published; None where nothing was published, or it depends on the user.
        found: in this copy.
    """

    expected: int | None
    found: int


# By split ("all" for the whole dataset), then by what is counted: images, persons, cameras, distractors, junk.
Counts = dict[Role | Literal["all"], dict[str, Count]]


def count_images(samples: Samples, entry: CatalogEntry | None) -> Counts:
    """Images, persons and cameras of every split that is there or should be, and of the whole, beside the published.

    Persons are those with a number above 0 (from 0 on in training images), cameras those from 0 on.

    Args:
        samples: the dataset's.
        entry: what was published, if anything.
    """
    published_images = entry.images if entry else {}
    published_persons = entry.persons if entry else {}
    is_benchmark = "query" in published_images
    counts: Counts = {}
    for role, code in ROLE_CODES.items():
        rows = samples.role == code
        if not rows.any() and role not in published_images:
            continue
        counts[role] = {
            "images": Count(published_images.get(role), int(rows.sum())),
            "persons": Count(published_persons.get(role), _num_from(samples.person[rows], 0 if role == "train" else 1)),
            "cameras": Count(None, _num_from(samples.camera[rows], 0)),
        }
    labelled = samples.role != ROLE_CODES["unlabelled"]
    # In training images, as those of LUPerson-NL, 0 is a person like any other.
    distractors = labelled & (samples.role != ROLE_CODES["train"]) & (samples.person == DISTRACTOR)
    counts["all"] = {
        "images": Count(None, len(samples)),
        "persons": Count(None, _num_from(samples.person, 1)),
        "cameras": Count(entry.cameras if entry else None, _num_from(samples.camera, 0)),
        "distractors": Count(entry.distractors if entry and is_benchmark else None, int(distractors.sum())),
        "junk": Count(entry.junk if entry and is_benchmark else None, int((labelled & (samples.person == JUNK)).sum())),
    }
    return counts


def check_published(counts: Counts, entry: CatalogEntry) -> list[Finding]:
    """Counts against the published ones; nothing for a dataset whose counts depend on the user.

    Other counts are an error for a benchmark, whose scores are compared with others', and a warning for data to
    pre-train on: videos vanish, and no copy that is built today is complete.
    """
    published = [
        (f"{split} {what}" if split != "all" else what, count)
        for split, of_split in counts.items()
        for what, count in of_split.items()
        if count.expected is not None
    ]
    if not published:
        return []
    wrong = [(what, count) for what, count in published if count.found != count.expected]
    if not wrong:
        return [Finding("note", "published", f"all counts are the published ones of {entry.title}")]
    is_benchmark = "query" in entry.images
    message = f"counts are not the published ones of {entry.title}"
    if is_benchmark:
        message += "; scores on it compare with no paper's"
    examples = [f"{what}: {count.found:,} instead of {count.expected:,}" for what, count in wrong]
    return [Finding("error" if is_benchmark else "warning", "published", message, len(wrong), examples)]


def check_labels(samples: Samples) -> list[Finding]:
    """Persons, cameras and roles that make a training or an evaluation wrong."""
    findings: list[Finding] = []
    counts = {role: int((samples.role == code).sum()) for role, code in ROLE_CODES.items()}
    leaked = sorted(_persons_in(samples, "train") & (_persons_in(samples, "query") | _persons_in(samples, "gallery")))
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
    nameless = (samples.role == ROLE_CODES["train"]) & (samples.person < 0)
    nameless |= (samples.role == ROLE_CODES["query"]) & (samples.person <= 0)
    findings += _found(samples, nameless, "error", "unlabelled", "training or query images carry no person")
    if counts["query"] and not counts["gallery"]:
        findings.append(Finding("error", "no-gallery", "there are queries and no gallery to search", counts["query"]))
    elif counts["query"]:
        findings += _check_queries(samples, counts["query"])
    elif counts["gallery"]:
        findings.append(Finding("warning", "no-query", "there is a gallery and no query", counts["gallery"]))
    return findings


def _check_queries(samples: Samples, num_queries: int) -> list[Finding]:
    """Queries that no gallery image can answer: the same person from another camera."""
    in_gallery = samples.role == ROLE_CODES["gallery"]
    cameras: dict[int, set[int]] = {}
    for person, camera in zip(samples.person[in_gallery].tolist(), samples.camera[in_gallery].tolist(), strict=True):
        cameras.setdefault(person, set()).add(camera)
    unanswered = np.zeros(len(samples), np.bool_)
    for row in np.flatnonzero(samples.role == ROLE_CODES["query"]).tolist():
        unanswered[row] = not cameras.get(int(samples.person[row]), set()) - {int(samples.camera[row])}
    none_left = int(unanswered.sum()) == num_queries
    message = "queries have no gallery image of their person from another camera"
    return _found(samples, unanswered, "error" if none_left else "warning", "unanswered", message)


def _found(samples: Samples, rows: NDArray[np.bool_], severity: Severity, what: str, message: str) -> list[Finding]:
    count = int(rows.sum())
    if count == 0:
        return []
    examples = [samples.name[row] for row in np.flatnonzero(rows)[:NUM_EXAMPLES].tolist()]
    return [Finding(severity, what, f"{count:,} {message}", count, examples)]


def _num_from(numbers: NDArray[np.int64] | NDArray[np.int16], least: int) -> int:
    """How many different numbers from `least` on there are."""
    return len(np.unique(numbers[numbers >= least]))


def _persons_in(samples: Samples, role: Role) -> set[int]:
    """Persons of a role, without junk and distractors."""
    persons = np.unique(samples.person[samples.role == ROLE_CODES[role]])
    return set(persons[persons > 0].tolist())
