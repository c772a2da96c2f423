"""`lupctl dump` of networks in ONNX: the features of `lupctl.load`, scored and compared like any others."""

from pathlib import Path

import numpy as np
import pytest

from lupctl.core.choices import ROLE_CODES
from lupctl.core.flows.loaded.load import load
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.training.nets.build import build_network
from tests.tools.nets.onnx_files import DIM, write_foreign
from tests.tools.networks import make_header, neck, plan_network
from tests.tools.shell import Shell

HOW = "--pixels 32x16 --mean 0.4,0.5,0.6 --std 0.2,0.3,0.25"


@pytest.mark.parametrize("processes", ["", "--gpus 0 --processes 2"])
def test_features_of_a_foreign_network(processes: str, labelled: Path, lupctl: Shell, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "net.onnx", sides=("h", "w"))
    ran = lupctl(f"dump net.onnx {labelled} {HOW} --out f.features.h5 --workers 0 --chunk 16 --json {processes}")
    assert ran.code == 0, ran.err
    assert ran.json["network"] == "ONNX network (images: float32, N x 3 x H x W)"
    features = read_features(Path("f.features.h5"))
    assert features.features.shape[1] == ran.json["dim"] == DIM
    net = load(path, pixels="32x16", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    pack = open_pack(labelled)
    row_of = {name: row for row, name in enumerate(pack.samples.name)}
    units = features.features / np.linalg.norm(features.features, axis=1, keepdims=True)
    assert np.abs(net.embed(pack.read(row_of[name]) for name in features.samples.name) - units).max() < 1e-6
    assert net.nearest(units[:3], "f.features.h5", top=1).row.tolist() == [[0], [1], [2]]
    assert features.record["network"] == {"kind": "onnx", "input": "images: float32, N x 3 x H x W"}
    pixels = features.record["preprocessing"]
    assert (pixels["height"], pixels["mean"], pixels["interpolation"]) == (32, [0.4, 0.5, 0.6], "bilinear")


def test_it_is_scored_and_gives_a_threshold(labelled: Path, lupctl: Shell, tmp_path: Path) -> None:
    write_foreign(tmp_path / "net.onnx", kind="uint8", layout="NHWC", batch=4)
    plan = lupctl(f"dump net.onnx {labelled} --out f.features.h5 --dry-run --json")
    tested = int((open_pack(labelled).samples.role >= ROLE_CODES["query"]).sum())
    assert (plan.code, plan.json["images"]) == (0, tested), plan.err
    assert not Path("f.features.h5").exists()
    assert lupctl(f"dump net.onnx {labelled} --out f.features.h5 --quiet").code == 0
    ran = lupctl("eval f.features.h5 --out . --device cpu --json")
    assert ran.code == 0, ran.err
    assert 0 < ran.json["scores"]["map"] <= 1
    assert "ONNX network, images: uint8, 4 x 32 x 16 x 3" in Path("report.html").read_text(encoding="utf-8")
    vectors = read_features(Path("f.features.h5")).features
    assert load("net.onnx", report="report.json").same(vectors[0], vectors[0])


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        ("--pixels 32x16", "takes pixels of float32, and the mean and", "--mean imagenet --std imagenet; or 0,0,0"),
        ("--mean imagenet --std imagenet", "takes images of any size", "--pixels 256x128, height by width"),
        (f"{HOW} --set size=64x32", "as it is, on the CPU, and not with --set", "leave out --set"),
        (f"{HOW} --precision bf16", "and not with --precision bf16", "leave out --precision"),
        (f"{HOW} --cameras none", "--cameras none: net.onnx takes no cameras", "leave out --cameras"),
    ],
)
def test_what_is_missing_or_too_much_is_said(
    more: str, message: str, hint: str, labelled: Path, lupctl: Shell, tmp_path: Path
) -> None:
    write_foreign(tmp_path / "net.onnx", sides=("h", "w"))
    ran = lupctl(f"dump net.onnx {labelled} --out f.features.h5 {more}")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert f"hint: {hint}" in ran.err
    assert not list(tmp_path.glob("*.h5"))


def test_a_file_that_is_not_there(labelled: Path, lupctl: Shell) -> None:
    ran = lupctl(f"dump gone.onnx {labelled} {HOW}")
    assert (ran.code, "no checkpoint 'gone.onnx'" in ran.err) == (3, True)


def test_a_checkpoint_is_told_nothing(labelled: Path, lupctl: Shell, tmp_path: Path) -> None:
    plan = plan_network(neck(5))
    write_checkpoint(tmp_path / "net.safetensors", build_network(plan).state_dict(), make_header(plan))
    ran = lupctl(f"dump net.safetensors {labelled} --out f.features.h5 --pixels 32x16")
    assert (ran.code, ran.out) == (2, "")
    assert "a checkpoint says how its images are prepared" in ran.err
    assert "hint: leave out --pixels, --mean, --std and --interpolation" in ran.err
    assert not list(tmp_path.glob("*.h5"))
