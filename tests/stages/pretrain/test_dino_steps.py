"""Whole steps of self-distillation against the published ones, tensor by tensor; parts, recomputing and 16 bits."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain.step import take_step
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.methods.dino import Dino
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from lupctl.core.training.nets.vit.blocks import StochasticDepth, drop_keys, view_keys
from tests.references.dino import DinoReference, ReferenceHead, ReferenceNetwork, ReferenceRules
from tests.tools.view_steps import BATCH, EMPTY, LOCALS, draw_views, run_steps, set_up

STEPS, CLIP = 5, 0.05
TINY = (
    "vit.depth=2", "vit.drop_path=0.0", "pixels.height=64", "pixels.width=32", "local.height=32", "local.width=16",
    f"local.count={LOCALS}", "dino.outputs=50", "dino.hidden=24", "dino.bottleneck=8", f"data.batch={BATCH}",
    "bn_groups=1", "schedule.epochs=5", "schedule.warmup_epochs=2", f"optim.clip={CLIP}", "seed=3",
)  # fmt: skip
RESNET = (*(entry for entry in TINY if not entry.startswith("vit.")), "net.arch=r18", "net.width=4")
TRUNKS = {"dino-vit-s": ("net.arch=vit-t", *TINY), "dino-vit-s-ics": ("net.arch=vit-t", *TINY), "dino-resnet": RESNET}


def tiny_recipe(name: str, *settings: str) -> PretrainRecipe:
    """Two steps an epoch of a tiny network by a shipped recipe."""
    recipe = resolve_recipe("pretrain", name, overrides=(*TRUNKS[name], *settings))
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def take_steps(
    recipe: PretrainRecipe, *, kind: torch.dtype = torch.double, precision: torch.dtype = torch.float32, parts: int = 1
) -> tuple[Dino, list[float]]:
    """The method after some whole steps, and their losses."""
    setup, trained = set_up(recipe, kind, precision=precision)
    method = trained.method
    assert isinstance(method, Dino)
    set_norm_groups(method, recipe.bn_groups // parts)
    trained = replace(trained, gradients=SharedGradients(method.student, parts=parts))
    return method, [scalars["loss"] for scalars in run_steps(recipe, setup, trained, kind=kind, steps=STEPS)]


class Pooled(nn.Module):
    """A pooled trunk as the reference takes it."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, images: Tensor) -> Tensor:
        return self.embedding.embed(images)


def build_reference(recipe: PretrainRecipe) -> DinoReference:
    """The published run with the same fresh weights."""
    _, trained = set_up(recipe, torch.double, precision=torch.float32)
    assert isinstance(trained.method, Dino)
    student = copy.deepcopy(trained.method.student)
    layers = [
        (layer.weight.detach(), layer.bias.detach()) for layer in student.head.mlp if isinstance(layer, nn.Linear)
    ]
    head = ReferenceHead(layers, student.head.last_layer.weight.detach())
    rules = ReferenceRules(steps=2, epochs=5, warmup_epochs=2, clip=CLIP)
    return DinoReference(ReferenceNetwork(Pooled(student.embedding), head), rules)


def comparable(name: str, value: Tensor) -> Tensor:
    """Without the bias of keys: it changes nothing, and its gradient is rounding, of which AdamW makes whole steps."""
    if name.endswith("attn.qkv.bias"):
        return torch.cat([value.chunk(3)[0], value.chunk(3)[2]])
    return value


def assert_same(own: nn.Module, wanted: ReferenceNetwork) -> None:
    """Trunk with all buffers, and head."""
    trunk = wanted.trunk
    assert isinstance(trunk, Pooled)
    expected = trunk.embedding.state_dict()
    found = own.get_submodule("embedding").state_dict()
    assert found.keys() == expected.keys()
    pairs = [(name, value, expected[name]) for name, value in found.items()]
    pairs += [(name, value, wanted.head.mlp.state_dict()[name]) for name, value in own.head.mlp.state_dict().items()]  # type: ignore[union-attr]
    pairs.append(("last", own.get_parameter("head.last_layer.weight"), wanted.head.last))
    for name, value, target in pairs:
        torch.testing.assert_close(comparable(name, value), comparable(name, target), rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("name", TRUNKS)
def test_five_steps_are_the_published_ones(name: str) -> None:
    """Loss, centre, both networks with their statistics; the first two steps with the last layer frozen."""
    recipe = tiny_recipe(name)
    reference = build_reference(recipe)
    fresh = reference.student.head.last.detach().clone()
    expected = []
    for step in range(STEPS):
        expected.append(float(reference.step(draw_views(step), step)))
        if step == 1:
            assert torch.equal(reference.student.head.last, fresh)
    method, losses = take_steps(recipe)
    assert losses == pytest.approx(expected, rel=1e-7)
    torch.testing.assert_close(method.centre, reference.centre, rtol=1e-6, atol=1e-9)
    assert not torch.equal(method.student.head.last_layer.weight, fresh)
    assert_same(method.student, reference.student)
    assert_same(method.teacher, reference.teacher)


def test_in_float32_the_steps_are_the_published_ones_to_rounding() -> None:
    recipe = tiny_recipe("dino-vit-s")
    reference = build_reference(recipe)
    expected = [float(reference.step(draw_views(step), step)) for step in range(STEPS)]
    method, losses = take_steps(recipe, kind=torch.float32)
    assert losses == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(method.centre.double(), reference.centre, rtol=1e-4, atol=1e-6)


def test_the_frozen_layer_begins_as_if_the_run_did() -> None:
    """No decay and no moments before its first own step, whose number is 1."""
    recipe = tiny_recipe("dino-vit-s")
    setup, trained = set_up(recipe, torch.double, precision=torch.float32)
    method, counts = trained.method, []
    assert isinstance(method, Dino)
    last, first = (method.student.head.get_parameter(f"{layer}.weight") for layer in ("last_layer", "mlp.0"))
    for step in range(3):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(step_module, "make_views", lambda *given, step=step: draw_views(step))
            take_step(
                recipe, setup, trained, EMPTY,
                trained.curves.now(step),
            )  # fmt: skip
        state = trained.optimizer.state
        counts.append([int(state[p]["step"]) if p in state else None for p in (last, first)])
    assert counts == [[None, 1], [None, 2], [1, 3]]
    decayed = {id(p) for group in trained.optimizer.param_groups if group["decay_scale"] for p in group["params"]}
    for name, parameter in method.student.named_parameters():
        assert (id(parameter) in decayed) == (parameter.dim() >= 2), name


@pytest.mark.parametrize("name", ["dino-vit-s", "dino-resnet"])
def test_parts_give_the_update_of_the_whole(name: str) -> None:
    """Three groups in one pass, or one after the other."""
    recipe = tiny_recipe(name, "bn_groups=3")
    (one, losses), (three, of_parts) = take_steps(recipe), take_steps(recipe, parts=3)
    assert of_parts == pytest.approx(losses, rel=1e-9)
    for (key, value), other in zip(one.state_dict().items(), three.state_dict().values(), strict=True):
        torch.testing.assert_close(comparable(key, other), comparable(key, value), rtol=1e-6, atol=1e-9, msg=key)


def test_blocks_computed_again_change_nothing() -> None:
    """With stochastic depth, whose draws are part of what is computed again."""
    plain = ("vit.drop_path=0.4",)
    (one, losses), (other, again) = (
        take_steps(tiny_recipe("dino-vit-s", *more)) for more in (plain, (*plain, "net.checkpoint_activations=true"))
    )
    assert losses == again
    assert all(torch.equal(value, other.state_dict()[key]) for key, value in one.state_dict().items())


@pytest.mark.slow
def test_compiled_networks_are_one_graph_each_and_learn_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Student and teacher, whatever a step draws; both groups of crops in one graph."""
    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: real(self, backend="aot_eager", fullgraph=True))
    counters["stats"].clear()
    settings = ("vit.drop_path=0.4",)
    _, plain = take_steps(tiny_recipe("dino-vit-s", *settings), kind=torch.float32)
    assert not counters["stats"]
    _, compiled = take_steps(tiny_recipe("dino-vit-s", *settings, "net.compile=true"), kind=torch.float32)
    assert counters["stats"]["unique_graphs"] == 2
    assert compiled == pytest.approx(plain, rel=1e-5)


def test_sixteen_bits_change_the_losses_by_rounding_only() -> None:
    recipe = tiny_recipe("dino-vit-s")
    _, exact = take_steps(recipe, kind=torch.float32)
    method, found = take_steps(recipe, kind=torch.float32, precision=torch.bfloat16)
    assert found == pytest.approx(exact, rel=0.02)
    assert found != exact
    assert {value.dtype for value in method.state_dict().values()} <= {torch.float32, torch.int64}


def test_each_view_of_each_image_draws_its_own_depth() -> None:
    """Eight views of 500 images: about 40 % leave a branch of the last block out, whatever the others do."""
    images = drop_keys(torch.arange(500), seed=1, step=7)
    depth = StochasticDepth(2)
    depth.rate, kept = 0.4, []
    for keys in view_keys(images, 8).chunk(8):
        depth.keys = keys
        factors = depth.kept(1, 500)
        assert factors is not None
        kept.append(factors > 0)
    shares = torch.stack(kept).float()  # (8, 2, 500)
    assert float((shares.mean(dim=(1, 2)) - 0.6).abs().max()) < 0.06
    together = torch.corrcoef(shares.flatten(1))
    assert float((together - torch.eye(8)).abs().max()) < 0.12


def test_only_the_student_skips_branches(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe("dino-vit-s", "vit.drop_path=0.4")
    _, trained = set_up(recipe, torch.float32, precision=torch.float32)
    method = trained.method
    assert isinstance(method, Dino)
    of_student, of_teacher = method.student.embedding.backbone.drop, method.teacher.embedding.backbone.drop
    assert isinstance(of_student, StochasticDepth)
    assert isinstance(of_teacher, StochasticDepth)
    assert (of_student.rate, of_teacher.rate, method.teacher.training) == (0.4, 0.0, True)
    seen: list[Tensor] = []
    real = StochasticDepth.kept_all

    def kept_all(self: StochasticDepth, images: int) -> list[Tensor | None]:
        assert self.keys is not None
        seen.append(self.keys)
        return real(self, images)

    monkeypatch.setattr(StochasticDepth, "kept_all", kept_all)
    keys = view_keys(drop_keys(torch.arange(BATCH), seed=0, step=0), 2 + LOCALS)
    method.student.drop_keys = keys
    views = draw_views(0, torch.float32)
    method.student(torch.cat(views[:2]), torch.cat(views[2:]))
    assert [len(some) for some in seen] == [2 * BATCH, LOCALS * BATCH]
    assert torch.equal(torch.cat(seen), keys)
    assert len(keys.unique()) == len(keys)
