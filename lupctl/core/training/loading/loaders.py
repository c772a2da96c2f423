"""Batches of decoded pixels from rows of packs, made by worker processes that share no state with the loop."""

import atexit
import signal
import sys
import weakref
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lupctl.core.errors import CorruptImageError, LupError
from lupctl.core.system.jobs.messages import local_processes
from lupctl.core.system.jobs.parent import end_with_parent
from lupctl.core.system.threads.cores import usable_cores
from lupctl.core.training.loading.cameras import ImageCameras
from lupctl.core.training.loading.images import FileImages, PackImages
from lupctl.core.training.loading.samplers import StepOrder
from lupctl.core.training.loading.slots import Slot, SlotMessage, WorkerSlots, receive, stack_images
from lupctl.core.training.loading.worker_errors import (
    BatchSource,
    ErrorsAsItems,
    child_handler_kept,
    close_if_open,
    raise_errors,
)
from lupctl.core.training.views.auto_augment import apply_policy, draw_policy, fading_probability
from lupctl.core.training.views.drawn import DrawTensors
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.plan import ViewPlan, draw_view, draw_views

BEFORE_QUEUES = 100


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Decoded images of one step, or of one process's share of it.

    Args:
        pixels: (B, H, W, 3) uint8 RGB; each image in the top left corner of its slot.
        rows: (B) int64 rows of the data set that were actually read; labels are looked up by them.
        keys: (B) int64, the keys of these images' draws; below 2**32.
        views: the draws of each view, in the order of the view plans; their sizes may differ.
        damaged: rows that could not be decoded and were replaced.
        cameras: (B) int64, the row of each image in the network's camera table; None for a network without one.
        slot: in a worker, the slot that contains the pixels.
    """

    pixels: Tensor
    rows: Tensor
    keys: Tensor
    views: tuple[DrawTensors, ...]
    damaged: tuple[str, ...] = ()
    cameras: Tensor | None = None
    slot: Slot | None = None

    def __getstate__(self) -> dict[str, Any]:
        """What a worker sends: pixels through shared memory, the small rest by value.

        As tensors, each would be a separate shared file, which costs more than its few hundred bytes.
        """
        return {
            "pixels": self.pixels if self.slot is None else self.slot.message(self.pixels),
            "rows": self.rows.numpy(),
            "keys": self.keys.numpy(),
            "views": tuple(view.arrays() for view in self.views),
            "damaged": self.damaged,
            "cameras": None if self.cameras is None else self.cameras.numpy(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        pixels = receive(state["pixels"]) if isinstance(state["pixels"], SlotMessage) else state["pixels"]
        rows, keys = torch.from_numpy(state["rows"]), torch.from_numpy(state["keys"])
        views = tuple(view.tensors() for view in state["views"])
        cameras = None if state["cameras"] is None else torch.from_numpy(state["cameras"])
        self.__dict__.update(state | {"pixels": pixels, "rows": rows, "keys": keys, "views": views, "cameras": cameras})

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device; the copy overlaps with computation where memory is pinned."""
        return Batch(
            pixels=self.pixels.to(device, non_blocking=True),
            rows=self.rows.to(device, non_blocking=True),
            keys=self.keys.to(device, non_blocking=True),
            views=tuple(view.to(device) for view in self.views),
            damaged=self.damaged,
            cameras=None if self.cameras is None else self.cameras.to(device, non_blocking=True),
        )

    def pin_memory(self) -> "Batch":
        """Page-locked copy; called by the loader's own thread."""
        return Batch(
            pixels=self.pixels.pin_memory(),
            rows=self.rows.pin_memory(),
            keys=self.keys.pin_memory(),
            views=tuple(view.pin_memory() for view in self.views),
            damaged=self.damaged,
            cameras=None if self.cameras is None else self.cameras.pin_memory(),
        )

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keeps its memory from being reused before the stream has reached this point."""
        for tensor in (self.pixels, self.rows, self.keys, self.cameras):
            if tensor is not None:
                tensor.record_stream(stream)
        for view in self.views:
            view.record_stream(stream)


class StepDataset(Dataset[Batch]):
    """Item `step` is the batch of that step, decoded and with its augmentation drawn.

    Args:
        images: the data set.
        order: which rows each step sees.
        plans: one per view of an image.
        seed: the recipe's seed.
        rank, processes: this process takes every `processes`-th image of a batch, starting at `rank`.
        policy_steps: number of steps in which AutoAugment's probability falls from 1 to 0; 0 turns it off.
        cameras: of the images, for a network that takes them.
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
        policy_steps: float = 0,
        cameras: ImageCameras | None = None,
    ) -> None:
        self._images, self._order, self._plans, self._seed = images, order, tuple(plans), seed
        self._cameras = cameras
        self._rank, self._processes, self._policy_steps = rank, processes, policy_steps
        self.slots = WorkerSlots()

    def __getitem__(self, step: int) -> Batch:
        wanted = self._order.rows(step)[self._rank :: self._processes]
        rows, damaged = wanted.copy(), list[str]()
        epoch = self._order.epoch_of(step)
        # Keyed by the requested row or position, so that a damaged image does not change its neighbours' draws.
        keys = self._order.draw_keys(step)[self._rank :: self._processes].copy()
        share = fading_probability(step, self._policy_steps)
        policy = draw_policy(keys, seed=self._seed, epoch=epoch, probability=share).tolist() if share else []

        def read() -> Iterator[NDArray[np.uint8]]:
            for position, (row, found) in enumerate(zip(wanted.tolist(), self._images.find(wanted), strict=True)):
                self.slots.note(row)
                rows[position], image, damage = self._images.decode_or_next(row, found)
                damaged.extend(damage)
                yield apply_policy(image, policy[position]) if policy else image

        pixels, size, slot = stack_images(read(), self.slots, count=len(wanted), bound=self._images.bound(wanted))
        views = draw_views(self._plans, size, keys, seed=self._seed, epoch=epoch)
        drawn = None if self._cameras is None else self._cameras.draw(rows, keys, seed=self._seed, epoch=epoch)
        return Batch(
            pixels=pixels,
            rows=torch.from_numpy(rows),
            keys=torch.from_numpy(keys),
            views=tuple(view.tensors() for view in views),
            damaged=tuple(damaged),
            cameras=None if drawn is None else torch.from_numpy(drawn),
            slot=slot,
        )

    def describe(self, image: int) -> str:
        """Location of image `image` of the data set, for messages."""
        return self._images.describe(image)


class ChunkDataset(Dataset[Batch]):
    """Item `i` is the i-th chunk of consecutive images, each once, for evaluation; the last chunk may be shorter.

    Args:
        images: the data set.
        plan: resize and normalisation; nothing random.
        chunk: images per item.
        lenient: a file that is not an image becomes a black one, and is listed in `damaged` as `INDEX: reason`.
        cameras: (N) rows of the network's camera table, for a network that takes them.
    """

    def __init__(
        self,
        images: PackImages | FileImages,
        plan: ViewPlan,
        *,
        chunk: int,
        lenient: bool = False,
        cameras: NDArray[np.int64] | None = None,
    ) -> None:
        self._images, self._plan, self._chunk, self._lenient = images, plan, chunk, lenient
        self._cameras = cameras
        self.slots = WorkerSlots()

    def __len__(self) -> int:
        return -(-len(self._images) // self._chunk)

    def __getitem__(self, item: int) -> Batch:
        rows = np.arange(item * self._chunk, min((item + 1) * self._chunk, len(self._images)))
        damaged: list[str] = []

        def read() -> Iterator[NDArray[np.uint8]]:
            for row in rows.tolist():
                self.slots.note(row)
                try:
                    yield self._images.decode(row)
                except CorruptImageError as error:
                    if not self._lenient:
                        raise
                    damaged.append(f"{row}: {error.message}")
                    yield np.zeros((1, 1, 3), np.uint8)

        pixels, size, slot = stack_images(read(), self.slots, count=len(rows), bound=self._images.bound(rows))
        draws = SampleDraws(rows, seed=0, epoch=0, view=0)
        return Batch(
            pixels=pixels,
            rows=torch.from_numpy(rows),
            keys=torch.from_numpy(rows),
            views=(draw_view(self._plan, size, draws).tensors(),),
            damaged=tuple(damaged),
            cameras=None if self._cameras is None else torch.from_numpy(self._cameras[rows]),
            slot=slot,
        )

    def describe(self, image: int) -> str:
        """Location of image `image` of the data set, for messages."""
        return self._images.describe(image)


def open_loader(
    dataset: BatchSource[Batch], items: Sequence[int], *, workers: int, pin: bool
) -> Generator[Batch, None, None]:
    """Batches in order, decoded ahead by `workers` processes (0: in this one).

    Raises:
        DataError: a pack is damaged, or a worker process died.
    """
    # Workers are forked, even by a process that was spawned: a child of PyTorch's launcher would otherwise spawn them
    # too, each with its own interpreter and its own copy of the pack's columns. If OpenCV has started threads, as
    # packing in this process does, a forked copy would wait for threads that do not exist; stopping them here is safe,
    # and we need only one thread per worker.
    cv2.setNumThreads(1)
    dataset.slots.watch(workers)
    loader: DataLoader[Batch | LupError] = DataLoader(
        ErrorsAsItems(dataset),
        sampler=items,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker,
    )
    # torch's signal handler raises a worker's death in whatever the loop is doing, even in the middle of a message. It
    # also checks for dead workers whenever it waits for them, and that is where the loop can handle it.
    with child_handler_kept():
        # Starting here, and not at the first `next`, lets the workers decode while the caller builds its network.
        decoded = iter(loader)
    batches = raise_errors(decoded, dataset)
    # Workers ignore SIGTERM, by which Python stops the remaining ones at its own exit, and Python would wait forever.
    # A process that multiprocessing started, as in a training job, does not run atexit but finalizers; this one runs
    # before those of the queues that notify the workers.
    atexit.register(close_if_open, weakref.ref(batches))
    Finalize(None, close_if_open, args=(weakref.ref(batches),), exitpriority=BEFORE_QUEUES)
    return batches


def default_workers(device: torch.device) -> int:
    """Default number of worker processes: a GPU leaves the cores to them; on a CPU the network needs most of them.

    Processes of one machine share its cores.
    """
    own = usable_cores() // local_processes()
    return max(1, min(16, own) if device.type != "cpu" else own // 2)


def _start_worker(worker: int) -> None:
    # Ctrl-C and SIGTERM reach the whole process group. The loop finishes its step and needs the workers until then.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # A worker that waits to send a batch would wait for ever: it has the reading end of that pipe itself.
    end_with_parent()
