"""JSON and TOML that anyone may have written: of bounded depth, with numbers and texts that others can hold.

Python's own readers run out of stack where something is nested deep, give `inf` and half characters, and turn numbers
of thousands of digits into errors of other kinds.
"""

import json
import math
import re
import tomllib
from functools import cache
from typing import Any, Final, TypeVar

T = TypeVar("T")
Shape = type | list[Any] | dict[Any, Any]
# Recipes and records nest three or four deep.
MOST_DEPTH: Final = 32
MOST_NUMBER: Final = 2**64
# A dotted TOML key makes a table per part, and tomllib takes memory that grows with their square.
PART: Final = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
LONG_KEY: Final = re.compile(rf"{PART}(?:[ \t]*+\.[ \t]*+{PART}){{{MOST_DEPTH}}}")


def parse_json(text: str | bytes, shape: Shape = object, *, is_finite: bool = True, is_foreign: bool = True) -> Any:
    """The value of a JSON document.

    >>> parse_json('{"a": [1, 2.5, null]}', {"a": list})
    {'a': [1, 2.5, None]}

    Args:
        text: the document.
        shape: what it has to be, see `check_shape`.
        is_finite: refuses NaN and infinities; some scores have no value.
        is_foreign: refuses texts that UTF-8 cannot hold; what lupctl writes of its own may name such paths.

    Raises:
        ValueError: it is not JSON, is nested deeper than `MOST_DEPTH`, has a number that is not finite or does not fit
            64 bits, or a text that UTF-8 cannot hold; or it is of another shape.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"tables within tables, more than {MOST_DEPTH} deep") from None
    _check(found, MOST_DEPTH, is_finite=is_finite, is_foreign=is_foreign)
    check_shape(found, shape)
    return found


def parse_as(kind: type[T], text: str | bytes) -> T:
    """A frozen dataclass whose fields a JSON document has, each of its type.

    Raises:
        ValueError: as `parse_json`; or a field is missing or of another type.
    """
    whole: Any = kind
    found: T = _adapter(whole).validate_python(parse_json(text, dict))
    return found


@cache
def _adapter(kind: Any) -> Any:
    from pydantic import TypeAdapter  # slow to import, and not needed to list runs

    return TypeAdapter(kind)


def parse_toml(text: str, shape: Shape = dict) -> dict[str, Any]:
    """The tables of a TOML document; `inf` and `nan` are left to whoever knows what the keys mean.

    Raises:
        ValueError: as `parse_json`.
    """
    try:
        if LONG_KEY.search(text):
            raise RecursionError
        found = tomllib.loads(text)
    except RecursionError:
        raise ValueError(f"tables within tables, more than {MOST_DEPTH} deep") from None
    _check(found, MOST_DEPTH, is_finite=False, is_foreign=True)
    check_shape(found, shape)
    return found


def check_shape(value: Any, shape: Shape, *, where: str = "") -> None:
    """Refuses a value that is not of a shape.

    >>> check_shape({"steps": 4, "of": "x"}, {"steps": int, "start": str})
    >>> check_shape({"steps": [4]}, {"steps": int})
    Traceback (most recent call last):
    ValueError: steps is a list, an int was expected

    Args:
        value: of a document.
        shape: a type, of which `float` includes whole numbers and `object` is anything; a list with the shape of its
            items; or a table with the shapes of some keys, which need not be there and may be null, and under `str` of
            all others. What is not named may be anything.
        where: the value is, for the error.

    Raises:
        ValueError: it is not.
    """
    kind = shape if isinstance(shape, type) else type(shape)
    is_number = kind is float and type(value) is int
    if not (is_number or isinstance(value, kind)) or (kind is int and isinstance(value, bool)):
        found = "null" if value is None else _name(type(value))
        raise ValueError(f"{where or 'the whole'} is {found}, {_name(kind)} was expected")
    if isinstance(shape, list):
        for row, item in enumerate(value):
            check_shape(item, shape[0], where=f"{where}[{row}]")
    elif isinstance(shape, dict):
        others: Shape = shape.get(str, object)
        for key, inner in value.items():
            if inner is not None:
                check_shape(inner, shape.get(key, others), where=f"{where}.{key}".lstrip("."))


def _name(kind: type) -> str:
    """With its article."""
    return f"{'an' if kind in (int, object) else 'a'} {kind.__name__}"


def _check(value: Any, depth: int, *, is_finite: bool, is_foreign: bool) -> None:
    match value:
        case str() if is_foreign:
            value.encode()  # an error of this is a ValueError
        case bool():
            pass
        case int() if not -MOST_NUMBER < value < MOST_NUMBER:
            raise ValueError("a whole number of more than 64 bits")
        case float() if is_finite and not math.isfinite(value):
            raise ValueError("a number that is not finite")
        case dict() | list():
            if not depth:
                raise ValueError(f"tables within tables, more than {MOST_DEPTH} deep")
            for inner in (*value, *value.values()) if isinstance(value, dict) else value:
                _check(inner, depth - 1, is_finite=is_finite, is_foreign=is_foreign)
