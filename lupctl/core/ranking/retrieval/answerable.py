"""Checks whether a query set can be scored at all; needs no features."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES, ROLE_NAMES, UNKNOWN_CAMERA, SameCamera
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.examples import count_things, name_some


@dataclass(frozen=True)
class Counts:
    """Numbers of the images that will be ranked.

    Args:
        queries: Q.
        valid: queries with at least one right answer.
        absent: queries whose person is not in the gallery; a subset of the invalid ones.
        persons: different persons among the queries.
        gallery: G, without junk, with distractors.
        junk: gallery images of person -1, which are left out.
        distractors: gallery images of person 0, which are always wrong.
    """

    queries: int
    valid: int
    absent: int
    persons: int
    gallery: int
    junk: int
    distractors: int


def query_rows(samples: Samples) -> NDArray[np.int64]:
    """Rows of the queries, in order."""
    return np.flatnonzero(samples.role == ROLE_CODES["query"])


def gallery_rows(samples: Samples) -> NDArray[np.int64]:
    """Rows of the gallery without junk, in order."""
    return np.flatnonzero((samples.role == ROLE_CODES["gallery"]) & (samples.person != JUNK))


def check_answerable(samples: Samples, *, same_camera: SameCamera = "drop") -> Counts:
    """Counts queries, gallery and right answers, and refuses data that cannot be evaluated.

    Args:
        samples: images of all roles; only queries and gallery are used.
        same_camera: `drop` ignores the query's person seen by the query's camera, `keep` counts it as right.

    Raises:
        DataError: no query, a junk query, an empty gallery, or no query with a right answer; the message says which.
    """
    queries, gallery = samples.select(query_rows(samples)), samples.select(gallery_rows(samples))
    num_junk = int(((samples.role == ROLE_CODES["gallery"]) & (samples.person == JUNK)).sum())
    _check_roles(samples, queries, gallery, num_junk)
    by_person, by_camera = _right_answers(queries, gallery)
    right = by_person - by_camera if same_camera == "drop" else by_person
    counts = Counts(
        queries=len(queries),
        valid=int((right > 0).sum()),
        absent=int((by_person == 0).sum()),
        persons=len(np.unique(queries.person)),
        gallery=len(gallery),
        junk=num_junk,
        distractors=int((gallery.person == DISTRACTOR).sum()),
    )
    if counts.valid == 0:
        raise _unanswerable(queries, gallery, counts)
    return counts


def _right_answers(queries: Samples, gallery: Samples) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(Q) number of gallery images of each query's person, and (Q) how many of them are from the query's camera."""
    person = np.concatenate([queries.person, gallery.person])
    numbers, label = np.unique(person, return_inverse=True)
    cameras, camera = np.unique(np.concatenate([queries.camera, gallery.camera]), return_inverse=True)
    both = label.astype(np.int64) * len(cameras) + camera
    split = len(queries)
    by_person = np.bincount(label[split:], minlength=len(numbers))[label[:split]]
    seen, count = np.unique(both[split:], return_counts=True)
    at = np.searchsorted(seen, both[:split]).clip(max=len(seen) - 1)
    by_camera = np.where(seen[at] == both[:split], count[at], 0)
    is_distractor = queries.person == DISTRACTOR
    return np.where(is_distractor, 0, by_person), np.where(is_distractor, 0, by_camera)


def _check_roles(samples: Samples, queries: Samples, gallery: Samples, num_junk: int) -> None:
    if not len(queries):
        codes, numbers = np.unique(samples.role, return_counts=True)
        there = ", ".join(
            f"{count} {ROLE_NAMES.get(int(code), code)}" for code, count in zip(codes, numbers, strict=True)
        )
        raise DataError(
            f"there is no query among {len(samples)} images ({there or 'none at all'}); "
            "queries and a gallery were expected",
            hint="use a dataset with queries: lupctl dump RUN DATASET",
        )
    junk = [queries.name[row] for row in np.flatnonzero(queries.person == JUNK).tolist()]
    if junk:
        raise DataError(
            f"{len(junk)} of {count_things(len(queries), 'query', 'queries')} {'is' if len(junk) == 1 else 'are'} junk "
            f"(person {JUNK}); a query must show a known person: "
            f"{name_some(junk)}",
            hint="remove them from the query folder, then: lupctl data pack --force",
        )
    if not len(gallery):
        what = f"all its {num_junk} images are junk (person {JUNK})" if num_junk else "no image has the role gallery"
        raise DataError(
            f"the gallery of {count_things(len(queries), 'query', 'queries')} is empty: {what}",
            hint="add gallery images to the dataset, then: lupctl data pack --force",
        )


def _unanswerable(queries: Samples, gallery: Samples, counts: Counts) -> DataError:
    none = f"0 of {counts.queries} queries have a right answer: "
    if bool((queries.person == DISTRACTOR).all()):
        return DataError(
            f"{none}every query is person {DISTRACTOR}, which marks distractors",
            hint="number the persons from 1, then: lupctl data pack --force",
        )
    if counts.absent == counts.queries:
        return DataError(
            f"{none}the gallery shows none of their {counts.persons} persons",
            hint="check that queries and gallery belong together: lupctl data info",
        )
    cameras = np.unique(np.concatenate([queries.camera, gallery.camera]))
    if len(cameras) == 1:
        known = cameras[0] != UNKNOWN_CAMERA
        cause = f"every image has camera {cameras[0]}" if known else "no image has a known camera"
    else:
        cause = "the gallery shows each query's person only from the query's own camera"
    return DataError(
        f"{none}{cause}, and matches from the query's camera count neither way",
        hint="add --same-camera keep, which counts them as right answers",
    )
