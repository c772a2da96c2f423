"""Valid small files of every kind, made once; hostile cases are made from copies of them."""

import csv
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import h5py
import lmdb
import numpy as np
import onnx
import torch

from lupctl.core.choices import ROLE_CODES
from lupctl.core.data.sources.synthetic import SyntheticPlan
from lupctl.core.formats.weights.onnx import ONNX_FORMAT, write_model
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import build_trunk
from tests.tools.drawn_packs import pack_drawn
from tests.tools.networks import no_head, plan_network
from tests.tools.tiny.images import draw_tiny, encode_tiny
from tests.tools.tiny.training import finetune_job, pretrain_job
from tests.tools.tiny.videos import luperson_frames, write_json, write_mot, write_pickle, write_video

QUIET = Progress(quiet=True)
KEYS = ["00_00_0000_00000000", "00_00_0000_00000001", "00_01_0000_00000000"]
TO_OPENVINO = """
import sys
from pathlib import Path
import openvino
from lupctl.core.formats.weights.onnx import read_record
from lupctl.core.formats.weights.openvino import write_openvino
path = Path(sys.argv[1])
write_openvino(path.with_suffix(".xml"), openvino.convert_model(path), read_record(path), in_halves=False)
"""
ENTRIES = [(frame, (8.0 * frame, 10.0, 8.0 * frame + 30.0, 90.0)) for frame in (1, 2, 4)]


def make_stock(folder: Path) -> Path:
    """Fills a folder with valid files.

    `lup/` is a workspace with raw data in several layouts, the packs `crowd` and `labelled`, and the finished runs
    `pre` and `fine`; next to it are single files.
    """
    home = folder / "lup"
    _write_raw(home / "raw")
    (home / "packs").mkdir()
    crowd = SyntheticPlan(unlabelled_persons=6, scenes=2, height=32, width=16)
    pack_drawn(crowd, home / "packs" / "crowd.h5", dataset="crowd")
    labelled = SyntheticPlan(train_persons=4, test_persons=4, cameras=2, shots=2, height=32, width=16)
    pack_drawn(labelled, home / "packs" / "labelled.h5", dataset="labelled")
    settings = ("schedule.epochs=1", "schedule.warmup_epochs=0")
    pretrain(
        pretrain_job(
            home / "packs" / "crowd.h5", home / "runs" / "pre", "data.batch=8", "moco.queue=8", "bn_groups=1", *settings
        ),
        QUIET,
    )
    finetune(
        finetune_job(
            home / "packs" / "labelled.h5", home / "runs" / "fine", "data.images=2", "data.persons=2", *settings
        ),
        QUIET,
    )
    _write_weights(folder)
    _write_features(folder)
    _write_video(folder)
    (folder / "a.jpg").write_bytes(encode_tiny(1))
    (folder / "b.png").write_bytes(encode_tiny(2, ".png"))
    return folder


def _write_raw(raw: Path) -> None:
    for name, seed in (("crops/a.jpg", 1), ("crops/b/c.png", 2), ("people/1/x_c1.jpg", 3), ("people/2/y_c2.png", 4)):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(encode_tiny(seed, Path(name).suffix))
    table = raw / "table"
    table.mkdir()
    rows = [("one.jpg", "7", "1", "train"), ("two.jpg", "8", "2", "query"), ("three.jpg", "8", "1", "gallery")]
    with (table / "list.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("path", "person", "camera", "role"), *rows])
    for seed, (name, *_) in enumerate(rows):
        (table / name).write_bytes(encode_tiny(seed))
    path = raw / "base" / "lmdb"
    path.parent.mkdir()
    with lmdb.open(str(path), map_size=1 << 20) as environment, environment.begin(write=True) as change:
        for seed, key in enumerate(KEYS):
            change.put(key.encode(), encode_tiny(seed))
    (raw / "base" / "keys.pkl").write_bytes(pickle.dumps(KEYS, 4))
    note = {"format": 1, "dataset": "crops", "terms": "research only", "files": [{"address": "http://a/b", "bytes": 3}]}
    (raw / "crops" / ".lupctl.json").write_text(json.dumps(note))


def _write_weights(folder: Path) -> None:
    """A ResNet-50 as torchvision publishes it is too large; a small trunk is refused for its shapes, late enough."""
    trunk = build_trunk(plan_network(no_head()).trunk)
    state = {f"base.{key}": value for key, value in trunk.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, folder / "foreign.pth")
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    _write_onnx(folder / "net.onnx")
    # OpenVINO keeps threads, and the process of the tests forks.
    subprocess.run([sys.executable, "-c", TO_OPENVINO, str(folder / "net.onnx")], check=True, capture_output=True)
    _write_bench(folder / "bench.json")


def _write_bench(path: Path) -> None:
    network = {
        "name": "fine", "path": "lup/runs/fine/checkpoint.safetensors", "fingerprint": f"sha256:{'2' * 64}",
        "description": "r18", "height": 32, "width": 16, "parameters": 1000, "flops": 5000,
    }  # fmt: skip
    run = {
        "name": "fine", "backend": "torch", "batch": 1, "rounds": 5, "median_ms": 2.0, "p95_ms": 3.0,
        "images_per_s": 500.0, "memory_bytes": 4096,
    }  # fmt: skip
    machine = {"device": "cpu", "cores": 2, "threads": 1, "versions": {"torch": "2.6"}}
    document = {"schema": "lupctl.bench/1", "machine": machine, "networks": [network], "runs": [run], "notes": []}
    path.write_text(json.dumps(document))


def _write_onnx(path: Path) -> None:
    """A network that gives the mean colour of an image, with the whole record of an exported one."""
    helper, kinds = onnx.helper, onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=kinds.FLOAT),
        helper.make_node("ReduceMean", ["pixels", "sides"], ["colour"], keepdims=0),
        helper.make_node("LpNormalization", ["colour"], ["features"], axis=1, p=2),
    ]
    images = helper.make_tensor_value_info("images", kinds.UINT8, ["N", 32, 16, 3])
    features = helper.make_tensor_value_info("features", kinds.FLOAT, ["N", 3])
    sides = helper.make_tensor("sides", kinds.INT64, [2], [1, 2])
    graph = helper.make_graph(nodes, "net", [images], [features], [sides])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    sizes = {"height": 32, "width": 16, "channels": "RGB"}
    preprocessing = {**sizes, "mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bilinear"}
    record = {
        "format": ONNX_FORMAT, "kind": "onnx", "version": "0.1.0", "command": ["lupctl", "model", "export"],
        "recipe": {}, "stage": "finetune", "network": {"trunk": {"arch": "r18"}}, "preprocessing": preprocessing,
        "images": {"type": "uint8", "layout": "NHWC", "channels": "RGB", "resize": "Pillow, bilinear"},
        "features": {"dim": 3, "type": "float32", "length": 1, "distance": "1 - dot product"},
        "check": {"images": 4, "tolerance": 1e-4, "difference": 1e-7, "torch": "2.6", "onnxruntime": "1.20"},
        "parents": {"checkpoint": f"sha256:{'0' * 64}"}, "checkpoint_parents": {},
        "data": [{"dataset": "labelled", "fingerprint": f"sha256:{'1' * 64}"}], "terms": [],
    }  # fmt: skip
    write_model(path, model, record, description="a test")


def _write_features(folder: Path) -> None:
    vectors = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    persons, cameras = np.array([1, 2, 1, 2, 1, 2, 3, 3]), np.array([1, 1, 2, 2, 2, 2, 1, 2])
    arrays: dict[str, Any] = {}
    for role, part in (("query", slice(0, 2)), ("gallery", slice(2, 8))):
        arrays |= {
            f"{role}_features": vectors[part], f"{role}_persons": persons[part], f"{role}_cameras": cameras[part]
        }  # fmt: skip
    np.savez(folder / "elsewhere.npz", **arrays)
    with h5py.File(folder / "bare.h5", "w") as file:
        file["features"], file["samples/person"], file["samples/camera"] = vectors, persons, cameras
        file["samples/role"] = np.array([ROLE_CODES["query"]] * 2 + [ROLE_CODES["gallery"]] * 6)


def _write_video(folder: Path) -> None:
    write_video(folder / "videos" / "clip.avi", frames=5)
    write_mot(folder / "mot" / "clip.txt", ENTRIES)
    write_pickle(folder / "luperson" / "clip.pkl", luperson_frames(ENTRIES))
    write_pickle(folder / "luperson-nl" / "clip.pkl", luperson_frames(ENTRIES, pid=3))
    (folder / "coco").mkdir()
    annotations = [
        {"image_id": frame, "category_id": 1, "bbox": [box[0], box[1], 30.0, 80.0], "score": 0.9, "track_id": 1}
        for frame, box in ENTRIES
    ]
    images = [
        {"id": frame, "video_id": 1, "frame_id": frame - 1, "file_name": f"clip/{frame}.jpg"} for frame, _ in ENTRIES
    ]
    content = {
        "videos": [{"id": 1, "name": "clip.avi"}], "images": images, "annotations": annotations,
        "categories": [{"id": 1, "name": "person"}],
    }  # fmt: skip
    write_json(folder / "coco" / "clip.json", content)
    cv2.imwrite(str(folder / "large.png"), draw_tiny(5, 96, 128))
