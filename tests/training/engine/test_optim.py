"""Learning rates at the steps that matter, and what an optimizer is given."""

import math

import pytest
import torch
from torch import nn

from lupctl.core.training.engine.freezing import frozen_steps, set_frozen
from lupctl.core.training.engine.optim import Schedule, build_optimizer, set_rate


def test_published_pretraining_is_a_cosine_per_epoch_over_200() -> None:
    schedule = Schedule(kind="cosine", unit="epoch", lr=0.3, epochs=200, steps_per_epoch=1632)
    assert schedule.rate(0) == schedule.rate(1631) == 0.3
    assert schedule.rate(1632) == pytest.approx(0.3 * 0.5 * (1 + math.cos(math.pi / 200)), rel=1e-12)
    assert schedule.rate(100 * 1632) == pytest.approx(0.15)
    assert schedule.rate(199 * 1632) == schedule.rate(200 * 1632 - 1) == pytest.approx(1.85e-5, rel=2e-3)
    rates = [schedule.rate(epoch * 1632) for epoch in range(200)]
    assert rates == sorted(rates, reverse=True)


def test_published_fine_tuning_warms_up_for_ten_epochs_and_falls_twice() -> None:
    schedule = Schedule(
        kind="steps",
        unit="epoch",
        lr=3.5e-4,
        epochs=120,
        steps_per_epoch=180,
        warmup_epochs=10,
        warmup_factor=0.1,
        milestones=(40, 70),
    )

    def at(epoch: int) -> float:
        first, last = schedule.rate(epoch * 180), schedule.rate(epoch * 180 + 179)
        assert first == last
        return first

    assert at(0) == pytest.approx(3.5e-5)
    assert at(5) == pytest.approx(3.5e-4 * 0.55)
    assert at(9) == pytest.approx(3.5e-4 * 0.91)
    assert at(10) == at(39) == pytest.approx(3.5e-4)
    assert at(40) == at(69) == pytest.approx(3.5e-5)
    assert at(70) == at(119) == pytest.approx(3.5e-6)


def test_per_step_the_rate_moves_within_an_epoch() -> None:
    schedule = Schedule(
        kind="cosine",
        unit="step",
        lr=1.0,
        epochs=4,
        steps_per_epoch=10,
        warmup_epochs=0.5,
        warmup_factor=0.2,
        final=0.1,
    )
    assert schedule.rate(0) == pytest.approx(0.2)
    assert schedule.rate(2) == pytest.approx(0.2 + 0.8 * 0.4)
    # Behind the warm-up the cosine is where it would be without one.
    assert schedule.rate(5) == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * 0.5 / 4)))
    assert schedule.rate(20) == pytest.approx(0.1 + 0.9 * 0.5)
    assert schedule.rate(40) == pytest.approx(0.1)


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
    schedule = Schedule(
        kind="cosine",
        unit="step",
        lr=3.5e-4,
        epochs=60,
        steps_per_epoch=per_epoch,
        warmup_epochs=10.0,
        warmup_factor=0.01,
        hold_epochs=30.0,
        final=0.0022,
    )
    for step in [*range(0, 60 * per_epoch, 37), 2019, 2020, 2021, 6059, 6060, 6061, 12119]:
        expected = published_mgn_rate(step, warmup=2020, delay=6060, total=12120)
        assert schedule.rate(step) == pytest.approx(expected, rel=1e-12), step
    assert schedule.rate(0) == pytest.approx(3.5e-6)
    assert schedule.rate(2020) == schedule.rate(6060) == 3.5e-4
    assert schedule.rate(12120) == pytest.approx(7.7e-7)


def test_a_constant_rate_is_constant() -> None:
    schedule = Schedule(kind="constant", unit="step", lr=0.05, epochs=3, steps_per_epoch=7)
    assert {schedule.rate(step) for step in range(21)} == {0.05}


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
    optimizer = build_optimizer(owned, name="sgd", lr=0.1, momentum=0.9, weight_decay=0.01)
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
    optimizer = build_optimizer(owned, name=name, lr=0.1, momentum=0.5, weight_decay=0.01)  # type: ignore[arg-type]
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


def test_the_rate_is_set_in_every_group() -> None:
    optimizer = torch.optim.SGD(
        [{"params": [nn.Parameter(torch.ones(1))]}, {"params": [nn.Parameter(torch.ones(1))]}], lr=1
    )
    set_rate(optimizer, 0.25)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.25]


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_frozen_steps_are_one_more_than_the_epochs_say() -> None:
    assert frozen_steps(10, 202) == 2021, "steps 0 to 2020 inclusive"
    assert frozen_steps(0.5, 7) == 4
    assert frozen_steps(0, 202) == 0


def test_frozen_modules_stand_still_and_adam_remembers_nothing_of_them() -> None:
    torch.manual_seed(0)
    network = small_network().train()
    optimizer = build_optimizer(network.parameters(), name="adam", lr=0.1, momentum=0.9, weight_decay=0.1)
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
    assert optimizer.state[network[0].weight]["step"] == 1
    assert optimizer.state[network[2].weight]["step"] == 4
