"""The columns that only packs of crops have."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from lupctl.core.errors import FormatError
from lupctl.core.formats.pack.crops import CropFacts, read_crops
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from tests.tools.tiny.images import TinyImages

FIRST = CropFacts(7, 2, 0.5, (1.5, -2.0, 30.25, 64.0))


def write(path: Path, images: list[bytes], crops: list[CropFacts | None], *, shard_bytes: int = 2**30) -> Path:
    rows = [
        PackedImage(encoded, 32, 16, f"a/{row:03d}.jpg", crop=crop)
        for row, (encoded, crop) in enumerate(zip(images, crops, strict=True))
    ]
    return write_pack(path, rows, dataset="crops", shard_bytes=shard_bytes)


def test_crops_come_back(tmp_path: Path, tiny_images: TinyImages) -> None:
    path = write(tmp_path / "a.h5", tiny_images(2), [FIRST, None])
    found = read_crops(path, hint="")
    assert found is not None
    assert found[0] == FIRST
    assert (found[1].frame, found[1].video) == (-1, -1)
    assert np.isnan([found[1].score, *found[1].box]).all()


def test_crops_of_several_files_stand_one_behind_the_other(tmp_path: Path, tiny_images: TinyImages) -> None:
    crops: list[CropFacts | None] = [CropFacts(frame, 1, 0.25, (0, 0, 1, 1)) for frame in range(5)]
    path = write(tmp_path / "a.h5", tiny_images(5), crops, shard_bytes=1)
    assert path.is_dir()
    found = read_crops(path, hint="")
    assert found is not None
    assert found.frame.tolist() == [0, 1, 2, 3, 4]
    assert found.box.shape == (5, 4)


def test_other_packs_have_no_such_columns(tmp_path: Path, tiny_images: TinyImages) -> None:
    path = write(tmp_path / "a.h5", tiny_images(2), [None, None])
    assert read_crops(path, hint="") is None
    with h5py.File(path) as file:
        assert sorted(file["samples"]) == ["camera", "name", "person", "role"]


def test_columns_that_do_not_cover_the_images(tmp_path: Path, tiny_images: TinyImages) -> None:
    path = write(tmp_path / "a.h5", tiny_images(1), [FIRST])
    with h5py.File(path, "r+") as file:
        del file["samples/score"]
    with pytest.raises(FormatError, match="samples/frame, video, box do not cover its 1 images"):
        read_crops(path, hint="")
    assert len(open_pack(path)) == 1
