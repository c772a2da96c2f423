"""Opening networks in ONNX or OpenVINO's format: those that lupctl exported, and those of other programs."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import torch

from lupctl.core.choices import Interpolation, Runtime
from lupctl.core.errors import FormatError, UsageError
from lupctl.core.formats.weights.header import Preprocessing
from lupctl.core.formats.weights.onnx import CAMERAS, ONNX_FORMAT, RECORD_KEY, parse_record
from lupctl.core.formats.weights.runtimes.images import ImageInput, find_image_input, find_output
from lupctl.core.formats.weights.runtimes.open import exported_fingerprint, network_fingerprint, open_session
from lupctl.core.formats.weights.runtimes.session import Session
from lupctl.core.formats.weights.settings import MOST_PIXELS, SIZE_RULE
from lupctl.core.ranking.retrieval.cameras import CameraTable
from lupctl.core.ranking.retrieval.onnx.encoder import OnnxEncoder
from lupctl.core.recipes.sections import IMAGENET_MEAN, IMAGENET_STD, Colour
from lupctl.core.training.views.plan import ViewPlan

# Constants of a view that changes nothing: those of the network are inside its file.
NO_MEAN: Final[Colour] = (0.0, 0.0, 0.0)
NO_STD: Final[Colour] = (1.0, 1.0, 1.0)
IMAGENET: Final = "imagenet"
TITLES: Final[dict[Runtime, str]] = {"onnxruntime": "ONNX", "openvino": "OpenVINO"}


@dataclass(frozen=True)
class ForeignPixels:
    """What a file of another program does not say of its images; None where nothing was said.

    Args:
        size: height and width.
        mean, std: of RGB in [0, 1]; subtracted and divided by.
        interpolation: filter of the resize.
        is_typed: whether it is options of a command, for the hints of errors.
    """

    size: tuple[int, int] | None = None
    mean: Colour | None = None
    std: Colour | None = None
    interpolation: Interpolation | None = None
    is_typed: bool = field(default=False, compare=False)

    def write(self, name: str, value: str) -> str:
        """How a value is given.

        >>> ForeignPixels().write("pixels", "256x128"), ForeignPixels(is_typed=True).write("pixels", "256x128")
        ("pixels='256x128'", '--pixels 256x128')
        """
        return f"--{name} {value}" if self.is_typed else f"{name}={value!r}"

    def refuse(self, reason: str) -> None:
        """Refuses to be told what a network says itself.

        Raises:
            UsageError: something was told, which the reason is against.
        """
        if self != ForeignPixels():
            words = [f"--{name}" if self.is_typed else name for name in ("pixels", "mean", "std", "interpolation")]
            raise UsageError(reason, hint=f"leave out {', '.join(words[:-1])} and {words[-1]}")


@dataclass(frozen=True)
class OnnxNetwork:
    """An ONNX network that is open.

    Args:
        encoder: gives its features.
        fingerprint: of the checkpoint that it was exported from, else of the file and of how its images are prepared.
        dimension: of a feature.
        trained_on: datasets, as far as they are known.
        description: in words.
        is_unit: whether features have length 1 as they come.
    """

    encoder: OnnxEncoder
    fingerprint: str
    dimension: int
    trained_on: tuple[str, ...]
    description: str
    is_unit: bool = False


def parse_foreign(
    size: str | Sequence[int] | None,
    mean: str | Sequence[float] | None,
    std: str | Sequence[float] | None,
    interpolation: Interpolation | None,
    *,
    is_typed: bool = False,
) -> ForeignPixels:
    """What is said of a foreign network's images, from the words of a command line or the values of a program.

    Args:
        size: `256x128`, or height and width.
        mean, std: `imagenet`, three numbers with commas between them, or these numbers.
        interpolation: of the resize.
        is_typed: whether they are options of a command.

    Raises:
        UsageError: something else.
    """
    if interpolation not in (None, *get_args(Interpolation)):
        raise UsageError(
            f"interpolation {interpolation}: {' or '.join(get_args(Interpolation))} was expected", hint="write bilinear"
        )
    return ForeignPixels(
        None if size is None else _parse_size(size),
        None if mean is None else _parse_colour(mean, IMAGENET_MEAN, "mean"),
        None if std is None else _parse_colour(std, IMAGENET_STD, "std"),
        interpolation,
        is_typed,
    )


def open_onnx(path: Path, foreign: ForeignPixels, *, runtime: Runtime | None = None) -> OnnxNetwork:
    """A network in ONNX or OpenVINO's format, tried on two images.

    Args:
        path: the file.
        foreign: how images are prepared for a network of another program.
        runtime: what runs it; None for that of its format.

    Raises:
        UsageError: the extra is missing; or the preparation is missing, is not the file's, or is the file's own.
        DataError: there is no such file, or it keeps weights outside of its folder.
        FormatError: it is damaged, has other inputs or outputs, or an operator that the runtime lacks.
    """
    session = open_session(path, runtime=runtime, side_by_side=torch.get_num_threads())
    text = session.metadata.get(RECORD_KEY)
    if text is not None:
        return _open_own(path, session, parse_record(text, path), foreign)
    images, _ = find_image_input(session, path), find_output(session, path)
    (height, width), (mean, std) = _pick_size(path, images, foreign), _pick_constants(path, images, foreign)
    filter_ = foreign.interpolation or "bilinear"
    encoder = OnnxEncoder(session, images, ViewPlan(height, width, NO_MEAN, NO_STD, filter_), mean, std)
    return OnnxNetwork(
        encoder=encoder,
        fingerprint=_fingerprint(path, [height, width, mean, std, filter_]),
        dimension=_try(path, encoder),
        trained_on=(),
        description=f"{TITLES[session.runtime]} network ({images})",
    )


def foreign_fingerprint(path: Path, pixels: Preprocessing) -> str:
    """The fingerprint that a file of another program has, with its images prepared as a record of features says."""
    return _fingerprint(path, [pixels.height, pixels.width, pixels.mean, pixels.std, pixels.interpolation])


def _fingerprint(path: Path, pixels: Sequence[object]) -> str:
    story = json.dumps([network_fingerprint(path), *pixels])
    return f"sha256:{hashlib.sha256(story.encode()).hexdigest()}"


def _open_own(path: Path, session: Session, record: Mapping[str, Any], foreign: ForeignPixels) -> OnnxNetwork:
    """A network that `model export` wrote; its record says everything."""
    foreign.refuse(f"{path}: its own record says how images are prepared")
    try:
        pixels = Preprocessing.model_validate_json(json.dumps(record["preprocessing"]))
        table, is_unit = _read_table(record), record["features"]["length"] == 1
        precision = str(record.get("precision", "float32"))
        fingerprint = exported_fingerprint(record, path)
        trained_on = tuple(str(pack["dataset"]) for pack in record["data"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:  # pydantic's is a ValueError
        raise FormatError(f"{path}: lupctl's record is damaged", hint="export it again: lupctl model export") from error
    images, _ = find_image_input(session, path, others=() if table is None else (CAMERAS,)), find_output(session, path)
    view = ViewPlan(pixels.height, pixels.width, NO_MEAN, NO_STD, pixels.interpolation)
    mean, std = (NO_MEAN, NO_STD) if images.kind == "uint8" else (pixels.mean, pixels.std)
    encoder = OnnxEncoder(session, images, view, mean, std, table)
    kind = "" if precision == "float32" else f", {precision}"
    return OnnxNetwork(
        encoder=encoder,
        fingerprint=fingerprint,
        dimension=_try(path, encoder),
        trained_on=trained_on,
        description=f"exported network, format {ONNX_FORMAT}{kind} ({images})",
        is_unit=is_unit,
    )


def _read_table(record: Mapping[str, Any]) -> CameraTable | None:
    """The cameras of an exported network, if a second input says each image's."""
    found = record.get(CAMERAS)
    if found is None or found["row"] is not None:
        return None
    datasets = tuple(str(pack["dataset"]) for pack in record["data"])
    return CameraTable(tuple(found["names"]), datasets, int(found["rows"]), "unknown" in found["other_rows"])


def _pick_size(path: Path, images: ImageInput, foreign: ForeignPixels) -> tuple[int, int]:
    """Height and width of a foreign network's images."""
    own = images.height, images.width
    height, width = foreign.size or own
    if any(side not in (None, given) for side, given in zip(own, (height, width), strict=True)):
        taken = " x ".join(str(side or "any") for side in own)
        raise UsageError(f"{path}: takes images of {taken}, not of {height} x {width}", hint="leave the size out")
    if height is None or width is None:
        raise UsageError(
            f"{path}: takes images of any size, and of which it was trained on is not in the file",
            hint=f"{foreign.write('pixels', '256x128')}, height by width",
        )
    return height, width


def _pick_constants(path: Path, images: ImageInput, foreign: ForeignPixels) -> tuple[Colour, Colour]:
    """Mean and deviation of a foreign network's images."""
    if images.kind == "uint8":
        if foreign.mean is not None or foreign.std is not None:
            raise UsageError(
                f"{path}: takes pixels of uint8, so a mean and a deviation are inside", hint="leave mean and std out"
            )
        return NO_MEAN, NO_STD
    if foreign.mean is None or foreign.std is None:
        raise UsageError(
            f"{path}: takes pixels of {images.kind}, and the mean and deviation of its training are not in the file",
            hint=f"{foreign.write('mean', IMAGENET)} {foreign.write('std', IMAGENET)}; or 0,0,0 and 1,1,1 for pixels "
            "from 0 to 1",
        )
    return foreign.mean, foreign.std


def _try(path: Path, encoder: OnnxEncoder) -> int:
    """The length of a feature, from two black images.

    Raises:
        FormatError: it does not run, or does not give a row of numbers for each image.
    """
    view = encoder.view
    images = torch.zeros(2, 3, view.height, view.width)
    cameras = None if encoder.cameras is None else torch.zeros(2, dtype=torch.int64)
    try:
        shape = encoder.embed(images, cameras).shape
    except Exception as error:  # onnxruntime's own classes have no other base; numpy's for another number of values
        reason = " ".join(str(error).split())
        raise FormatError(
            f"{path}: does not run on two images of {view.height} x {view.width} ({reason})",
            hint="try another size of images, or export it with one feature for each image",
        ) from error
    return shape[1]


def _parse_size(size: str | Sequence[int]) -> tuple[int, int]:
    text = size if isinstance(size, str) else "x".join(str(side) for side in size)
    found = SIZE_RULE.fullmatch(text)
    if found is None or not all(0 < int(side) <= MOST_PIXELS for side in found.groups()):
        raise UsageError(
            f"pixels {text}: height and width from 1 to {MOST_PIXELS:,} pixels were expected", hint="write 256x128"
        )
    return int(found[1]), int(found[2])


def _parse_colour(value: str | Sequence[float], imagenet: Colour, what: str) -> Colour:
    if isinstance(value, str) and value == IMAGENET:
        return imagenet
    try:
        red, green, blue = (float(part) for part in (value.split(",") if isinstance(value, str) else value))
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"{what} {value}: imagenet, or three numbers were expected", hint=f"{','.join(map(str, imagenet))}"
        ) from error
    if not all(abs(part) < 1e6 for part in (red, green, blue)) or (what == "std" and min(red, green, blue) <= 0):
        raise UsageError(
            f"{what} {value}: finite numbers{', above 0,' if what == 'std' else ''} were expected",
            hint=f"{','.join(map(str, imagenet))}",
        )
    return red, green, blue
