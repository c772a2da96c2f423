"""Pickles: LMDB's key files, LUPerson's boxes, and weights; programs, deep and shared objects, damage."""

import io
import os
import pickle
import zipfile
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import torch

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import mutate, number, text

COMMANDS = """
model convert {name}
model convert {name} --training
model info {name}
dump {name} labelled
data build x --videos videos --detector fasterrcnn-mobile --detector-weights {name} --device cpu --workers 1
"""
BOXES = ["data", "build", "x", "--videos", "videos", "--workers", "1", "--quiet", "--format"]


class _Runs:
    """Makes a file when it is loaded."""

    def __init__(self, marker: Path, function: Any) -> None:
        self.marker, self.function = str(marker), function

    def __reduce__(self) -> Any:
        return self.function, (f"touch {self.marker}",) if self.function is os.system else (self.marker,)


def make(draw: Random, place: Place) -> Case:
    """A pickle in one of the places where one is read."""
    kind = draw.choice(("keys", "luperson", "luperson-nl", "weights", "weights"))
    if kind == "weights":
        return _weights(draw, place)
    if kind == "keys":
        place.take("lup/raw/base")
        target = place.work / "lup" / "raw" / "base" / "keys.pkl"
        target.write_bytes(_content(draw, place, target.read_bytes()))
        return Case(["data", "pack", "base", "--layout", "lmdb", "--quiet", "--workers", "1"])
    place.take("videos")
    target = place.take(f"{kind}/clip.pkl")
    target.write_bytes(_content(draw, place, target.read_bytes()))
    return Case([*BOXES, kind, "--detections", kind])


def _weights(draw: Random, place: Place) -> Case:
    name = draw.choice(("foreign.pth", "legacy.pth"))
    path = place.take(name)
    if draw.random() < 0.5 and name == "foreign.pth":
        with zipfile.ZipFile(path) as archive:
            parts = {info.filename: archive.read(info) for info in archive.infolist()}
        with zipfile.ZipFile(path, "w") as archive:
            for part, content in parts.items():
                if part.endswith("data.pkl"):
                    content = _content(draw, place, content)
                archive.writestr(part, content)
    elif draw.random() < 0.5:
        path.write_bytes(mutate(draw, path.read_bytes()[:4_000]) + path.read_bytes()[4_000:])
    elif draw.random() < 0.5:
        torch.save(
            draw.choice(
                (_Runs(place.marker, os.system), {"state_dict": value(draw)}, {"model": {"a": 3}}, value(draw))
            ),
            path,
        )
    else:
        path.write_bytes(_content(draw, place, path.read_bytes()))
    return Case(pick_command(draw, COMMANDS, name=name))


def _content(draw: Random, place: Place, valid: bytes) -> bytes:
    kind = draw.randrange(6)
    if kind == 0:
        return pickle.dumps(_Runs(place.marker, draw.choice((os.system, os.mkdir, eval, exec))), draw.randrange(5))
    if kind == 1:
        return draw.choice(_programs(draw))
    if kind == 2:
        return pickle.dumps(value(draw), draw.choice((2, 4)))
    return mutate(draw, valid)


def value(draw: Random) -> Any:
    """Something of the types that such a pickle may hold."""
    kind = draw.randrange(9)
    if kind == 0:
        return number(draw)
    if kind == 1:
        return text(draw).replace("\ud800", "?")
    if kind == 2:
        return [value(draw) for _ in range(draw.randrange(4))]
    if kind == 3:
        return tuple(value(draw) for _ in range(draw.randrange(3)))
    if kind == 4:
        return {draw.choice(("a", 1, 2**70, "keys", "1", 1.5)): value(draw) for _ in range(draw.randrange(3))}
    if kind == 5:
        return np.array([_as_float(number(draw))], np.float64)
    if kind == 6:
        return {frame_number(draw): [[draw.choice((0, 2**70, -1, "x")), _info(draw)]] for _ in range(2)}
    if kind == 7:
        return np.zeros((0, 4), np.int8)
    return draw.choice((None, True, b"x", b"\xff", {1, 2}))


def _as_float(given: float) -> float:
    """A number as an array can hold it."""
    try:
        return float(given)
    except OverflowError:
        return float("inf")


def frame_number(draw: Random) -> Any:
    """What stands where a frame's number should."""
    return draw.choice((1, 0, 2, -1, 2**63, 2**80, 1.5, float("inf"), float("nan"), "1", "x", None, (1,)))


def _info(draw: Random) -> Any:
    info = {"bbox": np.array([1, 2, 30, 80], np.float32), "conf": 0.9}
    key = draw.choice(("bbox", "conf", "pid", "prob", "other"))
    info[key] = draw.choice(
        (
            number(draw),
            [number(draw) for _ in range(4)],
            np.array([_as_float(number(draw))] * 17, np.float64),
            text(draw),
            None,
        )
    )
    return info


def _programs(draw: Random) -> list[bytes]:
    """Pickles that no pickler writes: shared nests, deep nests, huge lengths, loops."""
    deep = draw.choice((1_000, 100_000))
    return [
        b"\x80\x02]K\x01" + b"2\x86" * 45 + b"a.",
        b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aK\x01" + b"2\x86" * 45 + b"\x86R.",
        b"\x80\x02]K\x01" + b"2\x86" * draw.randrange(20, 30) + b"a.",
        b"\x80\x02" + b"]" * deep + b"a" * (deep - 1) + b".",
        b"\x80\x02N" + b"\x85" * deep + b".",
        b"\x80\x02]q\0h\0a.",  # a list in itself
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f" + b"x" * 10,
        b"\x80\x02X\xff\xff\xff\x7fabc.",
        b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\1" * 100,
        b"\x80\x02r\xff\xff\xff\x7fN.",
        b"\x80\x02Nr\xff\xff\xff\x7f.",
        b"I" + b"9" * 10_000 + b"\n.",
        b"L" + b"9" * 10_000 + b"L\n.",
        b"F1e999\n.",
        b"cos\nsystem\n(S'touch x'\ntR.",
        b"\x80\x02cbuiltins\neval\nX\x01\0\0\0" + b"1\x85R.",
        b"\x80\x02cnumpy\ndtype\nX\x02\0\0\0O8\x85R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85X\x01\0\0\0b\x87R.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\0\x85X\x01\0\0\0b\x87R}b.",
        b"\x80\x02(" + b"(" * deep + b"t" * deep + b".",
        b".", b"", b"N.", b"\x80\xff.", b"\x80\x05\x97.", b"(lp0\n" * 10, io.BytesIO(b"hello").getvalue(),
    ]  # fmt: skip
