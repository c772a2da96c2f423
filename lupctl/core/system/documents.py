"""JSON and TOML that anyone may have written: of bounded depth, with numbers and texts that others can hold.

Python's own readers run out of stack where something is nested deep, give `inf` and half characters, and turn numbers
of thousands of digits into errors of other kinds.
"""

import json
import math
import re
import tomllib
from typing import Any, Final

# Recipes and records nest three or four deep.
MOST_DEPTH: Final = 32
MOST_NUMBER: Final = 2**64
# A dotted TOML key makes a table per part, and tomllib takes memory that grows with their square.
PART: Final = r"""(?:(?<![\w-])[\w-]++|"[^"\n]*+"|'[^'\n]*+')"""
LONG_KEY: Final = re.compile(rf"{PART}(?:[ \t]*+\.[ \t]*+{PART}){{{MOST_DEPTH}}}")


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON document.

    >>> parse_json('{"a": [1, 2.5, null]}')
    {'a': [1, 2.5, None]}

    Raises:
        ValueError: it is not JSON, is nested deeper than `MOST_DEPTH`, or has a number that is not finite or does not
            fit 64 bits, or a text that UTF-8 cannot hold.
    """
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError(f"tables within tables, more than {MOST_DEPTH} deep") from None
    _check(found, MOST_DEPTH)
    return found


def parse_toml(text: str) -> dict[str, Any]:
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
    _check(found, MOST_DEPTH, is_finite=False)
    return found


def _check(value: Any, depth: int, *, is_finite: bool = True) -> None:
    match value:
        case str():
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
                _check(inner, depth - 1, is_finite=is_finite)
