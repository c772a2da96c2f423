"""TransReID's rates: the curve against its published code, the rate of biases, and epochs that differ in length."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from lupctl.core.training.engine.curves import Epochs, RateCurve, even_epochs
from lupctl.core.training.engine.freezing import frozen_steps
from lupctl.core.training.engine.groups import parameter_groups, set_rates
from lupctl.core.training.engine.optim import build_optimizer

BASE, EPOCHS, WARMUP = 0.008, 120, 5


class SlowScheduler:
    """timm's cosine scheduler with what TransReID's code gives it: one cycle, per epoch, by hand."""

    def __init__(self, rates: list[float]) -> None:
        self.base = rates
        self.rates = [0.01 * BASE for _ in rates]  # on construction every group gets the start of the warm-up
        self.slope = [(rate - 0.01 * BASE) / WARMUP for rate in rates]

    def step(self, epoch: int) -> None:
        if epoch < WARMUP:
            self.rates = [0.01 * BASE + epoch * slope for slope in self.slope]
        elif epoch < EPOCHS:
            low, turn = 0.002 * BASE, math.cos(math.pi * epoch / EPOCHS)
            self.rates = [low + 0.5 * (base - low) * (1 + turn) for base in self.base]
        else:
            self.rates = [0.002 * BASE for _ in self.base]


def published_rates(*, at_the_end: bool) -> list[list[float]]:
    """What each epoch ran at, for weights and for biases."""
    scheduler, ran = SlowScheduler([BASE, 2 * BASE]), []
    for epoch in range(1, EPOCHS + 1):
        if not at_the_end:
            scheduler.step(epoch)
        ran.append(scheduler.rates)
        if at_the_end:
            scheduler.step(epoch)
    return ran


def transreid(steps: Epochs, *, lag: bool = False) -> RateCurve:
    return RateCurve(
        kind="transreid", unit="epoch", lr=BASE, epochs=EPOCHS, steps=steps, warmup_epochs=WARMUP,
        warmup_factor=0.01, final=0.002, lag=lag,
    )  # fmt: skip


@pytest.mark.parametrize("lag", [False, True])
def test_the_curve_is_the_published_loop(lag: bool) -> None:
    curve = transreid(even_epochs(7, EPOCHS), lag=lag)
    for epoch, (weights, biases) in enumerate(published_rates(at_the_end=lag)):
        for step in (7 * epoch, 7 * epoch + 6):
            assert curve.at(step) == pytest.approx(weights, rel=1e-12), epoch
            assert curve.at(step, scale=2.0) == pytest.approx(biases, rel=1e-12), epoch


def test_the_ends_are_shares_of_the_base_rate_in_every_group() -> None:
    early, late = (transreid(even_epochs(1, EPOCHS), lag=lag) for lag in (False, True))
    assert late.at(0) == late.at(0, scale=2.0) == 0.01 * BASE
    assert early.at(0) == pytest.approx(0.01 * BASE + 0.99 * BASE / 5)
    assert early.at(0, scale=2.0) == pytest.approx(0.01 * BASE + 1.99 * BASE / 5)
    assert early.at(119) == early.at(119, scale=2.0) == 0.002 * BASE
    assert late.at(119) > 0.002 * BASE
    assert [late.at(step) for step in range(1, 120)] == [early.at(step) for step in range(119)]


class Small(nn.Module):
    """A bias of a norm, of a layer and of a convolution, and a parameter whose name only contains the word."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(3)
        self.layer = nn.Linear(3, 2)
        self.conv = nn.Conv2d(1, 1, 2)
        self.bias_table = nn.Parameter(torch.zeros(2, 3))
        self.frozen = nn.BatchNorm1d(2)
        self.frozen.bias.requires_grad_(False)


def scales_of(network: Small, **factors: float) -> dict[str, tuple[float, float]]:
    """The factors on rate and decay of each trained parameter."""
    names = {parameter: name for name, parameter in network.named_parameters()}
    groups = parameter_groups([network], **factors)
    found = [(names[one], (group["rate_scale"], group["decay_scale"])) for group in groups for one in group["params"]]
    assert len(found) == len(dict(found)) == 8, "each once, and the frozen bias not at all"
    return dict(found)


def test_biases_are_what_modules_have_as_their_bias() -> None:
    found = scales_of(Small(), bias_rate=2.0)
    biases = {"norm.bias", "layer.bias", "conv.bias"}
    assert found == {name: (2.0 if name in biases else 1.0, 1.0) for name in found}
    assert len(parameter_groups([Small()], bias_rate=2.0)) == 2


def test_the_factors_of_vectors_and_biases_multiply() -> None:
    found = scales_of(Small(), bias_rate=2.0, vector_rate=0.5, vector_decay=0.0)
    assert found["layer.bias"] == found["norm.bias"] == (1.0, 0.0)
    assert found["norm.weight"] == found["frozen.weight"] == (0.5, 0.0)
    assert found["layer.weight"] == found["bias_table"] == (1.0, 1.0)


def test_without_factors_there_is_one_group_in_the_order_of_the_network() -> None:
    network = Small()
    (group,) = parameter_groups([network])
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    assert [id(one) for one in group["params"]] == [id(one) for one in trained]


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "lars"])
def test_a_bias_moves_at_its_own_rate_and_an_optimizer_goes_on_from_its_state(name: str) -> None:
    def train(network: Small, optimizer: torch.optim.Optimizer, steps: range) -> None:
        for step in steps:
            set_rates(optimizer, rate=curve, step=step, decay=0.1)
            for number, parameter in enumerate(network.parameters()):
                parameter.grad = (
                    torch.full_like(parameter, 0.3 * (number + step - 4)) if parameter.requires_grad else None
                )
            optimizer.step()

    def build(network: Small) -> torch.optim.Optimizer:
        return build_optimizer(
            [network],
            name=name,  # type: ignore[arg-type]
            lr=1.0,
            momentum=0.9,
            weight_decay=0.0,
            bias_rate=2.0,
            vector_decay=0.5,
        )

    curve = transreid(even_epochs(1, EPOCHS))
    torch.manual_seed(0)
    whole, half = Small(), Small()
    half.load_state_dict(whole.state_dict())
    optimizer = build(whole)
    train(whole, optimizer, range(6))
    assert {group["lr"] for group in optimizer.param_groups} == {curve.at(5), curve.at(5, scale=2.0)}
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.1, 0.05}
    first = build(half)
    train(half, first, range(3))
    second = build(half)
    second.load_state_dict(first.state_dict())
    train(half, second, range(3, 6))
    for one, other in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.equal(one, other)


def test_sgd_by_hand_at_twice_the_rate() -> None:
    layer = nn.Linear(1, 1)
    before = layer.weight.item(), layer.bias.item()
    optimizer = build_optimizer([layer], name="sgd", lr=1.0, momentum=0.9, weight_decay=0.0, bias_rate=2.0)
    curve = transreid(even_epochs(1, EPOCHS))
    set_rates(optimizer, rate=curve, step=9, decay=1e-4)
    layer.weight.grad, layer.bias.grad = torch.ones(1, 1), torch.ones(1)
    optimizer.step()
    turn = 0.5 * (1 + math.cos(math.pi * 10 / 120))
    for found, old, rate in zip((layer.weight, layer.bias), before, (BASE, 2 * BASE), strict=True):
        moved = 0.002 * BASE + (rate - 0.002 * BASE) * turn
        assert found.item() == pytest.approx(old - moved * (1 + 1e-4 * old), rel=1e-6)


# Epochs that differ in length

UNEVEN = Epochs((0, 3, 5, 9))


def test_epochs_of_different_length() -> None:
    assert [UNEVEN.of(step) for step in range(9)] == [0, 0, 0, 1, 1, 2, 2, 2, 2]
    assert [UNEVEN.at(step) for step in (0, 3, 4, 5, 6)] == pytest.approx([0, 1, 1.5, 2, 2.25])
    assert [UNEVEN.step_at(time) for time in (0, 0.5, 1, 1.5, 2.5, 4)] == [0, 1.5, 3, 4, 7, 13]
    assert [done for done in range(1, 10) if UNEVEN.is_due(done, 1)] == [3, 5, 9]
    assert [done for done in range(1, 10) if UNEVEN.is_due(done, 2)] == [5]
    assert (UNEVEN.total, UNEVEN.mean_length) == (9, 3)
    assert frozen_steps(1.5, UNEVEN) == 5, "steps 0 to 4 inclusive"


def test_the_rate_follows_real_epochs() -> None:
    curve = RateCurve(kind="steps", unit="epoch", lr=1.0, epochs=3, steps=UNEVEN, milestones=(1, 2))
    assert [curve.at(step) for step in range(9)] == pytest.approx([1, 1, 1, 0.1, 0.1, 0.01, 0.01, 0.01, 0.01])
    smooth = RateCurve(kind="cosine", unit="step", lr=1.0, epochs=3, steps=UNEVEN)
    assert smooth.at(4) == pytest.approx(0.5 * (1 + math.cos(math.pi * 1.5 / 3)))


@given(st.integers(1, 5000), st.integers(1, 300), st.floats(0, 400), st.integers(0, 10**6))
def test_epochs_of_one_length_are_divisions_to_the_last_bit(length: int, count: int, time: float, step: int) -> None:
    epochs = even_epochs(length, count)
    assert epochs.total == length * count
    assert epochs.at(step) == step / length
    assert epochs.step_at(time) == time * length
    assert epochs.of(step) == min(step // length, count - 1)
