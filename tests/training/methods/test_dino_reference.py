"""The transcription of DINO's published step, on numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.references.dino import (
    DinoReference,
    ReferenceHead,
    ReferenceNetwork,
    ReferenceRules,
    reference_dino_loss,
)


class Mean(nn.Module):
    """The mean colour of an image, times a matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4, dtype=torch.double)
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 4)."""
        self.seen.append(tuple(images.shape))
        return self.layer(images.mean(dim=(2, 3)))


def build() -> ReferenceNetwork:
    """Four features, five hidden, two in the bottleneck, six outputs."""
    torch.manual_seed(0)
    sizes = [(5, 4), (5, 5), (2, 5)]
    layers = [(torch.randn(size, dtype=torch.double), torch.randn(size[0], dtype=torch.double)) for size in sizes]
    return ReferenceNetwork(Mean(), ReferenceHead(layers, torch.randn(6, 2, dtype=torch.double)))


def draw_views() -> list[Tensor]:
    """Two large views and two small ones of three images."""
    sizes = [(3, 3, 8, 4)] * 2 + [(3, 3, 4, 2)] * 2
    return [torch.randn(size, dtype=torch.double) for size in sizes]


def trunk_layer(run: DinoReference) -> nn.Linear:
    """The trunk's only layer."""
    layer = run.student.trunk.get_submodule("layer")
    assert isinstance(layer, nn.Linear)
    return layer


def test_schedules_where_they_turn() -> None:
    rules = ReferenceRules(steps=10)
    assert rules.rate_at(0) == 0
    assert rules.rate_at(99) == rules.rate_at(100) == 1e-3
    assert rules.rate_at(550) == pytest.approx((1e-3 + 1e-6) / 2)
    assert 1e-6 < rules.rate_at(999) < 1.01e-6
    assert rules.decay_at(0) == pytest.approx(0.04)
    assert rules.momentum_at(0) == pytest.approx(0.996)
    assert rules.decay_at(500) == pytest.approx(0.22)
    assert rules.momentum_at(500) == pytest.approx(0.998)


def test_ten_views_have_eighteen_pairs() -> None:
    # Only images whose student is certain of another output than the teacher's cost anything: 20 / 0.1 each.
    sure = torch.tensor([[20.0, 0.0], [0.0, 20.0]])
    teacher = sure[[0, 0]]
    student = sure[[1] + [0] * 9]
    loss = reference_dino_loss(student, teacher, torch.zeros(2), views=10, student_temperature=0.1, temperature=0.04)
    assert loss.item() == pytest.approx(200 / 18)  # view 0 with the target of view 1, and no other
    student = sure[[0] * 9 + [1]]
    loss = reference_dino_loss(student, teacher, torch.zeros(2), views=10, student_temperature=0.1, temperature=0.04)
    assert loss.item() == pytest.approx(2 * 200 / 18)  # a small view with both


def test_crops_of_one_width_go_through_the_trunk_together_and_outputs_are_cosines() -> None:
    network = build()
    out = network(draw_views())
    assert isinstance(network.trunk, Mean)
    assert network.trunk.seen == [(6, 3, 8, 4), (6, 3, 4, 2)]
    assert out.shape == (12, 6)
    assert out.abs().max() <= 1
    long = network.head.last
    with torch.no_grad():
        long.mul_(7)  # the length of the last layer's rows does not matter
        torch.manual_seed(1)
        views = draw_views()
        before = network(views)
        long.div_(7)
    torch.testing.assert_close(network(views), before)


def test_the_centre_moves_by_a_tenth_of_the_teachers_mean() -> None:
    run = DinoReference(build(), ReferenceRules(steps=2))
    views = draw_views()
    with torch.no_grad():
        mean = run.teacher(views[:2]).mean(dim=0)
    run.learn(views)
    torch.testing.assert_close(run.centre, 0.1 * mean)
    run.learn(views)
    torch.testing.assert_close(run.centre, 0.19 * mean)


def test_the_last_layer_waits_an_epoch_and_starts_like_new() -> None:
    run = DinoReference(build(), ReferenceRules(steps=2, warmup_epochs=1, epochs=4, clip=1e9))
    start = run.student.head.last.detach().clone()
    first = trunk_layer(run).weight.detach().clone()
    for step in range(2):
        run.step(draw_views(), step)
    assert torch.equal(run.student.head.last, start)
    assert not torch.equal(trunk_layer(run).weight, first)
    run.step(draw_views(), 2)
    assert (run.student.head.last != start).all()
    assert run.optimizer.state[run.student.head.last]["step"] == 1
    assert run.optimizer.state[trunk_layer(run).weight]["step"] == 3
    gain = run.student.head.last_layer.parametrizations.weight.original0
    assert gain.eq(1).all()


def test_each_tensor_is_clipped_alone_and_vectors_have_no_decay() -> None:
    run = DinoReference(build(), ReferenceRules(steps=1, frozen_epochs=0, clip=3.0))
    for parameter in run.student.parameters():
        parameter.grad = torch.full_like(parameter, 10.0) if parameter.dim() > 1 else torch.full_like(parameter, 0.1)
    run.update(5)
    weight, bias = trunk_layer(run).weight, trunk_layer(run).bias
    assert weight.grad.norm().item() == pytest.approx(3.0)
    assert bias.grad.norm().item() == pytest.approx(0.1 * math.sqrt(4))
    with_decay, without = run.optimizer.param_groups
    assert with_decay["weight_decay"] == run.rules.decay_at(5)
    assert without["weight_decay"] == 0
    assert {parameter.dim() for parameter in without["params"]} == {1}
    assert {parameter.dim() for parameter in with_decay["params"]} == {2}


def test_the_teacher_follows_the_updated_student() -> None:
    run = DinoReference(build(), ReferenceRules(steps=5, warmup_epochs=1, frozen_epochs=0, momentum=0.9))
    run.step(draw_views(), 0)
    start = [parameter.clone() for parameter in run.teacher.parameters()]
    run.step(draw_views(), 7)
    share = run.rules.momentum_at(7)
    for before, after, current in zip(start, run.teacher.parameters(), run.student.parameters(), strict=True):
        torch.testing.assert_close(after, share * before + (1 - share) * current)
