"""Small videos in which drawn persons stand for a while, and their boxes."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from tests.tools.tiny.images import draw_tiny
from tests.tools.tiny.videos import write_mot

RATE = 10
HEIGHT, WIDTH = 96, 160
PERSON_HEIGHT, PERSON_WIDTH = 64, 32


@dataclass(frozen=True)
class Stay:
    """A person in the frames from `first` to `last`, counted from 1, in one of five lanes from left to right."""

    person: int
    first: int
    last: int
    lane: int

    @property
    def left(self) -> int:
        return 32 * self.lane


def write_footage(path: Path, stays: Iterable[Stay], *, frames: int = 60) -> Path:
    """A video, ten frames a second; a person looks like `draw_tiny` of its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), RATE, (WIDTH, HEIGHT))
    seen = list(stays)
    for number in range(1, frames + 1):
        frame = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
        for stay in seen:
            if stay.first <= number <= stay.last:
                frame[16 : 16 + PERSON_HEIGHT, stay.left : stay.left + PERSON_WIDTH] = draw_tiny(
                    stay.person, PERSON_HEIGHT, PERSON_WIDTH
                )
        writer.write(frame)
    writer.release()
    return path


def write_stays(path: Path, stays: Iterable[Stay], *, has_numbers: bool = True) -> Path:
    """The boxes in MOTChallenge's text; without numbers every id is -1."""
    rows = [(frame, stay) for stay in stays for frame in range(stay.first, stay.last + 1)]
    box = [
        (frame, (float(stay.left), 16.0, float(stay.left + PERSON_WIDTH), 16.0 + PERSON_HEIGHT)) for frame, stay in rows
    ]
    return write_mot(path, box, persons=[stay.person if has_numbers else -1 for _, stay in rows])


def write_person(path: Path, person: int, *, quality: int = 90) -> Path:
    """A picture of a person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), draw_tiny(person, PERSON_HEIGHT, PERSON_WIDTH), [cv2.IMWRITE_JPEG_QUALITY, quality])
    return path
