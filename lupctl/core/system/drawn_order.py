"""Drawing by a seed, the same on every machine and in every version: by hashes of names, not by a random generator."""

import hashlib
from collections.abc import Iterable
from fractions import Fraction


def draw_order(seed: int, kind: str, keys: Iterable[str]) -> list[int]:
    """The positions of the keys in drawn order: by BLAKE2b (128 bits) of the texts `SEED KIND KEY`.

    Which of two keys comes first does not depend on the other keys.

    >>> draw_order(0, "person", ["1", "2", "3"])
    [1, 0, 2]

    Args:
        seed: another one gives another order.
        kind: what the keys are; the orders of two kinds are unrelated.
        keys: all different.
    """
    ranks = [hashlib.blake2b(f"{seed} {kind} {key}".encode(), digest_size=16).digest() for key in keys]
    return sorted(range(len(ranks)), key=ranks.__getitem__)


def share(count: int, ratio: str) -> int:
    """int(count R), without the rounding errors of binary fractions.

    >>> share(751, "0.1"), share(100, "0.29")
    (75, 29)

    Args:
        count: of things.
        ratio: R, a decimal number as typed.
    """
    return int(count * Fraction(ratio))
