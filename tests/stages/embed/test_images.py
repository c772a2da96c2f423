"""Images of every kind that Python programs have, as pixels; and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lupctl.core.errors import CorruptImageError, DataError, UsageError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.stages.embed.images import list_images, read_pixels
from tests.tools.tiny.images import draw_tiny, encode_tiny

RGB = draw_tiny(3, 24, 16)


@pytest.mark.parametrize(
    "given",
    [
        RGB,
        RGB[::-1, ::-1][::-1, ::-1],
        np.asfortranarray(RGB),
        np.dstack([RGB, np.full((24, 16), 7, np.uint8)]),
        (RGB / 255).astype(np.float32),
        (RGB / 255).astype(np.float16),
        torch.from_numpy(RGB),
        torch.from_numpy(RGB).permute(2, 0, 1),
        torch.from_numpy(RGB).permute(2, 0, 1).float() / 255,
        Image.fromarray(RGB),
        Image.fromarray(np.dstack([RGB, np.full((24, 16), 7, np.uint8)])),
    ],
    ids=["array", "strided", "fortran", "alpha", "float", "half", "tensor", "chw", "floats", "pillow", "rgba"],
)
def test_the_same_pixels_however_they_are_given(given: Any) -> None:
    found = read_pixels(given, 0)
    assert (found.dtype.name, found.shape) == ("uint8", RGB.shape)
    np.testing.assert_array_equal(found, RGB)


@pytest.mark.parametrize("kind", ["plane", "plane of one channel", "tensor", "pillow", "palette", "two channels"])
def test_grey_becomes_three_equal_channels(kind: str) -> None:
    grey = RGB[:, :, 1].copy()
    given: dict[str, Any] = {
        "plane": grey,
        "plane of one channel": grey[:, :, None],
        "tensor": torch.from_numpy(grey)[None],
        "pillow": Image.fromarray(grey),
        "palette": Image.fromarray(grey).convert("P"),
        "two channels": Image.fromarray(grey).convert("LA"),
    }
    np.testing.assert_array_equal(read_pixels(given[kind], 0), np.dstack([grey] * 3))


def test_files_and_bytes_are_decoded_as_everywhere(tmp_path: Path) -> None:
    encoded = encode_tiny(5)
    path = tmp_path / "a.jpg"
    path.write_bytes(encoded)
    for given in (path, str(path), encoded):
        np.testing.assert_array_equal(read_pixels(given, 0), decode_rgb(encoded))


def test_pillow_turns_upright_and_prints_are_converted(tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(RGB).save(path, exif=exif)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_pixels(image, 0), np.rot90(RGB, -1))
        np.testing.assert_array_equal(read_pixels(image, 0), decode_rgb(path.read_bytes()))
    print_colours = Image.fromarray(RGB).convert("CMYK")
    np.testing.assert_array_equal(read_pixels(print_colours, 0), RGB)


def test_many_of_any_kind_in_their_order() -> None:
    batch = np.stack([RGB, RGB // 2])
    assert len(list(list_images(batch))) == 2
    assert len(list(list_images(torch.zeros(3, 3, 8, 8)))) == 3
    ragged = np.empty(2, object)
    ragged[:] = [RGB, RGB[:8]]
    mixed = [
        "a.jpg",
        Path("b.jpg"),
        b"",
        RGB,
        batch,
        [RGB, "c.jpg"],
        (one for one in ragged),
        ragged,
        Image.new("L", (2, 3)),
    ]
    found = list(list_images(mixed))
    assert [type(one).__name__ for one in found[:3]] == ["str", "PosixPath", "bytes"]
    assert [getattr(one, "shape", None) for one in found[3:6]] == [RGB.shape] * 3
    assert len(found) == 3 + 1 + 2 + 2 + 2 + 2 + 1
    assert list(list_images([])) == []
    for one in ("a.jpg", Path("a.jpg"), RGB, Image.new("L", (2, 3))):
        assert len(list(list_images(one))) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((RGB / 255 * 255).astype(np.float32), r"image 4: an array of float32 with values from \d+ to \d+; of"),
        ((RGB / 255).astype(np.float32) - 0.5, "no mean subtracted"),
        (np.full((4, 4, 3), np.nan, np.float32), "with values from nan to nan"),
        (RGB.astype(np.int64), "image 4: an array of int64; uint8, or floating-point"),
        (RGB.astype(np.uint16), "an array of uint16"),
        (RGB > 9, "an array of bool"),
        (RGB.transpose(2, 0, 1), r"image 4: an array of shape \(3, 24, 16\); \(height, width, 3\) RGB was expected"),
        (RGB[:, :, :2], r"shape \(24, 16, 2\)"),
        (RGB[:0], "image 4: 0 x 16 pixels, so it is empty"),
        (RGB[:, :0, :], "24 x 0 pixels"),
        (np.zeros(7, np.uint8), r"shape \(7,\)"),
        (Image.new("I;16", (4, 4)), "image 4: a picture of Pillow's mode I;16; 8 bits"),
        (Image.new("F", (4, 4)), "mode F"),
    ],
    ids=["255", "normalised", "nan", "int", "deep", "bool", "chw", "two", "no rows", "no columns", "flat", "I;16", "F"],
)  # fmt: skip
def test_what_is_no_image_is_said(given: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_pixels(given, 4)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match=r"gone\.jpg: there is no such file; an image was expected"):
        read_pixels(tmp_path / "gone.jpg", 0)
    with pytest.raises(DataError, match="a folder; images were expected"):
        read_pixels(tmp_path, 0)
    with pytest.raises(CorruptImageError, match=r"text\.jpg: does not decode"):
        read_pixels(tmp_path / "text.jpg", 0)
    with pytest.raises(CorruptImageError, match="image 2: a JPEG that is cut short"):
        read_pixels(encode_tiny(0)[:-40], 2)
    (tmp_path / "short.png").write_bytes(encode_tiny(0, ".png")[:-60])
    with (
        Image.open(tmp_path / "short.png") as image,
        pytest.raises(CorruptImageError, match="image 2: does not decode"),
    ):
        read_pixels(image, 2)
    for other in (7, None, [3.5]):
        with pytest.raises(
            UsageError, match="is no image; a path, an image of Pillow, an array or a tensor was expected"
        ):
            list(list_images(other))
