"""Relational distillation against a loop written from its definition."""

import pytest
import torch
from torch import Tensor

from lupctl.core.training.losses.relational import relational_distances


def random(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def slow_loss(student: Tensor, teacher: Tensor) -> float:
    """Equations 4 to 7: distances over their mean, and the Huber loss of their difference, over ordered pairs."""
    rows = []
    for features in (student.tolist(), teacher.tolist()):
        units = [[number / sum(one**2 for one in row) ** 0.5 for number in row] for row in features]
        pairs = [(i, j) for i in range(len(units)) for j in range(len(units)) if i != j]
        distances = [sum((a - b) ** 2 for a, b in zip(units[i], units[j], strict=True)) ** 0.5 for i, j in pairs]
        mean = sum(distances) / len(distances)
        rows.append([distance / mean for distance in distances])
    gaps = [abs(mine - theirs) for mine, theirs in zip(*rows, strict=True)]
    return sum(gap**2 / 2 if gap <= 1 else gap - 0.5 for gap in gaps) / len(gaps)


@pytest.mark.parametrize(("count", "mine", "theirs"), [(2, 4, 4), (6, 8, 3), (9, 2, 40)])
def test_it_is_its_double_sum(count: int, mine: int, theirs: int) -> None:
    student, teacher = random(count, mine, seed=1), random(count, theirs, seed=2)
    loss = relational_distances(student, teacher)
    assert float(loss) == pytest.approx(slow_loss(student, teacher), rel=1e-6, abs=1e-12)
    if count > 2:
        assert float(loss) > 0.001


def test_wide_gaps_are_linear() -> None:
    """Two tight groups against two others: gaps above 1, where the loss is no square."""
    student = torch.tensor([[1.0, 0.0], [1.0, 0.01], [-1.0, 0.0], [-1.0, 0.01]], dtype=torch.float64)
    teacher = student[[0, 2, 1, 3]]
    loss = relational_distances(student, teacher)
    assert float(loss) == pytest.approx(slow_loss(student, teacher), rel=1e-6)
    assert float(loss) > 0.5


def test_lengths_and_turns_of_features_do_not_matter() -> None:
    student, teacher = random(7, 5, seed=1), random(7, 6, seed=2)
    turn = torch.linalg.qr(random(6, 6, seed=3))[0]
    scale = random(7, 1, seed=4).abs() + 0.1
    wanted = relational_distances(student, teacher)
    torch.testing.assert_close(relational_distances(student * scale, 3 * teacher @ turn), wanted)
    assert float(relational_distances(teacher @ turn, teacher)) < 1e-12


def test_its_gradient_is_the_students_alone_and_finite() -> None:
    student, teacher = random(5, 4, seed=1).requires_grad_(), random(5, 3, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda one: relational_distances(one, teacher), (student,))
    relational_distances(student, teacher).backward()
    assert teacher.grad is None
    # The same image twice, as a person with few images has it, and a feature of zeros, as a ReLU can leave.
    odd = student.detach()[[0, 0, 1, 2]].clone()
    odd[3] = 0
    odd.requires_grad_()
    relational_distances(odd, teacher[:4]).backward()
    assert odd.grad is not None
    assert bool(odd.grad.isfinite().all())
    flat = torch.zeros(3, 4, requires_grad=True)
    relational_distances(flat, teacher[:3].float()).backward()
    assert flat.grad is not None
    assert bool(flat.grad.isfinite().all())


def test_it_is_learned() -> None:
    """A few steps on features themselves bring the student's distances to the teacher's."""
    teacher = random(8, 6, seed=2)
    student = random(8, 5, seed=1).requires_grad_()
    first = float(relational_distances(student.detach(), teacher))
    optimizer = torch.optim.Adam([student], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss = relational_distances(student, teacher)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1 * first
