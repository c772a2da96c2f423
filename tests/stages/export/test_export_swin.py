"""Exported Swins: onnxruntime gives the features of `lupctl dump`, whatever the sides of a map leave to pad."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import describe_pixels
from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.recipes.sections import Pixels
from lupctl.core.training.nets.build import build_network
from tests.tools.nets.onnx_files import run
from tests.tools.networks import make_header, neck, no_head
from tests.tools.shell import Shell
from tests.tools.tiny.images import draw_tiny
from tests.tools.transformers import fill

SIZES = {"whole": (64, 32), "padded": (52, 28)}


def write_swin(path: Path, height: int, width: int) -> None:
    """A checkpoint of a small Swin with its controller, in whose features every tensor matters."""
    torch.manual_seed(0)
    trunk = plan_swin("swin-u", depths=(1, 2, 1, 2), window=4, semantic_weight=0.2)
    head = neck(5) if height == 64 else no_head()
    plan = NetworkPlan(trunk=trunk, pooling="avg", head=head)
    network = build_network(plan).eval()
    fill(network)
    half = (0.5, 0.5, 0.5)
    pixels = Pixels(height=height, width=width, mean=half, std=half, interpolation="bilinear")
    write_checkpoint(path, network.state_dict(), make_header(plan, preprocessing=describe_pixels(pixels)))


@pytest.mark.slow
@pytest.mark.parametrize("kind", SIZES)
def test_features_are_those_of_dump(kind: str, lupctl: Shell, tmp_path: Path) -> None:
    height, width = SIZES[kind]
    write_swin(tmp_path / "net.safetensors", height, width)
    (tmp_path / "photos").mkdir()
    images = np.stack([draw_tiny(seed, height, width) for seed in range(3)])
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    ran = lupctl("model export net.safetensors --json")
    assert ran.code == 0, ran.err
    assert (ran.json["dim"], ran.json["height"], ran.json["width"]) == (256, height, width)
    assert ran.json["difference"] < 1e-5
    assert lupctl("dump net.safetensors photos --device cpu --workers 0 --out f.h5").code == 0
    raw = np.asarray(read_features(Path("f.h5")).features)
    wanted = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    found = run(Path("net.onnx"), images)
    assert np.abs(found - wanted).max() < 1e-5
    assert np.abs(found[0] - found[1]).max() > 1e-2, "of other images other features"
    for count in (1, 5):
        some = np.arange(count) % 3
        assert np.abs(run(Path("net.onnx"), images[some]) - found[some]).max() < 1e-5
    assert lupctl("model info net.onnx --json").json["network"]["trunk"]["semantic_weight"] == 0.2
