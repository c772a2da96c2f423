"""Shared memory in which decoding workers hand their batches over, and which they get back.

A page of new shared memory costs the kernel about a third of what decoding the pixels that fill it does, and telling
another process of it costs a connection. So a worker keeps a few slots, tells of each once, and fills it again as soon
as nobody holds the pixels any more.
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

# Batches of one worker that may live at the same time; one beyond them is sent in memory of its own.
SLOTS = 64


@dataclass(frozen=True)
class SlotMessage:
    """Where a batch is, as it travels between processes.

    Args:
        owner: whose slots, as `WorkerSlots` names them.
        slot: the one that is filled.
        shape: of the pixels.
        storage: (bytes) uint8 in shared memory; None where the receiver knows it already.
        busy: (SLOTS) uint8 in shared memory, 1 while a batch lives in a slot; comes with the storage.
    """

    owner: str
    slot: int
    shape: tuple[int, ...]
    storage: Tensor | None
    busy: Tensor | None


@dataclass
class _Known:
    """What a receiver knows of the slots of one worker."""

    busy: Tensor
    storages: dict[int, Tensor] = field(default_factory=dict)


# Workers that this process has received batches from, by the name of their loader. Unpickling, which torch does in
# threads of its own, has nowhere else to look.
_known: dict[str, dict[str, _Known]] = {}


class WorkerSlots:
    """Memory for batches: plain memory, or in a worker the worker's own slots.

    Attributes:
        name: tells the loaders of one process apart.
    """

    def __init__(self) -> None:
        self.name = uuid.uuid4().hex
        self._worker: str | None = None
        self._slots: list[Tensor] = []
        self._sent: set[int] = set()
        self._reading: Tensor | None = None

    def watch(self, workers: int) -> None:
        """Lets workers that are forked after this leave word of what they read."""
        self._reading = _shared_bytes(8 * workers).view(torch.int64).fill_(-1) if workers else None

    def note(self, image: int) -> None:
        """Leaves word, in a worker, of the image that it reads now."""
        info = get_worker_info()
        if info is not None and self._reading is not None:
            self._reading.numpy()[info.id] = image  # a tenth of the time of torch's own

    def last_image(self, worker: int) -> int | None:
        """The image that a worker left word of last, dead or alive."""
        image = -1 if self._reading is None else int(self._reading[worker])
        return None if image < 0 else image

    def take(self, shape: tuple[int, ...]) -> tuple[Tensor, "Slot | None"]:
        """A uint8 tensor with anything in it, and the slot that it lies in, if it does."""
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
        """What the other side needs to find a slot's pixels; made when a batch is sent, for that side then knows."""
        assert self._worker is not None, "only workers have slots"
        if slot in self._sent:
            return SlotMessage(self._worker, slot, shape, None, None)
        self._sent.add(slot)
        return SlotMessage(self._worker, slot, shape, self._slots[slot], self._busy)


@dataclass(frozen=True)
class Slot:
    """A filled place in a worker's memory.

    Args:
        slots: the worker's.
        number: of the slot.
    """

    slots: WorkerSlots
    number: int

    def message(self, pixels: Tensor) -> SlotMessage:
        """What is sent in place of the pixels."""
        return self.slots.message(self.number, tuple(pixels.shape))

    def release(self) -> None:
        """Gives the memory back without sending it."""
        self.slots.release(self.number)


def stack_images(
    images: Iterable[NDArray[np.uint8]], slots: WorkerSlots, *, count: int, bound: tuple[int, int] = (1, 1)
) -> tuple[Tensor, NDArray[np.int64], Slot | None]:
    """Images of any sizes in one tensor, each in the top left corner of its place, zeros beside it.

    Each is copied as soon as it is there, while the processor's cache still holds it.

    Args:
        images: (h, w, 3) each.
        slots: gives the memory.
        count: how many images there are, B.
        bound: the greatest height and width as far as they are known; a larger image makes all places larger.

    Returns:
        (B, H, W, 3) uint8, the (B, 2) heights and widths, and the slot that the tensor lies in, if it does.
    """
    shapes: list[tuple[int, ...]] = []
    stacked, slot = slots.take((count, *bound, 3))
    places = stacked.numpy()
    whole = places.shape[1:]
    for number, image in enumerate(images):
        shapes.append(image.shape)
        if image.shape == whole:
            places[number] = image
            continue
        height, width, _ = image.shape
        if height > whole[0] or width > whole[1]:
            old, old_slot = places, slot
            stacked, slot = slots.take((count, max(height, whole[0]), max(width, whole[1]), 3))
            places = stacked.numpy()
            places[:number] = 0
            places[:number, : whole[0], : whole[1]] = old[:number]
            whole = places.shape[1:]
            if old_slot is not None:
                old_slot.release()
        places[number] = 0
        places[number, :height, :width] = image
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
    """Lets go of the memory of a loader that has ended; batches that are still held keep theirs."""
    _known.pop(slots.name, None)


def _shared_bytes(number: int) -> Tensor:
    try:
        storage = torch.UntypedStorage._new_shared(number)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        reason = str(error).rpartition(": ")[2]
        raise DeviceError(
            f"no shared memory for a batch of {number / 2**20:.1f} MiB ({reason})",
            hint="--workers 0 needs none; or give the machine, or its container, more of it (/dev/shm)",
        ) from error
    return torch.empty(0, dtype=torch.uint8).set_(storage, 0, (number,), (1,))
