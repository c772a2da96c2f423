"""A column of names: millions of strings in two arrays, in about a third of the memory of Python strings."""

from array import array
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from itertools import accumulate, pairwise
from operator import index, lt
from typing import Any, SupportsIndex, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lupctl.core.errors import DataError
from lupctl.core.system.examples import name_some

# Names that are Python objects at the same time while a column is iterated over.
BLOCK_NAMES = 1 << 12


class StringColumn(Sequence[str]):
    """N strings, read like any sequence of them; made by `build_column` or a `StringColumnBuilder`.

    A Python string of 30 letters takes 79 bytes and its slot in a list 8 more, 1 GiB for 11 million names; here it
    takes its letters and 8 bytes. A slice shares the memory of the whole.

    >>> names = build_column(["a/1.jpg", "a/2.jpg", "ü.jpg"])
    >>> names[-1], names[1:] == ["a/2.jpg", "ü.jpg"], len(names)
    ('ü.jpg', True, 3)

    Args:
        letters: (L) uint8, the names in UTF-8, one after the other.
        offsets: (N+1) int64, rising; name i is `letters[offsets[i]:offsets[i+1]]`.
    """

    __hash__ = None  # type: ignore[assignment]  # equal to lists, which have none either

    def __init__(self, letters: NDArray[np.uint8], offsets: NDArray[np.int64]) -> None:
        self.letters = np.ascontiguousarray(letters, np.uint8)
        self.offsets = np.ascontiguousarray(offsets, np.int64)
        # Slicing a memoryview costs a third of slicing an array.
        self._letters, self._offsets = self.letters.data, self.offsets.data

    def __reduce__(self) -> tuple[Any, ...]:
        begin, end = int(self.offsets[0]), int(self.offsets[-1])
        return StringColumn, (self.letters[begin:end], self.offsets - begin)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    @overload
    def __getitem__(self, row: SupportsIndex) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> "StringColumn": ...

    def __getitem__(self, row: SupportsIndex | slice) -> "str | StringColumn":
        if isinstance(row, slice):
            start, stop, step = row.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            return StringColumn(self.letters, self.offsets[start : max(start, stop) + 1])
        position = index(row)
        if position < 0:
            position += len(self)
        if not 0 <= position < len(self):
            raise IndexError(f"row {row} of {len(self)} names")
        return str(self._letters[self._offsets[position] : self._offsets[position + 1]], "utf-8")

    def __iter__(self) -> Iterator[str]:
        for block in self.encoded_blocks():
            for name in block:
                yield name.decode("utf-8")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, str) or not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(ours == theirs for ours, theirs in zip(self, other, strict=True))

    def __repr__(self) -> str:
        return f"StringColumn({name_some(map(repr, self))}; {len(self):,})"

    @property
    def num_bytes(self) -> int:
        """Bytes of all letters together."""
        return int(self.offsets[-1] - self.offsets[0])

    def take(self, rows: ArrayLike) -> "StringColumn":
        """The names of some rows (K integers from 0 to N-1), in that order."""
        chosen = np.asarray(rows, np.int64)
        begins = self.offsets[chosen]
        lengths = self.offsets[chosen + 1] - begins
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        letters = np.empty(int(offsets[-1]), np.uint8)
        for start in range(0, len(chosen), BLOCK_NAMES):  # in blocks: an index per letter is eight times the letters
            stop = min(start + BLOCK_NAMES, len(chosen))
            first, last = int(offsets[start]), int(offsets[stop])
            shift = np.repeat(begins[start:stop] - offsets[start:stop], lengths[start:stop])
            letters[first:last] = self.letters[shift + np.arange(first, last)]
        return StringColumn(letters, offsets)

    def encoded_blocks(self, size: int = BLOCK_NAMES) -> Iterator[list[bytes]]:
        """All names in UTF-8, `size` at a time."""
        for start in range(0, len(self), size):
            offsets = self.offsets[start : start + size + 1]
            text = self.letters[offsets[0] : offsets[-1]].tobytes()
            yield [text[begin:end] for begin, end in pairwise((offsets - offsets[0]).tolist())]

    def joined(self, separator: bytes = b"\0") -> Iterator[bytes]:
        """The parts of `separator.join` of all names in UTF-8, for a digest."""
        before = b""
        for block in self.encoded_blocks():
            yield before + separator.join(block)
            before = separator


class StringColumnBuilder:
    """Collects names one by one or column by column."""

    def __init__(self) -> None:
        self._letters = bytearray()
        self._ends = array("q", [0])

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def num_bytes(self) -> int:
        """Bytes of all letters so far."""
        return len(self._letters)

    def append(self, name: str) -> None:
        """Adds one name.

        Raises:
            DataError: it is not UTF-8, as file names may be, or contains a zero byte.
        """
        if "\0" in name:
            raise DataError(f"the name {name!r} contains a zero byte, which no file name can", hint="rename it")
        try:
            self._letters += name.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(f"the name {name!a} is not UTF-8", hint="rename it") from error
        self._ends.append(len(self._letters))

    def extend(self, names: Iterable[str]) -> None:
        """Adds several, a column in one go.

        Raises:
            DataError: as `append`.
        """
        if not isinstance(names, StringColumn):
            for name in names:
                self.append(name)
            return
        begin, end = int(names.offsets[0]), int(names.offsets[-1])
        ends = names.offsets[1:] + (len(self._letters) - begin)
        self._letters += names.letters[begin:end].data
        self._ends.frombytes(ends.tobytes())

    def extend_encoded(self, names: Sequence[bytes]) -> None:
        """Adds several that are encoded.

        Raises:
            UnicodeDecodeError: one is not UTF-8.
            DataError: one contains a zero byte.
        """
        joined = b"\n".join(names)  # with something between them: each has to be UTF-8 by itself
        if b"\0" in joined:
            raise DataError(f"the name {next(n for n in names if 0 in n)!r} contains a zero byte", hint="rename it")
        joined.decode("utf-8")
        begin = len(self._letters)
        self._letters += b"".join(names)
        self._ends.extend(accumulate(map(len, names[1:]), initial=begin + len(names[0])) if names else ())

    def build(self) -> StringColumn:
        """The column; the builder must not be used afterwards."""
        return StringColumn(np.frombuffer(self._letters, np.uint8), np.frombuffer(self._ends, np.int64))


def build_column(names: Iterable[str]) -> StringColumn:
    """A column of any strings; one that is a column already is returned as it is.

    Raises:
        DataError: a name that is not UTF-8, or contains a zero byte.
    """
    if isinstance(names, StringColumn):
        return names
    builder = StringColumnBuilder()
    builder.extend(names)
    return builder.build()


def sort_rows(names: StringColumn) -> NDArray[np.int64]:
    """The rows in the names' order, equal names in the order of their rows.

    Blocks are sorted as Python strings and merged, so that only one block is strings at a time.
    """
    if not len(find_falls(names)):
        return np.arange(len(names))

    def sorted_block(start: int) -> NDArray[np.int64]:
        block = list(names[start : start + BLOCK_NAMES])
        order = sorted(range(len(block)), key=block.__getitem__)
        return np.array(order, np.int64) + start

    def run(rows: NDArray[np.int64]) -> Iterator[tuple[str, int]]:
        for row in rows.data:
            yield names[row], row

    runs = [sorted_block(start) for start in range(0, len(names), BLOCK_NAMES)]
    return np.fromiter((row for _, row in merge(*map(run, runs))), np.int64, len(names))


def find_falls(names: StringColumn) -> NDArray[np.int64]:
    """The rows whose name does not come after the one before it."""
    falls = array("q")
    last = b""
    row = 0
    for block in names.encoded_blocks():  # UTF-8 sorts like the text it encodes
        if row and last >= block[0]:
            falls.append(row)
        if not all(map(lt, block, block[1:])):
            falls.extend(position for position, (a, b) in enumerate(pairwise(block), start=row + 1) if a >= b)
        row, last = row + len(block), block[-1]
    return np.array(falls, np.int64)


def find_repeated(names: StringColumn) -> NDArray[np.int64]:
    """The rows in which a name occurs for the second time, in the rows' order.

    Names are distinguished by 64-bit hashes, and compared only where those are equal.
    """
    if not len(find_falls(names)):
        return np.empty(0, np.int64)
    hashes = np.fromiter(map(hash, names), np.int64, len(names))
    order = np.argsort(hashes, kind="stable")
    hashes = hashes[order]
    same = np.flatnonzero(hashes[1:] == hashes[:-1])  # positions in `order` whose next one may be equal
    second = array("q")
    once: set[str] = set()
    twice: set[str] = set()
    last = -2
    for position in same.data:
        if position != last + 1:  # another hash begins
            once, twice = {names[order[position]]}, set()
        name = names[order[position + 1]]
        if name in once and name not in twice:
            twice.add(name)
            second.append(int(order[position + 1]))
        once.add(name)
        last = position
    return np.sort(np.array(second, np.int64))
