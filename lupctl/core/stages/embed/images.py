"""Images of any kind that Python programs have, as RGB pixels."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageOps
from torch import Tensor

from lupctl.core.errors import CorruptImageError, DataError, UsageError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.system.disk.reading import say_missing
from lupctl.core.training.loading.images import FileImages

# A path, an encoded image, a picture of Pillow, or its pixels.
Image = str | os.PathLike[str] | bytes | Pillow.Image | NDArray[Any] | Tensor
Images = Image | Iterable[Any]
CHANNELS = (1, 3, 4)
REPAIR = "leave it out, or repair it"
KINDS = "a path, an image of Pillow, an array or a tensor"
# Pillow's images of more than 8 bits a channel.
DEEP = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


def list_images(images: Any) -> Iterator[Image]:
    """One image after the other; arrays and tensors of four dimensions are as many as they have rows.

    Raises:
        UsageError: something among them is none.
    """
    if is_image(images):
        yield images
    elif isinstance(images, Iterable):
        for some in images:
            yield from list_images(some)
    else:
        raise UsageError(f"a {type(images).__name__} is no image; {KINDS} was expected", hint="net.embed('a.jpg')")


def is_image(images: Any) -> TypeGuard[Image]:
    """Whether it is one image and no collection of them."""
    if isinstance(images, np.ndarray | Tensor):
        return images.ndim < 4 and images.dtype != object
    return isinstance(images, str | os.PathLike | bytes | Pillow.Image)


def read_pixels(image: Image, number: int) -> NDArray[np.uint8]:
    """(H, W, 3) RGB pixels of an image.

    Files are decoded as everywhere in lupctl. Grey becomes three equal channels, and an alpha channel is dropped, as
    they are from files. Pictures of Pillow are turned upright by their EXIF entry.

    Args:
        image: of any kind; an array or tensor is (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) and a tensor also
            (3, H, W), of uint8, or of floating-point numbers from 0 to 1.
        number: which of the given images it is, for errors.

    Raises:
        DataError: there is no such file.
        CorruptImageError: it does not decode.
        UsageError: an array of another shape, type or range.
    """
    if isinstance(image, str | os.PathLike):
        return _read_file(Path(image))
    if isinstance(image, Pillow.Image):
        return _read_pillow(image, number)
    if isinstance(image, Tensor):
        image = image.detach().cpu()
        return _read_array((image.float() if image.is_floating_point() else image).numpy(), number, is_tensor=True)
    if isinstance(image, bytes):
        try:
            return decode_rgb(image)
        except CorruptImageError as error:
            raise CorruptImageError(f"image {number}: {error.message}", hint=REPAIR) from error
    return _read_array(image, number, is_tensor=False)


def _read_file(path: Path) -> NDArray[np.uint8]:
    if path.is_dir():
        raise DataError(f"{path}: a folder; images were expected", hint=f"sorted(Path({str(path)!r}).glob('*.jpg'))")
    if not path.is_file():
        raise DataError(f"{path}: {say_missing(path)}; an image was expected", hint=f"ls {path.parent}")
    return FileImages([str(path)]).decode(0)


def _read_pillow(image: Pillow.Image, number: int) -> NDArray[np.uint8]:
    if image.mode in DEEP:
        raise UsageError(
            f"image {number}: a picture of Pillow's mode {image.mode}; 8 bits for each channel were expected",
            hint="scale it to 0 to 255 first: Image.fromarray(values.astype('uint8'))",
        )
    try:
        pixels: NDArray[np.uint8] = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    # A lazy picture is decoded here, Pillow's PNG reader raises the first two, and a closed picture the last.
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptImageError(f"image {number}: does not decode ({error})", hint=REPAIR) from error
    return _check_sides(pixels, number)


def _read_array(array: NDArray[Any], number: int, *, is_tensor: bool) -> NDArray[np.uint8]:
    shape = array.shape
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and is_tensor and shape[2] not in CHANNELS and shape[0] in CHANNELS:
        array = array.transpose(1, 2, 0)
    if array.ndim != 3 or array.shape[2] not in CHANNELS:
        channels_first = array.ndim == 3 and shape[0] in CHANNELS
        raise UsageError(
            f"image {number}: an array of shape {shape}; (height, width, 3) RGB was expected",
            hint="array.transpose(1, 2, 0)" if channels_first else "a list of arrays may have images of any sizes",
        )
    pixels = _check_sides(_to_bytes(array, number), number)
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3)) if pixels.shape[2] == 1 else pixels[:, :, :3]


def _to_bytes(array: NDArray[Any], number: int) -> NDArray[np.uint8]:
    """Values from 0 to 255, of uint8 or of floating-point numbers from 0 to 1."""
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind != "f":
        raise UsageError(
            f"image {number}: an array of {array.dtype}; uint8, or floating-point numbers from 0 to 1, were expected",
            hint="array.astype('uint8'), if the values are from 0 to 255",
        )
    if array.size and not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
        raise UsageError(
            f"image {number}: an array of {array.dtype} with values from {array.min():g} to {array.max():g}; of "
            "floating-point numbers, 0 to 1 was expected, and no mean subtracted",
            hint="array.astype('uint8'), if the values are from 0 to 255",
        )
    scaled: NDArray[np.uint8] = np.rint(array * 255).astype(np.uint8)
    return scaled


def _check_sides(pixels: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    if not pixels.size:
        height, width = pixels.shape[:2]
        raise UsageError(f"image {number}: {height} x {width} pixels, so it is empty", hint="leave it out")
    return pixels
