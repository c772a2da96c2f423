"""ONNX networks from anywhere: what a file takes and gives, and a session that runs it.

onnx and onnxruntime are an extra; they are imported where they are used.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.weights.onnx import ERRORS_ONLY, check_packages
from lupctl.core.system.examples import name_some

Layout = Literal["NCHW", "NHWC"]
ImageType = Literal["uint8", "float16", "float32"]
# Types of images as onnxruntime calls them.
IMAGE_TYPES: Final[dict[str, ImageType]] = {
    "tensor(uint8)": "uint8", "tensor(float16)": "float16", "tensor(float)": "float32",
}  # fmt: skip
HINT: Final = "check it: python -c \"import onnx; onnx.checker.check_model('FILE.onnx')\""
# What onnxruntime says of an operator that it does not have.
UNKNOWN_OPERATOR: Final = re.compile(r"implementation for (\S+?)\(\d+\)|error: (\S+?)\(-?\d+\) is not a registered")


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


def open_session(path: Path) -> Any:
    """An `onnxruntime.InferenceSession` on the CPU whose runs stay in the thread that calls them.

    Raises:
        UsageError: the extra is missing.
        DataError: there is no such file, or it keeps weights outside of its folder.
        FormatError: it is no ONNX file, is damaged, or has an operator that onnxruntime lacks.
    """
    check_packages(("onnx", "onnxruntime"))
    import onnxruntime

    check_external(path)
    options = onnxruntime.SessionOptions()
    # Passes run side by side, each in one thread; so the features are the same however many cores there are.
    options.log_severity_level, options.intra_op_num_threads = ERRORS_ONLY, 1
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own classes have no other base
        reason = " ".join(str(error).split())
        named = UNKNOWN_OPERATOR.search(reason)
        what = f"lacks its operator {named[1] or named[2]}" if named else "cannot run it"
        raise FormatError(f"{path}: onnxruntime {what} ({reason})", hint=HINT) from error


def check_external(path: Path) -> None:
    """Refuses weights that are kept in files outside of the model's folder.

    Raises:
        DataError: there is no such file, or there are such weights.
        FormatError: it is no ONNX file.
    """
    import onnx
    from google.protobuf.message import DecodeError

    if not path.is_file():
        raise DataError(f"{path}: there is no such file; an ONNX network was expected", hint=f"ls {path.parent}")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise FormatError(f"{path}: not a complete ONNX file", hint=HINT) from error
    if not model.graph.node:
        raise FormatError(f"{path}: not a complete ONNX file", hint=HINT)
    folder = path.resolve().parent
    for tensor in _each_tensor(model.graph):
        for name in (entry.value for entry in tensor.external_data if entry.key == "location"):
            place = (folder / name).resolve()
            if not place.is_relative_to(folder):
                raise DataError(f"{path}: keeps weights in {name}, outside of its folder", hint="export it in one file")
            if not place.is_file():
                raise DataError(f"{path}: keeps weights in {name}, and there is no such file", hint=f"ls {folder}")


def _each_tensor(graph: Any) -> Iterator[Any]:
    """The constants of a graph, of its nodes and of the graphs in them."""
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield attribute.t
            yield from attribute.tensors
            for inner in (attribute.g, *attribute.graphs):
                if inner.node or inner.initializer:
                    yield from _each_tensor(inner)


def find_image_input(session: Any, path: Path, *, others: Sequence[str] = ()) -> ImageInput:
    """The one input of a network, which must be images.

    Args:
        session: of the network.
        path: of its file, for errors.
        others: names of inputs that may be there besides.

    Raises:
        FormatError: it has none, or another input.
    """
    inputs = [one for one in session.get_inputs() if one.name not in others]
    listed = name_some(f"{one.name} {one.type[7:-1]} {_describe_shape(one.shape)}" for one in inputs)
    found = [image for one in inputs if (image := _read_input(one)) is not None]
    if len(inputs) != 1 or len(found) != 1:
        raise FormatError(
            f"{path}: {'no inputs' if not inputs else f'its inputs are {listed}'}; one input for RGB images was "
            "expected, (N, 3, H, W) or (N, H, W, 3) of uint8, float16 or float32",
            hint="export the network that makes the features alone, with images as its input",
        )
    return found[0]


def _read_input(one: Any) -> ImageInput | None:
    """An input of a network, if it is one for images."""
    if one.type not in IMAGE_TYPES or len(one.shape) != 4:
        return None
    batch, *sides = (side if isinstance(side, int) and side > 0 else None for side in one.shape)
    kind = IMAGE_TYPES[one.type]
    if sides[0] == 3:
        return ImageInput(one.name, "NCHW", kind, batch, sides[1], sides[2])
    if sides[2] == 3:
        return ImageInput(one.name, "NHWC", kind, batch, sides[0], sides[1])
    return None


def _describe_shape(shape: Sequence[Any]) -> str:
    return f"({', '.join(str(side) if side is not None else '?' for side in shape)})"


def find_output(session: Any, path: Path) -> str:
    """The name of a network's one output.

    Raises:
        FormatError: it has several.
    """
    names = [one.name for one in session.get_outputs()]
    if len(names) != 1:
        raise FormatError(
            f"{path}: its outputs are {name_some(names)}; one was expected, the feature",
            hint="export the network that makes the features alone",
        )
    return str(names[0])
