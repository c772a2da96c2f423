"""What hostile files are made of: numbers, texts, names, documents and spoiled bytes."""

import json
import math
import os
from collections.abc import Callable
from random import Random
from typing import Any

# Numbers that some part of a program takes for impossible.
NUMBERS: tuple[int | float, ...] = (
    0, -1, 1, 2**15, 2**31, 2**32 + 1, 2**53 + 1, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 2**80, -(2**80), 10**400,
    0.5, -0.0, 1e-320, 1e308, -1e308, math.inf, -math.inf, math.nan,
)  # fmt: skip
TEXTS = (
    "", " ", ".", "..", "-", "--help", "a" * 300, "ä" * 200, "x" * 5_000, "a\nb", "a\rb", "a\tb", "a\0b",
    "\x1b]0;owned\x07", "\x1b[31mred", "\x9b31m", "\u202eabc", "[/b]", "[bold]x", "[red", "{x}", "%s%n", "<b>x</b>",
    "<script>alert(1)</script>", "'; rm -rf x; '", "$(touch executed)", "²", "٣", "1_000", "0x10", "1e5", "1e999",
    "inf", "nan", "None", "true", "\ud800", "\udcff", "🦊", "\ufeff", "../../outside", "/etc/passwd", "C:\\x", "~",
    "~root", "9" * 5_000, "1" + "0" * 400, "=", "a=b", "con.h5", "\u2028",
)  # fmt: skip
# Texts that json.dumps cannot write: it stops at numbers of thousands of digits and at deep nesting.
RAW = {
    "@digits@": "9" * 5_000,
    "@lists@": "[" * 100_000 + "]" * 100_000,
    "@tables@": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "@unfinished@": "[" * 100_000,
    "@long@": '"' + "a" * 1_000_000 + '"',
    "@surrogate@": '"\\ud800"',
    "@escape@": '"\\u001b]0;owned\\u0007\\u009b31m"',
    "@zero@": '"a\\u0000b"',
    "@exponent@": "1e999",
    "@nan@": "NaN",
}


def number(draw: Random) -> int | float:
    """A number that may be too large, no number, or nearly right."""
    return draw.choice(NUMBERS) if draw.random() < 0.8 else draw.randrange(-(10**6), 10**6)


def number_text(draw: Random) -> str:
    """A number as a file writes it."""
    return "9" * 5_000 if draw.random() < 0.1 else str(number(draw))


def text(draw: Random) -> str:
    """A text that may be a command, a path, or a terminal's."""
    return draw.choice(TEXTS)


def encodable(draw: Random) -> str:
    """A text without halves of characters."""
    return text(draw).encode("utf-8", "replace").decode()


def file_name(draw: Random) -> str:
    """A text that the file system takes as a name."""
    while True:
        name = text(draw).replace("/", "_").replace("\0", "0").replace("\ud800", "?")
        if name not in ("", ".", "..") and len(os.fsencode(name)) < 250:
            return name


def value(draw: Random) -> Any:
    """Something that JSON can hold, or can nearly hold."""
    kind = draw.randrange(7)
    if kind == 0:
        return draw.choice((None, True, False))
    if kind == 1:
        return number(draw)
    if kind == 2:
        return text(draw)
    if kind == 3:
        return [value(draw) for _ in range(draw.randrange(3))]
    if kind == 4:
        return {text(draw): value(draw) for _ in range(draw.randrange(3))}
    return draw.choice(list(RAW))


def spoil(draw: Random, document: Any, *, times: int = 1) -> Any:
    """A document of which a part is replaced, left out, repeated or renamed."""
    for _ in range(times):
        document = _spoil(draw, document)
    return document


def _spoil(draw: Random, document: Any) -> Any:
    if draw.random() < 0.1 or not isinstance(document, dict | list) or not document:
        return value(draw)
    if isinstance(document, list):
        changed = list(document)
        row = draw.randrange(len(changed))
        action = draw.randrange(4)
        if action == 0:
            del changed[row]
        elif action == 1:
            changed.insert(row, value(draw))
        else:
            changed[row] = _spoil(draw, changed[row])
        return changed
    table = dict(document)
    key = draw.choice(sorted(table, key=str))
    action = draw.randrange(6)
    if action == 0:
        del table[key]
    elif action == 1:
        table[text(draw)] = table.pop(key)
    elif action == 2:
        table[text(draw)] = value(draw)
    else:
        table[key] = _spoil(draw, table[key])
    return table


def as_json(document: Any) -> str:
    """A document as JSON, with what JSON libraries refuse to write."""
    written = json.dumps(document, ensure_ascii=True)
    for name, raw in RAW.items():
        written = written.replace(f'"{name}"', raw)
    return written


def mutate(draw: Random, content: bytes, *, times: int | None = None) -> bytes:
    """Bytes of which some are changed, lost, repeated or moved."""
    changed = bytearray(content)
    for _ in range(times or draw.choice((1, 1, 2, 5, 40))):
        at = draw.randrange(len(changed) + 1)
        length = draw.choice((1, 1, 2, 4, 8, 64, 512))
        draw.choice(MUTATIONS)(draw, changed, at, length)
    return bytes(changed)


def _flip(draw: Random, changed: bytearray, at: int, length: int) -> None:
    if at < len(changed):
        changed[at] ^= 1 << draw.randrange(8)


def _cut(draw: Random, changed: bytearray, at: int, length: int) -> None:
    del changed[at:]


def _remove(draw: Random, changed: bytearray, at: int, length: int) -> None:
    del changed[at : at + length]


def _random(draw: Random, changed: bytearray, at: int, length: int) -> None:
    changed[at : at + length] = draw.randbytes(length)


def _extreme(draw: Random, changed: bytearray, at: int, length: int) -> None:
    changed[at : at + length] = draw.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length


def _repeat(draw: Random, changed: bytearray, at: int, length: int) -> None:
    changed[at:at] = changed[at : at + length] * draw.choice((1, 2, 100))


def _move(draw: Random, changed: bytearray, at: int, length: int) -> None:
    piece = changed[at : at + length]
    del changed[at : at + length]
    other = draw.randrange(len(changed) + 1)
    changed[other:other] = piece


MOST_BYTES = 1 << 26
MUTATIONS: tuple[Callable[[Random, bytearray, int, int], None], ...] = (
    _flip, _flip, _flip, _extreme, _extreme, _random, _cut, _remove, _repeat, _move,
)  # fmt: skip


def mutate_file(draw: Random, path: Any) -> None:
    """Mutates a file in place, unless something else, or one larger than memory, has been put there before."""
    if path.is_file() and path.stat().st_size < MOST_BYTES:
        path.write_bytes(mutate(draw, path.read_bytes()))
