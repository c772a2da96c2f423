"""Vision transformers in bfloat16: the same features but for rounding, and never NaN."""

import pytest
import torch

from lupctl.core.training.nets.build import build_network
from tests.tools.transformers import HEIGHT, WIDTH, fill, transformer_plans


@pytest.mark.parametrize("kind", transformer_plans())
@torch.no_grad()
def test_bfloat16_gives_the_same_features_but_for_rounding(kind: str) -> None:
    torch.manual_seed(3)
    network = build_network(transformer_plans()[kind]).eval()
    fill(network)
    images = torch.rand(4, 3, HEIGHT, WIDTH)
    cameras = torch.tensor([0, 1, -1, -2]) if network.needs_cameras else None
    exact = network.embed(images, cameras)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = network.embed(images, cameras).float()
    near = torch.nn.functional.cosine_similarity(exact, rounded)
    others = torch.nn.functional.cosine_similarity(exact, exact.roll(1, dims=0))
    assert near.min() > 0.998
    assert near.min() > others.max(), "rounding moves an image less than another image is away"
    assert not torch.equal(exact, rounded), "it was in use"
