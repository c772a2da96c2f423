"""ONNX files whose record or graph is spoiled."""

import json
from random import Random

import onnx

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import as_json, mutate_file, spoil

COMMANDS = """
model info net.onnx
model info net.onnx --json
model convert net.onnx
dump net.onnx labelled --workers 0
dump net.onnx labelled --workers 0
dump net.onnx labelled --workers 0 --pixels 32x16
"""


def make(draw: Random, place: Place) -> Case:
    """An exported network to describe or use."""
    path = place.take("net.onnx")
    if draw.random() < 0.5:
        mutate_file(draw, path)
    else:
        model = onnx.load(str(path))
        record = json.loads(model.metadata_props[0].value)
        model.metadata_props[0].value = as_json(spoil(draw, record, times=draw.choice((1, 2, 4))))
        path.write_bytes(model.SerializeToString())
    return Case(pick_command(draw, COMMANDS))
