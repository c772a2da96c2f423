"""The images of each step, as a function of (seed, epoch, step) and nothing else."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import UsageError
from lupctl.core.training.engine.curves import Epochs, even_epochs
from lupctl.core.training.views.draws import epoch_generator

_ORDER, _PERSONS = 1, 2


class StepOrder(Protocol):
    """The images of every step of a run."""

    def epochs(self, count: int) -> Epochs:
        """The first `count` epochs."""

    def epoch_of(self, step: int) -> int:
        """The epoch a step belongs to, counted from 0."""

    def rows(self, step: int) -> NDArray[np.int64]:
        """(B) rows of the data set, the whole batch over all devices."""

    def draw_keys(self, step: int) -> NDArray[np.int64]:
        """(B) numbers below 2**32 that key the draws of the images' augmentation within an epoch."""


class ShuffledOrder:
    """Every image once per epoch in a new order; the last images that do not fill a batch are left out.

    Args:
        count: images in the data set.
        batch: images per step over all devices.
        seed: the recipe's seed.
        groups: batch-norm groups of a batch, into which the batch that the hint names divides too.
        shares: parts that devices work on at a time, into which it divides as well.

    Raises:
        UsageError: there are fewer images than one batch needs.
    """

    def __init__(self, count: int, *, batch: int, seed: int, groups: int = 1, shares: int = 1) -> None:
        if count < batch:
            raise UsageError(
                f"data.batch = {batch} is larger than the number of images, {count}",
                hint=_hint_for_few(count, groups, shares),
            )
        self.steps_per_epoch = count // batch
        self._count, self._batch, self._seed = count, batch, seed
        self._permutation = lru_cache(maxsize=2)(self._permute)

    def epochs(self, count: int) -> Epochs:
        """All of one length."""
        return even_epochs(self.steps_per_epoch, count)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step."""
        return step // self.steps_per_epoch

    def rows(self, step: int) -> NDArray[np.int64]:
        """(B) rows of one step."""
        epoch, position = divmod(step, self.steps_per_epoch)
        return self._permutation(epoch)[position * self._batch : (position + 1) * self._batch]

    def draw_keys(self, step: int) -> NDArray[np.int64]:
        """The rows: each occurs once in an epoch."""
        return self.rows(step)

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
        self._rows_of = group_rows(label, persons=persons)
        self._persons, self._images, self._seed = persons, images, seed
        # The number of batches varies a little from epoch to epoch with the order of the choice. A schedule needs one
        # number, so every epoch has as many steps as its images fill batches, and starts over if it runs out.
        self.steps_per_epoch = max(int(count_groups(self._rows_of, images).sum()) // persons, 1)
        self._cache: tuple[int, NDArray[np.int64]] | None = None

    def epochs(self, count: int) -> Epochs:
        """All of one length."""
        return even_epochs(self.steps_per_epoch, count)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step."""
        return step // self.steps_per_epoch

    def rows(self, step: int) -> NDArray[np.int64]:
        """(P * K) rows of one step, the K images of a person side by side."""
        epoch, position = divmod(step, self.steps_per_epoch)
        if self._cache is None or self._cache[0] != epoch:
            self._cache = (epoch, self._draw_epoch(epoch))
        batch: NDArray[np.int64] = self._cache[1][position]
        return batch

    def draw_keys(self, step: int) -> NDArray[np.int64]:
        """The rows: an image that occurs twice in an epoch gets the same augmentation."""
        return self.rows(step)

    def _draw_epoch(self, epoch: int) -> NDArray[np.int64]:
        """(steps, P * K) rows."""
        generator = epoch_generator(self._seed, epoch, _PERSONS)
        batches: list[NDArray[np.int64]] = []
        while len(batches) < self.steps_per_epoch:
            batches += draw_pass(self._rows_of, generator, persons=self._persons, images=self._images)
        return np.stack(batches[: self.steps_per_epoch])


def group_rows(label: NDArray[np.int64], *, persons: int) -> list[NDArray[np.int64]]:
    """The rows of every person, in the order of their classes.

    Raises:
        UsageError: there are fewer than `persons` persons.
    """
    order = np.argsort(label, kind="stable")
    _, first = np.unique(label[order], return_index=True)
    rows_of = np.split(order, first[1:])
    if len(rows_of) < persons:
        raise UsageError(
            f"data.persons = {persons} persons per batch, but the training set has {len(rows_of)}",
            hint=f"--set data.persons={max(2, len(rows_of) // 2)}",
        )
    return rows_of


def draw_pass(
    rows_of: Sequence[NDArray[np.int64]], generator: np.random.Generator, *, persons: int, images: int
) -> list[NDArray[np.int64]]:
    """The batches of one pass over all persons, (P * K) rows each, the K images of a person side by side.

    Every person has a shuffled list of images, drawn with replacement up to K when there are fewer. P persons with at
    least K images left are chosen without replacement, and each gives its next K, until fewer than P such remain.
    """
    queues = shuffle_persons(rows_of, generator, images=images)
    return deal_images(queues, choose_persons(count_groups(rows_of, images), generator, persons=persons), images=images)


def count_groups(rows_of: Sequence[NDArray[np.int64]], images: int) -> NDArray[np.int64]:
    """(C) how often each person can give K images in a pass."""
    return np.array([max(len(rows) // images, 1) for rows in rows_of], dtype=np.int64)


def shuffle_persons(
    rows_of: Sequence[NDArray[np.int64]], generator: np.random.Generator, *, images: int
) -> list[NDArray[np.int64]]:
    """The images of each person in a new order, drawn with replacement up to K when there are fewer."""
    return [
        np.asarray(
            generator.permutation(rows) if len(rows) >= images else generator.choice(rows, size=images, replace=True),
            dtype=np.int64,
        )
        for rows in rows_of
    ]


def choose_persons(
    groups: NDArray[np.int64], generator: np.random.Generator, *, persons: int
) -> list[NDArray[np.int64]]:
    """The P persons of each batch of a pass, chosen until fewer than P have a group left.

    Args:
        groups: (C) how many groups of images each person has.
        generator: random numbers.
        persons: P.
    """
    left, chosen = groups.copy(), list[NDArray[np.int64]]()
    ready = np.flatnonzero(left > 0)
    while len(ready) >= persons:
        chosen.append(generator.choice(ready, size=persons, replace=False))
        left[chosen[-1]] -= 1
        ready = ready[left[ready] > 0]
    return chosen


def deal_images(
    queues: Sequence[NDArray[np.int64]], chosen: Sequence[NDArray[np.int64]], *, images: int
) -> list[NDArray[np.int64]]:
    """The batches of persons, (P * K) rows each: every time a person is chosen, it gives its next K images."""
    given = np.zeros(len(queues), np.int64)
    batches = []
    for persons in chosen:
        batches.append(np.concatenate([queues[person][given[person] : given[person] + images] for person in persons]))
        given[persons] += images
    return batches


def _hint_for_few(count: int, groups: int, shares: int) -> str:
    """A batch of an eighth to a quarter of the images, in equal groups of two or more that devices can share."""
    batch = max(2, 2 ** (count.bit_length() - 3))
    for own, options in ((groups, ""), (shares, f" --set bn_groups={shares}")):
        unit = math.lcm(own, shares)
        divided = max(-(-2 * own // unit) * unit, batch // unit * unit)
        if divided <= count:
            return f"choose a batch that fits: --set data.batch={divided}{options}"
    alone = f"--set data.batch={batch} --set bn_groups=1 --set optim.accumulate=1 --gpus 1"
    return f"choose a batch that fits: {alone}" if batch <= count else "pack more images: lupctl data pack"
