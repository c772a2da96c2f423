"""The rows that a network with a table of cameras is given for images from Python."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lupctl.core.errors import UsageError
from lupctl.core.ranking.retrieval.cameras import CameraTable
from lupctl.core.system.examples import count_things, name_some
from lupctl.core.training.nets.vit.side import NO_ROW

# Numbers of the dataset that the network was trained on, or `dataset/number` if those were several; for all images, or
# one for each. None and -1 are an unknown camera.
Camera = int | str | np.integer[Any] | None
Cameras = Camera | Sequence[Camera]


def choose_camera_rows(table: CameraTable | None, cameras: Cameras, *, network: str) -> int | list[int]:
    """The row of all images, or that of each one.

    Args:
        table: of the network.
        cameras: of all images, or of each one; `none` for no camera's row at all.
        network: for errors.

    Raises:
        UsageError: the network takes no cameras, or has not this one.
    """
    if table is None:
        if cameras is not None:
            raise UsageError(f"cameras={cameras!r}: {network} takes no cameras", hint="leave cameras out")
        return 0
    if isinstance(cameras, str) or not isinstance(cameras, Iterable):
        return _find_row(table, cameras, network)
    return [_find_row(table, camera, network) for camera in cameras]


def _find_row(table: CameraTable, camera: Camera, network: str) -> int:
    if camera is None or camera == -1:
        return table.unknown_row
    if camera == "none":
        return NO_ROW
    for row, name in enumerate(table.cameras):
        if str(name) == str(camera):
            return row
    known = f"it has {name_some(table.cameras)}" if table.cameras else "the names of its cameras are not known"
    raise UsageError(
        f"cameras: {network} has no camera {camera!r} among {count_things(table.rows, 'row')}; {known}",
        hint="cameras=None is an unknown camera",
    )
