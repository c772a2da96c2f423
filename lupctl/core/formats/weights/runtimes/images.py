"""What a network's file takes and gives: one input for images, one output for features."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.runtimes.session import Port, Session
from lupctl.core.system.examples import name_some

Layout = Literal["NCHW", "NHWC"]
ImageType = Literal["uint8", "float16", "float32"]
IMAGE_TYPES: Final[tuple[ImageType, ...]] = ("uint8", "float16", "float32")


@dataclass(frozen=True)
class ImageInput:
    """The input of a network for images.

    Args:
        name: of the input.
        layout: the order of its axes.
        kind: of its numbers.
        batch: images that it always takes; None for any number.
        height, width: that it always takes; None for any.
    """

    name: str
    layout: Layout
    kind: ImageType
    batch: int | None
    height: int | None
    width: int | None

    def __str__(self) -> str:
        """In words.

        >>> str(ImageInput("input", "NCHW", "float32", None, 256, 128))
        'input: float32, N x 3 x 256 x 128'
        """
        sides = [str(side or letter) for side, letter in ((self.height, "H"), (self.width, "W"))]
        axes = [str(self.batch or "N"), *(["3", *sides] if self.layout == "NCHW" else [*sides, "3"])]
        return f"{self.name}: {self.kind}, {' x '.join(axes)}"


def find_image_input(session: Session, path: Path, *, others: Sequence[str] = ()) -> ImageInput:
    """The one input of a network, which must be images.

    Args:
        session: of the network.
        path: of its file, for errors.
        others: names of inputs that may be there besides.

    Raises:
        FormatError: it has none, or another input.
    """
    inputs = [one for one in session.inputs if one.name not in others]
    listed = name_some(map(str, inputs))
    found = [image for one in inputs if (image := _read_input(one)) is not None]
    if len(inputs) != 1 or len(found) != 1:
        raise FormatError(
            f"{path}: {'no inputs' if not inputs else f'its inputs are {listed}'}; one input for RGB images was "
            "expected, (N, 3, H, W) or (N, H, W, 3) of uint8, float16 or float32",
            hint="export the network that makes the features alone, with images as its input",
        )
    return found[0]


def _read_input(one: Port) -> ImageInput | None:
    """An input of a network, if it is one for images."""
    kind = next((kind for kind in IMAGE_TYPES if kind == one.kind), None)
    if kind is None or one.shape is None or len(one.shape) != 4:
        return None
    batch, *sides = (side if isinstance(side, int) else None for side in one.shape)
    if sides[0] == 3:
        return ImageInput(one.name, "NCHW", kind, batch, sides[1], sides[2])
    if sides[2] == 3:
        return ImageInput(one.name, "NHWC", kind, batch, sides[0], sides[1])
    return None


def find_output(session: Session, path: Path) -> str:
    """The name of a network's one output.

    Raises:
        FormatError: it has several.
    """
    names = [one.name for one in session.outputs]
    if len(names) != 1:
        raise FormatError(
            f"{path}: its outputs are {name_some(names)}; one was expected, the feature",
            hint="export the network that makes the features alone",
        )
    return names[0]
