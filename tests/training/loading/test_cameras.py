"""The cameras of batches: each image's own row, and a drawn share of them hidden."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.training.loading.cameras import ImageCameras, hide_cameras
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.labels import number_known
from lupctl.core.training.loading.loaders import Batch, ChunkDataset, StepDataset, open_loader
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.views.plan import ViewPlan
from tests.tools.tiny.images import encode_tiny

VIEW = ViewPlan(32, 16, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), crop_area=(0.2, 1.0), flip=0.5, erase=0.5)
UNKNOWN = 6
CAMERAS = ImageCameras(np.arange(24) % UNKNOWN, UNKNOWN, 0.5)


@pytest.fixture
def pack_path(tmp_path: Path) -> Path:
    def images() -> Iterator[PackedImage]:
        for row in range(24):
            yield PackedImage(encode_tiny(row, ".jpg", 32, 16), 32, 16, f"{row:02d}.jpg", role="unlabelled")

    return write_pack(tmp_path / "tiny.h5", images(), dataset="tiny")


def dataset_of(
    path: Path, cameras: ImageCameras | None, *, rank: int = 0, processes: int = 1, seed: int = 11
) -> StepDataset:
    packed = PackImages([open_pack(path)])
    order = ShuffledOrder(len(packed), batch=8, seed=11)
    return StepDataset(packed, order, (VIEW,), seed=seed, rank=rank, processes=processes, cameras=cameras)


def cameras_of(batch: Batch) -> list[int]:
    assert batch.cameras is not None
    assert batch.cameras.dtype == torch.int64
    return batch.cameras.tolist()


def test_the_share_that_is_hidden_is_drawn_for_each_image_alone() -> None:
    keys = np.arange(20_000)
    rows = keys % 5
    hidden = hide_cameras(rows, keys, share=0.1, unknown=5, seed=3, epoch=7)
    is_hidden = hidden == 5
    assert np.array_equal(hidden[~is_hidden], rows[~is_hidden])
    assert abs(is_hidden.mean() - 0.1) < 4 * (0.1 * 0.9 / len(keys)) ** 0.5
    some = np.array([17, 4, 19_999, 250, 4])
    assert np.array_equal(hide_cameras(rows[some], keys[some], share=0.1, unknown=5, seed=3, epoch=7), hidden[some])
    for seed, epoch in ((3, 8), (4, 7)):
        other = hide_cameras(rows, keys, share=0.1, unknown=5, seed=seed, epoch=epoch) == 5
        both = (other & is_hidden).mean()
        assert abs(both - 0.01) < 4 * (0.01 * 0.99 / len(keys)) ** 0.5, "another epoch and another seed draw anew"
    assert (hide_cameras(rows, keys, share=1.0, unknown=5, seed=3, epoch=7) == 5).all()
    assert np.array_equal(hide_cameras(rows, keys, share=0.0, unknown=5, seed=3, epoch=7), rows)


def test_a_larger_share_hides_more_of_the_same() -> None:
    keys = np.arange(1000)
    few, many = (
        hide_cameras(np.zeros(1000, np.int64), keys, share=share, unknown=1, seed=0, epoch=0) for share in (0.1, 0.3)
    )
    assert (many >= few).all()
    assert many.sum() > few.sum() > 0


def test_a_batch_has_the_cameras_of_its_images(pack_path: Path) -> None:
    shown = dataset_of(pack_path, ImageCameras(CAMERAS.rows))
    hidden = dataset_of(pack_path, CAMERAS)
    seen = 0
    for step in (0, 5, 2):
        assert cameras_of(shown[step]) == [row % UNKNOWN for row in shown[step].rows.tolist()]
        for row, camera in zip(hidden[step].rows.tolist(), cameras_of(hidden[step]), strict=True):
            assert camera in (row % UNKNOWN, UNKNOWN)
            seen += camera == UNKNOWN
    assert 0 < seen < 24


def test_what_is_hidden_depends_on_the_step_alone(pack_path: Path) -> None:
    """As a run that is continued, or spread, needs it."""
    whole = [cameras_of(dataset_of(pack_path, CAMERAS)[step]) for step in range(6)]
    assert whole[:3] != whole[3:], "the epochs differ"
    for step in (5, 1):
        shares = [cameras_of(dataset_of(pack_path, CAMERAS, rank=rank, processes=2)[step]) for rank in (0, 1)]
        assert [camera for pair in zip(*shares, strict=True) for camera in pair] == whole[step]
    with closing(open_loader(dataset_of(pack_path, CAMERAS), range(2, 6), workers=2, pin=False)) as batches:
        assert [cameras_of(batch) for batch in batches] == whole[2:]
    other = [cameras_of(dataset_of(pack_path, CAMERAS, seed=12)[step]) for step in range(6)]
    assert other != whole


def test_pixels_and_views_do_not_move_where_cameras_are_drawn(pack_path: Path) -> None:
    plain, drawn = dataset_of(pack_path, None)[1], dataset_of(pack_path, CAMERAS)[1]
    assert plain.cameras is None
    assert torch.equal(plain.pixels, drawn.pixels)
    for name, value in vars(plain.views[0]).items():
        assert torch.equal(value, getattr(drawn.views[0], name)), name
    erased = drawn.views[0].erase[:, 2] > 0
    hidden = drawn.cameras == UNKNOWN
    assert not torch.equal(erased, hidden), "they do not share their numbers"


def test_a_damaged_image_has_the_camera_of_the_one_in_its_place(pack_path: Path) -> None:
    pack = open_pack(pack_path)
    at = pack.shards[0].base + int(pack.shards[0].offsets[5] + pack.shards[0].offsets[6]) // 2
    pack.close()
    content = bytearray(pack_path.read_bytes())
    content[at] ^= 16
    pack_path.write_bytes(content)
    dataset = dataset_of(pack_path, replace(CAMERAS, hidden=0.0))
    batches = [dataset[step] for step in range(3)]
    assert sum(len(batch.damaged) for batch in batches) == 1
    rows = [row for batch in batches for row in batch.rows.tolist()]
    assert rows.count(6) == 2
    assert [camera for batch in batches for camera in cameras_of(batch)] == [row % UNKNOWN for row in rows]


@pytest.mark.parametrize("workers", [0, 2])
def test_chunks_have_the_rows_they_were_given(pack_path: Path, workers: int) -> None:
    rows = np.arange(24)[::-1].copy() - 2
    dataset = ChunkDataset(PackImages([open_pack(pack_path)]), VIEW, chunk=10, cameras=rows)
    with closing(open_loader(dataset, range(3), workers=workers, pin=False)) as batches:
        assert [camera for batch in batches for camera in cameras_of(batch)] == rows.tolist()
    assert ChunkDataset(PackImages([open_pack(pack_path)]), VIEW, chunk=10)[0].cameras is None


def test_cameras_go_where_the_batch_goes(pack_path: Path) -> None:
    batch = dataset_of(pack_path, CAMERAS)[0]
    moved = batch.to(torch.device("meta")).cameras
    assert moved is not None
    assert (moved.device.type, moved.shape) == ("meta", (8,))
    assert dataset_of(pack_path, None)[0].to(torch.device("meta")).cameras is None


def test_unknown_cameras_have_no_number() -> None:
    numbers, values = number_known([np.array([3, -1], np.int16), np.array([3, 1, -1], np.int16)])
    assert numbers.tolist() == [0, -1, 2, 1, -1]
    assert [pack.tolist() for pack in values] == [[3], [1, 3]]
    assert number_known([])[0].tolist() == []
