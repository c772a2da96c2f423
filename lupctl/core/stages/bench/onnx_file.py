"""A network in ONNX or OpenVINO's format as a contender: one that lupctl exported, or one of another program."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import Runtime
from lupctl.core.errors import FormatError, UsageError
from lupctl.core.formats.weights.onnx import CAMERAS, RECORD_KEY, parse_record
from lupctl.core.formats.weights.runtimes.images import ImageInput, find_image_input, find_output
from lupctl.core.formats.weights.runtimes.open import exported_fingerprint, network_fingerprint, open_session
from lupctl.core.formats.weights.runtimes.session import Session
from lupctl.core.ranking.retrieval.onnx.open import TITLES
from lupctl.core.stages.bench.graph import count_flops, count_weights
from lupctl.core.stages.bench.model import Subject
from lupctl.core.stages.bench.openvino_graph import count_openvino_flops, count_openvino_weights

SEED: Final = 0


class OnnxRunner:
    """A network in ONNX or OpenVINO's format that a runtime runs in one thread.

    Args:
        path: the file.
        size: of its images, where it takes any.
        runtime: what runs it.
    """

    def __init__(self, path: Path, size: tuple[int, int], runtime: Runtime) -> None:
        self._path, self._size, self._session = path, size, open_session(path, runtime=runtime)
        self._images, self._has_cameras = read_inputs(self._session, path)
        find_output(self._session, path)

    @property
    def only(self) -> int | None:
        """The one number of images that it takes."""
        return self._images.batch

    def prepare(self, batch: int) -> Callable[[], object]:
        """A pass over random images of its own type and layout."""
        given = draw_inputs(self._images, batch, self._size, has_cameras=self._has_cameras)

        def embed() -> object:
            try:
                return self._session.run(given)
            except Exception as error:  # the runtimes' own classes have no other base
                raise FormatError(
                    f"{self._path}: does not run on {batch} images of {self._size[0]} x {self._size[1]} "
                    f"({' '.join(str(error).split())})",
                    hint="try another --batch or --pixels, or export it with any number of images",
                ) from error

        return embed


def describe_onnx(name: str, path: Path, pixels: tuple[int, int] | None) -> Subject:
    """The network of an ONNX file, or of one in OpenVINO's format.

    Args:
        name: as the user typed it.
        path: the file.
        pixels: height and width of its images, for files that do not say.

    Raises:
        UsageError: the extra is missing, or the size is, or another one is in the file.
        DataError, FormatError: it cannot be opened.
    """
    session = open_session(path)
    images, has_cameras = read_inputs(session, path)
    height, width = pick_size(path, images, pixels)
    text = session.metadata.get(RECORD_KEY)
    count, title = images.batch or 1, TITLES[session.runtime]
    given = draw_inputs(images, count, (height, width), has_cameras=has_cameras)
    if session.runtime == "openvino":
        found = count_openvino_flops(path, {name: values.shape for name, values in given.items()})
        parameters = count_openvino_weights(path)
    else:
        found, parameters = count_flops(path, given), count_weights(path)
    return Subject(
        name=name,
        path=path,
        fingerprint=network_fingerprint(path) if text is None else _read_fingerprint(path, text),
        description=f"{title if text is None else 'exported'} network ({images})",
        height=height,
        width=width,
        parameters=parameters,
        flops=None if found is None else found // count,
    )


def read_inputs(session: Session, path: Path) -> tuple[ImageInput, bool]:
    """The input for images, and whether there is one for rows of cameras, as in networks that lupctl exports so."""
    is_own = RECORD_KEY in session.metadata
    has_cameras = is_own and CAMERAS in [one.name for one in session.inputs]
    return find_image_input(session, path, others=(CAMERAS,) if has_cameras else ()), has_cameras


def pick_size(path: Path, images: ImageInput, pixels: tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of a network's images.

    Raises:
        UsageError: they are not known, or others than the file says.
    """
    own = images.height, images.width
    height, width = pixels or own
    if any(side not in (None, given) for side, given in zip(own, (height, width), strict=True)):
        taken = "x".join(str(side or "any") for side in own)
        raise UsageError(f"{path}: takes images of {taken}, not of {height}x{width}", hint="leave --pixels out")
    if height is None or width is None:
        raise UsageError(f"{path}: takes images of any size", hint="--pixels 256x128, height by width")
    return height, width


def draw_inputs(images: ImageInput, batch: int, size: tuple[int, int], *, has_cameras: bool) -> dict[str, NDArray[Any]]:
    """Random pixels in the type and layout of an input, grey levels of uint8, else numbers around 0; first cameras."""
    shape = (batch, 3, *size) if images.layout == "NCHW" else (batch, *size, 3)
    random = np.random.default_rng(SEED)
    pixels: NDArray[Any] = (
        random.integers(0, 256, shape, dtype=np.uint8)
        if images.kind == "uint8"
        else random.standard_normal(shape, dtype=np.float32).astype(images.kind, copy=False)
    )
    return {images.name: pixels} | ({CAMERAS: np.zeros(batch, np.int64)} if has_cameras else {})


def _read_fingerprint(path: Path, text: str) -> str:
    """The fingerprint of an exported network: that of its checkpoint, in int8 its own."""
    record = parse_record(text, path)
    try:
        return exported_fingerprint(record, path)
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: lupctl's record is damaged", hint="export it again: lupctl model export") from error
