"""How the images of a pack were divided into train, query and gallery, as its record says."""

from collections.abc import Mapping
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from lupctl.core.choices import Protocol, Role, SameCamera, SplitKind
from lupctl.core.errors import FormatError
from lupctl.core.system.examples import count_images_of, count_things

SPLIT_KEY: Final = "split"
HINT: Final = "make the pack again: lupctl data pack --force"


class PackSplit(BaseModel):
    """A split of labelled images without roles of their own.

    Args:
        kind: what is divided: persons, the images of each person, cameras, or as a file says.
        rule: as typed, persons:0.5; the path of a split file.
        seed: of what was drawn; None if nothing was.
        protocol: of an evaluation that names none: `same-camera-allowed` where nobody is seen by two cameras.
        closed_set: the persons of the test are trained on, as is meant by `images` and `cameras`.
        images: by role.
        persons: by role, without distractors.
        shared: persons who are in train and in the test.
        no_query: tested persons who are not among the queries, for lack of a second camera or image.
        distractors: images of person 0; in the gallery.
        no_camera: images without a camera where others have one; they count as one camera.
        left_out: images that a split file does not name.
        digest: SHA-256 of a split file.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: SplitKind
    rule: str
    seed: int | None
    protocol: Protocol
    closed_set: bool
    images: dict[Role, int]
    persons: dict[Role, int]
    shared: int = 0
    no_query: int = 0
    distractors: int = 0
    no_camera: int = 0
    left_out: int = 0
    digest: str | None = None


def read_split(facts: Mapping[str, Any]) -> PackSplit | None:
    """The split among the facts of a source, or in the record of features; None if the images were not split.

    Raises:
        FormatError: it is not one that this lupctl knows.
    """
    found = facts.get(SPLIT_KEY)
    if found is None:
        return None
    try:
        return PackSplit.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(key) for key in (SPLIT_KEY, *first["loc"]))
        raise FormatError(f"the record's {where} is not that of a split ({first['msg']})", hint=HINT) from error


def packed_split(record: Mapping[str, Any]) -> PackSplit | None:
    """The split that a pack's record names.

    Raises:
        FormatError: it is not one that this lupctl knows.
    """
    source = record.get("source")
    return read_split(source) if isinstance(source, Mapping) else None


def packed_same_camera(record: Mapping[str, Any]) -> SameCamera:
    """What an evaluation of a pack does with matches from the query's own camera unless it is asked for something else.

    Raises:
        FormatError: as `packed_split`.
    """
    split = packed_split(record)
    return "keep" if split is not None and split.protocol == "same-camera-allowed" else "drop"


def name_split(split: PackSplit) -> str:
    """The rule as typed, and the seed if something was drawn."""
    return split.rule if split.seed is None else f"{split.rule}, seed {split.seed}"


def describe_split(split: PackSplit) -> list[str]:
    """The split in a few lines: how many images each role has, and what a user may not expect."""
    (train, queries, gallery), (trained, asked, shown) = (
        [counts[role] for role in ("train", "query", "gallery")] for counts in (split.images, split.persons)
    )
    counts = (
        f"train {count_images_of(train, trained)}, "
        f"{count_things(queries, 'query', 'queries')} of {count_things(asked, 'person')}, "
        f"gallery {count_images_of(gallery, shown)}"
    )
    return [f"split {name_split(split)}: {counts}", *list_remarks(split)]


def list_remarks(split: PackSplit) -> list[str]:
    """What a user of the images may not expect, a line each."""
    return [line for count, line in _remarks(split) if count]


def _remarks(split: PackSplit) -> list[tuple[int | bool, str]]:
    alone = "one camera alone shows them" if split.protocol == "market1501" else "one image alone shows them"
    reason = "" if split.kind == "file" else f", as {alone} there"
    one_camera = f"nobody is seen by two cameras: matches from the query's own are right (protocol {split.protocol})"
    is_one_camera = split.protocol == "same-camera-allowed" and split.images["query"] > 0
    both = f"{count_things(split.shared, 'person')} in train and in the test"
    unlabelled = split.images["unlabelled"]
    return [
        (split.no_query, f"not searched for, only in the gallery: {count_things(split.no_query, 'person')}{reason}"),
        (is_one_camera, one_camera),
        (split.shared if split.closed_set else 0, f"a closed set by its split: {both}"),
        (0 if split.closed_set else split.shared, f"{both}: scores will be too high"),
        (split.distractors, f"distractors (person 0) in the gallery: {count_things(split.distractors, 'image')}"),
        (unlabelled, f"unlabelled, for lack of a person: {count_things(unlabelled, 'image')}"),
        (split.no_camera, f"without a camera, and counted as one camera: {count_things(split.no_camera, 'image')}"),
        (split.left_out, f"left out, as {split.rule} does not name them: {count_things(split.left_out, 'image')}"),
    ]
