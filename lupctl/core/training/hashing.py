"""Random bits on the device of what they are for, as a function of keys alone: no generator, no state."""

from typing import Final, TypeVar

from torch import Tensor

WORD: Final = 0xFFFFFFFF
W = TypeVar("W", int, Tensor)


def mix(words: W) -> W:
    """A bijection of 32-bit words (in int64, or one number) that spreads every bit over all of them.

    The form is that of C. Wellons's "lowbias32"; its second factor is replaced by one below 2**31, as is the first, so
    that no product exceeds 63 bits.
    """
    for shift, factor in ((16, 0x7FEB352D), (15, 0x31848BAB), (14, 0x45D9F3B)):
        words = ((words ^ (words >> shift)) * factor) & WORD
    return words ^ (words >> 16)
