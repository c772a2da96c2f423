"""Swin transformers against a slow transcription of SOLIDER's, and against timm's where both must agree."""

from typing import Any

import pytest
import timm.models.swin_transformer as timm_swin
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from lupctl.core.choices import SwinArch
from lupctl.core.formats.weights.plan import NetworkPlan, describe_trunk
from lupctl.core.formats.weights.swin_plan import SwinPlan, plan_swin
from lupctl.core.training.engine.groups import parameter_groups
from lupctl.core.training.engine.parts import recompute_blocks
from lupctl.core.training.nets.build import build_network, build_pooling
from lupctl.core.training.nets.foreign.swin_keys import key_in, reorder_merging
from lupctl.core.training.nets.memory import activation_bytes, count_parameters
from lupctl.core.training.nets.meta import build_empty, embed_nothing
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.swin.starts import fit_swin
from lupctl.core.training.nets.swin.trunk import SwinTrunk, set_semantic_weight
from lupctl.core.training.nets.swin.windows import HIDDEN, position_index, resize_bias_table, shift_mask
from lupctl.core.training.nets.vit.blocks import drop_keys, set_drop_keys, set_drop_path
from tests.references.solider import (
    BASE,
    SHORT,
    SMALL,
    TINY,
    Sizes,
    State,
    draw_state,
    slow_maps,
    slow_resized_table,
    table_rows,
    trunk_layout,
)
from tests.tools.networks import neck, no_head

# Numbers of the published networks, without head and with controller, and those that no feature depends on.
PUBLISHED: dict[SwinArch, tuple[Sizes, int]] = {
    "swin-t": (TINY, 27_533_370),
    "swin-s": (SMALL, 48_851_274),
    "swin-b": (BASE, 86_761_912),
}
# A quarter of Swin-T: its blocks, its heads, and windows of its grid, with tokens of a quarter of the length.
THIN = SwinPlan(kind="swin", dim=24, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), patch=4, window=7, semantic_weight=None)
DEAD = ("norm0.", "norm1.", "norm2.", "semantic_embed_w.3.", "semantic_embed_b.3.")


def doubled(state: State) -> State:
    """The same in double precision, without indices."""
    return {key: value.double() for key, value in state.items() if value.is_floating_point()}


def load(state: State, plan: SwinPlan) -> SwinTrunk:
    """Our trunk with the tensors of a published one that it has a use for."""
    trunk = SwinTrunk(plan)
    trunk.load_state_dict({key: value for key, value in state.items() if key in trunk.state_dict()})
    return trunk.eval()


def unit(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def small_swin(**changes: Any) -> SwinPlan:
    """A Swin for images of 64 x 32: one block a stage but in the third, windows of 4."""
    plain = plan_swin("swin-u", depths=(1, 1, 2, 1), window=4, semantic_weight=0.2)
    return SwinPlan.model_validate({**plain.model_dump(), **changes})


def as_network(plan: SwinPlan) -> NetworkPlan:
    return NetworkPlan(trunk=plan, pooling="avg", head=no_head())


@torch.no_grad()
def check_maps(state: State, trunk: SwinTrunk, images: Tensor, heads: tuple[int, ...], weights: Tensor | None) -> None:
    """Four stage maps to 5e-5, the feature before normalisation to 5e-5 and of unit length to 2e-6."""
    own = trunk.semantic_weight
    given = weights if weights is not None else None if own is None else torch.full((len(images),), own)
    expected = slow_maps(doubled(state), images.double(), heads, weights=None if given is None else given.double())
    found = trunk.stage_maps(images, semantic_weight=weights)
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        assert float(other.std()) > 0.5, "numbers that would show a difference"
        assert float((one - other).abs().max()) < 5e-5
    maps = trunk(images, semantic_weight=weights)
    assert maps.token is None
    feature, wanted = maps.map.mean((2, 3)), expected[3].mean((1, 2))
    assert float((feature - wanted).abs().max()) < 5e-5
    assert float((unit(feature) - unit(wanted)).abs().max()) < 2e-6


# The published dialect


@pytest.mark.parametrize(("height", "weights"), [(384, None), (384, (0.0, 1.0)), (256, 0.2), (256, (0.9, 0.3))])
def test_maps_and_features_are_those_of_the_definition(height: int, weights: float | tuple[float, ...] | None) -> None:
    """Without a controller, with a weight for every image, and with one for all images alike."""
    has_one = weights is not None
    state = draw_state(trunk_layout("", SHORT, controller=has_one), seed=height)
    trunk = load(state, plan_swin("swin-u", semantic_weight=0.2 if has_one else None))
    torch.manual_seed(1)
    images = torch.randn(2 if isinstance(weights, tuple) else 1, 3, height, 128)
    check_maps(state, trunk, images, SHORT.heads, torch.tensor(weights) if isinstance(weights, tuple) else None)


@pytest.mark.slow
@pytest.mark.parametrize("height", [384, 256])
@pytest.mark.parametrize("weight", [0.0, 1.0, 0.2, None])
def test_the_published_tiny_network_is_its_definition(height: int, weight: float | None) -> None:
    """None gives every image its own semantic weight."""
    state = draw_state(trunk_layout("", TINY), seed=2)
    trunk = load(state, plan_swin("swin-t", semantic_weight=0.0 if weight is None else weight))
    torch.manual_seed(2)
    images = torch.randn(3 if weight is None else 1, 3, height, 128)
    check_maps(state, trunk, images, TINY.heads, torch.tensor([0.0, 0.2, 1.0]) if weight is None else None)


def test_sides_that_divide_nothing_are_padded_at_every_step() -> None:
    """A map of 13 x 5 tokens becomes 7 x 3, 4 x 2 and 2 x 1."""
    state = draw_state(trunk_layout("", SHORT), seed=3)
    trunk = load(state, plan_swin("swin-u", semantic_weight=1.0))
    check_maps(state, trunk, torch.randn(1, 3, 52, 20), SHORT.heads, None)
    assert trunk.plan.grid(52, 20) == (2, 1)
    images = torch.zeros(1, 3, 52, 20)
    images[:, :, :50, :18] = torch.randn(1, 3, 50, 18)
    with torch.no_grad():
        torch.testing.assert_close(trunk(images[:, :, :50, :18]).map, trunk(images).map)


def test_gradients_are_those_of_the_definition() -> None:
    """Attention that trains on a CPU is written out, and that of features is one kernel."""
    published = draw_state(trunk_layout("", SHORT), seed=13)
    trunk = load(published, plan_swin("swin-u", semantic_weight=1.0))
    state = {key: value.requires_grad_() for key, value in doubled(published).items()}
    torch.manual_seed(13)
    images, weights = torch.randn(2, 3, 52, 20), torch.tensor([0.2, 0.7])
    wanted = slow_maps(state, images.double(), SHORT.heads, weights=weights.double())[3]
    factors = torch.randn(wanted.shape, dtype=torch.float64)
    (wanted * factors).sum().backward()
    found = trunk.stage_maps(images, semantic_weight=weights)[3]
    (found * factors).sum().backward()
    found = found.detach()
    assert float((found - wanted.detach()).abs().max()) < 5e-5
    for name, parameter in trunk.named_parameters():
        expected = state[name].grad
        assert parameter.grad is not None
        assert expected is not None
        assert float((parameter.grad - expected).norm() / expected.norm()) < 1e-4, name
    with torch.no_grad():
        torch.testing.assert_close(trunk.stage_maps(images, semantic_weight=weights)[3], found, rtol=1e-4, atol=1e-4)
    with torch.autocast("cpu", torch.bfloat16):
        coarse = trunk(images, semantic_weight=weights).map
    coarse.float().square().sum().backward()
    near = unit(coarse.detach().float().mean((2, 3))) * unit(found.mean((1, 2)))
    assert float(near.sum(1).min()) > 0.99


def timm_like(ours: SwinTrunk) -> timm_swin.SwinTransformer:
    """timm's network with the same weights, whose windows are cut on maps of any size."""
    plan = ours.plan
    theirs = timm_swin.SwinTransformer(
        img_size=224,
        embed_dim=plan.dim,
        depths=plan.depths,
        num_heads=plan.heads,
        window_size=plan.window,
        num_classes=0,
        always_partition=True,
    )
    # The channel that ours has in a place is theirs from another place, so theirs has it there.
    state = {}
    for key, value in ours.state_dict().items():
        place = reorder_merging(key, torch.arange(value.shape[-1]))
        state[key_in("timm", key)] = value[..., place.argsort()]
    theirs.load_state_dict(state)
    return theirs.eval()


@pytest.mark.parametrize("plan", [plan_swin("swin-u"), THIN], ids=["swin-u", "swin-t of a quarter of the width"])
def test_features_at_224_are_timms(plan: SwinPlan) -> None:
    """There all maps but the last are whole windows; the last is a single one, which timm does not shift."""
    ours = SwinTrunk(plan).eval()
    torch.manual_seed(4)
    with torch.no_grad():
        for name, parameter in ours.named_parameters():
            is_scale = parameter.dim() == 1 and name.endswith("weight")
            nn.init.normal_(parameter, 1.0 if is_scale else 0.0, 0.05 if parameter.dim() > 1 else 0.2)
    theirs = timm_like(ours)
    images = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        found = ours(images).map.permute(0, 2, 3, 1)
        expected = theirs.forward_features(images)
    assert float((unit(found) - unit(expected)).abs().max()) < 2e-6
    assert float((found - expected).abs().max()) < 5e-5


@pytest.mark.parametrize("arch", PUBLISHED)
def test_keys_and_numbers_are_the_published_ones(arch: SwinArch) -> None:
    sizes, count = PUBLISHED[arch]
    plan = plan_swin(arch, semantic_weight=0.0)
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in SwinTrunk(plan).state_dict().items()}
    layout = {key: shape for key, shape in trunk_layout("", sizes).items() if not key.endswith("_index")}
    dead = {key: shape for key, shape in layout.items() if key.startswith(DEAD)}
    assert ours == {key: shape for key, shape in layout.items() if key not in dead}
    assert count_parameters(as_network(plan)) + sum(torch.Size(shape).numel() for shape in dead.values()) == count
    assert (plan.arch, describe_trunk(plan)) == (arch, f"{arch} semantic weight 0")


def test_a_fresh_trunk_is_drawn_as_published() -> None:
    torch.manual_seed(5)
    trunk = SwinTrunk(plan_swin("swin-u", semantic_weight=0.2))
    for name, parameter in trunk.named_parameters():
        values = parameter.detach()
        if name.startswith("semantic_embed") and name.endswith("weight"):
            assert 0.01 < float(values.std()) < 0.03, name
        elif name.endswith("bias_table") or (name.startswith("semantic_embed") and name.endswith("bias")):
            assert not values.any(), name
        elif "norm" in name:
            assert set(values.tolist()) == {float(name.endswith("weight"))}, name
        elif name.endswith("weight"):  # uniform within one over the root of the inputs, as torch draws
            bound = values[0].numel() ** -0.5
            assert float(values.std()) == pytest.approx(bound / 3**0.5, rel=0.1), name
            assert float(values.abs().max()) <= bound


# Parts


@pytest.mark.parametrize("side", [2, 4, 7])
def test_positions_are_told_apart_by_their_way(side: int) -> None:
    index = position_index(side)
    ways = {(one // side - other // side, one % side - other % side): int(index[one, other])
            for one in range(side * side) for other in range(side * side)}  # fmt: skip
    assert len(set(ways.values())) == len(ways) == (2 * side - 1) ** 2
    assert all(int(index[one, other]) == ways[(one // side - other // side, one % side - other % side)]
               for one in range(side * side) for other in range(side * side))  # fmt: skip
    if side == 7:
        assert torch.equal(index, table_rows())


def test_tokens_that_were_no_neighbours_do_not_see_each_other() -> None:
    mask = shift_mask(8, 4, side=4, shift=2, device=torch.device("cpu"))
    assert mask.shape == (2, 16, 16)
    # Of the last window, the rows 0 and 1 are from the bottom of the map, 2 and 3 from its top; columns likewise.
    row, column = torch.arange(16) // 4, torch.arange(16) % 4
    part = 2 * (row >= 2).int() + (column >= 2).int()
    assert torch.equal(mask[1], torch.where(part[:, None] == part[None], 0.0, HIDDEN))
    beside = (column >= 2).int()
    assert torch.equal(mask[0], torch.where(beside[:, None] == beside[None], 0.0, HIDDEN))


@pytest.mark.parametrize(("found", "wanted"), [(7, 12), (7, 4), (12, 7)])
def test_tables_are_resized_bicubically(found: int, wanted: int) -> None:
    table = torch.randn((2 * found - 1) ** 2, 3, generator=torch.Generator().manual_seed(6))
    resized = resize_bias_table(table, side=wanted)
    assert resized.shape == ((2 * wanted - 1) ** 2, 3)
    torch.testing.assert_close(resized, slow_resized_table(table, wanted), rtol=1e-5, atol=1e-5)
    assert resize_bias_table(table, side=found) is table
    own = SwinTrunk(small_swin(window=found)).state_dict()
    fitted = fit_swin(own, small_swin(window=found), small_swin(window=wanted))
    SwinTrunk(small_swin(window=wanted)).load_state_dict(fitted)
    bare = fit_swin(own, small_swin(window=found), small_swin(window=wanted, semantic_weight=None))
    SwinTrunk(small_swin(window=wanted, semantic_weight=None)).load_state_dict(bare)


# The controller


def test_a_weight_of_ones_own_or_of_the_trunk() -> None:
    torch.manual_seed(7)
    trunk = load(draw_state(trunk_layout("", SHORT)), plan_swin("swin-u", semantic_weight=0.2))
    network = Embedding(trunk, build_pooling(as_network(trunk.plan).pooling))
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        default = network.embed(images)
        torch.testing.assert_close(default, trunk(images, semantic_weight=torch.full((2,), 0.2)).map.mean((2, 3)))
        both = trunk(images, semantic_weight=torch.tensor([0.0, 1.0])).map.mean((2, 3))
        set_semantic_weight(network, 1.0)
        torch.testing.assert_close(network.embed(images)[1], both[1])
        set_semantic_weight(network, 0.0)
        torch.testing.assert_close(network.embed(images)[0], both[0])
    assert float((unit(both) - unit(default)).abs().max()) > 1e-3
    plain = SwinTrunk(small_swin(semantic_weight=None))
    set_semantic_weight(plain, 0.5)
    assert (plain.semantic_weight, plain.controller()) == (None, [])


def test_all_parameters_learn() -> None:
    """The tensors that published code keeps and never trains are not here."""
    torch.manual_seed(8)
    trunk = SwinTrunk(small_swin())
    trunk(torch.randn(2, 3, 64, 32)).map.square().mean().backward()
    assert [name for name, one in trunk.named_parameters() if one.grad is None or not one.grad.any()] == []


def test_biases_of_positions_learn_at_the_rate_of_biases_and_decay() -> None:
    """Published code doubles the rate of all names with "bias" in them; decay is left to shapes."""
    network = build_network(NetworkPlan(trunk=small_swin(), pooling="avg", head=neck(3)))
    scales = {}
    for group in parameter_groups([network], bias_rate=2.0, vector_decay=0.0):
        for parameter in group["params"]:
            scales[parameter] = (group["rate_scale"], group["decay_scale"])
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            is_matrix = parameter.dim() > 1
            assert scales[parameter] == (2.0 if "bias" in name else 1.0, 1.0 if is_matrix else 0.0), name


# What networks of this kind must be able to do


def test_stochastic_depth_leaves_out_branches_by_image() -> None:
    torch.manual_seed(9)
    trunk = SwinTrunk(small_swin())
    images, keys = torch.randn(6, 3, 64, 32), drop_keys(torch.arange(6), seed=1, step=3)
    plain = trunk(images).map
    set_drop_path(trunk, 0.5)
    set_drop_keys(trunk, keys)
    dropped = trunk(images).map
    assert not torch.allclose(plain, dropped)
    set_drop_keys(trunk, keys[3:])
    torch.testing.assert_close(trunk(images[3:]).map, dropped[3:], rtol=1e-4, atol=1e-5)
    kept = [trunk.drop.kept(block, 3) for block in range(5)]
    assert kept[0] is None
    assert all(one is not None and one.shape == (2, 3) for one in kept[1:])
    torch.testing.assert_close(trunk.eval()(images).map, plain)


def test_plans_that_make_no_sense_are_refused() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"heads": (3, 2, 4, 8)}, "3 heads do not divide a dim of 32"),
        ({"depths": (2, 2, 2)}, "Field required"),
        ({"depths": (2, 2, 0, 2)}, "greater than or equal to 1"),
        ({"semantic_weight": 1.5}, "less than or equal to 1"),
        ({"semantic_weight": float("nan")}, "finite"),
        ({"window": 1}, "greater than or equal to 2"),
        ({"registers": 4}, "not permitted"),
    ]
    for changes, message in refused:
        with pytest.raises(ValidationError, match=message):
            small_swin(**changes)
    for pooling in ("token", "parts"):
        with pytest.raises(ValidationError, match="no such tokens"):
            NetworkPlan.model_validate({"trunk": small_swin(), "pooling": pooling, "head": no_head()})


def test_descriptions_name_what_differs_from_the_published_network() -> None:
    assert describe_trunk(plan_swin("swin-s")) == "swin-s"
    assert describe_trunk(small_swin()) == "swin-u depths 1-1-2-1 window 4 semantic weight 0.2"
    assert describe_trunk(plan_swin("swin-u", patch=2)) == "swin-u patch 2"
    other = small_swin(dim=24, heads=(2, 2, 2, 2), semantic_weight=None)
    assert (other.arch, describe_trunk(other)) == (None, "swin 24 depths 1-1-2-1 window 4")


def test_recomputed_blocks_give_the_same_gradients() -> None:
    torch.manual_seed(10)
    plain, lean = SwinTrunk(small_swin()), SwinTrunk(small_swin())
    lean.load_state_dict(plain.state_dict())
    recompute_blocks(lean.all_blocks())
    assert len(lean.all_blocks()) == 5
    images = torch.randn(4, 3, 64, 32)
    for trunk in (plain, lean):
        set_drop_path(trunk, 0.3)
        set_drop_keys(trunk, drop_keys(torch.arange(4), seed=1, step=0))
        trunk(images).map.square().sum().backward()
    for one, other in zip(plain.parameters(), lean.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


@pytest.mark.parametrize("height", [256, pytest.param(384, marks=pytest.mark.slow)])
def test_the_memory_estimate_is_what_autograd_keeps(height: int) -> None:
    """Within a tenth, which is weights of attention and copies of windows."""
    plan = as_network(plan_swin("swin-t", semantic_weight=0.2))
    network = build_network(plan)
    weights = {parameter.data_ptr() for parameter in network.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = network.embed(torch.randn(1, 3, height, 128))
    assert output.requires_grad
    assert activation_bytes(plan, height=height, width=128) == pytest.approx(sum(kept.values()), rel=0.1)


def test_networks_on_the_meta_device_draw_nothing_and_can_be_filled() -> None:
    before = torch.random.get_rng_state()
    plan = NetworkPlan(trunk=small_swin(), pooling="avg", head=neck(3))
    network = build_empty(plan).eval()
    assert all(value.is_meta for value in network.state_dict().values())
    assert embed_nothing(network, height=64, width=32).shape == (1, 256)
    assert not network.needs_cameras
    assert torch.equal(torch.random.get_rng_state(), before)
    real = build_network(plan).eval()
    network.load_state_dict(real.state_dict(), assign=True)
    images = torch.randn(2, 3, 64, 32)
    with torch.no_grad():
        assert torch.equal(network.embed(images), real.embed(images))


def test_bf16_autocast_stays_near_float32() -> None:
    torch.manual_seed(11)
    network = build_network(as_network(small_swin())).eval()
    trunk, images = network.backbone, torch.randn(4, 3, 64, 32)
    assert isinstance(trunk, SwinTrunk)
    with torch.no_grad():
        exact = network.embed(images)
        with torch.autocast("cpu", torch.bfloat16):
            coarse, maps = network.embed(images), trunk.stage_maps(images)
    assert {one.dtype for one in maps} == {torch.float32}, "what blocks add to is not rounded to eight bits each time"
    assert float((unit(exact) * unit(coarse.float())).sum(1).min()) > 0.999
    assert not torch.equal(exact, coarse)


def test_the_forward_pass_is_one_graph() -> None:
    """Neither torch.compile nor an export has to look at a tensor's values on the way."""
    torch.manual_seed(12)
    network = build_network(as_network(small_swin())).eval()
    images = torch.randn(2, 3, 72, 40)
    compiled = torch.compile(network.embed, backend="eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(images), network.embed(images))
