"""Shared memory through which decoding workers pass their batches on, and which they reuse.

A page of new shared memory costs the kernel about a third of the time of decoding the pixels that fill it, and
announcing it to another process costs a connection. So a worker keeps a few slots, announces each once, and fills it
again as soon as no one uses the pixels any more.
"""

import uuid
import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import get_worker_info

from lupctl.core.errors import DeviceError

# Batches of one worker that may exist at the same time; further ones are sent in separate memory.
SLOTS = 64


@dataclass(frozen=True)
class SlotMessage:
    """The location of a batch, as it is sent between processes.

    Args:
        owner: the worker that owns the slots, as `WorkerSlots` names it.
        slot: number of the filled slot.
        shape: of the pixels.
        storage: (bytes) uint8 in shared memory; None if the receiver knows it already.
        busy: (SLOTS) uint8 in shared memory, 1 while a batch is in a slot; sent with the storage.
    """

    owner: str
    slot: int
    shape: tuple[int, ...]
    storage: Tensor | None
    busy: Tensor | None


@dataclass
class _Known:
    """What a receiver knows about the slots of one worker."""

    busy: Tensor
    storages: dict[int, Tensor] = field(default_factory=dict)


# Workers that this process has received batches from, by the name of their loader. Unpickling, which torch does in
# its own threads, has no other place to find them.
_known: dict[str, dict[str, _Known]] = {}


class WorkerSlots:
    """Memory for batches: plain memory, or in a worker the worker's own slots.

    Attributes:
        name: identifies the loader among those of one process.
    """

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self._worker: str | None = None
        self._slots: list[Tensor] = []
        self._sent: set[int] = set()
        self._reading: Tensor | None = None

    def watch(self, workers: int) -> None:
        """Lets workers that are forked after this record what they read."""
        self._reading = _shared_bytes(8 * workers).view(torch.int64).fill_(-1) if workers else None

    def note(self, image: int) -> None:
        """In a worker, records the image that it is reading."""
        info = get_worker_info()
        if info is not None and self._reading is not None:
            self._reading.numpy()[info.id] = image  # a tenth of the time of torch's own

    def last_image(self, worker: int) -> int | None:
        """The image that a worker, dead or alive, recorded last."""
        image = -1 if self._reading is None else int(self._reading[worker])
        return None if image < 0 else image

    def take(self, shape: tuple[int, ...]) -> tuple[Tensor, "Slot | None"]:
        """An uninitialised uint8 tensor, and the slot that it is in, if any."""
        info = get_worker_info()
        if info is None:
            return torch.empty(shape, dtype=torch.uint8), None
        if self._worker is None:
            self._worker = f"{self.name}/{info.id}"
            self._busy = _shared_bytes(SLOTS).zero_()
        slot = next((number for number, busy in enumerate(self._busy.tolist()) if not busy), None)
        if slot is None:
            return torch.empty(shape, dtype=torch.uint8), None
        self._busy[slot] = 1
        num_bytes = prod(shape)
        if slot == len(self._slots):
            self._slots.append(_shared_bytes(num_bytes))
        elif len(self._slots[slot]) < num_bytes:
            self._slots[slot] = _shared_bytes(num_bytes)
            self._sent.discard(slot)
        return self._slots[slot][:num_bytes].view(shape), Slot(self, slot)

    def release(self, slot: int) -> None:
        """Lets a slot be filled again."""
        self._busy[slot] = 0

    def message(self, slot: int, shape: tuple[int, ...]) -> SlotMessage:
        """The message by which the receiver finds a slot's pixels; only made to be sent: the receiver then knows it."""
        assert self._worker is not None, "only workers have slots"
        if slot in self._sent:
            return SlotMessage(self._worker, slot, shape, None, None)
        self._sent.add(slot)
        return SlotMessage(self._worker, slot, shape, self._slots[slot], self._busy)


@dataclass(frozen=True)
class Slot:
    """A filled slot in a worker's memory.

    Args:
        slots: all slots of the worker.
        number: of this slot.
    """

    slots: WorkerSlots
    number: int

    def message(self, pixels: Tensor) -> SlotMessage:
        """The message that is sent instead of the pixels."""
        return self.slots.message(self.number, tuple(pixels.shape))

    def release(self) -> None:
        """Frees the slot without sending it."""
        self.slots.release(self.number)


def stack_images(
    images: Iterable[NDArray[np.uint8]], slots: WorkerSlots, *, count: int, bound: tuple[int, int] = (1, 1)
) -> tuple[Tensor, NDArray[np.int64], Slot | None]:
    """Images of any sizes in one tensor, each in the top left corner of its frame, padded with zeros.

    Each is copied as soon as it is decoded, while it is still in the processor's cache.

    Args:
        images: (h, w, 3) each.
        slots: provides the memory.
        count: number of images, B.
        bound: the greatest height and width where known; a larger image enlarges all frames.

    Returns:
        (B, H, W, 3) uint8, the (B, 2) heights and widths, and the slot that the tensor is in, if any.
    """
    shapes: list[tuple[int, ...]] = []
    stacked, slot = slots.take((count, *bound, 3))
    frames = stacked.numpy()
    whole = frames.shape[1:]
    for number, image in enumerate(images):
        shapes.append(image.shape)
        if image.shape == whole:
            frames[number] = image
            continue
        height, width, _ = image.shape
        if height > whole[0] or width > whole[1]:
            old, old_slot = frames, slot
            stacked, slot = slots.take((count, max(height, whole[0]), max(width, whole[1]), 3))
            frames = stacked.numpy()
            frames[:number] = 0
            frames[:number, : whole[0], : whole[1]] = old[:number]
            whole = frames.shape[1:]
            if old_slot is not None:
                old_slot.release()
        frames[number] = 0
        frames[number, :height, :width] = image
    return stacked, np.array(shapes, dtype=np.int64)[:, :2], slot


def receive(message: SlotMessage) -> Tensor:
    """The pixels of a batch; the worker may fill the slot again once the last view of them is gone."""
    owners = _known.setdefault(message.owner.partition("/")[0], {})
    if message.storage is not None and message.busy is not None:
        owners.setdefault(message.owner, _Known(message.busy)).storages[message.slot] = message.storage
    known = owners[message.owner]
    # torch keeps the array that a tensor was made from for as long as any view of the tensor lives.
    array = known.storages[message.slot][: prod(message.shape)].view(message.shape).numpy()
    weakref.finalize(array, known.busy.__setitem__, message.slot, 0)
    return torch.from_numpy(array)


def forget(slots: WorkerSlots) -> None:
    """Releases the memory of a loader that has ended; batches that are still in use keep theirs."""
    _known.pop(slots.name, None)


def _shared_bytes(number: int) -> Tensor:
    try:
        storage = torch.UntypedStorage._new_shared(number)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        reason = str(error).rpartition(": ")[2]
        raise DeviceError(
            f"no shared memory for a batch of {number / 2**20:.1f} MiB ({reason})",
            hint="use --workers 0, which needs none, or give the machine or its container more (/dev/shm)",
        ) from error
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (number,), (1,))
