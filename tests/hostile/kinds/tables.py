"""Tables and lists in text: CSV, splits, key lists, video lists."""

from random import Random

from tests.hostile.runner import Case, Place
from tests.hostile.values import mutate, number, text


def make(draw: Random, place: Place) -> Case:
    """A table to pack, or a list next to a command."""
    place.take("lup/raw/table")
    path = place.work / "lup" / "raw" / "table" / "list.csv"
    kind = draw.randrange(5)
    if kind == 0:
        path.write_bytes(mutate(draw, path.read_bytes()))
    elif kind in (1, 2):
        path.write_text(_table(draw), encoding="utf-8", errors="surrogateescape" if draw.random() < 0.5 else "replace")
    elif kind == 3:
        split = place.work / "split.csv"
        split.write_text(_rows(draw, ("path", "role"), (("one.jpg", "train"), ("two.jpg", "query"), ("three.jpg", "gallery"))), encoding="utf-8", errors="replace")
        return Case(["data", "pack", "table", "--split", "split.csv", "--workers", "1", "--force"])
    else:
        names = place.work / "vnames.txt"
        names.write_text("\n".join(text(draw) for _ in range(3)), encoding="utf-8", errors="replace")
        return Case(["data", "download", "luperson", "--list", "vnames.txt", "--accept-terms", "--dry-run"])
    words = draw.choice((["data", "pack", "table", "--workers", "1"], ["data", "pack", "table", "--layout", "csv", "--dry-run"], ["data", "verify", "lup/raw/table"], ["data", "pack", "lup/raw/table", "--name", "t", "--root", draw.choice((".", "lup/raw/table", "gone"))]))
    return Case(words)


def _table(draw: Random) -> str:
    header = draw.choice((("path", "person", "camera", "role"), ("path",), ("path", "person"), ("path", text(draw)), (text(draw),)))
    return _rows(draw, header, (("one.jpg", "1", "1", "train"), ("two.jpg", "2", "2", "query")))


def _rows(draw: Random, header: tuple[str, ...], rows: tuple[tuple[str, ...], ...]) -> str:
    lines = [list(header), *(list(row[: len(header)]) for row in rows)]
    for _ in range(draw.choice((0, 1, 1, 2))):
        line = draw.choice(lines)
        what = draw.choice((str(number(draw)) if draw.random() < 0.9 else "9" * 5_000, text(draw)))
        if draw.random() < 0.2:
            line.append(what)
        elif line:
            line[draw.randrange(len(line))] = what
    return "\n".join(",".join(line) for line in lines)
