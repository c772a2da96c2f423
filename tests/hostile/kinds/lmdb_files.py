"""LMDB databases with damaged pages, and values that are no images."""

import pickle
from pathlib import Path
from random import Random

import lmdb

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import as_json, mutate_file, text, value
from tests.tools.tiny.images import encode_tiny

COMMANDS = """
data pack base --layout lmdb --quiet --workers 1
data pack base --layout lmdb --dry-run
data verify lup/raw/base --layout lmdb
"""


def make(draw: Random, place: Place) -> Case:
    """A database to pack or verify."""
    base = place.take("lup/raw/base")
    path = base / "lmdb"
    if draw.random() < 0.3:
        _rewrite(draw, path)
    else:
        mutate_file(draw, path / draw.choice(("data.mdb", "data.mdb", "data.mdb", "lock.mdb")))
    keys = draw.choice(([], ["--keys", "none"]))
    return Case([*pick_command(draw, COMMANDS), *keys], changes=("lup/raw/base/lmdb/lock.mdb",))


def _rewrite(draw: Random, path: Path) -> None:
    (path / "data.mdb").unlink()
    with lmdb.open(str(path), map_size=1 << 22, max_dbs=2) as environment, environment.begin(write=True) as change:
        for _ in range(draw.randrange(4)):
            name = text(draw).encode("utf-8", "replace")[:500] or b"x"
            change.put(name, draw.choice((encode_tiny(1), b"", b"x", pickle.dumps(3), encode_tiny(2)[:100])))
        change.put(b"__keys__", draw.choice((b"x", pickle.dumps([b"a"]), as_json(value(draw)).encode())))
