"""Endless streams of persons x images batches, cut into epochs by the number of images or where a pass ends."""

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from lupctl.core.training.engine.curves import Epochs, even_epochs
from lupctl.core.training.loading.samplers import (
    choose_persons,
    count_groups,
    deal_images,
    draw_pass,
    group_rows,
    shuffle_persons,
)
from lupctl.core.training.views.draws import epoch_generator

_STREAM, _CAMERAS, _CHOICES, _IMAGES = 3, 4, 5, 6
_KEPT_PASSES = 2


class PersonStream:
    """fast-reid's "naive" identity sampler: one pass over all persons after another.

    The number of batches in a pass depends on the order of the choice, so epochs and passes do not start together.

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
        self.steps_per_epoch = max(len(label) // (persons * images), 1)
        self._begins = [0]  # first step of every pass seen so far, and of the next one
        self._passes: dict[int, list[NDArray[np.int64]]] = {}

    def epochs(self, count: int) -> Epochs:
        """All of one length."""
        return even_epochs(self.steps_per_epoch, count)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step."""
        return step // self.steps_per_epoch

    def rows(self, step: int) -> NDArray[np.int64]:
        """(P * K) rows of one step, the K images of a person side by side."""
        while self._begins[-1] <= step:
            number = len(self._begins) - 1
            self._begins.append(self._begins[-1] + len(self._pass(number)))
        number = bisect_right(self._begins, step) - 1
        return self._pass(number)[step - self._begins[number]]

    def draw_keys(self, step: int) -> NDArray[np.int64]:
        """The positions in the epoch: an image that occurs twice, even in one batch, is augmented differently."""
        return number_positions(step % self.steps_per_epoch, self._persons * self._images)

    def _pass(self, number: int) -> list[NDArray[np.int64]]:
        if number not in self._passes:
            generator = epoch_generator(self._seed, number, _STREAM)
            drawn = draw_pass(self._rows_of, generator, persons=self._persons, images=self._images)
            self._passes = dict([*self._passes.items(), (number, drawn)][-_KEPT_PASSES:])
        return self._passes[number]


class CameraStream:
    """fast-reid's "balanced" identity sampler: the images of a person come from as many cameras as possible.

    A pass takes every person once, in a new order; those that do not fill a batch are left out. For each, one image is
    drawn at random and the other K - 1 from that person's images in other cameras, or from its other images if there
    is only one camera; a single image is repeated. Drawing is with replacement if there are too few. (The published
    code draws K where K - 1 are needed, and repeats the data set's first image for persons with one.)

    Args:
        label: (N) int64, class of every image.
        camera: (N) camera of every image.
        persons: P.
        images: K.
        seed: the recipe's seed.

    Raises:
        UsageError: there are fewer than P persons.
    """

    def __init__(
        self, label: NDArray[np.int64], camera: NDArray[np.int16], *, persons: int, images: int, seed: int
    ) -> None:
        self._rows_of = group_rows(label, persons=persons)
        self._camera = camera
        self._persons, self._images, self._seed = persons, images, seed
        self.steps_per_epoch = max(len(label) // (persons * images), 1)
        self._steps_per_pass = len(self._rows_of) // persons
        self._cache: tuple[int, list[NDArray[np.int64]]] | None = None

    def epochs(self, count: int) -> Epochs:
        """All of one length."""
        return even_epochs(self.steps_per_epoch, count)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step."""
        return step // self.steps_per_epoch

    def rows(self, step: int) -> NDArray[np.int64]:
        """(P * K) rows of one step, the K images of a person side by side."""
        number, position = divmod(step, self._steps_per_pass)
        if self._cache is None or self._cache[0] != number:
            generator = epoch_generator(self._seed, number, _CAMERAS)
            order = generator.permutation(len(self._rows_of))
            self._cache = (number, [self._draw_person(self._rows_of[person], generator) for person in order])
        return np.concatenate(self._cache[1][position * self._persons : (position + 1) * self._persons])

    def draw_keys(self, step: int) -> NDArray[np.int64]:
        """The positions in the epoch: an image that occurs twice, even in one batch, is augmented differently."""
        return number_positions(step % self.steps_per_epoch, self._persons * self._images)

    def _draw_person(self, rows: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        first = generator.choice(rows)
        others = rows[self._camera[rows] != self._camera[first]]
        if len(others) == 0:
            others = rows[rows != first] if len(rows) > 1 else rows
        wanted = self._images - 1
        drawn = generator.choice(others, size=wanted, replace=len(others) < wanted)
        return np.concatenate([[first], drawn]).astype(np.int64)


class PersonPasses:
    """TransReID's identity sampler: an epoch is one pass over all persons, and an image comes at most once in it.

    The images of each person are shuffled and cut into groups of K; those that do not fill a group are left out, and a
    person with fewer has one group, drawn with replacement. While P persons or more have groups left, P of them are
    chosen and give one each. How many steps that takes depends on the choice, so epochs differ a little in length.

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
        self._groups = count_groups(self._rows_of, images)
        self._persons, self._images, self._seed = persons, images, seed
        self._begins = [0]  # first step of every epoch that was asked for, and of the next one
        self._cache: tuple[int, list[NDArray[np.int64]]] | None = None

    def epochs(self, count: int) -> Epochs:
        """Each as long as its pass."""
        while len(self._begins) <= count:
            self._begins.append(self._begins[-1] + len(self._choose(len(self._begins) - 1)))
        return Epochs(tuple(self._begins[: count + 1]))

    def epoch_of(self, step: int) -> int:
        """The epoch of a step."""
        while self._begins[-1] <= step:
            self.epochs(len(self._begins))
        return bisect_right(self._begins, step) - 1

    def rows(self, step: int) -> NDArray[np.int64]:
        """(P * K) rows of one step, the K images of a person side by side."""
        epoch = self.epoch_of(step)
        if self._cache is None or self._cache[0] != epoch:
            queues = shuffle_persons(self._rows_of, epoch_generator(self._seed, epoch, _IMAGES), images=self._images)
            self._cache = (epoch, deal_images(queues, self._choose(epoch), images=self._images))
        return self._cache[1][step - self._begins[epoch]]

    def draw_keys(self, step: int) -> NDArray[np.int64]:
        """The positions in the epoch: an image that a person with few of them repeats is augmented differently."""
        return number_positions(step - self._begins[self.epoch_of(step)], self._persons * self._images)

    def _choose(self, epoch: int) -> list[NDArray[np.int64]]:
        """The persons of each step; by random numbers of their own, so that lengths need no images to be shuffled."""
        return choose_persons(self._groups, epoch_generator(self._seed, epoch, _CHOICES), persons=self._persons)


def number_positions(step: int, batch: int) -> NDArray[np.int64]:
    """(B) positions of one batch's images among all images of its epoch."""
    return np.arange(step * batch, (step + 1) * batch, dtype=np.int64)
