"""Vision transformers against timm's, which is an oracle here and no dependency, and against their definitions."""

import math
import typing
from typing import Any

import pytest
import timm.models.vision_transformer as timm_vit
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lupctl.core.choices import ViTArch
from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.plan import NetworkPlan, describe_trunk
from lupctl.core.formats.weights.vit_plan import ViTPlan, patch_grid
from lupctl.core.training.engine.parts import recompute_blocks
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.memory import activation_bytes
from lupctl.core.training.nets.meta import build_empty, embed_nothing
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from lupctl.core.training.nets.vit.blocks import Block, drop_keys, set_drop_keys, set_drop_path
from lupctl.core.training.nets.vit.trunk import ViTTrunk
from tests.tools.networks import jpm_head, neck, no_head, plan_network, plan_vit, tiny_vit
from tests.tools.transformers import fill, transformer_plans


def draw_weights(network: nn.Module, *, seed: int) -> None:
    """Weights far from those of a fresh network, so that every one of them shows in the output."""
    torch.manual_seed(seed)
    for name, parameter in network.named_parameters():
        is_scale = parameter.dim() == 1 and name.endswith("weight")
        nn.init.normal_(parameter, 1.0 if is_scale else 0.0, 0.05 if parameter.dim() > 1 else 0.2)


def timm_like(plan: ViTPlan, ours: ViTTrunk, *, fused: bool = True) -> timm_vit.VisionTransformer:
    """timm's network with the same weights."""
    theirs = timm_vit.VisionTransformer(
        img_size=(16 * plan.rows, 16 * plan.columns),
        embed_dim=plan.dim,
        depth=plan.depth,
        num_heads=plan.heads,
        mlp_ratio=plan.hidden / plan.dim,
        qkv_bias=plan.qkv_bias,
        num_classes=0,
    )
    for block in theirs.blocks:
        block.attn.fused_attn = fused
        if plan.qk_scale is not None:
            block.attn.scale = plan.qk_scale
    theirs.load_state_dict(ours.state_dict())
    return theirs.eval()


def unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


@pytest.mark.parametrize("arch", typing.get_args(ViTArch))
def test_keys_and_shapes_are_timms(arch: ViTArch) -> None:
    plan = plan_vit(arch, height=256, width=128)
    with torch.device("meta"):
        ours = {key: value.shape for key, value in ViTTrunk(plan).state_dict().items()}
        theirs = timm_vit.VisionTransformer(
            img_size=(256, 128), embed_dim=plan.dim, depth=plan.depth, num_heads=plan.heads, num_classes=0
        ).state_dict()
    assert ours == {key: value.shape for key, value in theirs.items()}
    assert plan.arch == arch
    assert describe_trunk(plan) == arch


@pytest.mark.parametrize(
    "plan",  # of timm's attention, only the written out one has a scale
    [
        plan_vit("vit-t", height=256, width=128),
        plan_vit("vit-s", height=128, width=64).model_copy(update={"depth": 4}),
        # The old ViT-S of timm: three times as wide a middle, no bias, a scale of the whole length.
        plan_vit("vit-b", height=64, width=32).model_copy(
            update={"depth": 8, "heads": 8, "hidden": 2304, "qkv_bias": False, "qk_scale": 768**-0.5}
        ),
    ],
    ids=["vit-t", "vit-s-4", "old-vit-s"],
)
def test_features_are_timms(plan: ViTPlan) -> None:
    ours = ViTTrunk(plan).eval()
    draw_weights(ours, seed=1)
    theirs = timm_like(plan, ours, fused=plan.qk_scale is None)
    images = torch.randn(3, 3, 16 * plan.rows, 16 * plan.columns)
    with torch.no_grad():
        maps, expected = ours(images), theirs.forward_features(images)
    assert maps.token is not None
    assert float((unit(maps.token) - unit(expected[:, 0])).abs().max()) < 2e-6
    assert float((maps.token - expected[:, 0]).abs().max()) < 5e-5
    rows = maps.map.flatten(2).transpose(1, 2)
    assert maps.map.shape == (3, plan.dim, plan.rows, plan.columns)
    assert float((unit(rows) - unit(expected[:, 1:])).abs().max()) < 2e-6
    assert maps.parts is None


def test_gradients_are_timms() -> None:
    plan = tiny_vit(depth=3)
    ours = ViTTrunk(plan)
    draw_weights(ours, seed=2)
    theirs = timm_like(plan, ours).train()
    images, weighting = torch.randn(4, 3, 64, 32), torch.randn(4, plan.dim)
    (ours(images).token * weighting).sum().backward()
    (theirs.forward_features(images)[:, 0] * weighting).sum().backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=1e-5)


def test_a_norm_adds_1e_6_where_inputs_are_small() -> None:
    """With tokens of about 1e-3, a variance of 1e-6 and torch's epsilon of 1e-5 would shrink a norm's output by 3."""
    block = Block(8, heads=2, hidden=16, qkv_bias=True, qk_scale=None)
    trunk = ViTTrunk(tiny_vit())
    tokens = torch.randn(5, 3, 8, dtype=torch.float64) * 1e-3
    for norm in (block.norm1, block.norm2):
        expected = tokens - tokens.mean(-1, keepdim=True)
        expected = expected / (tokens.var(-1, correction=0, keepdim=True) + 1e-6).sqrt()
        torch.testing.assert_close(norm.double()(tokens), expected)
    assert trunk.norm.eps == 1e-6


def test_gelu_is_exact() -> None:
    inputs = torch.linspace(-4, 4, 81, dtype=torch.float64)
    expected = torch.tensor([x * 0.5 * (1 + math.erf(x / math.sqrt(2))) for x in inputs.tolist()], dtype=torch.float64)
    torch.testing.assert_close(Block(8, heads=1, hidden=8, qkv_bias=True, qk_scale=None).mlp.act(inputs), expected)


def test_a_fresh_trunk_is_drawn_as_published() -> None:
    torch.manual_seed(3)
    trunk = ViTTrunk(plan_vit("vit-t", height=256, width=128).model_copy(update={"cameras": 6, "unknown_camera": True}))
    for name, parameter in trunk.named_parameters():
        values, kind = parameter.detach(), name.rsplit(".", 1)[-1]
        if name == "patch_embed.proj.weight":
            assert float(values.std()) == pytest.approx((2 / (16 * 16 * 192)) ** 0.5, rel=0.02)
        elif kind == "bias":
            assert not values.any(), name
        elif "norm" in name:
            assert set(values.tolist()) == {1.0}, name
        else:
            assert float(values.std()) == pytest.approx(0.02, rel=0.15), name


def test_the_same_seed_draws_the_same_trunk() -> None:
    torch.manual_seed(4)
    one = ViTTrunk(tiny_vit()).state_dict()
    torch.manual_seed(4)
    other = ViTTrunk(tiny_vit()).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


# Patches


@pytest.mark.parametrize(
    ("size", "stride", "grid"),
    [
        ((256, 128), 16, (16, 8)),
        ((256, 128), 12, (21, 10)),
        ((384, 128), 16, (24, 8)),
        ((384, 128), 12, (31, 10)),
        ((256, 128), 11, (22, 11)),
        ((16, 31), 16, (1, 1)),
    ],
)
def test_patches_overlap_by_the_stride(size: tuple[int, int], stride: int, grid: tuple[int, int]) -> None:
    plan = tiny_vit(stride=stride, rows=grid[0], columns=grid[1], dim=4, heads=1, depth=1)
    trunk = ViTTrunk(plan)
    images = torch.randn(1, 3, *size)
    found = trunk.patch_embed(images)
    assert tuple(found.shape[2:]) == plan.grid(*size) == grid
    for row, column in [(0, 0), (grid[0] - 1, grid[1] - 1)]:
        patch = images[0, :, row * stride : row * stride + 16, column * stride : column * stride + 16]
        expected = (trunk.patch_embed.proj.weight * patch).sum(dim=(1, 2, 3)) + trunk.patch_embed.proj.bias
        torch.testing.assert_close(found[0, :, row, column], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("stem", "size"), [("patch", (15, 64)), ("patch", (64, 15)), ("ics", (14, 64))])
def test_an_image_without_a_patch_is_refused(stem: typing.Literal["patch", "ics"], size: tuple[int, int]) -> None:
    trunk = ViTTrunk(tiny_vit(stem=stem))
    message = f"images of {size[0]} x {size[1]} leave no patch of 16 x 16 pixels"
    with pytest.raises(UsageError, match=message):
        trunk(torch.zeros(1, 3, *size))
    with pytest.raises(UsageError, match=message):
        patch_grid(*size, stem, patch=16, stride=16)


@pytest.mark.parametrize("size", [(16, 16), (17, 31), (70, 45), (128, 64)])
@pytest.mark.parametrize("stem", ["patch", "ics"])
@pytest.mark.parametrize("position", ["bilinear", "dino"])
def test_images_of_any_size_go_through(size: tuple[int, int], stem: str, position: str) -> None:
    trunk = ViTTrunk(tiny_vit(stem=stem, position=position)).eval()
    with torch.no_grad():
        maps = trunk(torch.randn(2, 3, *size))
    assert tuple(maps.map.shape[2:]) == trunk.plan.grid(*size)
    assert torch.isfinite(maps.map).all()


# The IBN convolution stem


def test_the_ics_stem_is_its_definition() -> None:
    torch.manual_seed(5)
    trunk: Any = ViTTrunk(tiny_vit(stem="ics")).eval()
    conv = trunk.patch_embed.conv
    for module in conv.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    images = torch.randn(2, 3, 64, 32)
    x = nn.functional.conv2d(images, conv[0].weight, stride=2, padding=3)
    for number in (1, 4):
        first, second = x[:, :32], x[:, 32:]
        first = (first - first.mean((2, 3), keepdim=True)) / (
            first.var((2, 3), correction=0, keepdim=True) + 1e-5
        ).sqrt()
        norm = conv[number].BN
        mean, var = norm.running_mean.view(1, -1, 1, 1), norm.running_var.view(1, -1, 1, 1)
        x = torch.cat([first, (second - mean) / (var + 1e-5).sqrt()], dim=1).relu()
        x = nn.functional.conv2d(x, conv[number + 2].weight, padding=1)
    mean, var = conv[7].running_mean.view(1, -1, 1, 1), conv[7].running_var.view(1, -1, 1, 1)
    x = ((x - mean) / (var + 1e-5).sqrt()).relu()
    expected = nn.functional.conv2d(x, trunk.patch_embed.proj.weight, stride=8)
    torch.testing.assert_close(trunk.patch_embed(images), expected, rtol=1e-4, atol=1e-4)
    assert expected.shape == (2, 16, 4, 2)


def test_batch_norm_groups_reach_the_ics_stem() -> None:
    trunk = ViTTrunk(tiny_vit(stem="ics"))
    set_norm_groups(trunk, 2)
    norms = [module for module in trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    assert [norm.groups for norm in norms] == [2, 2, 2]
    images = torch.randn(4, 3, 64, 32)
    before = trunk(images).token
    images[1::2] = torch.randn(2, 3, 64, 32)
    after = trunk(images).token
    assert torch.equal(before[::2], after[::2])
    assert not torch.allclose(before[1::2], after[1::2])


# What networks of this kind must be able to do


def test_plans_that_make_no_sense_are_refused() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"heads": 3}, "3 heads do not divide a dim of 16"),
        ({"stem": "ics", "stride": 12}, "an ics stem with patch 16 and stride 12"),
        ({"unknown_camera": True}, "a row for unknown cameras without a table"),
        ({"cameras": 1, "unknown_camera": True}, "a row for unknown cameras without a table"),
        ({"qk_scale": 0.0}, "greater than 0"),
        ({"side_scale": math.nan}, "finite"),
        ({"depth": 2**20}, "less than or equal to 1024"),
        ({"parts": 9}, "less than or equal to 8"),
        ({"registers": 4}, "not permitted"),
    ]
    for changes, message in refused:
        with pytest.raises(ValidationError, match=message):
            tiny_vit(**changes)
    residual = plan_network(no_head()).trunk
    misfits: list[dict[str, Any]] = [
        {"trunk": residual, "pooling": "token", "head": no_head()},
        {"trunk": tiny_vit(), "pooling": "parts", "head": no_head()},
        {"trunk": residual, "pooling": "avg", "head": jpm_head(3)},
        {"trunk": tiny_vit(depth=1), "pooling": "token", "head": jpm_head(3)},
    ]
    for fields in misfits:
        with pytest.raises(ValidationError, match=r"no such tokens|a jpm has"):
            NetworkPlan(**fields)


def test_descriptions_name_what_differs_from_the_plain_network() -> None:
    plain = plan_vit("vit-s", height=256, width=128)
    assert describe_trunk(plain.model_copy(update={"stem": "ics"})) == "vit-s ics"
    assert describe_trunk(plain.model_copy(update={"depth": 4, "cameras": 6})) == "vit-s depth 4 6 cameras"
    assert describe_trunk(plain.model_copy(update={"parts": 3})) == "vit-s 3 part tokens"
    assert describe_trunk(tiny_vit()) == "vit 16/2/2"
    assert tiny_vit().arch is None


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_pooling_takes_the_token_or_the_map(pooling: typing.Literal["token", "avg"]) -> None:
    plan = NetworkPlan(trunk=tiny_vit(), pooling=pooling, head=no_head())
    network = build_network(plan).eval()
    assert isinstance(network, Embedding)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        maps = network.backbone(images)
        expected = maps.token if pooling == "token" else maps.map.mean((2, 3))
        torch.testing.assert_close(network.embed(images), expected)


@pytest.mark.parametrize("feature", ["before", "after"])
def test_the_retrieval_feature_is_before_or_after_the_neck(feature: typing.Literal["before", "after"]) -> None:
    head = neck(5).model_copy(update={"feature": feature})
    network: Any = build_network(NetworkPlan(trunk=tiny_vit(), pooling="token", head=head)).eval()
    nn.init.normal_(network.head.neck.running_mean)
    images = torch.randn(3, 3, 64, 32)
    with torch.no_grad():
        features, logits = network(images)
        after = (features - network.head.neck.running_mean) / (1 + network.head.neck.eps) ** 0.5
        torch.testing.assert_close(network.embed(images), features if feature == "before" else after)
        torch.testing.assert_close(logits, after @ network.head.classifier.weight.T)
    assert not network.head.neck.bias.requires_grad


@pytest.mark.parametrize("kind", ["none", "before", "sie", "ics", "resized", "jpm"])
def test_what_is_not_trained_computes_the_class_token_alone_in_the_last_block(kind: str) -> None:
    """Not with stochastic depth, which a pass without gradients may have too."""
    plan = transformer_plans()[kind]
    torch.manual_seed(0)
    network: Any = build_network(plan).double()
    fill(network)
    images, cameras = torch.randn(3, 3, 64, 32).double(), torch.tensor([0, 2, 1]) if network.needs_cameras else None

    def count() -> tuple[Tensor, int]:
        with FlopCounterMode(display=False) as counter:
            feature = network.embed(images, cameras)
        return feature.detach(), counter.get_total_flops()

    network.eval()
    whole, work = count()
    with torch.no_grad():
        alone, less = count()
    torch.testing.assert_close(alone, whole, rtol=1e-12, atol=1e-12)
    assert less < (1 if kind == "ics" else 0.85) * work, "of the ics most is the stem"
    set_drop_path(network.train(), 0.5)
    set_drop_keys(network, drop_keys(torch.arange(3), seed=1, step=1))
    whole, work = count()
    with torch.no_grad():
        again = count()
    torch.testing.assert_close(again[0], whole, rtol=1e-12, atol=1e-12)
    assert again[1] == work


@pytest.mark.parametrize("stem", ["patch", "ics"])
def test_recomputed_blocks_give_the_same_gradients(stem: str) -> None:
    torch.manual_seed(6)
    plain, lean = ViTTrunk(tiny_vit(stem=stem)), ViTTrunk(tiny_vit(stem=stem))
    lean.load_state_dict(plain.state_dict())
    recompute_blocks(lean.all_blocks())
    assert len(lean.all_blocks()) == 2
    images = torch.randn(4, 3, 64, 32)
    for trunk in (plain, lean):
        trunk(images).token.square().sum().backward()
    for one, other in zip(plain.parameters(), lean.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_the_memory_estimate_is_what_autograd_keeps() -> None:
    """Within a tenth: norms keep two numbers a row besides their input, sums and small tensors are left out."""
    trunk = plan_vit("vit-t", height=256, width=128).model_copy(update={"depth": 4})
    plan = NetworkPlan(trunk=trunk, pooling="token", head=no_head())
    network = build_network(plan)
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = network.embed(torch.randn(1, 3, 256, 128))
    assert output.requires_grad
    assert activation_bytes(plan, height=256, width=128) == pytest.approx(sum(kept.values()), rel=0.1)


def test_networks_on_the_meta_device_draw_nothing() -> None:
    before = torch.random.get_rng_state()
    trunk = tiny_vit(stem="ics", cameras=3, unknown_camera=True)
    for head in (neck(3), jpm_head(3)):
        network = build_empty(NetworkPlan(trunk=trunk, pooling="token", head=head)).eval()
        assert all(value.is_meta for value in network.state_dict().values())
        size = 16 if head.kind == "bnneck" else 5 * 16
        assert embed_nothing(network, height=64, width=32).shape == (1, size)
        assert network.needs_cameras
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["bnneck", "jpm"])
def test_bf16_autocast_stays_near_float32(kind: str) -> None:
    torch.manual_seed(7)
    head = neck(3).model_copy(update={"feature": "before"}) if kind == "bnneck" else jpm_head(3)
    network = build_network(NetworkPlan(trunk=tiny_vit(cameras=3), pooling="token", head=head)).eval()
    images, cameras = torch.randn(4, 3, 64, 32), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        exact = network.embed(images, cameras)
        with torch.autocast("cpu", torch.bfloat16):
            coarse = network.embed(images, cameras)
    assert float((unit(exact) * unit(coarse.float())).sum(1).min()) > 0.999
    assert not torch.equal(exact, coarse)


@pytest.mark.parametrize("kind", ["bnneck", "jpm"])
def test_the_forward_pass_is_one_graph(kind: str) -> None:
    """Neither torch.compile nor an export has to look at a tensor's values on the way."""
    head = neck(3) if kind == "bnneck" else jpm_head(3)
    trunk = tiny_vit(stem="ics", cameras=3, position="dino")
    network = build_network(NetworkPlan(trunk=trunk, pooling="token", head=head)).eval()
    images, cameras = torch.randn(2, 3, 80, 48), torch.tensor([0, 2])
    compiled = torch.compile(network.embed, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images, cameras), network.embed(images, cameras))
