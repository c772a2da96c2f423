"""Random numbers that depend only on what they are for.

A counter-based generator turns a key and a counter into random bits without any state: image 17 in epoch 3 gets the
same crop with any number of workers, processes or restarts. The generator is Philox4x32-10 (Salmon, Moraes, Dror and
Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011), computed for a whole batch at once.
"""

import copy

import numpy as np
from numpy.typing import NDArray

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
_BRANCH_SHIFT = 8
_LOW = np.uint64(0xFFFFFFFF)
_WORD = np.uint64(32)


def philox(counter: NDArray[np.uint32], key: tuple[int, int]) -> NDArray[np.uint32]:
    """Philox4x32-10 of N counters under one key.

    Args:
        counter: (N, 4).
        key: two 32-bit words.

    Returns:
        (N, 4) random words.
    """
    x0, x1, x2, x3 = (counter[:, column].astype(np.uint64) for column in range(4))
    k0, k1 = key
    for _ in range(ROUNDS):
        first = x0 * np.uint64(MULTIPLIERS[0])
        second = x2 * np.uint64(MULTIPLIERS[1])
        # In place where a word is not needed again: most of the time is spent on creating arrays.
        x0 = second >> _WORD
        x0 ^= x1
        x0 ^= np.uint64(k0)
        x2 = first >> _WORD
        x2 ^= x3
        x2 ^= np.uint64(k1)
        second &= _LOW
        first &= _LOW
        x1, x3 = second, first
        k0 = (k0 + KEY_STEPS[0]) & 0xFFFFFFFF
        k1 = (k1 + KEY_STEPS[1]) & 0xFFFFFFFF
    words = np.empty_like(counter)
    for column, word in enumerate((x0, x1, x2, x3)):
        words[:, column] = word
    return words


class SampleDraws:
    """Uniform numbers for each sample of a batch, keyed by (seed, epoch, sample, view).

    Each call takes the next numbers of every sample's own stream, so the result depends on the order of calls, but not
    on the other samples of the batch.

    Args:
        samples: (N) int64, rows of the data set, below 2**32.
        seed: the recipe's seed.
        epoch: counted from 0.
        view: 0 for the first view of an image, 1 for the second; below 256; one number for all samples, or (N).
    """

    def __init__(self, samples: NDArray[np.int64], *, seed: int, epoch: int, view: int | NDArray[np.int64]) -> None:
        self._samples = samples.astype(np.uint32)
        self._key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
        self._epoch = epoch
        self._view = np.broadcast_to(np.asarray(view, dtype=np.uint32), samples.shape)
        self._block = 0

    def branch(self, number: int) -> "SampleDraws":
        """Separate streams for one purpose, 1 to 255, so that the amount it draws does not shift the others."""
        other = copy.copy(self)
        other._view, other._block = self._view | np.uint32(number << _BRANCH_SHIFT), 0
        return other

    def uniform(self, count: int, *, rows: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """(N, count) numbers in the open interval (0, 1).

        Args:
            count: numbers per sample; every stream advances past them.
            rows: (M) computes them for these samples only, (M, count).
        """
        blocks = -(-count // 4)
        samples, view = (self._samples, self._view) if rows is None else (self._samples[rows], self._view[rows])
        number = len(samples)
        counter = np.empty((number, blocks, 4), dtype=np.uint32)
        counter[:, :, 0] = np.arange(self._block, self._block + blocks, dtype=np.uint32)
        counter[:, :, 1] = samples[:, None]
        counter[:, :, 2] = view[:, None]
        counter[:, :, 3] = self._epoch
        self._block += blocks
        words = philox(counter.reshape(-1, 4), self._key).reshape(number, blocks * 4)
        return np.asarray((words[:, :count] + 0.5) / 2.0**32, dtype=np.float64)


def epoch_generator(seed: int, epoch: int, purpose: int) -> np.random.Generator:
    """A generator for choices that concern a whole epoch, such as the order of the images.

    Args:
        seed: the recipe's seed.
        epoch: counted from 0.
        purpose: separates uses of the same seed and epoch.
    """
    # A plain list with a number above 2**63 would become floats.
    key = np.array([seed & (2**64 - 1), (purpose << 40) + epoch], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))
