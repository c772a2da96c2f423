"""A step of DINO never waits for the device: nothing in it reads a number from a tensor or finds out a size."""

from collections.abc import Iterator

import torch
from torch.autograd.profiler import profile

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.recipes.dino_sections import DinoSettings
from lupctl.core.training.engine.clipping import clip_gradients
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.methods.build import build_method
from lupctl.core.training.methods.dino import Dino
from lupctl.core.training.methods.protocol import Given, Now
from tests.tools.networks import no_head, tiny_vit

WAITS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::_unique2", "aten::equal"}


def take_step(method: Dino, optimizer: torch.optim.Optimizer, gradients: SharedGradients, *, is_watched: bool) -> None:
    """One step as the loop takes it, on ready views."""
    views = tuple(torch.randn(4, 3, *size) for size in [(64, 32)] * 2 + [(32, 16)] * 3)
    given = Given(views, keys=torch.arange(4))
    now = Now(step=3, epoch=1, rate=0.1, decay=0.04, momentum=0.99, temperature=0.04, is_watched=is_watched)
    method.learn(given, now, gradients, precision=torch.float32)
    clip_gradients(method.student.parameters(), 3.0, scope="tensor")
    for parameter in method.held(now):
        parameter.grad = None
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    method.follow(now)


def find_waits(seen: profile) -> Iterator[str]:
    """Operators that wait for their input; torch's optimizers read the number of the step, which is on the CPU."""
    for event in seen.function_events:
        parents, around = list[str](), event.cpu_parent
        while around is not None:
            parents.append(around.name)
            around = around.cpu_parent
        if event.name in WAITS and not any(name.startswith("Optimizer.step") for name in parents):
            yield event.name


def test_no_part_of_a_step_waits_for_the_device() -> None:
    plan = NetworkPlan(trunk=tiny_vit(stem="ics"), pooling="token", head=no_head())
    torch.manual_seed(0)
    method = build_method(DinoSettings(outputs=24, hidden=8, bottleneck=4), plan, seed=1, drop_path=0.1).train()
    assert isinstance(method, Dino)
    optimizer = build_optimizer(method.trained, name="adamw", lr=0.1, momentum=0.9, weight_decay=0.04, vector_decay=0.0)
    for parts in (1, 2):
        gradients = SharedGradients(method.student, parts=parts)
        take_step(method, optimizer, gradients, is_watched=True)
        with profile(use_cpu=True) as seen:
            take_step(method, optimizer, gradients, is_watched=True)
        assert len(seen.function_events) > 1000
        assert list(find_waits(seen)) == []


def test_what_waits_is_found() -> None:
    values = torch.arange(3.0)
    with profile(use_cpu=True) as seen:
        if values.sum() > 2:
            values[values > 1].sum()
    assert sorted(find_waits(seen)) == ["aten::_local_scalar_dense", "aten::nonzero"]
