"""MGN's structure against the published layout, and its forward pass against one written from the definition."""

import itertools
from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lupctl.core.choices import Arch
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.file import load_strictly
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.mgn import HEADS, NEW_PARTS, MgnNetwork, spread_trunk
from lupctl.core.training.nets.resnet.trunk import ResNetTrunk
from tests.tools.networks import mgn_heads, plan_network

BLOCKS = {"r50": (3, 4, 6, 3), "r101": (3, 4, 23, 3), "r152": (3, 8, 36, 3)}
# Tensors of a published file with and without extra batch norm, and parameters with and without 751 classes' rows.
COUNTS = {
    "r50": (699, 684, 70_358_088, 68_820_040),
    "r101": (1617, 1602, 127_334_472, 125_796_424),
    "r152": (2391, 2376, 172_024_904, 170_486_856),
}
NORM = ("weight", "bias", "running_mean", "running_var")


def norm_layout(prefix: str, channels: int) -> dict[str, tuple[int, ...]]:
    return {**{f"{prefix}.{name}": (channels,) for name in NORM}, f"{prefix}.num_batches_tracked": ()}


def block_layout(prefix: str, inputs: int, planes: int) -> dict[str, tuple[int, ...]]:
    """A bottleneck; the shortcut has weights where the channels change."""
    layout: dict[str, tuple[int, ...]] = {}
    sizes = ((planes, inputs, 1, 1), (planes, planes, 3, 3), (4 * planes, planes, 1, 1))
    for number, size in enumerate(sizes, start=1):
        layout[f"{prefix}.conv{number}.weight"] = size
        layout |= norm_layout(f"{prefix}.bn{number}", size[0])
    if inputs != 4 * planes:
        layout[f"{prefix}.downsample.0.weight"] = (4 * planes, inputs, 1, 1)
        layout |= norm_layout(f"{prefix}.downsample.1", 4 * planes)
    return layout


def stage_layout(prefix: str, inputs: int, planes: int, count: int) -> dict[str, tuple[int, ...]]:
    layout: dict[str, tuple[int, ...]] = {}
    for number in range(count):
        layout |= block_layout(f"{prefix}.{number}", inputs if number == 0 else 4 * planes, planes)
    return layout


def published_layout(arch: str, *, extra_bn: bool, classes: int) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of a published file, from the written table of patterns."""
    blocks = BLOCKS[arch]
    layout: dict[str, tuple[int, ...]] = {"pixel_mean": (1, 3, 1, 1), "pixel_std": (1, 3, 1, 1)}
    layout["backbone.0.weight"] = (64, 3, 7, 7)
    layout |= norm_layout("backbone.1", 64)
    layout |= stage_layout("backbone.4", 64, 64, blocks[0])
    layout |= stage_layout("backbone.5", 256, 128, blocks[1])
    layout |= block_layout("backbone.6", 512, 256)
    for branch in (1, 2, 3):
        layout |= stage_layout(f"b{branch}.0", 1024, 256, blocks[2] - 1)
        layout |= stage_layout(f"b{branch}.1", 1024, 512, blocks[3])
        if extra_bn:
            layout |= norm_layout(f"heads_extra_bn_b{branch}", 2048)
    for head in ("b1", "b2", "b21", "b22", "b3", "b31", "b32", "b33"):
        layout[f"{head}_head.pool_layer.p"] = (1,)
        layout[f"{head}_head.bottleneck.0.weight"] = (256, 2048, 1, 1)
        layout |= norm_layout(f"{head}_head.bottleneck.1", 256)
        layout[f"{head}_head.classifier.weight"] = (classes, 256)
    return layout


def mgn(
    arch: Arch = "r18",
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


def shake(network: nn.Module) -> None:
    """Gives every batch norm and power a value that matters, and every branch one of its own."""
    for name, tensor in network.state_dict().items():
        if name.endswith("running_var") or (tensor.dim() == 1 and name.endswith("weight")):
            tensor.uniform_(0.5, 1.5)
        elif name.endswith(("running_mean", "bias")):
            tensor.normal_(std=0.2)
        elif name.endswith("pool_layer.p"):
            tensor.uniform_(2, 4)
        elif tensor.dim() == 4:
            tensor.add_(0.1 * tensor.std() * torch.randn_like(tensor))


@pytest.mark.parametrize("extra_bn", [True, False])
@pytest.mark.parametrize("arch", ["r50", "r101", "r152"])
def test_keys_shapes_and_sizes_are_the_published(arch: Arch, extra_bn: bool) -> None:
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
def test_only_the_first_branch_follows_the_last_stride(last_stride: int) -> None:
    network = mgn("r50", last_stride=last_stride).eval()
    shared = network.backbone(torch.randn(2, 3, 96, 64))
    assert shared.shape[2:] == (6, 4)
    assert network.b1(shared).shape[2:] == ((6, 4) if last_stride == 1 else (3, 2))
    assert network.b2(shared).shape[2:] == network.b3(shared).shape[2:] == (6, 4)
    for key, value in network.b1.state_dict().items():
        assert torch.equal(network.b2.state_dict()[key], value), "all branches begin with the same weights"
        assert torch.equal(network.b3.state_dict()[key], value)


def slow_norm(state: dict[str, Tensor], prefix: str, x: Tensor) -> Tensor:
    mean, var = state[f"{prefix}.running_mean"], state[f"{prefix}.running_var"]
    weight, bias = state[f"{prefix}.weight"], state[f"{prefix}.bias"]
    size = (1, -1, 1, 1)
    return (x - mean.view(size)) / (var.view(size) + 1e-5).sqrt() * weight.view(size) + bias.view(size)


def slow_block(state: dict[str, Tensor], prefix: str, x: Tensor, stride: int) -> Tensor:
    """A bottleneck whose 3x3 convolution has the stride."""
    y = slow_norm(state, f"{prefix}.bn1", F.conv2d(x, state[f"{prefix}.conv1.weight"])).clamp(min=0)
    y = F.conv2d(y, state[f"{prefix}.conv2.weight"], stride=stride, padding=1)
    y = slow_norm(state, f"{prefix}.bn2", y).clamp(min=0)
    y = slow_norm(state, f"{prefix}.bn3", F.conv2d(y, state[f"{prefix}.conv3.weight"]))
    if f"{prefix}.downsample.0.weight" in state:
        x = F.conv2d(x, state[f"{prefix}.downsample.0.weight"], stride=stride)
        x = slow_norm(state, f"{prefix}.downsample.1", x)
    return (x + y).clamp(min=0)


def slow_stage(state: dict[str, Tensor], prefix: str, x: Tensor, stride: int) -> Tensor:
    for number in itertools.count():
        if f"{prefix}.{number}.conv1.weight" not in state:
            return x
        x = slow_block(state, f"{prefix}.{number}", x, stride if number == 0 else 1)
    return x


def slow_head(state: dict[str, Tensor], name: str, part: Tensor) -> Tensor:
    power = float(state[f"{name}.pool_layer.p"])
    pooled = part.clamp(min=1e-6).pow(power).flatten(2).mean(dim=2).pow(1 / power)
    reduced = F.conv2d(pooled[:, :, None, None], state[f"{name}.bottleneck.0.weight"])
    return slow_norm(state, f"{name}.bottleneck.1", reduced)[:, :, 0, 0]


def slow_feature(state: dict[str, Tensor], images: Tensor) -> Tensor:
    """The evaluation feature from the tensors of a file alone, by the written description."""
    x = F.conv2d(images, state["backbone.0.weight"], stride=2, padding=3)
    x = F.max_pool2d(slow_norm(state, "backbone.1", x).clamp(min=0), 3, stride=2, padding=1)
    x = slow_stage(state, "backbone.4", x, 1)
    x = slow_stage(state, "backbone.5", x, 2)
    x = slow_block(state, "backbone.6", x, 2)
    maps = []
    for branch in ("b1", "b2", "b3"):
        y = slow_stage(state, f"{branch}.1", slow_stage(state, f"{branch}.0", x, 1), 1)
        extra = f"heads_extra_bn_{branch}"
        maps.append(slow_norm(state, extra, y) if f"{extra}.weight" in state else y)
    half, third = x.shape[2] // 2, x.shape[2] // 3
    parts = {
        "b1": maps[0], "b2": maps[1], "b3": maps[2], "b21": maps[1][:, :, :half], "b22": maps[1][:, :, half:],
        "b31": maps[2][:, :, :third], "b32": maps[2][:, :, third : 2 * third], "b33": maps[2][:, :, 2 * third :],
    }  # fmt: skip
    order = ("b1", "b2", "b3", "b21", "b22", "b31", "b32", "b33")
    return torch.cat([slow_head(state, f"{name}_head", parts[name]) for name in order], dim=1)


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
def test_a_trunk_goes_into_the_stem_and_three_branches(arch: Arch) -> None:
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
        shared = network.backbone(images)
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
