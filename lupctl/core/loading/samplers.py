"""Which images a step sees: functions of (seed, epoch, step), of nothing else."""

from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import UsageError
from lupctl.core.loading.draws import epoch_generator

_ORDER, _PERSONS = 1, 2


class StepOrder(Protocol):
    """The images of every step of a run."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one pass."""

    def epoch_of(self, step: int) -> int:
        """The epoch a step belongs to, counted from 0."""

    def rows(self, step: int) -> NDArray[np.int64]:
        """(B) rows of the data set, the whole batch over all devices."""


class ShuffledOrder:
    """Every image once per epoch in a new order; the last images that fill no batch are left out.

    Args:
        count: images in the data set.
        batch: images per step over all devices.
        seed: the recipe's seed.

    Raises:
        UsageError: there are fewer images than one batch holds.
    """

    def __init__(self, count: int, *, batch: int, seed: int) -> None:
        if count < batch:
            raise UsageError(
                f"data.batch = {batch} is more than the {count} images there are",
                hint=f"a batch that fits: --set data.batch={max(2, 2 ** (count.bit_length() - 3))}",
            )
        self.steps_per_epoch = count // batch
        self._count, self._batch, self._seed = count, batch, seed
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step."""
        return step // self.steps_per_epoch

    def rows(self, step: int) -> NDArray[np.int64]:
        """(B) rows of one step."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self._permutation(epoch)[place * self._batch : (place + 1) * self._batch]

    def _permute(self, epoch: int) -> NDArray[np.int64]:
        return np.asarray(epoch_generator(self._seed, epoch, _ORDER).permutation(self._count), dtype=np.int64)

    def __getstate__(self) -> dict[str, object]:
        return {key: value for key, value in self.__dict__.items() if key != "_permutation"}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._permutation = lru_cache(maxsize=2)(self._permute)


class PersonsImagesOrder:
    """Batches of P persons with K images each, as batch-hard triplets need (Hermans et al. 2017).

    In one epoch every person has a shuffled list of images, drawn with replacement up to K when there are fewer.
    P persons with at least K images left are chosen without replacement, and each gives its next K, until fewer
    than P such persons remain.

    Args:
        label: (N) int64, class of every image.
        persons: P.
        images: K.
        seed: the recipe's seed.

    Raises:
        UsageError: there are fewer than P persons.
    """

    def __init__(self, label: NDArray[np.int64], *, persons: int, images: int, seed: int) -> None:
        order = np.argsort(label, kind="stable")
        _, first = np.unique(label[order], return_index=True)
        self._rows_of = np.split(order, first[1:])
        if len(self._rows_of) < persons:
            raise UsageError(
                f"data.persons = {persons} persons per batch, but the training set has {len(self._rows_of)}",
                hint=f"--set data.persons={max(2, len(self._rows_of) // 2)}",
            )
        self._persons, self._images, self._seed = persons, images, seed
        # The number of batches varies a little from epoch to epoch with the order of the choice. A schedule needs one
        # number, so every epoch has as many steps as images fill batches, and goes round again where it runs dry.
        usable = sum(max(len(rows) // images, 1) for rows in self._rows_of)
        self.steps_per_epoch = max(usable // persons, 1)
        self._cache: tuple[int, NDArray[np.int64]] | None = None

    def epoch_of(self, step: int) -> int:
        """The epoch of a step."""
        return step // self.steps_per_epoch

    def rows(self, step: int) -> NDArray[np.int64]:
        """(P * K) rows of one step, the K images of a person side by side."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._cache is None or self._cache[0] != epoch:
            self._cache = (epoch, self._draw_epoch(epoch))
        batch: NDArray[np.int64] = self._cache[1][place]
        return batch

    def _draw_epoch(self, epoch: int) -> NDArray[np.int64]:
        """(steps, P * K) rows."""
        generator = epoch_generator(self._seed, epoch, _PERSONS)
        batches: list[NDArray[np.int64]] = []
        while len(batches) < self.steps_per_epoch:
            queues = [self._shuffle_person(rows, generator) for rows in self._rows_of]
            ready = np.arange(len(queues))
            while len(ready) >= self._persons and len(batches) < self.steps_per_epoch:
                chosen = generator.choice(ready, size=self._persons, replace=False)
                batches.append(np.concatenate([queues[person][: self._images] for person in chosen]))
                for person in chosen:
                    queues[person] = queues[person][self._images :]
                ready = ready[[len(queues[person]) >= self._images for person in ready]]
        return np.stack(batches)

    def _shuffle_person(self, rows: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        if len(rows) < self._images:
            return np.asarray(generator.choice(rows, size=self._images, replace=True), dtype=np.int64)
        return np.asarray(generator.permutation(rows), dtype=np.int64)
