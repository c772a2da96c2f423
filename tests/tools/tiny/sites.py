"""Small packs of crops from videos, as `data build` makes them."""

from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from lupctl.core.choices import Role
from lupctl.core.formats.pack.crops import CropFacts
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from tests.tools.tiny.images import draw_tiny

# Five people in a hall; the first two leave before the last comes.
PERSONS = {1: range(12), 2: range(3, 15), 3: range(6, 24), 4: range(9, 27), 5: range(18, 30)}


def write_site(path: Path, *, is_linked: bool = True, frames: int = 30, persons: Iterable[int] = PERSONS) -> Path:
    """A pack of the crops of some people from one video, each moment a little different.

    Args:
        path: the pack.
        is_linked: whether crops have the numbers of tracklets.
        frames: how many of the video.
        persons: who was there.
    """
    rows = []
    for frame in range(frames):
        for person in [one for one in persons if frame in PERSONS[one]]:
            noise = np.random.default_rng([frame, person]).integers(-25, 26, (32, 16, 3))
            pixels = np.clip(draw_tiny(person).astype(int) + noise, 0, 255).astype(np.uint8)
            encoded = cv2.imencode(".png", pixels)[1].tobytes()
            crop = CropFacts(frame, 1, 1.0, (0.0, 0.0, 16.0, 32.0))
            number = person if is_linked else -1
            role: Role = "train" if is_linked else "unlabelled"
            name = f"hall/{frame:08d}_{person:04d}.png"
            rows.append(PackedImage(encoded, 32, 16, name, person=number, camera=1, role=role, crop=crop))
    return write_pack(path, rows, dataset=path.stem)
