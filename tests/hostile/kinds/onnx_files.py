"""Networks in ONNX and OpenVINO's format whose record or graph is spoiled, and what was kept of their speed."""

import json
from random import Random

import onnx

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import as_json, mutate, mutate_file, spoil

COMMANDS = """
model info net.onnx
model info net.onnx --json
model convert net.onnx
dump net.onnx labelled --workers 0
dump net.onnx labelled --workers 0
dump net.onnx labelled --workers 0 --pixels 32x16
model bench net.onnx --batch 1 --seconds 0 --backend onnxruntime
model export net.onnx --precision float16 --out half.onnx
model export net.onnx --format tensorrt --out engine.onnx
search lup/fine.features.h5 a.jpg --from net.onnx --device cpu
find a.jpg --in labelled --run net.onnx --device cpu --workers 0
eval --all net.onnx --device cpu
"""
OPENVINO_COMMANDS = """
model info net.xml
dump net.xml labelled --workers 0
dump net.xml labelled --workers 0
model bench net.xml --batch 1 --seconds 0
search lup/fine.features.h5 a.jpg --from net.xml --device cpu
find a.jpg --in labelled --run net.xml --device cpu --workers 0
"""
BENCH_COMMANDS = """
eval --all fine --device cpu
eval --all fine --device cpu --json
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


def openvino(draw: Random, place: Place) -> Case:
    """A network in OpenVINO's format: its graph, its weights, or its record are spoiled."""
    graph, weights = place.take("net.xml"), place.take("net.bin")
    kind = draw.randrange(5)
    if kind == 0:
        weights.unlink()
    elif kind == 1:
        mutate_file(draw, weights)
    elif kind == 2:
        head, tail = graph.read_bytes().split(b"&quot;preprocessing&quot;", 1)
        graph.write_bytes(head + mutate(draw, b"&quot;preprocessing&quot;" + tail))
    else:
        mutate_file(draw, graph)
    return Case(pick_command(draw, OPENVINO_COMMANDS))


def bench(draw: Random, place: Place) -> Case:
    """What `model bench` kept, which `eval --all` takes along."""
    place.take("lup")
    path = place.take("bench.json", f"lup/comparisons/{draw.choice(('bench.json', 'x.json'))}")
    if draw.random() < 0.3:
        mutate_file(draw, path)
    else:
        path.write_text(as_json(spoil(draw, json.loads(path.read_text()), times=draw.choice((1, 2, 4)))))
    return Case(pick_command(draw, BENCH_COMMANDS), changes=("lup",))
