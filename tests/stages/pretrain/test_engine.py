"""Ways to run the same pre-training step with less memory or faster: parts, recomputing, compiling, clipping, LARS."""

import copy
import math
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain import setup
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.clipping import clip_gradients
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.engine.parts import each_part
from lupctl.core.training.losses.contrastive import info_nce
from lupctl.core.training.methods.moco import MoCo
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from tests.tools.tiny.training import compute_in_double, name_it, pretrain_job

QUIET = Progress(quiet=True)
CPU = torch.device("cpu")
BATCH = 16


def recipe_with(*settings: str) -> PretrainRecipe:
    """A tiny recipe whose four batch-norm groups hold four images each."""
    tiny = ("net.arch=r50", "net.width=4", "data.batch=16", "bn_groups=4", "moco.dim=8", "moco.queue=40")
    recipe = resolve_recipe("pretrain", "luperson-moco", overrides=(*tiny, *settings))
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def learn_steps(
    recipe: PretrainRecipe,
    steps: int = 3,
    *,
    parts: int = 1,
    kind: torch.dtype = torch.double,
    precision: torch.dtype = torch.float32,
) -> tuple[MoCo, list[Tensor], list[float]]:
    """A method after some steps, the gradients of the last one, and the losses; in double precision."""
    torch.manual_seed(1)
    method = setup.place_method(recipe, CPU).to(kind)
    assert isinstance(method, MoCo)
    set_norm_groups(method, recipe.bn_groups // parts)
    optimizer = build_optimizer([method.student], name="sgd", lr=0.05, momentum=0.9, weight_decay=1e-4)
    losses, gradients = [], list[Tensor]()
    for step in range(steps):
        generator = torch.Generator().manual_seed(step)
        first, second = (torch.randn(BATCH, 3, 64, 32, generator=generator, dtype=kind) for _ in range(2))
        optimizer.zero_grad()
        with pytest.MonkeyPatch.context() as patch:
            if kind == torch.double:  # what the projection gives is float32 otherwise
                patch.setattr(Tensor, "float", Tensor.double)
            shared = SharedGradients(method.student, parts=parts)
            now = Now(step, 0, rate=0.05, decay=1e-4, momentum=0.999, temperature=0.1)
            given = Given((first, second), keys=torch.arange(BATCH))
            result = method.learn(given, now, shared, precision=precision)
        gradients = [p.grad.clone() for p in method.student.parameters() if p.grad is not None]
        losses.append(result["loss"].item())
        optimizer.step()
        method.follow(now)
    return method, gradients, losses


def assert_same(one: MoCo, other: MoCo, *, but: str = "nothing") -> None:
    for (name, left), right in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        if but not in name:
            torch.testing.assert_close(left, right, rtol=1e-7, atol=1e-9, msg=partial(name_it, name))


@pytest.fixture(scope="module")
def plain() -> tuple[MoCo, list[Tensor], list[float]]:
    return learn_steps(recipe_with())


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_give_the_update_of_the_whole_batch(plain: tuple[MoCo, list[Tensor], list[float]], parts: int) -> None:
    """Weights, gradients, running statistics, their counters, queue and pointer: everything there is."""
    method, gradients, losses = learn_steps(recipe_with(), parts=parts)
    assert losses == pytest.approx(plain[2], rel=1e-6)
    for mine, expected in zip(gradients, plain[1], strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-8)
    assert_same(method, plain[0])
    assert int(method.queue.pointer) == 8
    assert int(method.student.get_buffer("backbone.bn1.num_batches_tracked")) == 3
    assert int(method.teacher.get_buffer("backbone.layer1.0.bn1.num_batches_tracked")) == 3


def test_parts_that_cut_groups_would_be_another_update(plain: tuple[MoCo, list[Tensor], list[float]]) -> None:
    """What the recipe refuses, done all the same: contiguous halves mix groups, and the gradient shows it."""
    method, gradients, _ = learn_steps(recipe_with("bn_groups=2"))
    assert not all(torch.allclose(one, other, rtol=1e-3) for one, other in zip(gradients, plain[1], strict=True))
    assert set(method.state_dict()) == set(plain[0].state_dict())


def test_running_statistics_of_parts_are_those_of_the_batch() -> None:
    torch.manual_seed(0)
    whole = nn.BatchNorm1d(3)
    apart = copy.deepcopy(whole)
    batch = torch.randn(12, 3)
    # One batch norm over a part sees other numbers than over the batch; the mean of the parts' updates is known.
    seen = [some for some in each_part(apart, 3) if apart(batch[some]) is not None]
    assert seen == [slice(part, None, 3) for part in range(3)]
    means = torch.stack([batch[some].mean(0) for some in seen]).mean(0)
    variances = torch.stack([batch[some].var(0) for some in seen]).mean(0)
    torch.testing.assert_close(apart.running_mean, 0.1 * means)
    torch.testing.assert_close(apart.running_var, 0.9 + 0.1 * variances)
    assert int(apart.num_batches_tracked) == 1
    assert list(each_part(whole, 1)) == [slice(None)]
    assert list(each_part(nn.LayerNorm(3), 2)) == [slice(0, None, 2), slice(1, None, 2)], "no statistics at all"


def test_recomputed_blocks_give_the_same_gradients(plain: tuple[MoCo, list[Tensor], list[float]]) -> None:
    method, gradients, losses = learn_steps(recipe_with("net.checkpoint_activations=true"))
    assert losses == pytest.approx(plain[2], rel=1e-9)
    for mine, expected in zip(gradients, plain[1], strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-9, atol=1e-12)
    assert_same(method, plain[0])


def test_recomputing_runs_query_blocks_twice_and_keeps_less() -> None:
    runs, kept = {}, {}
    for wanted in ("false", "true"):
        method = setup.place_method(recipe_with(f"net.checkpoint_activations={wanted}"), CPU)
        assert isinstance(method, MoCo)
        passes: list[str] = []
        block = "backbone.layer3.0.conv1"
        for network, name in ((method.student, "q"), (method.teacher, "k")):
            network.get_submodule(block).register_forward_hook(lambda *_, passes=passes, name=name: passes.append(name))
        saved = 0

        def keep(value: Tensor) -> Tensor:
            nonlocal saved
            saved += value.numel()
            return value

        views = torch.randn(BATCH, 3, 64, 32)
        keys = method.encode_keys(views, 0)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
            loss, _ = info_nce(method.student(views), keys.own, method.queue.features, 0.1)
        loss.backward()
        runs[wanted], kept[wanted] = passes, saved
    assert runs == {"false": ["k", "q"], "true": ["k", "q", "q"]}
    assert kept["true"] < 0.5 * kept["false"]


def test_a_run_in_parts_is_the_run_in_one(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_in_double(monkeypatch, step_module, setup, "place_method")
    names = {"whole": "optim.accumulate=1", "parts": "optim.accumulate=4", "again": "net.checkpoint_activations=true"}
    for name, setting in names.items():
        pretrain(pretrain_job(crowd, tmp_path / name, setting), QUIET)
    whole, *others = (load_file(tmp_path / name / "checkpoint.safetensors") for name in names)
    for other in others:
        squares = ((value.double() - other[key].double()).square().sum() for key, value in whole.items())
        apart = math.sqrt(float(sum(squares)))
        assert apart < 1e-8


def test_a_clipped_gradient_has_the_norm_that_was_asked_for(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain SGD without momentum or decay moves by rate times gradient, at most 0.1 x 0.01."""
    settings = ("optim.momentum=0.0", "optim.weight_decay=0.0", "schedule.kind=constant", "schedule.warmup_epochs=0")
    moved = []
    real = clip_gradients

    def clip(parameters: Iterable[nn.Parameter], limit: float, **given: Any) -> None:
        owned = list(parameters)
        real(owned, limit, **given)
        moved.append(math.sqrt(sum(float(p.grad.square().sum()) for p in owned if p.grad is not None)))

    monkeypatch.setattr(step_module, "clip_gradients", clip)
    pretrain(pretrain_job(crowd, tmp_path / "free", *settings), QUIET)
    pretrain(pretrain_job(crowd, tmp_path / "clipped", *settings, "optim.clip=0.01"), QUIET)
    assert min(moved[:4]) > 0.05
    assert moved[4:] == pytest.approx([0.01] * 4, rel=1e-4)


def slow_lars(
    value: list[float], gradients: list[list[float]], *, rate: float, momentum: float, decay: float, is_weight: bool
) -> list[float]:
    """You et al. 2017, algorithm 1, number by number."""
    value, speed = list(value), [0.0] * len(value)
    for gradient in gradients:
        local = 1.0
        if is_weight:
            size, slope = (math.sqrt(sum(x * x for x in vector)) for vector in (value, gradient))
            local = 0.001 * size / (slope + decay * size + 1e-8) if size > 0 and slope > 0 else 1.0
        for place, (w, g) in enumerate(zip(value, gradient, strict=True)):
            speed[place] = momentum * speed[place] + local * (g + (decay * w if is_weight else 0.0))
            value[place] = w - rate * speed[place]
    return value


@pytest.mark.parametrize("shape", [(2, 3), (6,), (1, 6, 1, 1)])
@pytest.mark.parametrize("start", [1.0, 0.0])
def test_lars_scales_weights_and_spares_biases_and_norms(shape: tuple[int, ...], start: float) -> None:
    generator = torch.Generator().manual_seed(3)
    first = start * torch.randn(6, generator=generator)
    gradients = [torch.randn(6, generator=generator) for _ in range(4)]
    parameter = nn.Parameter(first.view(shape).clone())
    optimizer = build_optimizer([nn.ParameterList([parameter])], name="lars", lr=3.0, momentum=0.9, weight_decay=0.02)
    for gradient in gradients:
        parameter.grad = gradient.view(shape).clone()
        optimizer.step()
        assert torch.equal(parameter.grad.flatten(), gradient), "the gradient is the caller's"
    expected = slow_lars(
        first.tolist(), [g.tolist() for g in gradients], rate=3.0, momentum=0.9, decay=0.02, is_weight=len(shape) > 1
    )
    assert parameter.flatten().tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_lars_excludes_what_the_published_code_names() -> None:
    """It goes by the names bn, bias and downsample.1; in this network those are the parameters of one dimension."""
    network = setup.place_method(recipe_with(), CPU).student
    for name, parameter in network.named_parameters():
        published = "bn" in name or "bias" in name or "downsample.1" in name
        assert (parameter.ndim == 1) == published, name


def test_a_run_with_lars_stops_and_goes_on_the_same(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lupctl.core.errors import StoppedError
    from tests.tools.tiny.training import signal_at

    jobs = [pretrain_job(crowd, tmp_path / name, "optim.name=lars", "optim.lr=2.0") for name in ("one", "two")]
    pretrain(jobs[0], QUIET)
    with monkeypatch.context() as patch:
        signal_at(patch, step_module, 3)
        with pytest.raises(StoppedError):
            pretrain(jobs[1], QUIET)
    pretrain(jobs[1], QUIET)
    one, two = ((job.run / "checkpoint.safetensors").read_bytes() for job in jobs)
    assert one == two


@pytest.mark.slow
@pytest.mark.parametrize(
    ("asked", "precision", "loss_apart", "apart"),
    [
        ("float32", torch.float32, 1e-4, 0.01),
        ("auto", torch.float32, 1e-4, 0.01),
        ("bf16", torch.bfloat16, 0.02, 0.2),
    ],
)
def test_a_compiled_network_learns_the_same(
    asked: str, precision: torch.dtype, loss_apart: float, apart: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced and differentiated ahead of time; writing C++ for a whole trunk would take many minutes."""
    real = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: real(self, backend="aot_eager"))
    runs = []
    for compiled in ("true", "false"):
        recipe = recipe_with("net.arch=r18", f"net.compile={compiled}", f"precision={asked}")
        runs.append(learn_steps(recipe, steps=1, kind=torch.float32, precision=precision)[1:])
    (gradients, losses), (expected, plain_losses) = runs
    assert losses == pytest.approx(plain_losses, rel=loss_apart)
    for mine, other in zip(gradients, expected, strict=True):
        assert float((mine - other).norm()) < apart * float(other.norm()) + 1e-5


def test_compiling_is_wired_and_keeps_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled.append(self))
    method = setup.place_method(recipe_with("net.compile=true"), CPU)
    assert compiled == [method.student, method.teacher]
    assert set(method.state_dict()) == set(setup.place_method(recipe_with(), CPU).state_dict())
    assert len(compiled) == 2
