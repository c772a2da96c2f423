"""From packs to batches: any number of workers and processes, and damage."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from lupctl.core.errors import CorruptImageError, DataError, DeviceError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.training.loading import slots as handover
from lupctl.core.training.loading import worker_errors as guard
from lupctl.core.training.loading.images import REPLACEMENT_TRIES, FileImages, Found, PackImages
from lupctl.core.training.loading.loaders import (
    Batch,
    ChunkDataset,
    StepDataset,
    open_loader,
)
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.loading.slots import WorkerSlots, stack_images
from lupctl.core.training.loading.worker_errors import BatchSource
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import ViewPlan, draw_view
from tests.tools.tiny.images import TinyImages, draw_tiny, encode_tiny

MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
VIEW = ViewPlan(32, 16, MEAN, STD, crop_area=(0.2, 1.0), grey=0.2, blur=0.5, flip=0.5, erase=0.5)
PLAIN = ViewPlan(32, 16, MEAN, STD)
SHAPES = [(32, 16), (48, 24), (16, 40)]


def pack_images(images: list[bytes]) -> Iterator[PackedImage]:
    for row, image in enumerate(images):
        height, width = decode_rgb(image).shape[:2]
        yield PackedImage(image, height, width, f"{row:04d}.jpg", role="unlabelled")


@pytest.fixture
def images() -> list[bytes]:
    """Twenty-four JPEGs of three sizes."""
    return [encode_tiny(seed, ".jpg", *SHAPES[seed % 3]) for seed in range(24)]


@pytest.fixture
def pack_path(tmp_path: Path, images: list[bytes]) -> Path:
    return write_pack(tmp_path / "tiny.h5", pack_images(images), dataset="tiny")


def dataset_of(path: Path, *, rank: int = 0, processes: int = 1, batch: int = 8) -> StepDataset:
    packed = PackImages([open_pack(path)])
    order = ShuffledOrder(len(packed), batch=batch, seed=11)
    return StepDataset(packed, order, (VIEW, VIEW), seed=11, rank=rank, processes=processes)


def damage(path: Path, row: int) -> None:
    """Flips one bit in the middle of an image."""
    pack = open_pack(path)
    shard = pack.shards[0]
    at = shard.base + int(shard.offsets[row] + shard.offsets[row + 1]) // 2
    pack.close()
    content = bytearray(path.read_bytes())
    content[at] ^= 16
    path.write_bytes(content)


def assert_equal(left: Batch, right: Batch) -> None:
    assert torch.equal(left.pixels, right.pixels)
    assert torch.equal(left.rows, right.rows)
    assert left.damaged == right.damaged
    assert torch.equal(left.keys, right.keys)
    assert len(left.views) == len(right.views)
    for ours, theirs in zip(left.views, right.views, strict=True):
        for name, drawn in vars(ours).items():
            assert torch.equal(drawn, getattr(theirs, name)), name


def test_batches_hold_the_images_of_their_step_each_in_its_corner(pack_path: Path, images: list[bytes]) -> None:
    dataset = dataset_of(pack_path)
    order = ShuffledOrder(24, batch=8, seed=11)
    for step in (0, 4, 2):
        batch = dataset[step]
        assert batch.rows.tolist() == order.rows(step).tolist()
        assert batch.damaged == ()
        for slot, row in zip(batch.pixels, batch.rows.tolist(), strict=True):
            pixels = decode_rgb(images[row])
            height, width = pixels.shape[:2]
            np.testing.assert_array_equal(slot[:height, :width].numpy(), pixels)
            assert not slot[height:].any()
            assert not slot[:, width:].any()


def test_the_two_views_differ_and_change_with_the_epoch(pack_path: Path) -> None:
    dataset = dataset_of(pack_path, batch=24)
    first, second = dataset[0], dataset[1]
    assert not torch.equal(first.views[0].box, first.views[1].box)
    order = torch.argsort(first.rows), torch.argsort(second.rows)
    assert not torch.equal(first.views[0].box[order[0]], second.views[0].box[order[1]])


@pytest.mark.parametrize("workers", [0, 1])
def test_views_of_different_plans_travel_in_one_batch(pack_path: Path, workers: int) -> None:
    """Two large views and eight small ones, each with the numbers that it has alone."""
    local = replace(VIEW, height=VIEW.height // 2, width=VIEW.width // 2)
    images, order = PackImages([open_pack(pack_path)]), ShuffledOrder(24, batch=8, seed=11)
    dataset = StepDataset(images, order, (VIEW, VIEW, *[local] * 8), seed=11)
    for step, batch in enumerate(open_loader(dataset, range(2), workers=workers, pin=False)):
        assert batch.keys.tolist() == order.draw_keys(step).tolist()
        size = images.sizes(batch.rows.numpy())
        for view, (plan, drawn) in enumerate(zip((VIEW, VIEW, *[local] * 8), batch.views, strict=True)):
            alone = draw_view(plan, size, SampleDraws(batch.keys.numpy(), seed=11, epoch=0, view=view))
            for name, wanted in vars(alone).items():
                np.testing.assert_array_equal(getattr(drawn, name).numpy(), wanted, err_msg=name)
            assert make_view(plan, batch.pixels, drawn).shape == (8, 3, plan.height, plan.width)


@pytest.mark.parametrize("workers", [1, 2])
def test_any_number_of_workers_gives_the_same_batches(pack_path: Path, workers: int) -> None:
    damage(pack_path, 5)
    alone = list(open_loader(dataset_of(pack_path), range(2, 9), workers=0, pin=False))
    helped = list(open_loader(dataset_of(pack_path), range(2, 9), workers=workers, pin=False))
    assert len(alone) == len(helped) == 7
    assert sum(len(batch.damaged) for batch in alone) >= 2
    for left, right in zip(alone, helped, strict=True):
        assert_equal(left, right)


@pytest.mark.parametrize("processes", [2, 4])
def test_the_shares_of_several_processes_interleave_to_the_whole(pack_path: Path, processes: int) -> None:
    for step in range(4):
        whole = dataset_of(pack_path)[step]
        shares = [dataset_of(pack_path, rank=rank, processes=processes)[step] for rank in range(processes)]
        for rank, share in enumerate(shares):
            assert share.rows.tolist() == whole.rows[rank::processes].tolist()
            assert share.keys.tolist() == whole.keys[rank::processes].tolist()
            for ours, theirs in zip(share.views, whole.views, strict=True):
                for name, drawn in vars(ours).items():
                    assert torch.equal(drawn, getattr(theirs, name)[rank::processes]), name
            height, width = share.pixels.shape[1:3]
            assert torch.equal(share.pixels, whole.pixels[rank::processes, :height, :width])


def test_a_damaged_image_is_replaced_by_the_next_and_nothing_else_moves(pack_path: Path, images: list[bytes]) -> None:
    before = [dataset_of(pack_path)[step] for step in range(3)]
    damage(pack_path, 5)
    after = [dataset_of(pack_path)[step] for step in range(3)]
    lines = [line for batch in after for line in batch.damaged]
    assert len(lines) == 1
    assert "image 5 (0005.jpg) is damaged: wrong checksum" in lines[0]
    for old, new in zip(before, after, strict=True):
        place = (old.rows == 5).nonzero().flatten().tolist()
        assert len(new.damaged) == len(place)
        expected = old.rows.clone()
        expected[place] = 6
        assert torch.equal(new.rows, expected)
        assert torch.equal(new.keys, old.rows), "draws are keyed by what was asked for"
        for slot, row in zip(new.pixels, new.rows.tolist(), strict=True):
            pixels = decode_rgb(images[row])
            np.testing.assert_array_equal(slot[: pixels.shape[0], : pixels.shape[1]].numpy(), pixels)
        others = [index for index in range(8) if index not in place]
        for ours, theirs in zip(old.views, new.views, strict=True):
            for name, drawn in vars(ours).items():
                assert torch.equal(drawn[others], getattr(theirs, name)[others]), name
        for name in ("flip", "grey", "radius", "erase"):  # a crop follows the size of the image that came
            assert torch.equal(getattr(old.views[0], name), getattr(new.views[0], name))


def test_the_last_image_is_replaced_by_the_first_and_two_in_a_row_are_passed(pack_path: Path) -> None:
    for row in (22, 23, 0):
        damage(pack_path, row)
    packed = PackImages([open_pack(pack_path)])
    place, pixels, lines = packed.decode_or_next(22)
    assert place == 1
    assert len(lines) == 3
    np.testing.assert_array_equal(pixels, packed.decode(1))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_pack_damaged_throughout_is_an_error_that_names_it(
    tmp_path: Path, tiny_images: TinyImages, workers: int
) -> None:
    path = write_pack(tmp_path / "tiny.h5", pack_images(tiny_images(20)), dataset="tiny")
    for row in range(20):
        damage(path, row)
    with pytest.raises(DataError) as caught:
        next(open_loader(dataset_of(path), range(3), workers=workers, pin=False))
    assert str(path) in caught.value.message
    assert f"the {REPLACEMENT_TRIES - 1} images after it" in caught.value.message
    assert caught.value.hint == "lupctl data verify PACK --deep"


def test_chosen_rows_of_several_packs_are_one_data_set(tmp_path: Path, tiny_images: TinyImages) -> None:
    encoded = tiny_images(9)
    packs = [
        open_pack(write_pack(tmp_path / f"{start}.h5", pack_images(encoded[start:end]), dataset="tiny"))
        for start, end in ((0, 4), (4, 5), (5, 9))
    ]
    every = PackImages(packs)
    assert len(every) == 9
    for row in range(9):
        np.testing.assert_array_equal(every.decode(row), decode_rgb(encoded[row]))
    some = PackImages(packs, np.array([8, 3, 4, 5], dtype=np.int64))
    assert len(some) == 4
    for place, row in enumerate([8, 3, 4, 5]):
        np.testing.assert_array_equal(some.decode(place), decode_rgb(encoded[row]))
    chosen = np.array([3, 0, 2, 0])
    together = [pack.read_place(place) for pack, place in some.find(chosen)]
    assert together == [encoded[row] for row in (5, 8, 4, 8)]
    assert some.sizes(chosen).tolist() == [list(decode_rgb(image).shape[:2]) for image in together]


@pytest.mark.parametrize(("chunk", "workers"), [(1, 0), (7, 0), (24, 0), (100, 0), (7, 2)])
def test_evaluation_sees_each_image_once_in_order(
    pack_path: Path, images: list[bytes], chunk: int, workers: int
) -> None:
    dataset = ChunkDataset(PackImages([open_pack(pack_path)]), PLAIN, chunk=chunk)
    assert len(dataset) == -(-24 // chunk)
    batches = list(open_loader(dataset, range(len(dataset)), workers=workers, pin=False))
    assert torch.cat([batch.rows for batch in batches]).tolist() == list(range(24))
    assert [len(batch.rows) for batch in batches[:-1]] == [chunk] * (len(dataset) - 1)
    boxes = torch.cat([batch.views[0].box for batch in batches])
    assert boxes.tolist() == [[0, 0, *decode_rgb(image).shape[:2]] for image in images]
    for batch in batches:
        assert not batch.views[0].flip.any()


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_leaves_no_image_out(pack_path: Path, workers: int) -> None:
    damage(pack_path, 9)
    dataset = ChunkDataset(PackImages([open_pack(pack_path)]), PLAIN, chunk=8)
    with pytest.raises(CorruptImageError, match=r"image 9 \(0009.jpg\) is damaged") as caught:
        list(open_loader(dataset, range(3), workers=workers, pin=False))
    assert caught.value.hint


class DyingImages(PackImages):
    """The process that decodes one of them is killed, as one that took too much memory."""

    def decode(self, index: int, found: Found | None = None) -> NDArray[np.uint8]:
        if index == 13:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode(index, found)


@pytest.mark.parametrize(  # torch looks for dead workers every five seconds
    ("kind", "workers"), [("training", 1), pytest.param("evaluation", 2, marks=pytest.mark.slow)]
)
def test_a_worker_that_dies_is_reported_with_its_image(pack_path: Path, kind: str, workers: int) -> None:
    images = DyingImages([open_pack(pack_path)])
    order = ShuffledOrder(len(images), batch=8, seed=11)
    dataset: BatchSource[Batch] = ChunkDataset(images, PLAIN, chunk=8)
    if kind == "training":
        dataset = StepDataset(images, order, (VIEW,), seed=11)
    with pytest.raises(DataError, match=r"a decoding worker died \(killed by SIGKILL\)") as caught:
        list(open_loader(dataset, range(3), workers=workers, pin=False))
    assert f"; its last image was {pack_path}: image 13 (0013.jpg)" in caught.value.message
    assert "--workers 1" in caught.value.hint


def test_a_worker_that_dies_while_the_loop_computes_is_told_at_the_next_batch(pack_path: Path) -> None:
    """Nothing is raised in the middle of what the loop is doing, as a message to other processes."""
    batches = open_loader(dataset_of(pack_path), range(100), workers=1, pin=False)
    next(batches)
    (worker,) = multiprocessing.active_children()
    os.kill(worker.pid or 0, signal.SIGKILL)
    deadline = time.monotonic() + 0.5
    while time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(DataError, match=r"a decoding worker died \(killed by SIGKILL\); its last image was"):
        list(batches)


@pytest.mark.parametrize("kills", [True, False])
def test_a_worker_that_dies_while_it_hands_a_batch_over(
    pack_path: Path, monkeypatch: pytest.MonkeyPatch, kills: bool
) -> None:
    """Its batch was announced, and its memory cannot be fetched any more."""
    monkeypatch.setattr(guard, "DYING_S", 5.0 if kills else 0.05)
    batches = open_loader(dataset_of(pack_path), range(100), workers=1, pin=False)
    next(batches)
    (worker,) = multiprocessing.active_children()

    def cut(_: object) -> None:
        if kills:
            os.kill(worker.pid or 0, signal.SIGKILL)
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(_MultiProcessingDataLoaderIter, "_next_data", cut)
    with pytest.raises(DataError if kills else ConnectionResetError, match=r"killed by SIGKILL" if kills else "reset"):
        next(batches)


@pytest.mark.slow
def test_a_file_whose_worker_dies_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(encode_tiny(0))
    monkeypatch.setattr(
        "lupctl.core.training.loading.images.decode_rgb", lambda encoded: os.kill(os.getpid(), signal.SIGKILL)
    )
    with pytest.raises(DataError, match=r"a decoding worker died .*; its last image was .*a\.jpg"):
        list(open_loader(ChunkDataset(FileImages([str(path)]), PLAIN, chunk=8), range(1), workers=1, pin=False))


@pytest.mark.parametrize("workers", [0, 1])
def test_no_shared_memory_is_said_and_not_needed_without_workers(
    pack_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    real = torch.UntypedStorage._new_shared

    def refuse(size: int) -> torch.UntypedStorage:
        if size < 1000:
            return real(size)
        raise RuntimeError(f"unable to allocate shared memory(shm) for file </torch_1_2>: {os.strerror(28)} (28)")

    monkeypatch.setattr(torch.UntypedStorage, "_new_shared", refuse)
    batches = open_loader(dataset_of(pack_path), range(3), workers=workers, pin=False)
    if workers == 0:
        assert len(list(batches)) == 3
        return
    with pytest.raises(
        DeviceError, match=r"no shared memory for a batch of 0\.0 MiB \(No space left on device"
    ) as caught:
        next(batches)
    assert "--workers 0" in caught.value.hint


LEFT_OPEN = """
import signal, sys
from lupctl.core.training.loading.slots import WorkerSlots
from lupctl.core.training.loading.loaders import open_loader

class Endless:
    slots = WorkerSlots()

    def __getitem__(self, item):
        return item

def stopped_in_the_middle():
    batches = open_loader(Endless(), range(100), workers=2, pin=False)
    next(batches)
    error = ValueError("stopped")
    error.kept = error, batches  # a cycle, as frames of an exception often are
    return error

try:
    raise stopped_in_the_middle()
except ValueError:
    sys.exit(75)
"""
FAILED_AND_HELD = """
import sys
from lupctl.core.training.loading.slots import WorkerSlots
from lupctl.core.training.loading.loaders import open_loader

class Broken:
    slots = WorkerSlots()

    def __getitem__(self, item):
        raise KeyError(item)

try:
    next(open_loader(Broken(), range(100), workers=2, pin=False))
except KeyError as error:
    held = error
    error.kept = error
    sys.exit(75)
"""


@pytest.mark.parametrize("program", [LEFT_OPEN, FAILED_AND_HELD], ids=["left open", "failed and held"])
def test_a_loop_that_stops_in_the_middle_ends_its_workers_at_once(program: str) -> None:
    """They ignore SIGTERM, so nothing else would end them, and the process would wait for them at its exit."""
    done = subprocess.run([sys.executable, "-c", program], timeout=40, check=False)
    assert done.returncode == 75


def leave_a_loader_open(pack_path: Path) -> None:
    """A process of a job that ends in an error, as one of PyTorch's launcher does."""
    batches = open_loader(dataset_of(pack_path), range(100), workers=2, pin=False)
    next(batches)
    try:
        raise ValueError("stopped")
    except ValueError as error:
        error.kept = error, batches  # type: ignore[attr-defined]
        sys.exit(3)


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_a_child_that_ends_with_a_loader_open_does_end(pack_path: Path, start: str) -> None:
    child = multiprocessing.get_context(start).Process(target=leave_a_loader_open, args=(pack_path,))  # type: ignore[attr-defined]
    child.start()
    child.join(40)
    hangs = child.is_alive()
    child.kill()
    assert not hangs
    assert child.exitcode == 3


def test_an_error_ends_the_workers_at_once(pack_path: Path) -> None:
    damage(pack_path, 0)
    dataset = ChunkDataset(PackImages([open_pack(pack_path)]), PLAIN, chunk=4)
    batches = open_loader(dataset, range(6), workers=2, pin=False)
    assert len(multiprocessing.active_children()) == 2
    with pytest.raises(CorruptImageError):
        next(batches)
    assert multiprocessing.active_children() == []


class BrokenDataset(torch.utils.data.Dataset[Batch]):
    """A bug of our own."""

    def __init__(self) -> None:
        self.slots = WorkerSlots()

    def __getitem__(self, item: int) -> Batch:
        raise KeyError("no such thing")

    def describe(self, image: int) -> str:
        return f"image {image}"


@pytest.mark.parametrize("workers", [0, 1])
def test_bugs_keep_their_kind(workers: int) -> None:
    with pytest.raises(KeyError, match="no such thing"):
        next(open_loader(BrokenDataset(), range(3), workers=workers, pin=False))


def test_image_files_are_read_as_they_are(tmp_path: Path) -> None:
    paths = []
    for seed in range(3):
        path = tmp_path / f"{seed}.png"
        path.write_bytes(encode_tiny(seed, ".png"))
        paths.append(str(path))
    files = FileImages(paths)
    assert len(files) == 3
    for seed in range(3):
        np.testing.assert_array_equal(files.decode(seed), draw_tiny(seed)[:, :, ::-1])  # drawn as BGR
    dataset = ChunkDataset(files, PLAIN, chunk=2)
    assert [batch.rows.tolist() for batch in open_loader(dataset, range(2), workers=0, pin=False)] == [[0, 1], [2]]


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "notes.jpg"
    path.write_text("not an image")
    with pytest.raises(CorruptImageError, match=r"notes\.jpg: does not decode"):
        FileImages([str(path)]).decode(0)


def test_stacked_images_keep_their_sizes() -> None:
    generator = np.random.default_rng(0)
    pixels: list[NDArray[np.uint8]] = [
        generator.integers(1, 256, (*shape, 3), dtype=np.uint8) for shape in [(4, 9), (7, 2), (1, 1)]
    ]
    stacked, size, _ = stack_images(pixels, WorkerSlots(), count=len(pixels))
    assert stacked.shape == (3, 7, 9, 3)
    assert size.tolist() == [[4, 9], [7, 2], [1, 1]]
    for slot, image in zip(stacked, pixels, strict=True):
        np.testing.assert_array_equal(slot[: image.shape[0], : image.shape[1]], image)
        assert int((slot > 0).sum()) == image.size


def test_a_stack_grows_with_its_images() -> None:
    """Bounds are what the pack says; a replaced image, or a file nobody measured, may be larger."""
    generator = np.random.default_rng(1)
    shapes = [(4, 3), (2, 8), (9, 1)]
    pixels = [generator.integers(1, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    grown, size, _ = stack_images(iter(pixels), WorkerSlots(), count=3, bound=(4, 3))
    assert grown.shape == (3, 9, 8, 3)
    assert size.tolist() == [list(shape) for shape in shapes]
    for place, image in zip(grown, pixels, strict=True):
        np.testing.assert_array_equal(place[: image.shape[0], : image.shape[1]], image)
        assert int((place > 0).sum()) == image.size


class CountingDataset(torch.utils.data.Dataset[Batch]):
    """Batch `item` holds nothing but the number `item`; every third one is larger."""

    def __init__(self) -> None:
        self.slots = WorkerSlots()

    def __getitem__(self, item: int) -> Batch:
        side = 96 if item % 3 == 2 else 64
        image = np.full((side, side, 3), item, dtype=np.uint8)
        pixels, _, slot = stack_images([image], self.slots, count=1, bound=(8, 8))
        return Batch(pixels=pixels, rows=torch.tensor([item]), keys=torch.tensor([item]), views=(), slot=slot)

    def describe(self, image: int) -> str:
        return f"image {image}"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_worker_fills_no_memory_that_somebody_still_holds(workers: int) -> None:
    batches = open_loader(CountingDataset(), range(200), workers=workers, pin=False)
    kept = {number: next(batches).pixels[:, 5:, :3, 1] for number in range(70)}  # views alone; the batches are gone
    for number in range(70, 200):
        pixels = next(batches).pixels
        assert pixels.unique().tolist() == [number]
    for number, view in kept.items():
        assert view.unique().tolist() == [number]


def test_a_worker_fills_the_same_memory_again() -> None:
    batches = open_loader(CountingDataset(), range(100), workers=1, pin=False)
    places = {next(batches).pixels.data_ptr() for _ in range(100)}
    assert len(places) < 20


def test_the_memory_of_a_loader_that_ended_is_let_go() -> None:
    before = len(handover._known)
    batches = open_loader(CountingDataset(), range(100), workers=1, pin=False)
    kept = next(batches).pixels
    assert len(handover._known) == before + 1
    batches.close()
    assert len(handover._known) == before
    assert kept.unique().tolist() == [0]
