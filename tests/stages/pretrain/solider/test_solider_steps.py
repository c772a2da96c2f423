"""Whole steps of SOLIDER against its definition, tensor by tensor; parts, recomputing, compiling and 16 bits."""

import copy
import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.methods.semantic_draws import draw_part, draw_weights
from lupctl.core.training.methods.solider import Solider, paint_over
from lupctl.core.training.nets.dino import DinoHead
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.vit.blocks import drop_keys
from tests.references.dino import ReferenceHead, ReferenceRules
from tests.references.solider_step import SoliderNetwork, SoliderReference
from tests.tools.view_steps import BATCH, LOCALS, draw_views, run_steps, set_up

STEPS, CLIP = 3, 0.05
# Last maps of 4 x 2 tokens from views of 64 x 32.
TINY = (
    "swin.depths=[1, 1, 1, 1]", "swin.drop_path=0.0", "pixels.height=64", "pixels.width=32", "local.height=32",
    "local.width=16", f"local.count={LOCALS}", "dino.outputs=50", "dino.hidden=24", "dino.bottleneck=8",
    "solider.parts=2",
    "solider.part_hidden=12", "solider.part_bottleneck=6", "solider.weight=0.7", "solider.foreground=0.4",
    f"data.batch={BATCH}", "bn_groups=1", "schedule.epochs=5", "schedule.warmup_epochs=2", "schedule.final=0.001",
    "dino.momentum=0.996", "optim.lr=1e-3", f"optim.clip={CLIP}", "seed=3",
)  # fmt: skip


def tiny_recipe(*settings: str) -> PretrainRecipe:
    """Two steps an epoch of a tiny network by a shipped recipe."""
    recipe = resolve_recipe("pretrain", "small-solider", overrides=(*TINY, *settings))
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def take_steps(
    recipe: PretrainRecipe,
    *,
    kind: torch.dtype = torch.double,
    precision: torch.dtype = torch.float32,
    parts: int = 1,
    steps: int = STEPS,
) -> tuple[Solider, list[dict[str, float]]]:
    """The method after some whole steps, and their scalars."""
    setup, trained = set_up(recipe, kind, precision=precision)
    method = trained.method
    assert isinstance(method, Solider)
    trained = replace(trained, gradients=SharedGradients(method.student, parts=parts))
    return method, run_steps(recipe, setup, trained, kind=kind, steps=steps)


class SemanticMaps(nn.Module):
    """A Swin as the reference takes it: images and their weights to last maps."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        """(B, 3, H, W) and (B) to (B, C, h, w)."""
        found: Tensor = self.embedding.backbone(images, semantic_weight=weights).map
        return found


def reference_head(head: DinoHead) -> ReferenceHead:
    """The same head from its definition."""
    layers = [(layer.weight.detach(), layer.bias.detach()) for layer in head.mlp if isinstance(layer, nn.Linear)]
    return ReferenceHead(layers, head.last_layer.weight.detach())


def build_reference(recipe: PretrainRecipe) -> SoliderReference:
    """The published run with the same fresh weights."""
    _, trained = set_up(recipe, torch.double, precision=torch.float32)
    assert isinstance(trained.method, Solider)
    assert recipe.solider is not None
    own = copy.deepcopy(trained.method.student)
    assert own.part_head is not None
    student = SoliderNetwork(
        SemanticMaps(own.embedding),
        reference_head(own.head),
        reference_head(own.part_head),
        trains_part_head=recipe.solider.part_head == "trained",
    )
    rules = ReferenceRules(steps=2, epochs=5, warmup_epochs=2, clip=CLIP)
    settings = recipe.solider
    return SoliderReference(
        student,
        rules,
        weight=settings.weight,
        parts=settings.parts,
        foreground=settings.foreground,
        cluster=best_split,
    )


def best_split(vectors: Tensor, k: int) -> Tensor:
    """The best of all clusterings of a few vectors (n, D), which k-means looks for; labels (n)."""
    best, found = float("inf"), torch.zeros(len(vectors), dtype=torch.int64)
    for split in itertools.product(range(k), repeat=len(vectors)):
        labels = torch.tensor(split)
        if split[0] == 0 and len(labels.unique()) == k:
            parts = [vectors[labels == part] for part in range(k)]
            inertia = sum(float((part - part.mean(dim=0)).square().sum()) for part in parts)
            if inertia < best:
                best, found = inertia, labels
    return found


def drawn_weights(recipe: PretrainRecipe, step: int) -> list[float]:
    found: list[float] = draw_weights(drop_keys(torch.arange(BATCH), seed=recipe.seed, step=step)).tolist()
    return found


def reference_tensors(network: SoliderNetwork) -> dict[str, Tensor]:
    """By our keys."""
    trunk = network.trunk
    assert isinstance(trunk, SemanticMaps)
    found = {f"embedding.{key}": value for key, value in trunk.embedding.state_dict().items()}
    for name, head in (("head", network.head), ("part_head", network.part_head)):
        found |= {f"{name}.mlp.{key}": value for key, value in head.mlp.state_dict().items()}
        found[f"{name}.last_layer.weight"] = head.last
    return found


def assert_same(own: nn.Module, wanted: SoliderNetwork) -> None:
    """All tensors but the biases of keys, whose gradient is rounding, of which AdamW makes whole steps."""
    expected = reference_tensors(wanted)
    for name, value in own.state_dict().items():
        found, target = value, expected[name]
        if name.endswith("qkv.bias"):
            found, target = (torch.cat([one.chunk(3)[0], one.chunk(3)[2]]) for one in (value, target))
        torch.testing.assert_close(found, target, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("part_head", ["frozen", "trained"])
def test_three_steps_are_those_of_the_definition(part_head: str) -> None:
    """Losses, centre, both networks and both heads; two steps with the last layer frozen; some views are not used."""
    recipe = tiny_recipe(f"solider.part_head={part_head}")
    reference, expected, kept = build_reference(recipe), list[float](), list[float]()
    for step in range(STEPS):
        part = draw_part(2, seed=recipe.seed, step=step)
        found = reference.step(draw_views(step), drawn_weights(recipe, step), part, step)
        expected += [float(found.whole), 0.7 * float(found.semantic or 0)]
        kept.append(sum(one is not None for one in found.labels) / len(found.labels))
    method, scalars = take_steps(recipe)
    assert [one[name] for one in scalars for name in ("loss", "semantic")] == pytest.approx(expected, rel=1e-6)
    assert [one["kept"] for one in scalars] == pytest.approx(kept)
    assert 0 < min(kept) < 1
    torch.testing.assert_close(method.centre, reference.dino.centre, rtol=1e-6, atol=1e-9)
    assert_same(method.student, reference.student)
    assert_same(method.teacher, reference.teacher)


@pytest.mark.slow
def test_parts_give_the_update_of_the_whole() -> None:
    """The mean is over the tokens of the whole step, although parts keep different numbers of views."""
    (one, of_one), (three, of_three) = (take_steps(tiny_recipe(), parts=parts, steps=2) for parts in (1, 3))
    assert [step["loss"] for step in of_three] == pytest.approx([step["loss"] for step in of_one], rel=1e-9)
    for (key, value), other in zip(one.state_dict().items(), three.state_dict().values(), strict=True):
        if not key.endswith("qkv.bias"):
            torch.testing.assert_close(other, value, rtol=1e-6, atol=1e-9, msg=key)


@pytest.mark.slow
def test_blocks_computed_again_change_nothing_and_sixteen_bits_little() -> None:
    """With stochastic depth, whose draws are part of what is computed again; copies draw their own.

    In 16 bits a fresh network's clusters are others, and so its loss on parts.
    """
    plain = ("swin.drop_path=0.4",)
    _, found = take_steps(tiny_recipe(*plain), kind=torch.float32, steps=2)
    _, again = take_steps(tiny_recipe(*plain, "net.checkpoint_activations=true"), kind=torch.float32, steps=2)
    assert found == again
    method, half = take_steps(tiny_recipe(*plain), kind=torch.float32, precision=torch.bfloat16, steps=1)
    alone, exact = (one["loss"] - one["semantic"] for one in (half[0], found[0]))
    assert alone == pytest.approx(exact, rel=0.02)
    assert alone != exact
    assert {value.dtype for value in method.state_dict().values()} <= {torch.float32, torch.int64}


@pytest.mark.slow
def test_compiled_networks_do_not_grow_with_the_numbers_of_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph of the teacher, and two of the student: of the first step, and for any number of copies."""
    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: real(self, backend="aot_eager", fullgraph=True))
    counters["stats"].clear()
    _, plain = take_steps(tiny_recipe(), kind=torch.float32, steps=4)
    assert not counters["stats"]
    _, compiled = take_steps(tiny_recipe("net.compile=true"), kind=torch.float32, steps=4)
    assert counters["stats"]["unique_graphs"] <= 3
    assert len({one["kept"] for one in plain}) > 1
    assert [one["loss"] for one in compiled] == pytest.approx([one["loss"] for one in plain], rel=1e-4)


def test_each_image_draws_its_weight_and_each_step_its_part() -> None:
    """Half of 2,000 images have a weight of 1, other ones in another step, whatever else is in the batch."""
    images = torch.arange(2000)
    one, two = (draw_weights(drop_keys(images, seed=1, step=step)) for step in (7, 8))
    assert set(one.tolist()) == {0.0, 1.0}
    assert abs(float(one.mean()) - 0.5) < 0.05
    assert abs(float(torch.corrcoef(torch.stack([one, two]))[0, 1])) < 0.1
    assert torch.equal(draw_weights(drop_keys(images[5:9], seed=1, step=7)), one[5:9])
    parts = [draw_part(3, seed=1, step=step) for step in range(300)]
    assert min(parts.count(part) for part in (1, 2, 3)) > 70
    assert set(parts) == {1, 2, 3}
    assert parts != [draw_part(3, seed=2, step=step) for step in range(300)]


def test_cells_are_painted_over_up_to_the_edge() -> None:
    """An image of 5 x 3 pixels under a map of 3 x 2 cells of 2 pixels."""
    cells = torch.tensor([[[True, False], [False, False], [False, True]]])
    painted = paint_over(torch.ones(1, 3, 5, 3), cells, 2)
    wanted = torch.tensor([[0, 0, 1], [0, 0, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]])
    assert torch.equal(painted, wanted.float().expand(1, 3, 5, 3))
