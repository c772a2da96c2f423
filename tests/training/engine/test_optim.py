"""Learning rates at the steps that matter, and what an optimizer is given."""

import math

import pytest
import torch
from torch import nn

from lupctl.core.choices import ClipScope, CurveKind
from lupctl.core.training.engine.clipping import clip_gradients
from lupctl.core.training.engine.curves import Curve, RateCurve, even_epochs
from lupctl.core.training.engine.freezing import frozen_steps, set_frozen
from lupctl.core.training.engine.groups import parameter_groups, set_rates
from lupctl.core.training.engine.optim import build_optimizer


def test_published_pretraining_is_a_cosine_per_epoch_over_200() -> None:
    schedule = RateCurve(kind="cosine", unit="epoch", lr=0.3, epochs=200, steps=even_epochs(1632, 200))
    assert schedule.at(0) == schedule.at(1631) == 0.3
    assert schedule.at(1632) == pytest.approx(0.3 * 0.5 * (1 + math.cos(math.pi / 200)), rel=1e-12)
    assert schedule.at(100 * 1632) == pytest.approx(0.15)
    assert schedule.at(199 * 1632) == schedule.at(200 * 1632 - 1) == pytest.approx(1.85e-5, rel=2e-3)
    rates = [schedule.at(epoch * 1632) for epoch in range(200)]
    assert rates == sorted(rates, reverse=True)


def test_published_fine_tuning_warms_up_for_ten_epochs_and_falls_twice() -> None:
    schedule = RateCurve(
        kind="steps",
        unit="epoch",
        lr=3.5e-4,
        epochs=120,
        steps=even_epochs(180, 120),
        warmup_epochs=10,
        warmup_factor=0.1,
        milestones=(40, 70),
    )

    def at(epoch: int) -> float:
        first, last = schedule.at(epoch * 180), schedule.at(epoch * 180 + 179)
        assert first == last
        return first

    assert at(0) == pytest.approx(3.5e-5)
    assert at(5) == pytest.approx(3.5e-4 * 0.55)
    assert at(9) == pytest.approx(3.5e-4 * 0.91)
    assert at(10) == at(39) == pytest.approx(3.5e-4)
    assert at(40) == at(69) == pytest.approx(3.5e-5)
    assert at(70) == at(119) == pytest.approx(3.5e-6)


def test_per_step_the_rate_moves_within_an_epoch() -> None:
    schedule = RateCurve(
        kind="cosine",
        unit="step",
        lr=1.0,
        epochs=4,
        steps=even_epochs(10, 4),
        warmup_epochs=0.5,
        warmup_factor=0.2,
        final=0.1,
    )
    assert schedule.at(0) == pytest.approx(0.2)
    assert schedule.at(2) == pytest.approx(0.2 + 0.8 * 0.4)
    # Behind the warm-up the cosine is where it would be without one.
    assert schedule.at(5) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.5 / 4)))
    assert schedule.at(20) == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule.at(40) == pytest.approx(0.1)


def published_mgn_rate(step: int, *, warmup: int, delay: int, total: int) -> float:
    """The rate of LUPerson's MGN fine-tuning, as it is written down."""
    base, low = 3.5e-4, 7.7e-7
    if step <= warmup:
        return base * (0.01 * (1 - step / warmup) + step / warmup)
    if step <= delay:
        return base
    return low + (base - low) * (1 + math.cos(math.pi * (step - delay) / (total - delay))) / 2


def test_published_mgn_warms_up_holds_and_falls() -> None:
    """Market-1501: 202 steps per epoch, 60 epochs, 10 of warm-up, constant to 30."""
    per_epoch = 202
    schedule = RateCurve(
        kind="cosine",
        unit="step",
        lr=3.5e-4,
        epochs=60,
        steps=even_epochs(per_epoch, 60),
        warmup_epochs=10.0,
        warmup_factor=0.01,
        hold_epochs=30.0,
        final=0.0022,
    )
    for step in [*range(0, 60 * per_epoch, 37), 2019, 2020, 2021, 6059, 6060, 6061, 12119]:
        expected = published_mgn_rate(step, warmup=2020, delay=6060, total=12120)
        assert schedule.at(step) == pytest.approx(expected, rel=1e-12), step
    assert schedule.at(0) == pytest.approx(3.5e-6)
    assert schedule.at(2020) == schedule.at(6060) == 3.5e-4
    assert schedule.at(12120) == pytest.approx(7.7e-7)


def test_a_constant_rate_is_constant() -> None:
    schedule = RateCurve(kind="constant", unit="step", lr=0.05, epochs=3, steps=even_epochs(7, 3))
    assert {schedule.at(step) for step in range(21)} == {0.05}


def parameters() -> list[nn.Parameter]:
    frozen = nn.Parameter(torch.ones(2), requires_grad=False)
    return [nn.Parameter(torch.tensor([2.0, -1.0])), frozen, nn.Parameter(torch.tensor([0.5]))]


def step_with_gradient(optimizer: torch.optim.Optimizer, owned: list[nn.Parameter], gradient: float) -> None:
    for parameter in owned:
        if parameter.requires_grad:
            parameter.grad = torch.full_like(parameter, gradient)
    optimizer.step()


def test_sgd_has_momentum_and_decays_every_parameter() -> None:
    owned = parameters()
    optimizer = build_optimizer([nn.ParameterList(owned)], name="sgd", lr=0.1, momentum=0.9, weight_decay=0.01)
    value, speed = 2.0, 0.0
    for gradient in (0.5, -0.2, 0.1):
        step_with_gradient(optimizer, owned, gradient)
        speed = 0.9 * speed + gradient + 0.01 * value
        value -= 0.1 * speed
    assert owned[0].tolist()[0] == pytest.approx(value, rel=1e-5)
    assert owned[1].tolist() == [1, 1]
    assert len(optimizer.param_groups) == 1
    assert len(optimizer.param_groups[0]["params"]) == 2


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_adam_adds_the_decay_to_the_gradient_and_adamw_does_not(name: str) -> None:
    owned = parameters()
    optimizer = build_optimizer([nn.ParameterList(owned)], name=name, lr=0.1, momentum=0.5, weight_decay=0.01)  # type: ignore[arg-type]
    value, first, second = 2.0, 0.0, 0.0
    for step, gradient in enumerate((0.5, -0.2, 0.1), start=1):
        step_with_gradient(optimizer, owned, gradient)
        if name == "adam":
            gradient += 0.01 * value
        else:
            value -= 0.1 * 0.01 * value
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
        value -= 0.1 * (first / (1 - 0.9**step)) / (math.sqrt(second / (1 - 0.999**step)) + 1e-8)
    assert owned[0].tolist()[0] == pytest.approx(value, rel=1e-4)


def test_adamw_is_torch_own_loop_to_rounding() -> None:
    generator = torch.Generator().manual_seed(0)
    start = [torch.randn(shape, generator=generator) for shape in ((7, 33), (33,), (2, 3, 5, 5))]
    fused, plain = ([nn.Parameter(value.clone()) for value in start] for _ in range(2))
    ours = build_optimizer([nn.ParameterList(fused)], name="adamw", lr=1e-2, momentum=0.9, weight_decay=0.1)
    loop = torch.optim.AdamW(plain, lr=1e-2, weight_decay=0.1, foreach=False, fused=False)
    for _ in range(20):
        for one, other in zip(fused, plain, strict=True):
            one.grad = other.grad = torch.randn(one.shape, generator=generator)
        ours.step()
        loop.step()
    for one, other, first in zip(fused, plain, start, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)
        assert (one - first).abs().min() > 0


def test_the_rate_is_set_in_every_group() -> None:
    owned = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(()))]
    optimizer = build_optimizer(
        [nn.ParameterList(owned)], name="sgd", lr=1, momentum=0.9, weight_decay=1, vector_rate=2.0, vector_decay=0.0
    )
    assert [group["params"] for group in optimizer.param_groups] == [owned[:1], owned[1:]]
    curve = RateCurve(kind="constant", unit="step", lr=0.25, epochs=1, steps=even_epochs(1, 1))
    set_rates(optimizer, rate=curve, step=0, decay=0.1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


def test_groups_without_members_are_left_out() -> None:
    matrix, frozen = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2), requires_grad=False)
    assert [group["params"] for group in parameter_groups([nn.ParameterList([matrix, frozen])], vector_rate=2.0)] == [
        [matrix]
    ]


@pytest.mark.parametrize("scope", ["all", "tensor"])
def test_clipping_against_a_loop(scope: ClipScope) -> None:
    """Lengths 5 and 0.1 to a limit of 1: together both shrink, one by one only the long one."""
    gradients = [torch.tensor([3.0, 4.0]), torch.tensor([[0.1]]), torch.zeros(2)]
    owned = [nn.Parameter(torch.ones_like(gradient)) for gradient in gradients] + [nn.Parameter(torch.ones(1))]
    for parameter, gradient in zip(owned, gradients, strict=False):
        parameter.grad = gradient.clone()
    clip_gradients(owned, 1.0, scope=scope)
    together = math.sqrt(25 + 0.01)
    for parameter, gradient in zip(owned, gradients, strict=False):
        norm = together if scope == "all" else float(gradient.norm())
        torch.testing.assert_close(parameter.grad, gradient * min(1, 1 / (norm + 1e-6)))
    assert owned[3].grad is None
    clip_gradients(owned, 0.0, scope=scope)
    assert float(owned[0].grad.norm()) > 0.9


@pytest.mark.parametrize(("kind", "middle"), [("constant", 0.04), ("linear", 0.13), ("cosine", 0.0927)])
def test_curves_at_the_steps_that_matter(kind: CurveKind, middle: float) -> None:
    curve = Curve(kind, 0.04, steps=8, final=0.4)
    assert curve.at(0) == pytest.approx(0.04)
    assert curve.at(2) == pytest.approx(middle, abs=1e-4)
    assert curve.at(8) == curve.at(80) == pytest.approx(0.04 if kind == "constant" else 0.4)


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_frozen_steps_are_one_more_than_the_epochs_say() -> None:
    assert frozen_steps(10, even_epochs(202, 60)) == 2021, "steps 0 to 2020 inclusive"
    assert frozen_steps(0.5, even_epochs(7, 2)) == 4
    assert frozen_steps(0, even_epochs(202, 60)) == 0


def test_sgd_with_momentum_goes_on_when_a_part_thaws() -> None:
    """Each parameter moves as in an optimizer of its own that began when it was let go."""
    one, other = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    alone = nn.Linear(2, 2, bias=False)
    alone.load_state_dict(other.state_dict())
    together = build_optimizer([one, other], name="sgd", lr=0.1, momentum=0.9, weight_decay=0.01)
    plain = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for step in range(3):
        set_frozen([other], step == 0)
        together.zero_grad()
        (one.weight.square().sum() + (other.weight.square().sum() if step else 0)).backward()
        together.step()
        if step:
            plain.zero_grad()
            alone.weight.square().sum().backward()
            plain.step()
    torch.testing.assert_close(other.weight, alone.weight)


def test_frozen_modules_stand_still_and_adam_remembers_nothing_of_them() -> None:
    torch.manual_seed(0)
    network = small_network().train()
    optimizer = build_optimizer([network], name="adam", lr=0.1, momentum=0.9, weight_decay=0.1)
    before = {key: value.clone() for key, value in network.state_dict().items()}

    def train_a_step() -> None:
        optimizer.zero_grad(set_to_none=True)
        network(torch.randn(8, 2)).pow(2).mean().backward()
        optimizer.step()

    set_frozen([network[0], network[1]], True)
    for _ in range(3):
        train_a_step()
    after = network.state_dict()
    changed = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert changed == {"2.weight", "2.bias"}, "no decay, no statistics, no counter in what is frozen"
    assert {id(parameter) for parameter in optimizer.state} == {id(network[2].weight), id(network[2].bias)}
    set_frozen([network[0], network[1]], False)
    train_a_step()
    after = network.state_dict()
    assert not [key for key, value in before.items() if torch.equal(value, after[key])]
    assert optimizer.state[network.get_parameter("0.weight")]["step"] == 1
    assert optimizer.state[network.get_parameter("2.weight")]["step"] == 4
