"""Drawn persons: a dataset that needs no download and looks like a re-identification problem."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES, SYNTHETIC, UNKNOWN_CAMERA, Role
from lupctl.core.data.drawing.chance import PRESENCE, Chance
from lupctl.core.data.drawing.shot import Shot, draw_parts, draw_shot
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.strings import build_column

JPEG_QUALITY = 95
# Disjoint sets of people.
LABELLED, UNLABELLED, STRANGERS = range(3)
# Scenes of the unlabelled part are numbered from here, so that it shares no camera with the labelled part.
FIRST_UNLABELLED_SCENE = 1000


@dataclass(frozen=True)
class SyntheticPlan:
    """What to draw. Same plan, same bytes; the parts do not influence each other's pixels.

    Args:
        seed: any number from 0; another seed draws other persons in other scenes.
        unlabelled_persons: number of persons without a label, each in one scene.
        unlabelled_shots: maximum number of images of such a person; the minimum is 2.
        scenes: number of scenes that the unlabelled persons are spread over.
        train_persons: number of training persons, numbered from 1.
        test_persons: numbered after the training persons; one query per person and camera, the rest is gallery.
        cameras: number of cameras of the labelled part; with more than 2, a person is missing from some.
        shots: number of images per labelled person and camera.
        distractors: number of gallery images of people who appear in no query (person 0).
        junk: number of gallery images of bad boxes (person -1).
        height: of each image in pixels.
        width: of each image in pixels.
        effects: scenes, views, light and camera faults; without them a person always looks nearly the same.

    Raises:
        UsageError: a number is out of range, or a query could have no right answer.
    """

    seed: int = 0
    unlabelled_persons: int = 0
    unlabelled_shots: int = 4
    scenes: int = 32
    train_persons: int = 0
    test_persons: int = 0
    cameras: int = 6
    shots: int = 3
    distractors: int = 0
    junk: int = 0
    height: int = 128
    width: int = 64
    effects: bool = True

    def __post_init__(self) -> None:
        least = {"unlabelled_shots": 2, "scenes": 1, "cameras": 1, "shots": 1, "height": 32, "width": 16}
        if self.test_persons > 0:
            least |= {"cameras": 2, "shots": 2}
        for key, value in asdict(self).items():
            if value < least.get(key, 0):
                raise UsageError(
                    f"synthetic plan: {key} is {value}, expected {least.get(key, 0)} or more",
                    hint=f"set {key}={least.get(key, 0)}",
                )


@dataclass(frozen=True)
class _Entry:
    role: Role
    name: str
    person: int
    camera: int
    shot: Shot


class SyntheticSource:
    """The images of a plan, drawn when they are read.

    Args:
        plan: what to draw.
        dataset: the name to store in the pack.
    """

    def __init__(self, plan: SyntheticPlan, *, dataset: str = SYNTHETIC) -> None:
        self.plan = plan
        self._dataset = dataset

    @property
    def dataset(self) -> str:
        """The name to store in the pack."""
        return self._dataset

    @property
    def facts(self) -> dict[str, object]:
        """The plan, for the pack's record."""
        return {"layout": "synthetic", "plan": asdict(self.plan), "terms": "drawn by lupctl; free to use"}

    def list_images(self) -> Samples:
        """Every image of the plan, sorted by (role, name); nothing is drawn."""
        entries = list(self._entries.values())
        return Samples(
            name=build_column(entry.name for entry in entries),
            person=np.array([entry.person for entry in entries], np.int64),
            camera=np.array([entry.camera for entry in entries], np.int16),
            role=np.array([ROLE_CODES[entry.role] for entry in entries], np.uint8),
        )

    def read(self, name: str) -> bytes:
        """The JPEG with a given name, drawn now and independently of every other.

        Raises:
            DataError: the plan contains no such image.
        """
        plan = self.plan
        pixels = draw_shot(self._find(name).shot, height=plan.height, width=plan.width, effects=plan.effects)
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1].tobytes()

    def read_parts(self, name: str) -> NDArray[np.uint8]:
        """The body part that each pixel of an image shows, (H, W): 0 background, 1 upper body, 2 lower body, 3 shoes.

        Raises:
            DataError: the plan contains no such image.
        """
        plan = self.plan
        return draw_parts(self._find(name).shot, height=plan.height, width=plan.width, effects=plan.effects)

    def _find(self, name: str) -> _Entry:
        entry = self._entries.get(name)
        if entry is None:
            raise DataError(
                f"{self.dataset}: the plan contains no image {name!r}", hint="use a name that list_images() gives"
            )
        return entry

    @cached_property
    def _entries(self) -> dict[str, _Entry]:
        entries = [*_list_unlabelled(self.plan), *_list_labelled(self.plan)]
        entries.sort(key=lambda entry: (ROLE_CODES[entry.role], entry.name))
        return {entry.name: entry for entry in entries}


def _list_unlabelled(plan: SyntheticPlan) -> Iterator[_Entry]:
    for person in range(plan.unlabelled_persons):
        chance = Chance(plan.seed, PRESENCE, UNLABELLED, person)
        scene, shots = person % plan.scenes, chance.integer(2, plan.unlabelled_shots + 1)
        for index in range(shots):
            yield _Entry(
                role="unlabelled",
                name=f"scene{scene:02d}/{person // plan.scenes:06d}_{index + 1}.jpg",
                person=JUNK,
                camera=UNKNOWN_CAMERA,
                shot=Shot(plan.seed, UNLABELLED, person, FIRST_UNLABELLED_SCENE + scene, index),
            )


def _list_labelled(plan: SyntheticPlan) -> Iterator[_Entry]:
    clock: Counter[int] = Counter()  # frames per camera, so that names are unique and in order of appearance
    for person in range(1, plan.train_persons + plan.test_persons + 1):
        is_train = person <= plan.train_persons
        for camera in _cameras_of(plan, person):
            clock[camera] += 25
            for index in range(plan.shots):
                role: Role = "train" if is_train else "query" if index == 0 else "gallery"
                shot = Shot(plan.seed, LABELLED, person, camera, index)
                yield _market_entry(role, person, camera, clock[camera] + 8 * index, shot)
            clock[camera] += 8 * plan.shots
    for number in range(plan.distractors + plan.junk):
        is_junk = number >= plan.distractors
        camera = 1 + number % plan.cameras
        clock[camera] += 25
        shot = Shot(plan.seed, STRANGERS, number, camera, 0, is_junk)
        yield _market_entry("gallery", JUNK if is_junk else DISTRACTOR, camera, clock[camera], shot)


def _cameras_of(plan: SyntheticPlan, person: int) -> list[int]:
    """The cameras that saw a labelled person: all but about one in eight, but at least two if there are two."""
    chance = Chance(plan.seed, PRESENCE, LABELLED, person)
    order = sorted(range(1, plan.cameras + 1), key=lambda _: chance.unit())
    return sorted(order[:2] + [camera for camera in order[2:] if chance.bernoulli(0.875)])


def _market_entry(role: Role, person: int, camera: int, frame: int, shot: Shot) -> _Entry:
    folder = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}[role]
    number = "-1" if person == JUNK else f"{person:04d}"
    box = 0 if role == "query" else 1  # as published: queries end in _00, drawn boxes count from 1
    return _Entry(role, f"{folder}/{number}_c{camera}s1_{frame:06d}_{box:02d}.jpg", person, camera, shot)
