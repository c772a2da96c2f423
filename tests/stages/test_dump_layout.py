"""Channels last wherever features are computed on a CPU, and the features of channels first but for rounding."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import describe_pixels
from lupctl.core.recipes.sections import Pixels
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.resnet.layout import Convolutional
from tests.tools.networks import make_header, mgn_heads, neck, plan_network
from tests.tools.shell import Shell

NETWORKS = {
    "r18": plan_network(neck(5), width=8),
    "mgn": plan_network(mgn_heads(5, embedding=8), width=8, last_stride=1, pooling="gem"),
}


@pytest.fixture(params=list(NETWORKS))
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of random weights for images of 96 x 32 pixels."""
    monkeypatch.chdir(tmp_path)
    plan = NETWORKS[request.param]
    torch.manual_seed(4)
    header = make_header(plan, preprocessing=describe_pixels(Pixels(height=96, width=32)))
    write_checkpoint(tmp_path / "net.safetensors", build_network(plan).state_dict(), header)
    return tmp_path / "net.safetensors"


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the input of each pass came out with channels last."""
    found, lay_out = list[bool](), Convolutional.lay_out

    def watch(network: Convolutional, images: Tensor) -> Tensor:
        laid = lay_out(network, images)
        found.append(laid.is_contiguous(memory_format=torch.channels_last))
        return laid

    monkeypatch.setattr(Convolutional, "lay_out", watch)
    return found


def unit_features(lupctl: Shell, checkpoint: Path, pack: Path, name: str) -> NDArray[np.float64]:
    made = lupctl(f"dump {checkpoint} {pack} --out {name}.features.h5 --device cpu --workers 0")
    assert made.code == 0, made.err
    vectors = read_features(Path(f"{name}.features.h5")).features.astype(np.float64)
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def test_a_dump_is_that_of_channels_first(
    lupctl: Shell, checkpoint: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = unit_features(lupctl, checkpoint, labelled, "last")
    monkeypatch.setattr(Convolutional, "lay_out", lambda _, images: images)
    first = unit_features(lupctl, checkpoint, labelled, "first")
    np.testing.assert_allclose(last, first, atol=2e-6, rtol=0)


def test_a_search_takes_channels_last_too(lupctl: Shell, checkpoint: Path, labelled: Path, seen: list[bool]) -> None:
    """As a dump does, which `eval` makes of a run without features."""
    unit_features(lupctl, checkpoint, labelled, "toy")
    passes = len(seen)
    Path("asked.jpg").write_bytes(open_pack(labelled).read(0))
    ran = lupctl(f"search toy.features.h5 asked.jpg --from {checkpoint} --device cpu --top 1")
    assert ran.code == 0, ran.err
    assert len(seen) > passes > 0
    assert all(seen)
