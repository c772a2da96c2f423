"""From rows of packs to batches of decoded pixels, by worker processes that share no state with the loop."""

import atexit
import os
import signal
import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from lupctl.core.errors import CorruptImageError, DataError, LupError
from lupctl.core.formats.images import decode_rgb
from lupctl.core.formats.pack import Pack
from lupctl.core.loading.draws import SampleDraws
from lupctl.core.loading.samplers import StepOrder
from lupctl.core.loading.views import ViewPlan, draw_view

# A damaged image is replaced by the next row of its pack; a run of damage this long is a damaged pack.
REPLACEMENT_TRIES = 16


@dataclass(frozen=True)
class Batch:
    """Decoded images of one step, or of one process's share of it.

    Args:
        pixels: (B, H, W, 3) uint8 RGB; each image in the top left corner of its slot.
        rows: (B) int64 rows of the data set that were really read.
        views: per view the fields of `lupctl.core.loading.views.ViewDraws`.
        damaged: rows that could not be decoded and were replaced.
    """

    pixels: Tensor
    rows: Tensor
    views: tuple[dict[str, Tensor], ...]
    damaged: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """What travels from a worker: pixels through shared memory, the small rest by value.

        Every tensor would be a shared file of its own, which costs more than its few hundred bytes.
        """
        views = tuple({key: value.numpy() for key, value in view.items()} for view in self.views)
        return {"pixels": self.pixels, "rows": self.rows.numpy(), "views": views, "damaged": self.damaged}

    def __setstate__(self, state: dict[str, Any]) -> None:
        views = tuple({key: torch.from_numpy(value) for key, value in view.items()} for view in state["views"])
        self.__dict__.update(state | {"rows": torch.from_numpy(state["rows"]), "views": views})

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; the copy overlaps with computation where memory is pinned."""
        return Batch(
            pixels=self.pixels.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
            views=tuple(
                {key: value.to(device, non_blocking=True) for key, value in view.items()} for view in self.views
            ),
            damaged=self.damaged,
        )

    def pin_memory(self) -> "Batch":
        """Page-locked copy; called by the loader's own thread."""
        return Batch(
            pixels=self.pixels.pin_memory(),
            rows=self.rows.pin_memory(),
            views=tuple({key: value.pin_memory() for key, value in view.items()} for view in self.views),
            damaged=self.damaged,
        )


class PackImages:
    """Chosen rows of one or more packs as one data set.

    Args:
        packs: in the order that numbers the rows.
        rows: (N) rows of the concatenated packs; None takes all.
    """

    def __init__(self, packs: Sequence[Pack], rows: NDArray[np.int64] | None = None) -> None:
        self._packs = list(packs)
        self._ends = np.cumsum([len(pack) for pack in packs])
        self.rows = np.arange(int(self._ends[-1])) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def decode(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB pixels of image `index`.

        Raises:
            CorruptImageError: the bytes are not those that were packed, or no image.
        """
        row = int(self.rows[index])
        pack = int(np.searchsorted(self._ends, row, side="right"))
        start = 0 if pack == 0 else int(self._ends[pack - 1])
        return decode_rgb(self._packs[pack].read(row - start))

    def decode_or_next(self, index: int) -> tuple[int, NDArray[np.uint8], list[str]]:
        """Image `index`, or the next one that can be decoded.

        Returns:
            the index that was read, its pixels, and what was wrong with the ones passed over.

        Raises:
            DataError: too many in a row are damaged.
        """
        damage: list[str] = []
        for offset in range(min(REPLACEMENT_TRIES, len(self))):
            place = (index + offset) % len(self)
            try:
                return place, self.decode(place), damage
            except CorruptImageError as error:
                damage.append(error.message)
        raise DataError(
            f"{damage[0]}; so are the {len(damage) - 1} images after it", hint="lupctl data verify PACK --deep"
        )


def stack_images(images: Sequence[NDArray[np.uint8]]) -> tuple[Tensor, NDArray[np.int64]]:
    """Images of any sizes in one tensor, each in the top left corner of its slot.

    Returns:
        (B, H, W, 3) uint8, and the (B, 2) heights and widths.
    """
    size = np.array([image.shape[:2] for image in images], dtype=np.int64)
    height, width = (int(most) for most in size.max(axis=0))
    stacked = _new_pixels(len(images), height, width)
    slots = stacked.numpy()
    if bool((size == size[0]).all()):
        np.stack(images, out=slots)
        return stacked, size
    slots[:] = 0
    for slot, image in zip(slots, images, strict=True):
        slot[: image.shape[0], : image.shape[1]] = image
    return stacked, size


def _new_pixels(count: int, height: int, width: int) -> Tensor:
    """Room for a batch; in a worker it is shared with the loop from the start, which saves copying it there."""
    if get_worker_info() is None:
        return torch.empty(count, height, width, 3, dtype=torch.uint8)
    number = count * height * width * 3
    storage = torch.UntypedStorage._new_shared(number)  # type: ignore[no-untyped-call]
    strides = (height * width * 3, width * 3, 3, 1)
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (count, height, width, 3), strides)


class StepDataset(Dataset[Batch]):
    """Item `step` is the batch of that step, decoded and with its augmentation drawn.

    Args:
        images: the data set.
        order: which rows each step sees.
        plans: one per view of an image.
        seed: the recipe's seed.
        rank, processes: this process takes every `processes`-th image of a batch, beginning at `rank`.
    """

    def __init__(
        self,
        images: PackImages,
        order: StepOrder,
        plans: Sequence[ViewPlan],
        *,
        seed: int,
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        self._images, self._order, self._plans, self._seed = images, order, tuple(plans), seed
        self._rank, self._processes = rank, processes

    def __getitem__(self, step: int) -> Batch:
        wanted = self._order.rows(step)[self._rank :: self._processes]
        read = [self._images.decode_or_next(int(row)) for row in wanted]
        pixels, size = stack_images([image for _, image, _ in read])
        rows = np.array([row for row, _, _ in read], dtype=np.int64)
        epoch = self._order.epoch_of(step)
        views = []
        for number, plan in enumerate(self._plans):
            # Keyed by the row that was asked for, so that a damaged image does not move its neighbours' draws.
            draws = SampleDraws(wanted, seed=self._seed, epoch=epoch, view=number)
            views.append(_tensors(draw_view(plan, size, draws)))
        return Batch(
            pixels=pixels,
            rows=torch.from_numpy(rows),
            views=tuple(views),
            damaged=tuple(line for _, _, damage in read for line in damage),
        )


class ChunkDataset(Dataset[Batch]):
    """Item `i` is the i-th chunk of consecutive images, each once, for evaluation; the last chunk may be shorter.

    Args:
        images: the data set.
        plan: resize and normalisation; nothing random.
        chunk: images per item.
    """

    def __init__(self, images: "PackImages | FileImages", plan: ViewPlan, *, chunk: int) -> None:
        self._images, self._plan, self._chunk = images, plan, chunk

    def __len__(self) -> int:
        return -(-len(self._images) // self._chunk)

    def __getitem__(self, item: int) -> Batch:
        rows = np.arange(item * self._chunk, min((item + 1) * self._chunk, len(self._images)))
        pixels, size = stack_images([self._images.decode(int(row)) for row in rows])
        draws = SampleDraws(rows, seed=0, epoch=0, view=0)
        return Batch(
            pixels=pixels,
            rows=torch.from_numpy(rows),
            views=(_tensors(draw_view(self._plan, size, draws)),),
        )


class FileImages:
    """Image files as a data set, for folders that were never packed.

    Args:
        paths: one per image.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = list(paths)

    def __len__(self) -> int:
        return len(self._paths)

    def decode(self, index: int) -> NDArray[np.uint8]:
        """(H, W, 3) RGB pixels of image `index`.

        Raises:
            CorruptImageError: the file is no image.
        """
        with open(self._paths[index], "rb") as stream:  # noqa: PTH123 - a str per image, not a Path
            encoded = stream.read()
        try:
            return decode_rgb(encoded)
        except CorruptImageError as error:
            raise CorruptImageError(
                f"{self._paths[index]}: {error.message}", hint="remove the file, or repair it"
            ) from error


class GuardedDataset(Dataset[Batch | LupError]):
    """A data set that hands an error the user can act on over as an item.

    torch raises what a worker met again as a RuntimeError of its own when it cannot build it from one string.

    Args:
        dataset: any.
    """

    def __init__(self, dataset: Dataset[Batch]) -> None:
        self._dataset = dataset

    def __getitem__(self, item: int) -> Batch | LupError:
        try:
            return self._dataset[item]
        except LupError as error:
            return error


def open_loader(dataset: Dataset[Batch], items: range, *, workers: int, pin: bool) -> Generator[Batch, None, None]:
    """Batches in order, decoded ahead by `workers` processes (0: in this one).

    Raises:
        DataError: a pack is damaged, or a worker process died.
    """
    # Workers are forked. Where OpenCV has started threads of its own, as packing in this process does, a forked copy
    # would wait for threads that do not exist; ending them here is safe, and one thread per worker is what we want.
    cv2.setNumThreads(1)
    loader: DataLoader[Batch | LupError] = DataLoader(
        GuardedDataset(dataset),
        sampler=items,
        batch_size=None,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    # Beginning here, and not at the first `next`, lets the workers decode while the caller builds its network.
    batches = _read_guarded(iter(loader))
    # Workers ignore SIGTERM, which is how Python ends those that are left at its own exit, and would wait for ever.
    atexit.register(_close_if_open, weakref.ref(batches))
    return batches


def _read_guarded(items: Iterator[Batch | LupError]) -> Generator[Batch, None, None]:
    """Batches, with errors raised; torch's iterator ends with this one.

    That iterator stops its workers when it is deleted, but not when the garbage collector finds it in a cycle, as an
    exception and the frames it went through are one: the queue that would tell the workers is gone by then.
    """
    try:
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker"):
                    raise
                raise DataError(
                    f"a decoding worker died ({str(error).splitlines()[0]}); often the memory was not enough",
                    hint="fewer of them, as in --workers 1; lupctl data verify PACK --deep finds damaged images",
                ) from error
            if isinstance(item, LupError):
                raise item
            yield item
    finally:
        del items


def _close_if_open(batches: "weakref.ref[Generator[Batch, None, None]]") -> None:
    left = batches()
    if left is not None:
        left.close()


def default_workers(device: torch.device) -> int:
    """Worker processes when nobody says: a GPU leaves the cores to them, on a CPU the network needs most of them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(16, cores) if device.type != "cpu" else max(1, cores // 2)


def _start_worker(worker: int) -> None:
    # Ctrl-C and SIGTERM reach the whole process group. The loop finishes its step and needs the workers until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _tensors(draws: object) -> dict[str, Tensor]:
    return {item.name: torch.from_numpy(getattr(draws, item.name)) for item in fields(draws)}  # type: ignore[arg-type]
