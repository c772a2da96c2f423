"""How fine-tuning runs its network: blocks that are computed twice, and networks that are compiled, for every head."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lupctl.core.errors import StoppedError, UsageError
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.criterion import measure
from lupctl.core.stages.finetune.job import network_plan, plan_finetuning
from lupctl.core.stages.finetune.network import build_classifying, draw_depth, prepare_network
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import Classifying
from lupctl.core.training.nets.memory import recomputed_bytes
from tests.tools.tiny.training import (
    FINETUNE,
    JPM,
    SWIN,
    TRANSFORMER,
    compute_in_double,
    finetune_job,
    run_forked,
    signal_at,
    transformer_job,
)

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"
CPU = torch.device("cpu")
AGAIN, COMPILED = "net.checkpoint_activations=true", "net.compile=true"
MGN = ("net.embedding=8", "pixels.height=96", "pixels.width=32", "freeze_epochs=0")
# Recipe, settings and number of blocks: of r18 8, of an mgn's branches all but its stem's 5 three times.
HEADS: dict[str, tuple[str, tuple[str, ...], int]] = {
    "bot": ("bot", FINETUNE, 8),
    "bnneck": ("transreid-vit-b", TRANSFORMER, 2),
    "ics": ("transreid-ssl-vit-s-ics", (*TRANSFORMER, "vit.patch=16", "vit.stride=16", "bn_groups=2"), 2),
    "jpm": (JPM, (*TRANSFORMER, "sie.unknown=0.3"), 3),
    "mgn": ("mgn-luperson", (*FINETUNE, *MGN), 14),
    "parts": ("pass-vit-s", TRANSFORMER, 2),
    "swin": ("solider-swin-t", SWIN, 5),
}


class Step(NamedTuple):
    """What one step leaves: the loss, gradients and buffers by name, floats kept for the backward pass, block runs."""

    loss: float
    gradients: dict[str, Tensor]
    buffers: dict[str, Tensor]
    kept: int
    runs: list[int]


def make_recipe(head: str, *settings: str) -> FinetuneRecipe:
    name, own, _ = HEADS[head]
    recipe = resolve_recipe("finetune", name, overrides=("start=scratch", *own, *settings))
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


def build_prepared(recipe: FinetuneRecipe) -> Classifying:
    torch.manual_seed(0)
    cameras = range(3) if recipe.sie is not None and recipe.sie.cameras else ()
    network = build_classifying(network_plan(recipe, 5, cameras), drop_path=recipe.drop_path)
    return prepare_network(network, recipe, CPU, groups=recipe.bn_groups)


def take_step(recipe: FinetuneRecipe) -> Step:
    network, kept = build_prepared(recipe), 0
    runs = [0] * len(network.all_blocks())

    def count(number: int) -> None:
        runs[number] += 1

    for number, block in enumerate(network.all_blocks()):
        leaf = next(module for module in block.modules() if not list(module.children()))
        leaf.register_forward_pre_hook(lambda *_, number=number: count(number))

    def keep(value: Tensor) -> Tensor:
        nonlocal kept
        kept += value.numel()
        return value

    torch.manual_seed(1)
    view = torch.randn(12, 3, recipe.pixels.height, recipe.pixels.width)
    target = torch.arange(12) % 4
    draw_depth(network, recipe, torch.arange(12), step=3)
    cameras = target % 3 if network.needs_cameras else None
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = measure(recipe, network, view, target, torch.float32, cameras=cameras)["loss"]
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: value.grad for name, value in network.named_parameters() if value.grad is not None}
    return Step(float(loss.detach()), gradients, dict(network.named_buffers()), kept, runs)


@pytest.mark.parametrize("head", HEADS)
def test_recomputed_blocks_give_the_same_step_to_the_bit(head: str) -> None:
    """Also an optimizer's: gradients, and the running statistics that a second pass must not move again."""
    plain, again = take_step(make_recipe(head)), take_step(make_recipe(head, AGAIN))
    count = HEADS[head][2]
    assert (plain.runs, again.runs) == ([1] * count, [2] * count)
    assert again.kept < 0.7 * plain.kept
    assert again.loss == plain.loss
    assert again.gradients.keys() == plain.gradients.keys()
    for mine, other in ((again.gradients, plain.gradients), (again.buffers, plain.buffers)):
        assert all(torch.equal(value, other[name]) for name, value in mine.items())


def test_a_recomputing_run_stops_and_continues_to_the_same_bits(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, job = (
        transformer_job(labelled, tmp_path / name, "sie.unknown=0.3", *more)
        for name, more in (("plain", ()), ("again", (AGAIN,)))
    )
    finetune(plain, QUIET)
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 4)
        with pytest.raises(StoppedError):
            finetune(job, QUIET)
    finetune(job, QUIET)
    expected = load_file(plain.run / CHECKPOINT)
    found = load_file(job.run / CHECKPOINT)
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def test_a_recomputing_run_of_two_processes_shares_its_batch_norms(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One group over both processes: statistics are exchanged again while the backward pass computes a block again."""
    compute_in_double(monkeypatch, loop, loop, "build_started")
    monkeypatch.setattr(loop, "evaluate_network", lambda *given, **more: {"map": 0.0, "rank1": 0.0})
    settings = ("bn_groups=1", "optim.name=sgd", "optim.lr=0.01")
    one = finetune_job(labelled, tmp_path / "one", *settings)
    two = finetune_job(labelled, tmp_path / "two", *settings, AGAIN, processes=2)
    two.run.mkdir()
    finetune(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    for key, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][key], rtol=1e-9, atol=1e-9), key


@pytest.mark.parametrize("head", ["jpm", "mgn"])
def test_compiling_is_wired_and_keeps_the_keys(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    network = build_prepared(make_recipe(head, COMPILED))
    assert compiled == [network]
    assert network.state_dict().keys() == build_prepared(make_recipe(head)).state_dict().keys()
    assert len(compiled) == 1


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
def test_a_compiled_network_takes_the_same_step(head: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated ahead of time; writing C++ for a whole network would take minutes."""
    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: real(self, backend="aot_eager"))
    recipe = make_recipe(head, COMPILED)
    network, plain = build_prepared(recipe), build_prepared(make_recipe(head))
    images = torch.randn(12, 3, recipe.pixels.height, recipe.pixels.width, generator=torch.Generator().manual_seed(1))
    target = torch.arange(12) % 4
    losses: list[list[float]] = []
    for one in (network, plain):
        cameras = target % 3 if one.needs_cameras else None
        losses.append([])
        for step in range(2):  # other draws of stochastic depth are no reason to compile again
            draw_depth(one, recipe, torch.arange(12), step=step)
            loss = measure(recipe, one, images, target, torch.float32, cameras=cameras)["loss"]
            loss.backward()  # type: ignore[no-untyped-call]
            losses[-1].append(float(loss.detach()))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    expected = dict(plain.named_parameters())
    for name, parameter in network.named_parameters():
        other = expected[name].grad
        assert (parameter.grad is None) == (other is None), name
        if other is not None:
            assert float((parameter.grad - other).norm()) < 0.01 * float(other.norm()) + 1e-4, name


def test_what_recomputing_a_jpm_keeps_is_what_it_says() -> None:
    """21 patches and the class token, 192 features: the embedding, three outputs, and the larger last block inside."""
    recipe = make_recipe("jpm")
    tokens, parts, dim = 22, 4 * (1 + 5), 192  # in the last block, 4 parts of a class token and 5 patches each
    # Two norms, queries, keys and values, what attention gives and its projection; the MLP's 4 x D twice and its end.
    inside = parts * dim * (2 + 3 + 2 + 2 * 4 + 1)
    outside = 21 * dim + 5 * dim  # patches; the last norms, which see class tokens alone
    blocks = 2 * tokens * dim + parts * dim
    found = recomputed_bytes(network_plan(recipe, 6, range(3)), height=32, width=16)
    assert found == 4 * (inside + outside + blocks)


def test_the_plan_of_a_run_follows(labelled: Path, tmp_path: Path) -> None:
    def count(*settings: str) -> int:
        return plan_finetuning(transformer_job(labelled, tmp_path / "run", "vit.depth=6", *settings)).memory_bytes

    assert count(COMPILED) == count()
    saved = count() - count(AGAIN)
    assert saved > 0
    assert 2 * saved == pytest.approx(count("data.images=6") - count("data.images=6", AGAIN)), "for every image"


def test_what_is_compiled_is_not_recomputed() -> None:
    with pytest.raises(UsageError, match=r"net\.compile and net\.checkpoint_activations cannot be combined"):
        make_recipe("jpm", AGAIN, COMPILED)


def test_evaluation_never_runs_what_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes features at sizes and in numbers of their own, for which nobody waits minutes."""

    def refuse(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(nn.Module, "compile", lambda self: setattr(self, "_compiled_call_impl", refuse))
    network = build_prepared(make_recipe("parts", COMPILED)).eval()
    with pytest.raises(AssertionError):
        network(torch.randn(2, 3, 32, 16))
    assert network.embed(torch.randn(2, 3, 32, 16)).shape == (2, 2 * 192)
