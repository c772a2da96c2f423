"""One folder per person."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

from lupctl.core.choices import UNKNOWN_CAMERA, CameraRule, Role
from lupctl.core.data.sources.tree import ImageTree, build_samples
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.examples import name_some

ROLE_FOLDERS: Final[dict[str, Role]] = {"train": "train", "query": "query", "gallery": "gallery"}
NUMBER = re.compile(r"-1|\d{1,18}")
MARKET_CAMERA = re.compile(r"_(?:c|cam|camera)(\d{1,4})(?!\d)", re.IGNORECASE)
PREFIX_CAMERA = re.compile(r"(?:c|cam|camera)?(\d{1,4})_", re.IGNORECASE)
FOLDER_CAMERA = re.compile(r"(?:c|cam|camera)?[_-]?(\d{1,4})", re.IGNORECASE)
# What is taken for a camera without being asked: numbers without a `c` or `cam` are counters as often.
CAMERA_PREFIX = re.compile(r"(?:c|cam|camera)\d{1,4}_", re.IGNORECASE)
CAMERA_FOLDER = re.compile(r"(?:c|cam|camera)[_-]?\d{1,4}", re.IGNORECASE)
MARKED_RULES: Final[tuple[CameraRule, ...]] = ("folder", "prefix", "market")
CAMERA_EXAMPLES: Final[dict[CameraRule, str]] = {
    "none": "",
    "market": "0002_c3s1_000841.jpg",
    "prefix": "c3_000841.jpg or 3_000841.jpg",
    "folder": "person/3/000841.jpg or person/cam3/000841.jpg",
}


@dataclass(frozen=True)
class _Listing:
    """What is in a folder of persons.

    Args:
        samples: every image, sorted by (role, name).
        numbers: of each person, by the name of the folder.
        cameras: the rule that the cameras were found by.
        notes: what a user has to know about them.
    """

    samples: Samples
    numbers: dict[str, int]
    cameras: CameraRule
    notes: tuple[str, ...]


class PersonsSource:
    """A folder per person, or the folders train, query and gallery with a folder per person in each.

    If all folder names are numbers, they are kept (0 is read as a distractor, -1 as junk); otherwise persons are
    numbered from 1 in the sorted order of their folder names, across all roles, and the record has the names. Names
    that differ in case only are different persons.

    Args:
        root: the folder.
        dataset: the name to store in the pack.
        cameras: where the camera number is found: `none` (unknown), `market` (`_c3` in the file name), `prefix` (the
            file name begins with `c3_` or `3_`), `folder` (person/camera/image); None detects it, see `detect_cameras`.
        terms: terms of use, if known.
    """

    def __init__(self, root: Path, *, dataset: str, cameras: CameraRule | None = None, terms: str = "") -> None:
        self.root = root
        self.dataset = dataset
        self._wanted = cameras
        self._tree = ImageTree(root, layout="persons", terms=terms)

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        found = self._listing
        known: dict[str, object] = {"notes": list(found.notes)} if found.notes else {}
        if not all(NUMBER.fullmatch(folder) for folder in found.numbers):
            known["person_names"] = found.numbers
        return self._tree.facts(cameras=found.cameras, ignored=self._tree.scan.num_ignored, **known)

    @property
    def description(self) -> str:
        """Counts of persons, images and cameras, and how the cameras were found."""
        found = self._listing
        cameras = "cameras unknown"
        if found.cameras != "none":
            number = len(set(found.samples.camera.tolist()))
            cameras = f"{_count(number, 'camera')} (--cameras {found.cameras}, as in {found.samples.name[0]})"
        return f"{_count(len(found.numbers), 'person')}, {_count(len(found.samples), 'image')}, {cameras}"

    def list_images(self) -> Samples:
        """Every image, sorted by (role, name).

        Raises:
            DataError: no image, images outside a person's folder, or names without a camera.
        """
        return self._listing.samples

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return self._tree.read(name)

    @cached_property
    def _listing(self) -> _Listing:
        has_roles = self._has_roles()
        names = self._tree.scan.names
        depth = 1 if has_roles else 0
        parts = [name.split("/", depth + 1) for name in names]
        self._tree.refuse(
            [name for name, part in zip(names, parts, strict=True) if len(part) < depth + 2],
            "are in no person's folder",
            hint="use one folder per person, or pack without labels: --layout images",
        )
        detected = detect_cameras(part[depth + 1] for part in parts)
        rule = self._wanted or detected
        cameras = [find_camera(part[depth + 1], rule) for part in parts]
        self._tree.refuse(
            [name for name, camera in zip(names, cameras, strict=True) if camera is None],
            f"contain no camera, unlike {CAMERA_EXAMPLES[rule]} (--cameras {rule})",
            hint="use another --cameras: none, market, prefix or folder"
            if detected == "none"
            else f"--cameras {detected} finds one in every name",
        )
        known = [camera for camera in cameras if camera is not None]
        images = Counter(part[depth] for part in parts)
        numbers = self._number_persons(sorted(images))
        samples = build_samples(
            (ROLE_FOLDERS[part[0]] if has_roles else "train", name, numbers[part[depth]], camera)
            for name, part, camera in zip(names, parts, known, strict=True)
        )
        notes = [*_note_persons(images), *_note_cameras(rule, known, [part[depth + 1] for part in parts])]
        return _Listing(samples, numbers, rule, tuple(notes))

    def _has_roles(self) -> bool:
        tops = {name.partition("/")[0] for name in self._tree.scan.names}
        if tops.isdisjoint(ROLE_FOLDERS):
            return False
        self._tree.refuse(
            sorted(tops - set(ROLE_FOLDERS)),
            "are next to the folders train, query and gallery",
            hint="move them into one of the three, or out of the dataset",
        )
        return True

    def _number_persons(self, folders: list[str]) -> dict[str, int]:
        if not all(NUMBER.fullmatch(folder) for folder in folders):
            return {folder: number for number, folder in enumerate(folders, start=1)}
        numbers = {folder: int(folder) for folder in folders}
        if len(set(numbers.values())) < len(folders):
            twice = [folder for folder in folders if list(numbers.values()).count(numbers[folder]) > 1]
            self._tree.refuse(twice, "are the same number in different spellings", hint="rename the folders")
        return numbers


def detect_cameras(paths: Iterable[str]) -> CameraRule:
    """The rule that finds a camera in every path, or `none`; a number needs a `c` or `cam` to be taken for a camera.

    >>> detect_cameras(["c1_001.jpg", "cam2_007.jpg"]), detect_cameras(["0002_c3s1_000841.jpg"])
    ('prefix', 'market')
    >>> detect_cameras(["cam3/1.jpg", "cam4/1.jpg"]), detect_cameras(["1_001.jpg"]), detect_cameras([])
    ('folder', 'none', 'none')

    Args:
        paths: of images, relative to the folder of their person.
    """
    rules, is_empty = MARKED_RULES, True
    for path in paths:
        is_empty = False
        rules = tuple(rule for rule in rules if _is_marked(path, rule))
        if not rules:
            break
    return "none" if is_empty or not rules else rules[0]


def find_camera(path: str, rule: CameraRule) -> int | None:
    """The camera of an image, or None if the rule finds none.

    >>> find_camera("c3_000841.jpg", "prefix"), find_camera("3/000841.jpg", "folder"), find_camera("a.jpg", "market")
    (3, 3, None)

    Args:
        path: relative to the folder of its person.
        rule: where the camera is.
    """
    folder, slash, _ = path.partition("/")
    match rule:
        case "none":
            return UNKNOWN_CAMERA
        case "market":
            found = MARKET_CAMERA.search(path.rpartition("/")[2])
        case "prefix":
            found = PREFIX_CAMERA.match(path.rpartition("/")[2])
        case "folder":
            found = FOLDER_CAMERA.fullmatch(folder) if slash else None
    return int(found[1]) if found else None


def find_alike(names: Iterable[str]) -> list[str]:
    """The names that differ in case only, those of one spelling together.

    >>> find_alike(["ana", "Ben", "Ana"])
    ['Ana and ana']
    """
    spellings: dict[str, list[str]] = {}
    for name in sorted(names):
        spellings.setdefault(name.casefold(), []).append(name)
    return [" and ".join(same) for same in spellings.values() if len(same) > 1]


def _is_marked(path: str, rule: CameraRule) -> bool:
    folder, slash, _ = path.partition("/")
    file = path.rpartition("/")[2]
    match rule:
        case "folder":
            return bool(slash) and CAMERA_FOLDER.fullmatch(folder) is not None
        case "prefix":
            return CAMERA_PREFIX.match(file) is not None
        case "market":
            return MARKET_CAMERA.search(file) is not None
        case "none":
            return False


def _note_persons(images: Counter[str]) -> list[str]:
    """What a user has to know about the persons, from the number of images of each."""
    notes = []
    alike = find_alike(images)
    if alike:
        notes.append(f"names that differ in case only are different persons: {name_some(alike)}")
    if len(images) == 1:
        notes.append("a single person; training and scores need two or more")
    single = [folder for folder, count in images.items() if count == 1]
    if len(single) == len(images) > 1:
        notes.append("every person has a single image; training and scores need two or more")
    elif single and len(images) > 1:
        notes.append(f"{len(single):,} of {len(images):,} persons have a single image: {name_some(sorted(single))}")
    return notes


def _note_cameras(rule: CameraRule, cameras: Sequence[int], paths: Sequence[str]) -> list[str]:
    """What a user has to know about the cameras that were found, or not."""
    if rule != "none":
        one = len(set(cameras)) == 1
        what = f"every image is of camera {cameras[0]}; right answers are of another one unless --same-camera keep"
        return [what] if one else []
    notes = []
    for other in MARKED_RULES:
        marked = sum(_is_marked(path, other) for path in paths)
        if 2 * marked > len(paths):
            notes.append(
                f"{marked:,} of {len(paths):,} images name a camera, as in {CAMERA_EXAMPLES[other]}, and the others do "
                f"not, so cameras are unknown; --cameras {other} lists them"
            )
    return notes


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"
