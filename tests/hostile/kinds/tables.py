"""Tables and lists in text: CSV, splits, video lists."""

from random import Random

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import mutate, number_text, text

COMMANDS = """
data pack table --workers 1
data pack table --layout csv --dry-run
data verify lup/raw/table
data pack lup/raw/table --name t
data pack lup/raw/table --name t --root .
data pack lup/raw/table --name t --root gone
"""
ROWS = (("one.jpg", "1", "1", "train"), ("two.jpg", "2", "2", "query"), ("three.jpg", "2", "1", "gallery"))


def make(draw: Random, place: Place) -> Case:
    """A table to pack, or a list next to a command."""
    path = place.take("lup/raw/table") / "list.csv"
    errors = draw.choice(("surrogateescape", "replace"))
    kind = draw.randrange(5)
    if kind == 0:
        path.write_bytes(mutate(draw, path.read_bytes()))
    elif kind < 3:
        header = draw.choice(
            (("path", "person", "camera", "role"), ("path",), ("path", "person"), ("path", text(draw)))
        )
        path.write_bytes(_encode(_rows(draw, header, ROWS), errors))
    elif kind == 3:
        rows = tuple((row[0], row[3]) for row in ROWS)
        (place.work / "split.csv").write_bytes(_encode(_rows(draw, ("path", "role"), rows), errors))
        return Case(pick_command(draw, "data pack table --split split.csv --workers 1 --force"))
    else:
        (place.work / "vnames.txt").write_bytes(_encode("\n".join(text(draw) for _ in range(3)), errors))
        return Case(pick_command(draw, "data download luperson --list vnames.txt --accept-terms --dry-run"))
    return Case(pick_command(draw, COMMANDS))


def _rows(draw: Random, header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [list(header), *(list(row[: len(header)]) for row in rows)]
    for _ in range(draw.choice((0, 1, 1, 2))):
        line = draw.choice(lines)
        what = draw.choice((number_text(draw), text(draw)))
        if draw.random() < 0.2:
            line.append(what)
        else:
            line[draw.randrange(len(line))] = what
    return "\n".join(",".join(line) for line in lines)


def _encode(written: str, errors: str) -> bytes:
    return written.replace("\ud800", "?").encode("utf-8", errors)
