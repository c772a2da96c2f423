"""Random draws that depend on a key alone, never on what was drawn before."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Item = TypeVar("Item")

# The purpose of a key: the second number of every key, so that no two purposes share a stream.
PERSON, SCENE, PRESENCE, TRACK, SHOT, TEXTURE, LABEL = range(7)

BLOCK = 64


class Chance:
    """A stream of draws keyed by whole numbers, such as (seed, purpose, person, camera, shot).

    Everything is derived from `Generator.random`, whose values NumPy keeps stable between versions; a block of
    numbers is drawn at once because a single call costs more than the number.

    Args:
        key: non-negative numbers.
    """

    def __init__(self, *key: int) -> None:
        # A seed sequence cannot tell (1,) from (1, 0) unless the length comes first.
        self._generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence((len(key), *key))))
        self._block: list[float] = []

    def unit(self) -> float:
        """Uniform in [0, 1)."""
        if not self._block:
            self._block = self._generator.random(BLOCK).tolist()
        return self._block.pop()

    def between(self, low: float, high: float) -> float:
        """Uniform in [low, high)."""
        return low + (high - low) * self.unit()

    def bell(self, mean: float, spread: float) -> float:
        """Nearly normal with standard deviation `spread`, and never further than 2.5 deviations from `mean`."""
        # Three uniforms: variance 3/12, so the sum spans 3 standard deviations of 0.5 either way.
        return mean + min(2.5, max(-2.5, (self.unit() + self.unit() + self.unit() - 1.5) * 2.0)) * spread

    def integer(self, low: int, high: int) -> int:
        """Uniform among low, ..., high - 1."""
        return low + int(self.unit() * (high - low))

    def bernoulli(self, probability: float) -> bool:
        """True with the given probability."""
        return self.unit() < probability

    def sign(self) -> int:
        """-1 or 1."""
        return -1 if self.unit() < 0.5 else 1

    def pick(self, items: Sequence[Item], weights: Sequence[float] | None = None) -> Item:
        """One item, uniformly or in proportion to `weights` (of any positive scale)."""
        if weights is None:
            return items[int(self.unit() * len(items))]
        left = self.unit() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]
