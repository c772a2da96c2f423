"""Exported vision transformers: onnxruntime gives the features of `lupctl dump`, cameras included."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from lupctl.core.flows.loaded.load import load
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.weights.header import PackReference
from lupctl.core.stages.export.job import ExportJob
from lupctl.core.stages.export.run import export
from lupctl.core.training.nets.vit.side import MEAN_ROW, NO_ROW
from tests.tools.nets.onnx_files import run
from tests.tools.shell import Shell
from tests.tools.tiny.images import draw_tiny
from tests.tools.transformers import HEIGHT, WIDTH, transformer_plans, write_transformer

DIMS = {"none": 24, "before": 24, "resized": 24, "bilinear": 24, "ics": 24, "sie": 24, "jpm": 120, "parts": 48}
FAST = ("jpm",)  # tracing takes seconds
KINDS = [kind if kind in FAST else pytest.param(kind, marks=pytest.mark.slow) for kind in DIMS if kind != "sie"]


def draw_images(folder: Path, count: int = 3) -> NDArray[np.uint8]:
    """PNGs of the network's size, and their pixels."""
    folder.mkdir()
    images = np.stack([draw_tiny(seed, HEIGHT, WIDTH) for seed in range(count)])
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return images


def units(path: Path) -> NDArray[np.float32]:
    raw = np.asarray(read_features(path).features)
    found: NDArray[np.float32] = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_features_are_those_of_dump(kind: str, lupctl: Shell, tmp_path: Path) -> None:
    write_transformer(tmp_path / "net.safetensors", transformer_plans()[kind])
    images = draw_images(tmp_path / "photos")
    ran = lupctl("model export net.safetensors --json")
    assert ran.code == 0, ran.err
    assert (ran.json["dim"], ran.json["height"], ran.json["width"]) == (DIMS[kind], HEIGHT, WIDTH)
    assert ran.json["difference"] < 1e-5
    assert lupctl("dump net.safetensors photos --device cpu --workers 0 --out f.h5").code == 0
    found = run(Path("net.onnx"), images)
    assert np.abs(found - units(Path("f.h5"))).max() < 1e-5
    assert np.abs(found[0] - found[1]).max() > 1e-2, "of other images other features"
    for count in (1, 5):
        some = np.arange(count) % 3
        assert np.abs(run(Path("net.onnx"), images[some]) - found[some]).max() < 1e-5
    info = lupctl("model info net.onnx --json").json
    assert (info["kind"], info["network"]["trunk"]["kind"]) == ("onnx", "vit")
    assert ("cameras" in info) == (kind == "jpm")
    text = onnx.load("net.onnx", load_external_data=False).doc_string
    assert ("Cameras: every image gets the mean of all cameras' rows." in text) == (kind == "jpm")


@pytest.fixture(scope="module")
def camera_network(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A network trained on three cameras of `labelled`, with a row for unknown ones: its checkpoint, and itself."""
    path = tmp_path_factory.mktemp("cameras") / "net.safetensors"
    story = PackReference(dataset="labelled", fingerprint="sha256:0", images=1, source=None, terms=None)
    return path, write_transformer(path, transformer_plans()["sie"], cameras=(1, 2, 3), data=(story,))


@torch.no_grad()
def test_cameras_are_a_second_input_or_one_row_for_all(
    camera_network: tuple[Path, Any], lupctl: Shell, tmp_path: Path
) -> None:
    checkpoint, network = camera_network
    images = draw_images(tmp_path / "photos")
    view = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5

    def wanted(*rows: int) -> NDArray[np.float32]:
        found: NDArray[np.float32] = torch.nn.functional.normalize(
            network.embed(view, torch.tensor(rows)), dim=1
        ).numpy()
        return found

    ran = lupctl(f"model export {checkpoint} --cameras known --out known.onnx")
    assert ran.code == 0, ran.err
    assert "cameras: (N) int64, rows of its table of 3 cameras; -1 mean, -2 none, 3 unknown." in ran.err
    for rows in ((0, 1, 2), (2, 2, 0), (MEAN_ROW, NO_ROW, 3)):
        found = run(Path("known.onnx"), images, cameras=np.array(rows, dtype=np.int64))
        assert np.abs(found - wanted(*rows)).max() < 1e-5
    one = run(Path("known.onnx"), images[:1], cameras=np.array([1], dtype=np.int64))
    assert np.abs(one - wanted(1, 1, 1)[:1]).max() < 1e-5
    assert np.abs(wanted(0, 0, 0) - wanted(1, 1, 1)).max() > 1e-2, "cameras matter"
    loaded = load("known.onnx")
    assert loaded.cameras == (1, 2, 3)
    assert np.abs(loaded.embed(images, cameras=[1, 3, None]) - wanted(0, 2, 3)).max() < 1e-5
    info = lupctl("model info known.onnx --json").json["cameras"]
    assert info == {
        "rule": "known", "row": None, "rows": 3, "names": [1, 2, 3],
        "other_rows": {"mean": -1, "none": -2, "unknown": 3},
    }  # fmt: skip

    ran = lupctl(f"model export {checkpoint} --out fixed.onnx")
    assert "Cameras: every image gets the row learned for unknown cameras." in ran.err
    found = run(Path("fixed.onnx"), images)
    assert np.abs(found - wanted(3, 3, 3)).max() < 1e-5
    assert lupctl(f"dump {checkpoint} photos --device cpu --workers 0 --out f.h5").code == 0
    assert np.abs(found - units(Path("f.h5"))).max() < 1e-5, "as dump gives images from nowhere"
    graph = onnx.load("fixed.onnx").graph
    assert [given.name for given in graph.input] == ["images"]
    assert not {"Equal", "Where", "Unsqueeze"} & {node.op_type for node in graph.node}, "a constant, as without cameras"


@pytest.mark.slow
@torch.no_grad()
def test_without_cameras_nothing_is_added(camera_network: tuple[Path, Any], tmp_path: Path) -> None:
    checkpoint, network = camera_network
    export(ExportJob(checkpoint, tmp_path / "none.onnx", cameras="none"))
    images = draw_images(tmp_path / "photos")
    view = (torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    plain = torch.nn.functional.normalize(network.embed(view, torch.full((3,), NO_ROW)), dim=1).numpy()
    assert np.abs(run(tmp_path / "none.onnx", images) - plain).max() < 1e-5


def test_a_plan_names_the_rule_and_a_network_without_cameras_takes_none(
    camera_network: tuple[Path, Any], lupctl: Shell, tmp_path: Path
) -> None:
    plan = lupctl(f"model export {camera_network[0]} --out a.onnx --cameras none --dry-run --json").json
    assert (plan["schema"], plan["cameras"]) == ("lupctl.export-plan/1", "none")
    write_transformer(tmp_path / "plain.safetensors", transformer_plans()["before"])
    assert "cameras" not in lupctl("model export plain.safetensors --dry-run --json").json
    for more in ("", "--dry-run"):
        ran = lupctl(f"model export plain.safetensors --cameras known {more}")
        assert (ran.code, ran.out) == (2, "")
        assert "error: --cameras known: plain.safetensors takes no cameras (it was" in ran.err
        assert "hint: leave out --cameras" in ran.err
    assert not list(tmp_path.glob("*.onnx"))


def test_known_cameras_in_int8(camera_network: tuple[Path, Any], labelled: Path, lupctl: Shell) -> None:
    checkpoint = camera_network[0]
    line = f"model export {checkpoint} --cameras known --precision int8 --calibrate {labelled}"
    ran = lupctl(f"{line} --prove {labelled} --out small.onnx --json")
    assert ran.code == 0, ran.err
    assert ran.json["proof"]["cosines"]["own_mean"] > 0.99
    assert ran.json["record"]["quantization"]["rounded_layers"] > 0
    small, whole = load("small.onnx"), load(checkpoint)
    assert small.cameras == (1, 2, 3)
    images = np.stack([draw_tiny(seed, HEIGHT, WIDTH) for seed in range(3)])
    for cameras in ([1, 2, 3], [3, 1, None]):
        found, wanted = (net.embed(images, cameras=cameras) for net in (small, whole))
        assert (found * wanted).sum(axis=1).min() > 0.98
    moved = small.embed(images, cameras=[1, 1, 1]) - small.embed(images, cameras=[2, 2, 2])
    assert np.abs(moved).max() > 1e-2, "cameras matter"
    engine = lupctl(f"{line} --format tensorrt --out edge.onnx --json")
    assert engine.code == 0, engine.err
    flags = engine.json["tensorrt"]["command"]
    assert f"--optShapes=images:8x{HEIGHT}x{WIDTH}x3,cameras:8" in flags
