"""Pickles of strangers: what is read, and that nothing in them runs."""

import io
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.pickles import load_arrays, load_plain

LOADERS = pytest.mark.parametrize("load", [load_plain, load_arrays])
PROTOCOLS = pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
DETECTIONS = {
    1819: [[0, {"bbox": np.array([618.625, 81.75, 1031.375, 709.25], np.float32), "conf": np.float64(0.9488)}]],
    1820: [[0, {"prob": np.asfortranarray(np.arange(34, dtype=">f4").reshape(17, 2)), "pid": 7}], [1, {"conf": 0.5}]],
}


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


class Runs:
    """Pickles to a call."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


@PROTOCOLS
@LOADERS
def test_plain_data_comes_back(load: Any, protocol: int, tmp_path: Path) -> None:
    held = {"keys": ["00_00_0000_00000000", "k\u00f6ln"], "pids": [0, 2**40, -1], "more": (None, True, 0.5, [[]])}
    assert load(write(tmp_path / "keys.pkl", pickle.dumps(held, protocol))) == held


@PROTOCOLS
def test_arrays_come_back(protocol: int, tmp_path: Path) -> None:
    got = load_arrays(write(tmp_path / "v.pkl", pickle.dumps(DETECTIONS, protocol)))
    assert list(got) == [1819, 1820]
    bbox, conf = (got[1819][0][1][key] for key in ("bbox", "conf"))
    assert bbox.dtype == np.float32
    assert bbox.tolist() == [618.625, 81.75, 1031.375, 709.25]
    assert conf == 0.9488
    prob = got[1820][0][1]["prob"]
    assert isinstance(prob, np.ndarray)
    assert prob.tolist() == np.arange(34).reshape(17, 2).tolist()
    assert got[1820][1] == [1, {"conf": 0.5}]


@pytest.mark.parametrize("dtype", ["b1", "i1", "u1", "i8", "u4", "f2", "f8"])
def test_number_types(dtype: str, tmp_path: Path) -> None:
    for held in (np.array([[1, 0], [0, 1]], dtype), np.zeros((0, 3), dtype), np.array(1, dtype)):
        got = load_arrays(write(tmp_path / "a.pkl", pickle.dumps(held)))
        assert got.dtype == held.dtype
        assert got.shape == held.shape
        assert np.array_equal(got, held)


@pytest.mark.parametrize("core", [b"core", b"_core"])
def test_both_names_of_numpys_core(core: bytes, tmp_path: Path) -> None:
    content = pickle.dumps(np.float32(0.25), 2).replace(b"numpy._core.", b"numpy." + core + b".")
    assert b"numpy." + core in content
    assert load_arrays(write(tmp_path / "a.pkl", content)) == 0.25


@LOADERS
@pytest.mark.parametrize(
    ("function", "named"), [(os.mkdir, "posix.mkdir"), (eval, "builtins.eval"), (getattr, "builtins.getattr")]
)
def test_a_pickle_that_calls_is_refused_and_named(load: Any, function: Any, named: str, tmp_path: Path) -> None:
    trap = tmp_path / "run"
    args = {os.mkdir: (str(trap),), eval: (f"__import__('os').mkdir({str(trap)!r})",), getattr: (1, "real")}[function]
    held = {"keys": ["a", Runs(function, *args)]}
    with pytest.raises(DataError, match=rf"keys.pkl: the pickle asks for {named}"):
        load(write(tmp_path / "keys.pkl", pickle.dumps(held)))
    assert not trap.exists()


def test_arrays_are_no_plain_data(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"asks for numpy\S*\._?\w+, which plain data never needs"):
        load_plain(write(tmp_path / "keys.pkl", pickle.dumps([np.zeros(3)], 4)))


@LOADERS
@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps(["a"] * 9)[:-4], b"\x80\x04\x8a\xff.", b"P1\n."])
def test_what_is_no_pickle(load: Any, content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"keys.pkl: not a whole pickle"):
        load(write(tmp_path / "keys.pkl", content))


@LOADERS
def test_no_file(load: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.pkl: cannot be read \(No such file"):
        load(tmp_path / "none.pkl")


def reduced(function: Any, args: tuple[Any, ...], state: Any) -> bytes:
    class Made:
        def __reduce__(self) -> Any:
            return function, args, state

    return pickle.dumps(Made())


class Dtype:
    """A dtype whose state says something else than its code."""

    def __init__(self, code: str, state: Any) -> None:
        self.made = (np.dtype, (code, False, True), state)

    def __reduce__(self) -> Any:
        return self.made


ARRAY = (np.zeros(0).__reduce__()[0], (np.ndarray, (0,), b"b"))
FLOATS = (3, "<", None, None, None, -1, -1, 0)
POINTERS = (3, "|", (Dtype("O8", (3, "|", None, None, None, -1, -1, 63)), (1,)), None, None, 8, 8, 0)


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(np.array([{}], object)),
        pickle.dumps(np.zeros(2, [("a", "f4"), ("b", "i4")])),
        reduced(*ARRAY, (1, (1,), Dtype("V8", POINTERS), False, struct.pack("<Q", 0x4141414141414141))),
        reduced(*ARRAY, (1, (1,), Dtype("f8", POINTERS), False, bytes(8))),
        reduced(*ARRAY, (1, (2**40,), Dtype("f8", FLOATS), False, bytes(8))),
        reduced(*ARRAY, (1, (-1,), Dtype("f8", FLOATS), False, bytes(8))),
        reduced(np.ndarray, ((2**40,),), None),
        b"cnumpy\nndarray\n}S'x'\nI1\nsb.",
        b"c_codecs\nencode\n(V68656c6c6f\nVhex\ntR.",
    ],
)  # fmt: skip
def test_arrays_that_are_none(content: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"v.pkl: not a whole pickle of plain data"):
        load_arrays(write(tmp_path / "v.pkl", content))


def test_the_loader_has_no_persistent_ids(tmp_path: Path) -> None:
    class Writer(pickle.Pickler):
        def persistent_id(self, held: Any) -> Any:
            return "elsewhere" if held == "far" else None

    stream = io.BytesIO()
    Writer(stream).dump(["far"])
    with pytest.raises(FormatError, match="BINPERSID, which data never needs"):
        load_plain(write(tmp_path / "keys.pkl", stream.getvalue()))
