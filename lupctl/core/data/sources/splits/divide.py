"""The roles that a split gives to labelled images."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, ROLE_CODES, SPLIT_SEED, UNKNOWN_CAMERA, SameCamera, SplitKind
from lupctl.core.data.sources.splits.draw import (
    Mask,
    draw_cameras,
    draw_images,
    draw_persons,
    draw_queries,
    is_seen_twice,
)
from lupctl.core.data.sources.splits.file import read_roles
from lupctl.core.data.sources.splits.rule import SplitRule
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import PackSplit
from lupctl.core.system.examples import count_things, name_some

# Neither a network nor a test learns anything from one person.
FEWEST = 2
# What is tried for a hint.
TRIED = range(1, 21)
HALVES: tuple[SplitKind, ...] = ("persons", "images")
UNLABELLED, TRAIN, QUERY, GALLERY = (ROLE_CODES[role] for role in ("unlabelled", "train", "query", "gallery"))


def divide(samples: Samples, rule: SplitRule, *, dataset: str) -> tuple[NDArray[np.uint8], PackSplit]:
    """The role of each image, and the split for the record.

    Images of person 0 are distractors in the gallery; those without a person, and those that a file does not name, are
    unlabelled.

    Args:
        samples: N images without queries and gallery.
        rule: how they are divided.
        dataset: their name, for errors.

    Returns:
        (N) codes of roles; and what the record says.

    Raises:
        UsageError: the images have roles already.
        DataError: no persons, or too few images, persons or cameras for this rule; or a split file that does not fit.
    """
    _check_labelled(samples, dataset=dataset)
    if rule.kind == "file":
        return _divide_by_file(samples, rule)
    known = np.flatnonzero((samples.role == TRAIN) & (samples.person > 0))
    division = _divide(samples.select(known), rule, dataset=dataset)
    role = np.full(len(samples), UNLABELLED, np.uint8)
    role[(samples.role == TRAIN) & (samples.person == DISTRACTOR)] = GALLERY
    role[known] = np.where(division.is_train, TRAIN, np.where(division.is_query, QUERY, GALLERY))
    return role, _summarize(samples, role, rule, division.same_camera)


def _check_labelled(samples: Samples, *, dataset: str) -> None:
    counts = {role: int((samples.role == code).sum()) for role, code in ROLE_CODES.items()}
    if counts["query"] or counts["gallery"]:
        own = ", ".join(f"{role} {count:,}" for role, count in counts.items() if count)
        raise UsageError(f"{dataset}: has roles already ({own}), which no split replaces", hint="leave --split out")
    if not bool((samples.person > 0).any()):
        raise DataError(
            f"{dataset}: {count_things(len(samples), 'image')} without persons; a split divides images of persons",
            hint="add --layout persons if there is a folder for each person, or name a CSV with a column person",
        )


@dataclass(frozen=True)
class _Division:
    """Images of known persons, divided.

    Args:
        is_train, is_query: (N) of the images; all others are gallery.
        same_camera: what becomes of matches from the query's own camera.
    """

    is_train: Mask
    is_query: Mask
    same_camera: SameCamera


def _divide(samples: Samples, rule: SplitRule, *, dataset: str) -> _Division:
    what = f"{dataset}: split {rule.text}"
    is_train = _draw_train(samples, rule, what)
    trained, tested = (len(np.unique(samples.person[rows])) for rows in (is_train, ~is_train))
    if min(trained, tested) < FEWEST:
        known = count_things(len(np.unique(samples.person)), "person")
        raise DataError(
            f"{what} would train on {trained:,} of {known} and test {tested:,}; {FEWEST} or more of each are needed",
            hint=_working_rule(samples, [SplitRule(kind, f"{kind}:0.5", share="0.5") for kind in HALVES]),
        )
    division = _draw_test(samples, is_train, rule)
    if not division.is_query.any():
        lacks = "is seen by two cameras" if division.same_camera == "drop" else "has two images"
        seeds = [replace(rule, seed=seed) for seed in TRIED if rule.share]
        halves = [SplitRule(kind, f"{kind}:0.5", share="0.5") for kind in HALVES]
        raise DataError(
            f"{what}: nobody of the {tested:,} persons in the test {lacks} there, so no query would have an answer",
            hint=_working_rule(samples, [*seeds, *halves]),
        )
    return division


def _working_rule(samples: Samples, rules: Sequence[SplitRule]) -> str:
    """The first of some rules that gives persons to train on and queries, as a hint."""
    for rule in rules:
        is_train = _draw_train(samples, rule, "")
        counts = [len(np.unique(samples.person[rows])) for rows in (is_train, ~is_train)]
        if min(counts) >= FEWEST and _draw_test(samples, is_train, rule).is_query.any():
            return f"--split {rule.text}" + (f" --split-seed {rule.seed}" if rule.seed != SPLIT_SEED else "")
    return "add images: two or more persons with three images each, or more"


def _draw_train(samples: Samples, rule: SplitRule, what: str) -> Mask:
    if rule.kind == "persons":
        return draw_persons(samples.person, rule.share, seed=rule.seed)
    if rule.kind == "images":
        return draw_images(samples.name, samples.person, rule.share, seed=rule.seed)
    there = np.unique(samples.camera[samples.camera != UNKNOWN_CAMERA])
    if not len(there):
        raise DataError(f"{what}: no image has a camera", hint="--split persons:0.5")
    absent = sorted(set(rule.cameras) - set(there.tolist()))
    if absent:
        raise DataError(
            f"{what}: no image is from camera {name_some(absent)}; there are {name_some(there.tolist())}",
            hint=f"--split cameras:{there[0]}",
        )
    if rule.cameras:
        return np.isin(samples.camera, rule.cameras)
    return draw_cameras(samples.camera, rule.share, seed=rule.seed)


def _draw_test(samples: Samples, is_train: Mask, rule: SplitRule) -> _Division:
    tested = np.flatnonzero(~is_train)
    judged = tested if rule.kind == "cameras" else np.arange(len(samples))
    same_camera: SameCamera = "drop" if is_seen_twice(samples.person[judged], samples.camera[judged]) else "keep"
    test = samples.select(tested)
    is_query = np.zeros(len(samples), np.bool_)
    is_query[tested] = draw_queries(test.name, test.person, test.camera, seed=rule.seed, same_camera=same_camera)
    return _Division(is_train, is_query, same_camera)


def _divide_by_file(samples: Samples, rule: SplitRule) -> tuple[NDArray[np.uint8], PackSplit]:
    assert rule.path is not None
    role, digest = read_roles(rule.path, samples.name)
    queries, gallery = samples.select(role == QUERY), samples.select(role == GALLERY)
    unknown = [name for name, person in zip(queries.name, queries.person.tolist(), strict=True) if person <= 0]
    if unknown:
        raise DataError(
            f"{rule.path}: queries without a known person: {len(unknown):,} ({name_some(unknown)})",
            hint="leave these lines out",
        )
    cameras: dict[int, set[int]] = {}
    for person, camera in zip(gallery.person.tolist(), gallery.camera.tolist(), strict=True):
        cameras.setdefault(person, set()).add(camera)
    asked = [
        (cameras.get(person, set()), camera)
        for person, camera in zip(queries.person.tolist(), queries.camera.tolist(), strict=True)
    ]
    if asked and not any(seen for seen, _ in asked):
        raise DataError(
            f"{rule.path}: no image of the gallery shows the person of a query",
            hint="give some images of the persons who are searched for the role gallery",
        )
    answered = any(seen - {camera} for seen, camera in asked)
    return role, _summarize(samples, role, rule, "drop" if answered or not asked else "keep", digest=digest)


def _summarize(
    samples: Samples, role: NDArray[np.uint8], rule: SplitRule, same_camera: SameCamera, *, digest: str | None = None
) -> PackSplit:
    """What the record says of the roles that were given."""
    persons = {name: _persons(samples, role == code) for name, code in ROLE_CODES.items()}
    tested = persons["query"] | persons["gallery"]
    unlabelled = int((role == UNLABELLED).sum())
    has_camera = samples.camera != UNKNOWN_CAMERA
    return PackSplit(
        kind=rule.kind,
        rule=rule.text,
        seed=None if rule.kind == "file" else rule.seed,
        protocol="market1501" if same_camera == "drop" else "same-camera-allowed",
        closed_set=rule.kind in ("images", "cameras") and bool(persons["train"] & tested),
        images={name: int((role == code).sum()) for name, code in ROLE_CODES.items()}
        | ({"unlabelled": 0} if rule.kind == "file" else {}),
        persons={name: len(found) for name, found in persons.items() if name != "unlabelled"},
        shared=len(persons["train"] & tested),
        no_query=len(tested - persons["query"]),
        distractors=int(((role == GALLERY) & (samples.person == DISTRACTOR)).sum()),
        no_camera=int((~has_camera).sum()) if has_camera.any() else 0,
        left_out=unlabelled if rule.kind == "file" else 0,
        digest=digest,
    )


def _persons(samples: Samples, rows: Mask) -> set[int]:
    """The known persons of some images."""
    found = np.unique(samples.person[rows])
    return set(found[found > 0].tolist())
