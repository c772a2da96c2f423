"""Checkpoints of lupctl and safetensors of others: headers and tensors that lie."""

import json
import struct
from pathlib import Path
from random import Random
from typing import Any

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import as_json, mutate, spoil, value

COMMANDS = """
dump {run} labelled --workers 0 --device cpu --out f.h5
eval {run} --device cpu
eval {run} --device cpu --no-page
model info {path}
model convert {path}
model convert {path} --to torchvision
model list
run show {run}
run list
finetune labelled --from {path} --gpus 0 --dry-run
pretrain --data crowd --from {path} --gpus 0 --dry-run
recipe show {run}
"""
FOREIGN_COMMANDS = """
model convert x.safetensors
model info x.safetensors
finetune x --from x.safetensors
"""


def make(draw: Random, place: Place) -> Case:
    """A spoiled checkpoint in a workspace."""
    place.take("lup")
    run = draw.choice(("fine", "fine", "pre"))
    name = "method.safetensors" if run == "pre" and draw.random() < 0.3 else "checkpoint.safetensors"
    path = place.work / "lup" / "runs" / run / name
    spoil_tensors(draw, path)
    if draw.random() < 0.05:
        path = path.rename(path.with_name("sub.pth"))
    return Case(pick_command(draw, COMMANDS, run=run, path=str(path.relative_to(place.work))))


def spoil_tensors(draw: Random, path: Path) -> None:
    """Spoils a safetensors file: its header, lupctl's header in it, or any byte."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header, tensors = json.loads(content[8 : 8 + length]), content[8 + length :]
    kind = draw.randrange(6)
    if kind == 0:
        path.write_bytes(mutate(draw, content))
        return
    if kind == 1:
        path.write_bytes(mutate(draw, content[: 8 + length]) + tensors)
        return
    if kind in (2, 3, 4):
        inner = spoil(draw, json.loads(header["__metadata__"]["lupctl"]), times=draw.choice((1, 1, 3)))
        header["__metadata__"]["lupctl"] = as_json(inner)
        written = json.dumps(header)
    else:
        written = as_json(spoil(draw, header))
    _write(path, written, tensors)


def _write(path: Path, header: str, tensors: bytes) -> None:
    encoded = header.encode()
    path.write_bytes(struct.pack("<Q", len(encoded)) + encoded + tensors)


def foreign(draw: Random, place: Place) -> Case:
    """Somebody's safetensors to convert."""
    entry: dict[str, Any] = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}
    header: Any = {"conv1.weight": entry, "bn1.bias": {**entry, "data_offsets": [24, 48]}, "__metadata__": {"a": "b"}}
    path = place.work / "x.safetensors"
    _write(path, as_json(spoil(draw, header, times=draw.choice((0, 1, 1, 2)))), bytes(48))
    if draw.random() < 0.3:
        path.write_bytes(mutate(draw, path.read_bytes()))
    if draw.random() < 0.1:
        path.write_text(as_json(value(draw)))
    return Case(pick_command(draw, FOREIGN_COMMANDS))
