"""JSON and TOML of strangers: read whole and plain, or refused with a ValueError."""

import json
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lupctl.core.system.documents import check_shape, parse_json, parse_toml

# However slow the machine is.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
DOCUMENTS = st.recursive(
    PLAIN | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@UNHURRIED
@given(DOCUMENTS)
def test_what_is_plain_is_read(document: object) -> None:
    assert parse_json(json.dumps(document)) == document
    assert parse_json(json.dumps(document, ensure_ascii=False).encode()) == document


@UNHURRIED
@given(st.text(st.sampled_from('{}[]":,\\u0d8 1e9-.tn')) | st.binary())
def test_what_is_not_is_a_value_error(text: str | bytes) -> None:
    try:
        json.dumps(parse_json(text)).encode()
    except ValueError:
        return


@pytest.mark.parametrize(
    "text",
    ["", "[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 40 + "1" + "}" * 40, "9" * 5_000, str(2**64), "1e999",
     "NaN", "-Infinity", '"\\ud800"', '{"\\udfff": 1}', b"\xff", b'"\xed\xa0\x80"'],
)  # fmt: skip
def test_json_that_is_refused(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_json(text)


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 50_000, "a = {" * 20_000, "a = " + "9" * 5_000, ".".join("a" * 100_000) + " = 1",
     "[" + ".".join("a" * 100_000) + "]", "x = {" + " . ".join(['"a b"', "c"] * 20_000) + " = 1}", "a = 0x" + "f" * 17,
     "a = 1\na = 2", "a = [" * 33 + "1" + "]" * 33],
)  # fmt: skip
def test_toml_that_is_refused(text: str) -> None:
    begun_at = time.monotonic()
    with pytest.raises(ValueError, match=r"."):
        parse_toml(text)
    assert time.monotonic() - begun_at < 5


def test_a_long_word_is_no_key() -> None:
    begun_at = time.monotonic()
    assert parse_toml(f"a = '{'x' * 10**6}'\nb = ['../{'.'.join('a' * 20)}', 'c.d']")["b"][1] == "c.d"
    assert time.monotonic() - begun_at < 5


def test_a_path_of_ones_own_may_hold_what_utf8_cannot() -> None:
    assert parse_json('["\\udcff"]', is_foreign=False) == ["\udcff"]
    with pytest.raises(ValueError, match="surrogates not allowed"):
        parse_json('["\\udcff"]')


@pytest.mark.parametrize(
    ("value", "shape", "message"),
    [
        ([], dict, "the whole is a list, a dict was expected"),
        ({"a": None, "b": 1}, {"a": int, "b": float}, ""),
        ({"b": True}, {"b": int}, "b is a bool, an int was expected"),
        ({"b": True}, {"b": float}, "b is a bool, a float was expected"),
        ({"x": "y", "z": 1}, {str: str}, "z is an int, a str was expected"),
        ({"a": {"b": [1, "2"]}}, {"a": {"b": [int]}}, "a.b[1] is a str, an int was expected"),
        ({"other": [{}]}, {"a": int}, ""),
    ],
)  # fmt: skip
def test_shapes(value: Any, shape: Any, message: str) -> None:
    if not message:
        check_shape(value, shape)
        return
    with pytest.raises(ValueError, match="expected") as raised:
        check_shape(value, shape)
    assert str(raised.value) == message
