"""Checks of counts and labels, for packs and raw data alike."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES, Role, SameCamera
from lupctl.core.data.catalog.datasets import CatalogEntry
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import PackSplit
from lupctl.core.system.examples import NUM_EXAMPLES, count_things

Severity = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One result of a check.

    Args:
        severity: an error makes results wrong, a warning may do so, a note is for information.
        what: a fixed name for scripts.
        message: one line for the user.
        count: number of images or persons concerned.
        examples: the first five of them, or every count that differs.
    """

    severity: Severity
    what: str
    message: str
    count: int = 0
    examples: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Count:
    """An expected and an actual count.

    Args:
        expected: as published; None if nothing was published, or it depends on the user's copy.
        found: in this copy.
    """

    expected: int | None
    found: int


# By split ("all" for the whole dataset), then by what is counted: images, persons, cameras, distractors, junk.
Counts = dict[Role | Literal["all"], dict[str, Count]]


def count_images(samples: Samples, entry: CatalogEntry | None) -> Counts:
    """Counts of images, persons and cameras of every present or expected split and of the whole, next to the published.

    Persons count from number 1 (from 0 in training images), cameras from 0.

    Args:
        samples: of the dataset.
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
    # In training images, such as those of LUPerson-NL, 0 is a person like any other.
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
    """Findings from comparing counts with the published ones; none for a dataset whose counts depend on the user.

    A difference is an error for a benchmark, whose scores are compared with published ones, and a warning for
    pre-training data: videos disappear, so no copy built today is complete.
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
        return [Finding("note", "published", f"all counts match the published ones of {entry.title}")]
    is_benchmark = "query" in entry.images
    message = f"counts differ from the published ones of {entry.title}"
    if is_benchmark:
        message += "; scores are not comparable with published ones"
    examples = [f"{what}: {count.found:,} instead of {count.expected:,}" for what, count in wrong]
    return [Finding("error" if is_benchmark else "warning", "published", message, len(wrong), examples)]


def check_labels(samples: Samples, split: PackSplit | None = None) -> list[Finding]:
    """Findings about persons, cameras and roles that would make training or evaluation wrong.

    Args:
        samples: of the dataset.
        split: how they were divided, if they were: a closed set is no leak, and its protocol decides what an answer is.
    """
    findings: list[Finding] = []
    counts = {role: int((samples.role == code).sum()) for role, code in ROLE_CODES.items()}
    leaked = sorted(_persons_in(samples, "train") & (_persons_in(samples, "query") | _persons_in(samples, "gallery")))
    if leaked and split is not None and split.closed_set:
        message = (
            f"a closed set by its split {split.rule}: {count_things(len(leaked), 'person')} in train and in the test"
        )
        findings.append(Finding("note", "closed-set", message, len(leaked)))
    elif leaked:
        persons = count_things(len(leaked), "person")
        findings.append(
            Finding(
                "error",
                "leaked-persons",
                f"{persons} in train and also in query or gallery; scores would be too high",
                len(leaked),
                [str(person) for person in leaked[:NUM_EXAMPLES]],
            )
        )
    nameless = (samples.role == ROLE_CODES["train"]) & (samples.person < 0)
    nameless |= (samples.role == ROLE_CODES["query"]) & (samples.person <= 0)
    findings += _found(
        samples,
        nameless,
        "error",
        "unlabelled",
        "without a person",
        thing=("training or query image", "training or query images"),
    )
    if counts["query"] and not counts["gallery"]:
        findings.append(Finding("error", "no-gallery", "there are queries but no gallery to search", counts["query"]))
    elif counts["query"]:
        keeps = split is not None and split.protocol == "same-camera-allowed"
        findings += _check_queries(samples, counts["query"], same_camera="keep" if keeps else "drop")
    elif counts["gallery"]:
        findings.append(Finding("warning", "no-query", "there is a gallery but no query", counts["gallery"]))
    return findings


def _check_queries(samples: Samples, num_queries: int, *, same_camera: SameCamera) -> list[Finding]:
    """Findings about queries without a gallery image of the same person that counts as an answer."""
    in_gallery = samples.role == ROLE_CODES["gallery"]
    cameras: dict[int, set[int]] = {}
    for person, camera in zip(samples.person[in_gallery].tolist(), samples.camera[in_gallery].tolist(), strict=True):
        cameras.setdefault(person, set()).add(camera)
    unanswered = np.zeros(len(samples), np.bool_)
    for row in np.flatnonzero(samples.role == ROLE_CODES["query"]).tolist():
        left_out = {int(samples.camera[row])} if same_camera == "drop" else set()
        unanswered[row] = not cameras.get(int(samples.person[row]), set()) - left_out
    none_left = int(unanswered.sum()) == num_queries
    severity: Severity = "error" if none_left else "warning"
    message = "without a gallery image of the same person"
    message += " from another camera" if same_camera == "drop" else ""
    return _found(samples, unanswered, severity, "unanswered", message, thing=("query", "queries"))


def _found(
    samples: Samples,
    rows: NDArray[np.bool_],
    severity: Severity,
    what: str,
    message: str,
    *,
    thing: tuple[str, str],
) -> list[Finding]:
    count = int(rows.sum())
    if count == 0:
        return []
    examples = [samples.name[row] for row in np.flatnonzero(rows)[:NUM_EXAMPLES].tolist()]
    return [Finding(severity, what, f"{count_things(count, *thing)} {message}", count, examples)]


def _num_from(numbers: NDArray[np.int64] | NDArray[np.int16], least: int) -> int:
    """The number of distinct values of at least `least`."""
    return len(np.unique(numbers[numbers >= least]))


def _persons_in(samples: Samples, role: Role) -> set[int]:
    """The persons of a role, without junk and distractors."""
    persons = np.unique(samples.person[samples.role == ROLE_CODES[role]])
    return set(persons[persons > 0].tolist())
