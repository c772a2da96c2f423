"""The loss of self-distillation against the published pairs, and against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from lupctl.core.training.losses.self_distillation import self_distillation, teacher_targets
from tests.references.dino import reference_dino_loss


def draw(views: int, images: int, outputs: int, dtype: torch.dtype = torch.double) -> tuple[Tensor, Tensor, Tensor]:
    """Cosines of student and teacher, and a centre."""
    generator = torch.Generator().manual_seed(views + images + outputs)
    student = 2 * torch.rand(views * images, outputs, generator=generator, dtype=torch.double) - 1
    teacher = 2 * torch.rand(2 * images, outputs, generator=generator, dtype=torch.double) - 1
    centre = 0.1 * torch.randn(outputs, generator=generator, dtype=torch.double)
    return student.to(dtype).requires_grad_(), teacher.to(dtype), centre.to(dtype)


def distil(student: Tensor, teacher: Tensor, centre: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """Loss and gradient of the student's logits."""
    student.grad = None
    loss = self_distillation(student, teacher_targets(teacher, centre, 0.04), temperature=0.1, views=views)
    loss.backward()
    return loss.detach(), student.grad


def slow(student: Tensor, teacher: Tensor, centre: Tensor, views: int) -> tuple[Tensor, Tensor]:
    """The same, pair by pair."""
    student.grad = None
    loss = reference_dino_loss(student, teacher, centre, views=views, student_temperature=0.1, temperature=0.04)
    loss.backward()
    return loss.detach(), student.grad


@pytest.mark.parametrize(("views", "images", "outputs"), [(10, 3, 50), (2, 4, 7), (3, 1, 2), (10, 2, 5000)])
def test_loss_and_gradient_are_those_of_the_pairs(views: int, images: int, outputs: int) -> None:
    sample = draw(views, images, outputs)
    for found, wanted in zip(distil(*sample, views), slow(*sample, views), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-14)


def test_float32_is_as_near_as_the_pairs_are() -> None:
    exact = slow(*draw(10, 4, 4096), 10)
    sample = draw(10, 4, 4096, torch.float32)
    for found, wanted in zip(distil(*sample, 10), exact, strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-5 * float(wanted.abs().max()))


def test_two_outputs_by_hand() -> None:
    # Teacher: (0, 0) and (ln 3, 0) at temperature 1. Student: (0, 0), (ln 3, 0) and (0, ln 3).
    three = math.log(3)
    targets = teacher_targets(torch.tensor([[0.0, 0.0], [three, 0.0]]), torch.zeros(2), 1.0)
    torch.testing.assert_close(targets, torch.tensor([[[0.5, 0.5]], [[0.75, 0.25]]]))
    student = torch.tensor([[0.0, 0.0], [three, 0.0], [0.0, three]], requires_grad=True)
    loss = self_distillation(student, targets, temperature=1.0, views=3)
    # Shares of the student: (1/2, 1/2), (3/4, 1/4), (1/4, 3/4); pairs (0, 1), (0, 2), (1, 0), (1, 2).
    even = -0.5 * math.log(3 / 16)
    pairs = [even, even, math.log(2), -0.75 * math.log(1 / 4) - 0.25 * math.log(3 / 4)]
    assert loss.item() == pytest.approx(sum(pairs) / 4, rel=1e-6)
    loss.backward()
    # Share minus target, over the pairs of a view, over four.
    wanted = torch.tensor([[-0.25, 0.25], [0.25, -0.25], [-0.75, 0.75]]) / 4
    torch.testing.assert_close(student.grad, wanted)


def test_the_centre_is_taken_off_before_the_temperature() -> None:
    teacher, centre = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, 0.0])
    sharp = 1 / (1 + math.exp(10))
    wanted = torch.tensor([[[0.5, 0.5]], [[sharp, 1 - sharp]]])
    # (0 - 1) / 0.2 and (1 - 0) / 0.2 are ten apart.
    torch.testing.assert_close(teacher_targets(teacher, centre, 0.2), wanted)


def test_a_view_is_not_compared_with_its_own_target() -> None:
    student, teacher, centre = draw(2, 3, 6)
    loss, gradient = distil(student, teacher, centre, 2)
    targets = teacher_targets(teacher, centre, 0.04)
    swapped = -(targets.flip(0).flatten(0, 1) * (student / 0.1).log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(loss, swapped.detach(), rtol=1e-12, atol=0)
    assert gradient.abs().max() > 0


def test_a_factor_after_the_loss_scales_the_gradient() -> None:
    student, teacher, centre = draw(10, 2, 9)
    _, whole = distil(student, teacher, centre, 10)
    student.grad = None
    loss = self_distillation(student, teacher_targets(teacher, centre, 0.04), temperature=0.1, views=10)
    (-3 * loss).backward()
    torch.testing.assert_close(student.grad, -3 * whole)


def test_inputs_stay_as_they_are_and_backward_runs_once() -> None:
    student, teacher, centre = draw(4, 2, 9)
    before = student.detach().clone()
    targets = teacher_targets(teacher, centre, 0.04)
    kept = targets.clone()
    loss = self_distillation(student, targets, temperature=0.1, views=4)
    loss.backward(retain_graph=True)
    assert torch.equal(student, before)
    assert torch.equal(targets, kept)
    with pytest.raises(AssertionError, match="used up"):
        loss.backward()


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_logits_are_widened(autocast: bool) -> None:
    student, teacher, centre = draw(10, 3, 300, torch.bfloat16)
    wide = [each.detach().float() for each in (student, teacher)]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        loss, gradient = distil(student, teacher, centre.float(), 10)
    wanted, slope = slow(wide[0].requires_grad_(), wide[1], centre.float(), 10)
    assert loss.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(loss, wanted, rtol=1e-6, atol=0)
    torch.testing.assert_close(gradient.float(), slope, rtol=2**-8, atol=1e-9)


def test_extreme_logits_stay_finite() -> None:
    student = torch.tensor([[500.0, -500.0], [-500.0, 500.0]], requires_grad=True)
    targets = teacher_targets(torch.tensor([[500.0, -500.0], [-500.0, 500.0]]), torch.zeros(2), 0.04)
    loss = self_distillation(student, targets, temperature=0.1, views=2)
    loss.backward()
    assert loss.item() == pytest.approx(10_000)
    assert torch.isfinite(student.grad).all()
