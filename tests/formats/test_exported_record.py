"""The record of an exported network, as anybody may have written it."""

import json
from pathlib import Path

import pytest

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.onnx import ONNX_FORMAT, parse_record

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "record is damaged"),
        (DEEP, "record is damaged"),
        ("[]", "record is damaged"),
        (json.dumps({"format": ONNX_FORMAT + 1, "kind": "onnx"}), rf"format {ONNX_FORMAT + 1}; this lupctl reads"),
        (json.dumps({"kind": "onnx"}), "format None"),
        (json.dumps({"format": ONNX_FORMAT}), "does not say what the file is"),
        (json.dumps({"format": ONNX_FORMAT, "kind": None}), "does not say what the file is"),
    ],
    ids=["cut", "deep", "no object", "newer", "no format", "no kind", "null"],
)
def test_what_is_no_record(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        parse_record(text, Path("net.onnx"))


def test_a_record() -> None:
    record = {"format": ONNX_FORMAT, "kind": "onnx", "data": []}
    assert parse_record(json.dumps(record), Path("net.onnx")) == record
