"""Side information, and stochastic depth: what a transformer adds to its tokens, and what it leaves out."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.training.engine.parts import recompute_blocks
from lupctl.core.training.nets.build import Network, build_network
from lupctl.core.training.nets.jpm import JpmNetwork
from lupctl.core.training.nets.vit.blocks import (
    Block,
    StochasticDepth,
    drop_keys,
    set_drop_keys,
    set_drop_path,
    view_keys,
)
from lupctl.core.training.nets.vit.side import MEAN_ROW, NO_ROW, side_term
from lupctl.core.training.nets.vit.trunk import ViTTrunk
from tests.tools.networks import jpm_head, no_head, tiny_vit

# Side information


def test_rows_of_cameras_and_what_stands_for_them() -> None:
    table, unknown = torch.randn(3, 1, 5), torch.randn(1, 1, 5)
    rows = torch.tensor([2, 0, 3, MEAN_ROW, NO_ROW])
    found = side_term(table, unknown, rows)
    expected = torch.stack([table[2], table[0], unknown[0], table.mean(0), torch.zeros(1, 5)])
    torch.testing.assert_close(found, expected)


def test_a_row_that_is_not_there_is_no_answer() -> None:
    table = torch.randn(3, 1, 5)
    found = side_term(table, None, torch.tensor([0, 3, MEAN_ROW]))
    assert torch.isnan(found[1]).all()
    assert torch.isfinite(found[[0, 2]]).all()
    for row in (4, -3):
        with pytest.raises(IndexError):
            side_term(table, None, torch.tensor([row]))
    with pytest.raises(IndexError):
        side_term(table, torch.zeros(1, 1, 5), torch.tensor([4]))


@pytest.mark.parametrize("scale", [3.0, 0.5])
def test_the_term_is_added_to_every_token(scale: float) -> None:
    """As a network without cameras whose position embedding has the term added to all of its rows."""
    torch.manual_seed(1)
    plan = tiny_vit(cameras=3, side_scale=scale, unknown_camera=True)
    trunk, plain = ViTTrunk(plan).eval(), ViTTrunk(tiny_vit()).eval()
    nn.init.normal_(trunk.sie_embed)
    nn.init.normal_(trunk.sie_unknown)
    images = torch.randn(1, 3, 64, 32)
    terms = {0: trunk.sie_embed[0], 2: trunk.sie_embed[2], 3: trunk.sie_unknown[0], NO_ROW: torch.zeros(1, 16)}
    terms[MEAN_ROW] = trunk.sie_embed.mean(0)
    for row, term in terms.items():
        state = {key: value for key, value in trunk.state_dict().items() if not key.startswith("sie_")}
        plain.load_state_dict({**state, "pos_embed": state["pos_embed"] + scale * term})
        with torch.no_grad():
            torch.testing.assert_close(trunk(images, torch.tensor([row])).token, plain(images).token)
    assert trunk.needs_cameras
    assert not plain.needs_cameras
    with pytest.raises(AssertionError, match="needs the images' cameras"):
        trunk(images)


def test_one_camera_has_no_table_and_views_multiply_it() -> None:
    assert "sie_embed" not in ViTTrunk(tiny_vit(cameras=1)).state_dict()
    assert ViTTrunk(tiny_vit(cameras=3, views=2)).state_dict()["sie_embed"].shape == (6, 1, 16)
    assert ViTTrunk(tiny_vit(cameras=0, views=2)).state_dict()["sie_embed"].shape == (2, 1, 16)


def test_a_hidden_camera_teaches_the_unknown_row_alone() -> None:
    trunk = ViTTrunk(tiny_vit(cameras=3, unknown_camera=True))
    trunk(torch.randn(2, 3, 64, 32), torch.tensor([3, 3])).token.square().sum().backward()
    assert trunk.sie_unknown.grad.abs().max() > 0
    assert trunk.sie_embed.grad is not None, "a gradient of zeros: other processes may have the other cameras"
    assert not trunk.sie_embed.grad.any()


# Stochastic depth


def kept_of(depth: int, rate: float, keys: Tensor) -> StochasticDepth:
    drop = StochasticDepth(depth)
    set_drop_path(drop, rate)
    set_drop_keys(drop, keys)
    return drop


def test_rates_grow_linearly_and_what_is_kept_is_divided_by_its_share() -> None:
    keys = drop_keys(torch.arange(40_000), seed=1, step=2)
    drop = kept_of(5, 0.4, keys)
    assert drop.kept(0, 40_000) is None
    for block, rate in enumerate((0.1, 0.2, 0.3, 0.4), 1):
        factors = drop.kept(block, 40_000)
        assert factors.shape == (2, 40_000)
        torch.testing.assert_close(factors.unique(), torch.tensor([0.0, 1 / (1 - rate)]))
        dropped = (factors == 0).double().mean(1)
        assert float((dropped - rate).abs().max()) < 5 * (rate * (1 - rate) / 40_000) ** 0.5


def test_draws_are_independent_of_each_other() -> None:
    """Correlations between images, steps, blocks, branches and runs are those of chance."""
    count = 40_000
    columns = []
    for step in (0, 1):
        for seed in (1, 2**40 + 1):
            drop = kept_of(3, 0.5, drop_keys(torch.arange(count), seed=seed, step=step))
            columns += [*drop.kept(2, count), *drop.kept(2, count, runs=range(1, 3)).view(2, count, 2).unbind(2)[0]]
            columns += [*drop.kept(1, count)]
    signs = torch.stack([(column > 0).double() - (column > 0).double().mean() for column in columns])
    deviations = signs.pow(2).mean(1).sqrt()
    correlations = (signs @ signs.T / count) / (deviations[:, None] * deviations)
    assert float((correlations - torch.eye(len(columns))).abs().max()) < 5 / count**0.5
    following = (signs[:, 1:] * signs[:, :-1]).mean(1) / deviations**2
    assert float(following.abs().max()) < 5 / count**0.5


def test_draws_depend_on_the_image_and_not_on_the_batch() -> None:
    samples = torch.tensor([7, 2**32 - 1, 3, 11])
    whole = kept_of(4, 0.5, drop_keys(samples, seed=3, step=9))
    for share in (slice(0, None, 2), slice(1, None, 2)):  # of one of two processes
        part = kept_of(4, 0.5, drop_keys(samples[share], seed=3, step=9))
        for block in range(1, 4):
            assert torch.equal(part.kept(block, 2), whole.kept(block, 4)[:, share])
            runs = range(1, 5)
            expected = whole.kept(block, 4, runs=runs).view(2, 4, 4)[:, share]
            assert torch.equal(part.kept(block, 2, runs=runs).view(2, 2, 4), expected)
    one = whole.kept(3, 4, runs=range(2, 3))
    assert torch.equal(one, whole.kept(3, 4, runs=range(5)).view(2, 4, 5)[:, :, 2])


def test_keys_are_the_published_generator_whatever_the_device() -> None:
    """Recomputed with Python's own integers, which never overflow."""

    def mix(word: int) -> int:
        for shift, factor in ((16, 0x7FEB352D), (15, 0x31848BAB), (14, 0x45D9F3B)):
            word = ((word ^ (word >> shift)) * factor) % 2**32
        return word ^ (word >> 16)

    samples, seed, step = [0, 1, 2**32 - 1, 123_456_789], 2**63 - 5, 77
    start = mix(mix(mix(seed % 2**32) ^ (seed >> 32)) ^ step)
    expected = [mix(mix(start ^ sample) + 1) for sample in samples]
    assert drop_keys(torch.tensor(samples), seed=seed, step=step).tolist() == expected


def test_a_block_adds_what_is_kept() -> None:
    torch.manual_seed(2)
    block: Any = Block(8, heads=2, hidden=16, qkv_bias=True, qk_scale=None)
    tokens = torch.randn(3, 5, 8)
    kept = torch.tensor([[0.0, 2.0, 0.0], [0.0, 0.0, 1.25]])
    found = block(tokens, kept)
    assert torch.equal(found[0], tokens[0])
    torch.testing.assert_close(found[1], tokens[1] + 2 * block.attn(block.norm1(tokens))[1])
    torch.testing.assert_close(found[2], tokens[2] + 1.25 * block.mlp(block.norm2(tokens))[2])


@pytest.mark.parametrize("kind", ["plain", "jpm"])
def test_two_processes_and_recomputed_blocks_see_the_same_network(kind: str) -> None:
    """Images draw alike in any share of a batch and in a second pass over a block; not at all at test time."""
    torch.manual_seed(3)
    plan, head = tiny_vit(depth=4), jpm_head(3) if kind == "jpm" else no_head()
    network = build_network(NetworkPlan(trunk=plan, pooling="token", head=head))

    def features(network: Network, images: Tensor) -> Tensor:
        return network.features(images) if isinstance(network, JpmNetwork) else network.embed(images)

    set_drop_path(network, 0.6)
    images, samples = torch.randn(6, 3, 64, 32), torch.tensor([5, 1, 9, 1, 0, 2])
    keys = drop_keys(samples, seed=1, step=4)

    set_drop_keys(network, keys)
    whole = features(network, images)
    for share in (slice(0, None, 2), slice(1, None, 2)):
        set_drop_keys(network, keys[share])
        torch.testing.assert_close(features(network, images[share]), whole[share], rtol=1e-5, atol=1e-6)
    set_drop_keys(network, drop_keys(samples, seed=1, step=5))
    assert not torch.allclose(features(network, images), whole)

    set_drop_keys(network, keys)
    whole.square().sum().backward()
    lean: Any = copy.deepcopy(network)
    lean.zero_grad()
    recompute_blocks(lean.backbone.all_blocks())
    features(lean, images).square().sum().backward()
    expected = {name: parameter.grad for name, parameter in network.named_parameters()}
    for name, parameter in lean.named_parameters():
        assert (parameter.grad is None) == (expected[name] is None), name
        assert parameter.grad is None or torch.equal(parameter.grad, expected[name]), name

    network.eval()
    off = copy.deepcopy(network)
    set_drop_path(off, 0.0)
    assert torch.equal(features(network, images), features(off, images))
    with pytest.raises(AssertionError, match="6 keys for 2 images"):
        features(network.train(), images[:2])


def test_training_without_keys_is_our_own_mistake() -> None:
    trunk = ViTTrunk(tiny_vit())
    set_drop_path(trunk, 0.1)
    with pytest.raises(AssertionError, match="set_drop_keys"):
        trunk(torch.randn(1, 3, 64, 32))


def test_new_keys_draw_anew_in_a_compiled_network() -> None:
    """A compiler must take them as an input, not for a constant."""
    torch.manual_seed(4)
    trunk = ViTTrunk(tiny_vit(depth=4))
    set_drop_path(trunk, 0.5)
    images, compiled = torch.randn(4, 3, 64, 32), torch.compile(trunk, backend="eager", fullgraph=True)
    for step in range(3):
        set_drop_keys(trunk, drop_keys(torch.arange(4), seed=1, step=step))
        torch.testing.assert_close(compiled(images).token, trunk(images).token)


def test_views_of_an_image_draw_for_themselves_wherever_they_are_computed() -> None:
    keys = drop_keys(torch.arange(2000), seed=1, step=2)
    together = view_keys(keys, 3).view(3, -1)
    assert torch.equal(together[:, 1::2], view_keys(keys[1::2], 3).view(3, -1))
    drops = [kept_of(4, 0.5, each) for each in (keys, *together)]
    columns = torch.stack([drop.kept(3, 2000)[0] for drop in drops])
    assert torch.corrcoef(columns).fill_diagonal_(0).abs().max() < 0.1


def test_all_blocks_together_draw_as_each_does() -> None:
    drop = kept_of(5, 0.3, drop_keys(torch.arange(50), seed=1, step=2))
    first, *others = drop.kept_all(50)
    assert first is None
    assert len(others) == 4
    for block, found in enumerate(others, start=1):
        assert torch.equal(found, drop.kept(block, 50))
