"""MGN's structure against the published layout, and its forward pass against one written from the definition."""

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from lupctl.core.choices import ResNetArch
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.file import load_strictly
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.mgn import HEADS, NEW_PARTS, MgnNetwork, spread_trunk
from lupctl.core.training.nets.resnet.trunk import ResNetTrunk
from tests.references.mgn import published_layout, slow_feature
from tests.tools.networks import mgn_heads, plan_network
from tests.tools.published import shake

# Tensors of a published file with and without extra batch norm, and parameters with and without 751 classes' rows.
COUNTS = {
    "r50": (699, 684, 70_358_088, 68_820_040),
    "r101": (1617, 1602, 127_334_472, 125_796_424),
    "r152": (2391, 2376, 172_024_904, 170_486_856),
}


def mgn(
    arch: ResNetArch = "r18",
    *,
    width: int = 4,
    last_stride: Literal[1, 2] = 1,
    embedding: int = 5,
    classes: int = 3,
    extra_bn: bool = True,
) -> MgnNetwork:
    heads = mgn_heads(classes, embedding=embedding, extra_bn=extra_bn)
    network = build_network(plan_network(heads, arch, width=width, last_stride=last_stride, pooling="gem"))
    assert isinstance(network, MgnNetwork)
    return network


@pytest.mark.parametrize("extra_bn", [True, False])
@pytest.mark.parametrize("arch", ["r50", "r101", "r152"])
def test_keys_shapes_and_sizes_are_the_published(arch: ResNetArch, extra_bn: bool) -> None:
    wanted = published_layout(arch, extra_bn=extra_bn, classes=751)
    tensors, plain_tensors, parameters, features_only = COUNTS[arch]
    assert len(wanted) == (tensors if extra_bn else plain_tensors), "the table of patterns itself"
    with torch.device("meta"):
        network = mgn(arch, width=64, embedding=256, classes=751, extra_bn=extra_bn)
    found = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert found == {key: shape for key, shape in wanted.items() if not key.startswith("pixel_")}
    sizes = {key: value.numel() for key, value in network.named_parameters()}
    if extra_bn:
        assert sum(sizes.values()) == parameters
        assert sum(size for key, size in sizes.items() if "classifier" not in key) == features_only


def test_without_classes_there_are_no_classifiers() -> None:
    bare, whole = mgn(classes=0), mgn(classes=3)
    assert set(whole.state_dict()) - set(bare.state_dict()) == {f"{head}_head.classifier.weight" for head in HEADS}


def test_the_parts_have_the_published_sizes() -> None:
    """384 x 128: maps of 24 x 8, stripes of 12 and of 8 rows, a feature of 2048."""
    seen: dict[str, Tensor] = {}
    with torch.device("meta"):
        network = mgn("r50", width=64, embedding=256).eval()
        for name, module in network.named_modules():
            module.register_forward_pre_hook(lambda module, given, name=name: seen.update({name: given[0]}))
        feature = network.embed(torch.empty(2, 3, 384, 128))
    assert feature.shape == (2, 2048)
    assert {seen[branch].shape[1:] for branch in ("b1", "b2", "b3")} == {(1024, 24, 8)}
    rows = {"b1": 24, "b2": 24, "b3": 24, "b21": 12, "b22": 12, "b31": 8, "b32": 8, "b33": 8}
    assert {head: seen[f"{head}_head"].shape[1:] for head in HEADS} == {head: (2048, rows[head], 8) for head in HEADS}


@pytest.mark.parametrize("last_stride", [1, 2])
def test_only_the_first_branch_follows_the_last_stride(last_stride: Literal[1, 2]) -> None:
    network = mgn("r50", last_stride=last_stride).eval()
    shared = network.backbone(torch.randn(2, 3, 96, 64))
    assert shared.shape[2:] == (6, 4)
    assert network.b1(shared).shape[2:] == ((6, 4) if last_stride == 1 else (3, 2))
    assert network.b2(shared).shape[2:] == network.b3(shared).shape[2:] == (6, 4)
    for key, value in network.b1.state_dict().items():
        assert torch.equal(network.b2.state_dict()[key], value), "all branches begin with the same weights"
        assert torch.equal(network.b3.state_dict()[key], value)


@pytest.mark.parametrize("extra_bn", [True, False])
def test_the_feature_is_that_of_the_definition(extra_bn: bool) -> None:
    torch.manual_seed(1)
    network = mgn("r50", width=4, extra_bn=extra_bn).double().eval()
    shake(network)
    images = torch.randn(3, 3, 96, 32, dtype=torch.float64)
    kept = images.clone()
    with torch.no_grad():
        found = network.embed(images)
        expected = slow_feature(network.state_dict(), images)
    assert found.shape == (3, 40)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(images, kept), "the input is left alone"
    assert len({tuple(part.tolist()) for part in found[0].view(8, 5)}) == 8


def test_heads_begin_as_published() -> None:
    torch.manual_seed(2)
    network = mgn("r18", width=64, embedding=256, classes=400)
    head, other = network.b21_head, network.b33_head
    reduce, norm = head.bottleneck
    assert isinstance(reduce, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert float(reduce.weight.detach().std()) == pytest.approx((2 / 256) ** 0.5, rel=0.02)
    assert not torch.equal(reduce.weight, other.bottleneck[0].weight)  # type: ignore[arg-type]
    assert float(norm.weight.detach().mean()) == pytest.approx(1, abs=0.01)
    assert float(norm.weight.detach().std()) == pytest.approx(0.02, rel=0.2)
    assert (norm.eps, norm.momentum) == (1e-5, 0.1)
    assert not norm.bias.any()
    assert not norm.bias.requires_grad
    assert head.pool_layer.p.tolist() == [3]
    assert head.classifier is not None
    bound = 1 / 256**0.5  # kaiming uniform with a = sqrt 5
    largest = float(head.classifier.weight.detach().abs().max())
    assert 0.99 * bound < largest <= bound
    assert float(head.classifier.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.02)
    extra = network.heads_extra_bn_b2
    assert isinstance(extra, nn.BatchNorm2d)
    assert (set(extra.weight.tolist()), set(extra.bias.tolist()), extra.bias.requires_grad) == ({1}, {0}, True)


def test_classifiers_come_in_the_order_of_the_features() -> None:
    network = mgn(classes=2)
    for number, name in enumerate(HEADS):
        nn.init.constant_(network.get_submodule(f"{name}_head.classifier").weight, number)  # type: ignore[arg-type]
    weight = network.classifier_weight()
    assert weight.shape == (8, 2, 5)
    assert weight[:, 0, 0].tolist() == list(range(8))
    weight.sum().backward()
    assert network.b33_head.classifier is not None
    assert network.b33_head.classifier.weight.grad is not None


@pytest.mark.parametrize("arch", ["r18", "r50", "r101"])
def test_a_trunk_goes_into_the_stem_and_three_branches(arch: ResNetArch) -> None:
    """Each branch with the stem computes what the trunk would."""
    torch.manual_seed(3)
    trunk = ResNetTrunk(arch, width=4, last_stride=1).eval()
    shake(trunk)
    network = mgn(arch).eval()
    count = load_strictly(network, spread_trunk(trunk.state_dict()), origin="trunk", may_lack=NEW_PARTS)
    assert count == len([key for key in network.state_dict() if not key.startswith(NEW_PARTS)])
    images = torch.randn(2, 3, 96, 32)
    with torch.no_grad():
        expected = trunk(images).map
        shared = network.backbone(network.lay_out(images))
        for branch in (network.b1, network.b2, network.b3):
            torch.testing.assert_close(branch(shared), expected)


def test_a_trunk_of_another_depth_or_with_more_is_refused() -> None:
    network = mgn("r50")
    deeper = spread_trunk(ResNetTrunk("r101", width=4).state_dict())
    with pytest.raises(FormatError, match="918 not in the network"):  # 17 blocks of 18 tensors in three branches
        load_strictly(network, deeper, origin="deeper", may_lack=NEW_PARTS)
    more = spread_trunk({**ResNetTrunk("r50", width=4).state_dict(), "fc.weight": torch.zeros(1)})
    with pytest.raises(FormatError, match=r"1 not in the network \(fc\.weight\)"):
        load_strictly(network, more, origin="more", may_lack=NEW_PARTS)
