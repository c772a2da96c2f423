"""The jigsaw patch module and the head on part tokens, against slow transcriptions of their definitions."""

from collections.abc import Mapping
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.plan import NeckHead, NetworkPlan, PartsHead
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.jpm import JPM_NEW_PARTS, rearrange, spread_blocks
from lupctl.core.training.nets.meta import build_empty
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from lupctl.core.training.nets.vit.trunk import ViTTrunk
from tests.tools.networks import jpm_head, plan_vit, tiny_vit

# Beyond the last block and the two norms, a published file has the classifier of ImageNet, 1,000 rows and a bias.
UNUSED_CLASSIFIER = 2


def build_jpm(**changes: Any) -> Any:
    """A small network with statistics that matter."""
    head = jpm_head(7, feature="after") if changes.pop("after", False) else jpm_head(7)
    network: Any = build_network(NetworkPlan(trunk=tiny_vit(**changes), pooling="token", head=head)).eval()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    for neck in network.head.necks:
        nn.init.zeros_(neck.bias)
        nn.init.normal_(neck.running_mean)
        nn.init.uniform_(neck.running_var, 0.5, 2)
    return network


# Shift and shuffle


def rearrange_slowly(order: list[int], *, shift: int, groups: int) -> list[int]:
    """Numbers of patches, one by one."""
    moved = order[shift - 1 :] + order[: shift - 1]
    while len(moved) % groups:
        moved.append(order[(len(order) - 2 + shift - 1) % len(order)])
    length = len(moved) // groups
    return [moved[group * length + place] for place in range(length) for group in range(groups)]


@pytest.mark.parametrize("count", [8, 9, 128, 210, 231])
@pytest.mark.parametrize(("shift", "groups"), [(5, 2), (1, 2), (5, 3), (3, 1), (8, 4)])
def test_patches_are_shifted_and_shuffled(count: int, shift: int, groups: int) -> None:
    patches = torch.arange(float(count)).view(1, count, 1).expand(2, -1, 3)
    found = rearrange(patches, shift=shift, groups=groups)
    expected = rearrange_slowly(list(range(count)), shift=shift, groups=groups)
    assert found[1, :, 2].tolist() == expected


def test_the_order_of_a_small_example() -> None:
    """Seven patches, shift 5: 4 5 6 0 1 2 3, then a copy of the second-to-last; 4 5 6 0 and 1 2 3 2 alternate."""
    patches = torch.arange(7.0).view(1, 7, 1)
    assert rearrange(patches, shift=5, groups=2).flatten().tolist() == [4, 1, 5, 2, 6, 3, 0, 2]


# The network


def features_slowly(network: Any, image: Tensor) -> Tensor:
    """Of one image, token by token, from the definitions."""
    tokens = network.backbone.tokens(image[None])[0]
    block, norm = network.head.b1
    found = [norm(block(tokens[None]))[0, 0]]
    order = rearrange_slowly(list(range(len(tokens) - 1)), shift=5, groups=2)
    length = (len(tokens) - 1) // 4
    block, norm = network.head.b2
    for part in range(4):
        chosen = [tokens[0]] + [tokens[1 + number] for number in order[part * length : (part + 1) * length]]
        found.append(norm(block(torch.stack(chosen)[None]))[0, 0])
    return torch.stack(found)


@pytest.mark.parametrize("size", [(64, 32), (48, 48), (80, 32), (64, 64)], ids=["8", "9", "10", "16"])
def test_features_are_the_definitions(size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    network = build_jpm()
    images = torch.randn(3, 3, *size)
    with torch.no_grad():
        found = network.features(images)
        expected = torch.stack([features_slowly(network, image) for image in images])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)
    assert found.shape == (3, 5, 16)


@pytest.mark.parametrize("after", [False, True])
def test_retrieval_takes_a_fourth_of_each_local_feature(after: bool) -> None:
    torch.manual_seed(2)
    network = build_jpm(after=after)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        features, logits = network(images)
        necked = torch.stack(
            [
                (features[:, number] - neck.running_mean) / (neck.running_var + 1e-5).sqrt() * neck.weight
                for number, neck in enumerate(network.head.necks)
            ],
            dim=1,
        )
        chosen = necked if after else features
        expected = torch.cat([chosen[:, 0]] + [chosen[:, number] / 4 for number in range(1, 5)], dim=1)
        torch.testing.assert_close(network.embed(images), expected)
        for number, layer in enumerate(network.head.classifiers):
            torch.testing.assert_close(logits[:, number], necked[:, number] @ layer.weight.T)
    assert logits.shape == (2, 5, 7)


def test_training_reaches_every_parameter_but_the_necks_shifts() -> None:
    network: Any = build_network(NetworkPlan(trunk=tiny_vit(cameras=3), pooling="token", head=jpm_head(7)))
    features, logits = network(torch.randn(4, 3, 64, 32), torch.tensor([0, 1, 2, 2]))
    (features.square().sum() + logits.square().sum()).backward()
    without = {name for name, parameter in network.named_parameters() if parameter.grad is None}
    assert without == {f"head.necks.{number}.bias" for number in range(5)}
    set_norm_groups(network, 2)
    assert {neck.groups for neck in network.head.necks} == {2}


def test_the_copies_of_the_last_block_begin_alike_and_go_their_own_ways() -> None:
    network: Any = build_network(NetworkPlan(trunk=tiny_vit(), pooling="token", head=jpm_head(7)))
    first, second = network.head.b1.state_dict(), network.head.b2.state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not {value.data_ptr() for value in first.values()} & {value.data_ptr() for value in second.values()}
    assert float(first["0.mlp.fc1.weight"].std()) == pytest.approx(0.02, rel=0.2)
    for layer in network.head.classifiers:
        assert float(layer.weight.detach().std()) == pytest.approx(0.001, rel=0.3)
    assert not any(neck.bias.requires_grad or neck.bias.any() for neck in network.head.necks)


def test_a_trunk_is_spread_over_both_copies() -> None:
    """The global feature of the network is then the trunk's own class token."""
    torch.manual_seed(3)
    trunk = ViTTrunk(tiny_vit(depth=3)).eval()
    network: Any = build_network(NetworkPlan(trunk=tiny_vit(depth=3), pooling="token", head=jpm_head(7))).eval()
    spread = spread_blocks(trunk.state_dict(), depth=3)
    lacking, strange = network.load_state_dict(spread, strict=False)
    assert not strange
    assert all(key.startswith(JPM_NEW_PARTS) for key in lacking)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        torch.testing.assert_close(network.features(images)[:, 0], trunk(images).token)
    strange = spread_blocks({"blocks.7.norm1.weight": torch.zeros(1), "head.weight": torch.zeros(1)}, depth=3)
    assert list(strange) == ["backbone.blocks.7.norm1.weight", "backbone.head.weight"], "for a strict loader to refuse"


def test_fewer_patches_than_parts_are_refused() -> None:
    with pytest.raises(UsageError, match="images of 48 x 16 have 3 patches, fewer than the 4 parts of a jpm"):
        build_jpm()(torch.zeros(2, 3, 48, 16))


# Part tokens


def build_parts(feature: Literal["before", "after"] = "before") -> Any:
    head = PartsHead(kind="parts", classes=7, feature=feature)
    network: Any = build_network(NetworkPlan(trunk=tiny_vit(parts=3), pooling="parts", head=head)).eval()
    for neck in network.head.necks:
        nn.init.normal_(neck.running_mean)
    return network


@pytest.mark.parametrize("feature", ["before", "after"])
def test_parts_are_averaged_and_every_token_has_its_neck(feature: Literal["before", "after"]) -> None:
    torch.manual_seed(4)
    network = build_parts(feature)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        maps = network.backbone(images)
        tokens = [maps.token, *maps.parts.unbind(1)]
        shifted = [token - neck.running_mean for token, neck in zip(tokens, network.head.necks, strict=True)]
        necked = [token / (1 + 1e-5) ** 0.5 for token in shifted]
        before, after = (torch.cat([some[0], (some[1] + some[2] + some[3]) / 3], dim=1) for some in (tokens, necked))
        features, logits = network(images)
        torch.testing.assert_close(features, before)
        torch.testing.assert_close(logits, after @ network.head.classifier.weight.T)
        torch.testing.assert_close(network.embed(images), before if feature == "before" else after)
    assert features.shape == (2, 32)
    assert network.head.classifier.weight.shape == (7, 32)


def test_tokens_are_in_order_class_parts_patches() -> None:
    """As a trunk without part tokens that gets them and their positions by hand."""
    torch.manual_seed(5)
    trunk, plain = ViTTrunk(tiny_vit(parts=3)).eval(), ViTTrunk(tiny_vit()).eval()
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        patches = trunk.patch_embed(images).flatten(2).transpose(1, 2)
        special = torch.cat([trunk.cls_token, trunk.part_tokens], dim=1).expand(2, -1, -1)
        tokens = torch.cat([special, patches], dim=1) + trunk.pos_embed
        for block in trunk.blocks:
            tokens = block(tokens)
        tokens = trunk.norm(tokens)
        maps = trunk(images)
    torch.testing.assert_close(maps.token, tokens[:, 0])
    torch.testing.assert_close(maps.parts, tokens[:, 1:4])
    torch.testing.assert_close(maps.map.flatten(2).transpose(1, 2), tokens[:, 4:])
    assert plain(images).parts is None


def test_pooling_of_parts_doubles_the_length() -> None:
    head = NeckHead(kind="bnneck", classes=7, feature="before")
    network: Any = build_network(NetworkPlan(trunk=tiny_vit(parts=3), pooling="parts", head=head)).eval()
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        maps = network.backbone(images)
        torch.testing.assert_close(network.embed(images), torch.cat([maps.token, maps.parts.mean(1)], dim=1))
    assert network.head.neck.weight.shape == (32,)


# Counts of published files


def count(state: Mapping[str, Tensor]) -> tuple[int, int]:
    return len(state), sum(value.numel() for value in state.values())


def test_counts_are_those_of_the_published_files() -> None:
    """Tensors and elements of the lists of keys that the projects' networks have, less what nothing uses."""
    unused = (UNUSED_CLASSIFIER, 1000 * 768 + 1000)
    trunk = plan_vit("vit-b", height=256, width=128, stride=12).model_copy(update={"cameras": 6})
    jpm = build_empty(NetworkPlan(trunk=trunk, pooling="token", head=jpm_head(751))).state_dict()
    block = count({key: value for key, value in jpm.items() if key.startswith("head.b1.")})
    assert tuple(map(sum, zip(count(jpm), block, unused, strict=True))) == (211, 103_661_037)

    unused = (UNUSED_CLASSIFIER, 1000 * 384 + 1000)
    small = plan_vit("vit-s", height=256, width=128)
    ics = NetworkPlan(
        trunk=small.model_copy(update={"stem": "ics"}),
        pooling="token",
        head=NeckHead(kind="bnneck", classes=751, feature="before"),
    )
    assert tuple(map(sum, zip(count(build_empty(ics).state_dict()), unused, strict=True))) == (180, 23_676_204)

    parts = NetworkPlan(
        trunk=small.model_copy(update={"parts": 3}),
        pooling="parts",
        head=PartsHead(kind="parts", classes=751, feature="before"),
    )
    # Published as three part tokens and five pieces of the position embedding; here one of each.
    split = (2 + 4, 0)
    assert tuple(map(sum, zip(count(build_empty(parts).state_dict()), unused, split, strict=True))) == (180, 22_609_772)
