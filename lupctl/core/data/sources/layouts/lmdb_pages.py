"""Checks every page of an LMDB's tree, because the library trusts them: a wrong number in one ends the process.

The layout is that of LMDB 0.9 (mdb.c) on a little-endian machine with 64 bits. A file begins with two meta pages, of
which the one with the later transaction counts. A page has a header of 16 bytes: its number, its kind, and where its
list of node positions ends. A node of a branch has the number of a page below it; a node of a leaf has a key and a
value, or the number of the first of the pages that a long value fills.
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import FormatError
from lupctl.core.system.disk.reading import open_to_read, read_at

HEADER: Final = struct.Struct("<QHHHH")  # number of the page, padding, kind, end of the positions, begin of the nodes
# Magic number, version, address, size of the map; then free and main database, last page, transaction. Of a database:
# padding (of the free one: bytes of a page), flags, depth, pages of each kind, entries, root.
DATABASE: Final = "IHHQQQQQ"
META: Final = struct.Struct(f"<IIQQ{DATABASE}{DATABASE}QQ")
MAGIC, VERSION, FIXED_MAP, INTEGER_KEYS, NO_ROOT = 0xBEEFC0DE, 1, 0x01, 0x08, 2**64 - 1
BRANCH, LEAF, META_KIND = 0x01, 0x02, 0x08
# Flags of a leaf's node: its value fills pages of its own; it is another database's record, which reads as bytes.
LONG, RECORD = 0x01, 0x02
NODE_BYTES, NUMBER_BYTES, MOST_DEPTH = 8, 8, 32
PAGE_SIZES: Final = [1 << power for power in range(9, 17)]
HINT = "copy the database again"


@dataclass(frozen=True)
class _Tree:
    """What a meta page says.

    Args:
        page_bytes: of every page.
        root: number of the tree's first page.
        last: number of the last page.
    """

    page_bytes: int
    root: int
    last: int


def check_pages(data: Path) -> None:
    """Reads every page of the tree, and no long value.

    Afterwards each page that the library can reach is there, once, and each key and value is inside of the file.

    Args:
        data: the database's file.

    Raises:
        FormatError: it is no such database, is cut short or is damaged.
        OSError: it cannot be read.
    """
    file = open_to_read(data)
    try:
        tree = _read_tree(file, data)
        needed, there = (tree.last + 1) * tree.page_bytes, os.fstat(file).st_size
        if there < needed:
            raise FormatError(f"{data}: cut short, {there:,} of {needed:,} bytes", hint=HINT)
        level = np.array([] if tree.root == NO_ROOT else [tree.root], np.uint64)
        seen = np.zeros(tree.last + 1, np.bool_)
        for _ in range(MOST_DEPTH):
            if not len(level):
                return
            level = _check_level(file, data, tree, np.sort(level), seen)  # sorted: disks read forwards faster
        _refuse(data, f"a tree of more than {MOST_DEPTH} levels")
    finally:
        os.close(file)


def _read_tree(file: int, data: Path) -> _Tree:
    first = _read_meta(file, data, 0)
    second = _read_meta(file, data, first[4])
    meta = second if second[-1] > first[-1] else first
    # The flags of the free database are those of the file, too; those of the main one would change its order.
    if meta[5] & (FIXED_MAP | INTEGER_KEYS) != INTEGER_KEYS or meta[13] != 0:
        _refuse(data, "a database with duplicate values or numbers as keys", kind="not an LMDB of images")
    return _Tree(page_bytes=meta[4], root=meta[19], last=meta[20])


def _read_meta(file: int, data: Path, offset: int) -> tuple[int, ...]:
    page = read_at(file, HEADER.size + META.size, offset)
    if len(page) == HEADER.size + META.size:
        kind, meta = HEADER.unpack_from(page)[2], META.unpack_from(page, HEADER.size)
        if kind & META_KIND and meta[:2] == (MAGIC, VERSION) and meta[4] in PAGE_SIZES:
            return meta
    return _refuse(data, "its first two pages do not describe one", kind="not a readable LMDB")


def _check_level(
    file: int, data: Path, tree: _Tree, numbers: NDArray[np.uint64], seen: NDArray[np.bool_]
) -> NDArray[np.uint64]:
    """Checks the pages of one level of the tree; gives those of the level below."""
    if int(numbers[-1]) > tree.last or int(numbers[0]) < 2:
        _refuse(data, "refers to a page that does not exist")
    if len(np.unique(numbers)) < len(numbers) or seen[numbers].any():
        _refuse(data, "refers to a page twice")
    seen[numbers] = True
    below, kinds = list[NDArray[np.uint64]](), set[int]()
    for number in numbers.tolist():
        page = read_at(file, tree.page_bytes, number * tree.page_bytes)
        own, _, kind, end, _ = HEADER.unpack_from(page)
        count = (end - HEADER.size) // 2
        if own != number or kind not in (BRANCH, LEAF) or count < (2 if kind == BRANCH else 1):
            _refuse(data, f"page {number} is none of a tree")
        kinds.add(kind)
        below.append(_check_page(page, kind, count, data, tree))
    if len(kinds) > 1:
        _refuse(data, "its leaves are at different depths")
    return np.concatenate(below)


def _check_page(page: bytes, kind: int, count: int, data: Path, tree: _Tree) -> NDArray[np.uint64]:
    """Checks the nodes of a page; gives the pages that they refer to as parts of the tree."""
    size = len(page)
    if HEADER.size + 2 * count > size:
        _refuse(data, "a page with more nodes than it has room for")
    at = np.frombuffer(page, "<u2", count, HEADER.size).astype(np.int64)
    if at.min() < HEADER.size + 2 * count or at.max() + NODE_BYTES > size:
        _refuse(data, "a node outside of its page")
    letters = np.frombuffer(page, np.uint8)
    low, high, flags, key_bytes = letters[at[:, None] + np.arange(NODE_BYTES)].view("<u2").astype(np.int64).T
    ends = at + NODE_BYTES + key_bytes
    if kind == BRANCH:
        if ends.max() > size:
            _refuse(data, "a key outside of its page")
        numbers: NDArray[np.uint64] = (low | high << 16 | flags << 32).astype(np.uint64)
        return numbers
    value_bytes, is_long = low | high << 16, (flags & LONG) != 0
    if (flags & ~(LONG | RECORD)).any() or (ends + np.where(is_long, NUMBER_BYTES, value_bytes)).max() > size:
        _refuse(data, "a value outside of its page")
    if is_long.any():
        where = ends[is_long][:, None] + np.arange(NUMBER_BYTES)
        first = letters[where].view("<u8")[:, 0]
        if first.min() < 2 or first.max() > tree.last:
            _refuse(data, "a value in a page that does not exist")
        last = first.astype(np.int64) + (HEADER.size + value_bytes[is_long] - 1) // tree.page_bytes
        if last.max() > tree.last:
            _refuse(data, "a value beyond the end of the file")
    return np.empty(0, np.uint64)


def _refuse(data: Path, what: str, *, kind: str = "damaged LMDB") -> NoReturn:
    raise FormatError(f"{data}: {kind} ({what})", hint=HINT)
