"""Vision transformers in bfloat16: the same features but for rounding, and never NaN."""

import pytest
import torch

from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.vit.blocks import FusedAttention
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


@pytest.mark.parametrize("scale", [None, 0.25])
def test_attention_that_learns_in_bfloat16_is_the_definition_but_for_rounding(scale: float | None) -> None:
    torch.manual_seed(0)
    given = [torch.randn(2, 3, 7, 16).bfloat16() for _ in range(3)]
    weight = torch.randn(2, 3, 7, 16)
    found = [one.clone().requires_grad_() for one in given]
    exact = [one.double().requires_grad_() for one in given]
    mixed = FusedAttention(scale)(found[0], found[1], found[2])
    products = torch.einsum("bhqd,bhkd->bhqk", exact[0], exact[1]) * (scale or 16**-0.5)
    shares = products.exp() / products.exp().sum(dim=-1, keepdim=True)
    expected = torch.einsum("bhqk,bhkd->bhqd", shares, exact[2])
    (mixed.float() * weight).sum().backward()
    (expected * weight).sum().backward()
    assert mixed.dtype == torch.bfloat16
    pairs = [(mixed, expected), *((one.grad, other.grad) for one, other in zip(found, exact, strict=True))]
    for one, other in pairs:
        assert one is not None
        assert other is not None
        assert (one.double() - other).norm() < 0.01 * other.norm()
