"""Reading untrusted pickles without running anything that is in them.

A pickle is a small program: a plain load calls whatever it names. Here a machine of our own runs it, and a file can
reach nothing of Python or numpy. The functions that a pickled array needs are replaced by stand-ins that take bytes, a
number type and a shape, and check all three; numpy's own entry point (`dtype.__setstate__`) would let a file map
objects onto bytes.
"""

import math
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.limits import PICKLE_BYTES
from lupctl.core.system.disk.reading import read_bytes
from lupctl.core.system.disk.unpickling import Call, Machine

MOST_SIDES, MOST_NAME = 32, 100
NUMBER_TYPE = re.compile(r"b1|[iu][1248]|f[248]")
HINT = "nothing in it was run; get the file again from where it was published"


def load_plain(path: Path) -> Any:
    """The content of a pickle of lists, tuples, dicts, sets, strings, bytes and numbers; no global is allowed.

    Raises:
        DataError: there is no such file, or it names a global: the error says which, and it is not looked up.
        FormatError: it is not a pickle, or is cut short.
    """
    return _load(path, {})


def load_arrays(path: Path) -> Any:
    """The same with numpy's arrays and scalars of numbers, from numpy 1 and 2 and every pickle protocol.

    Arrays are of a subclass of `numpy.ndarray` that behaves the same; arrays of objects, texts and records are refused.

    Raises:
        DataError: there is no such file, or it names any other global: the error says which, and it is not looked up.
        FormatError: it is not a pickle, is cut short, or holds an array whose bytes do not fit its shape.
    """
    return _load(path, STAND_INS)


def _load(path: Path, calls: Mapping[tuple[str, str], Call]) -> Any:
    def find(module: str, name: str) -> Call:
        found = calls.get((module, name))
        if found is None:
            message = f"{path}: the pickle asks for {f'{module}.{name}'[:MOST_NAME]}, which plain data never needs"
            raise DataError(message, hint=HINT)
        return found

    try:
        encoded = read_bytes(path, PICKLE_BYTES)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint=f"ls -l {path.parent}") from error
    try:
        return Machine(encoded, find=find, stateful=(_NumberType, _Array)).run()
    except DataError:
        raise
    # A damaged pickle can fail in any way, from a missing end to an array of a bogus shape.
    except Exception as error:
        what = str(error).partition("\n")[0] or type(error).__name__
        raise FormatError(f"{path}: not a whole pickle of plain data ({what})", hint=HINT) from error


class _NumberType:
    """A pickled dtype: a letter and a size, and later the byte order."""

    __slots__ = ("kind",)

    def __init__(self, code: Any, *_: Any) -> None:
        if not isinstance(code, str) or not NUMBER_TYPE.fullmatch(code):
            raise ValueError(f"an array of type {reprlib.repr(code)}; numbers were expected")
        self.kind = np.dtype(code)

    def __setstate__(self, state: Any) -> None:
        # version, byte order, then fields that only texts and records have
        if state[1] not in ("<", ">", "=", "|") or any(part is not None for part in state[2:5]):
            raise ValueError("an array of records; numbers were expected")
        self.kind = self.kind.newbyteorder(state[1])


class _Array(np.ndarray[Any, np.dtype[Any]]):
    """An array that is empty until the pickle gives it its state."""

    def __setstate__(self, state: Any) -> None:
        _, shape, number, is_fortran, encoded = state
        order: Literal["F", "C"] = "F" if is_fortran else "C"
        made = _build_array(encoded, number, shape, order)
        # numpy's stub says numpy.bool; numpy takes a bool alone.
        super().__setstate__((1, made.shape, made.dtype, order == "F", made.tobytes(order)))  # type: ignore[arg-type]


def _build_array(encoded: Any, number: Any, shape: Any, order: Any = "C") -> NDArray[Any]:
    if isinstance(encoded, str):
        encoded = encoded.encode("latin1")
    if not isinstance(number, _NumberType) or not isinstance(encoded, bytes | bytearray):
        raise ValueError("an array that is not a run of numbers")
    if (
        not isinstance(shape, tuple)
        or len(shape) > MOST_SIDES
        or not all(type(side) is int and side >= 0 for side in shape)
    ):
        raise ValueError(f"an array of shape {reprlib.repr(shape)}")
    if math.prod(shape) * number.kind.itemsize != len(encoded):
        raise ValueError(f"an array of shape {shape} and type {number.kind} in {len(encoded)} bytes")
    return np.frombuffer(bytes(encoded), number.kind).reshape(shape, order="F" if order == "F" else "C").copy("K")


def _build_scalar(number: Any, encoded: Any) -> Any:
    return _build_array(encoded, number, (1,))[0]


def _build_empty(*_: Any) -> _Array:
    return _Array(0)


def _encode(text: Any, codec: Any) -> bytes:
    # How protocols 0 to 2 write bytes; any other codec is a program in itself.
    if codec != "latin1" or not isinstance(text, str):
        raise ValueError(f"bytes as {reprlib.repr(codec)}; latin1 was expected")
    return text.encode("latin1")


def _refuse_call(*_: Any) -> Any:
    raise ValueError("an array made in another way than numpy's")


# numpy 2 renamed numpy.core to numpy._core.
STAND_INS: Final[Mapping[tuple[str, str], Call]] = {
    ("numpy", "dtype"): Call(_NumberType),
    ("numpy", "ndarray"): Call(_refuse_call),
    ("_codecs", "encode"): Call(_encode),
    **{
        (f"numpy.{core}.{module}", name): Call(make)
        for core in ("core", "_core")
        for module, name, make in (
            ("multiarray", "_reconstruct", _build_empty),
            ("multiarray", "scalar", _build_scalar),
            ("numeric", "_frombuffer", _build_array),
        )
    },
}
