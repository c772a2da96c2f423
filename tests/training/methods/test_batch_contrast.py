"""SimCLR and SupCon: the loss against a loop, and a batch in parts against a batch in one."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.state import running_statistics
from lupctl.core.training.losses.batch_contrast import batch_contrast
from lupctl.core.training.methods.batch import BatchContrast
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.nets.build import build_contrastive
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from tests.references.pnl import reference_supervised_contrast
from tests.tools.networks import plan_network, projection

BATCH, TEMPERATURE = 8, 0.3


@pytest.mark.parametrize("label", [[0, 0, 1, 1], [0, 1, 0, 1, 0, 2, 2], [5, 5, 5]])
def test_the_loss_is_the_definition(label: list[int]) -> None:
    generator = torch.Generator().manual_seed(1)
    features = nn.functional.normalize(torch.randn(len(label), 4, generator=generator, dtype=torch.double), dim=1)
    one, other = (features.clone().requires_grad_() for _ in range(2))
    found, expected = batch_contrast(one, torch.tensor(label), 0.2), reference_supervised_contrast(other, label, 0.2)
    assert found.item() == pytest.approx(expected.item(), rel=1e-9)
    found.backward()
    expected.backward()
    torch.testing.assert_close(one.grad, other.grad)


def build(*, uses_labels: bool, weight: float = 1.0) -> BatchContrast:
    torch.manual_seed(1)
    student = build_contrastive(plan_network(projection(6)))
    method = BatchContrast(student, uses_labels=uses_labels, weight=weight)
    method.student.double()
    return method.train()


def take(method: BatchContrast, views: tuple[Tensor, Tensor], label: Tensor | None, *, parts: int) -> dict[str, Tensor]:
    method.student.zero_grad()
    given = Given(views, keys=torch.arange(BATCH), label=label)
    now = Now(0, 0, rate=0.0, decay=0.0, momentum=0.0, temperature=TEMPERATURE)
    return method.learn(given, now, SharedGradients(method.student, parts=parts), precision=torch.float32)


def draw() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    first, second = (torch.randn(BATCH, 3, 32, 16, generator=generator, dtype=torch.double) for _ in range(2))
    return first, second


@pytest.mark.parametrize("label", [None, torch.tensor([0, 1, 2, 0, 1, 1, 3, 4])])
def test_a_step_is_the_loss_over_both_views_of_the_batch(label: Tensor | None) -> None:
    method, views = build(uses_labels=label is not None, weight=2.0), draw()
    twin = copy.deepcopy(method.student)
    result = take(method, views, label, parts=1)
    features = twin(torch.cat(views))
    numbers = list(range(BATCH)) if label is None else label.tolist()
    expected = 2.0 * reference_supervised_contrast(features.double(), [*numbers, *numbers], TEMPERATURE)
    expected.backward()
    assert result["loss"].item() == pytest.approx(expected.item(), rel=1e-5)
    for (name, own), other in zip(method.student.named_parameters(), twin.parameters(), strict=True):
        assert own.grad is not None
        scale = float(other.grad.abs().max())
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5 * max(scale, 1e-3), msg=name)


@pytest.mark.parametrize("parts", [2, 4])
def test_parts_are_one_batch(parts: int) -> None:
    label = torch.tensor([0, 1, 2, 0, 1, 1, 3, 4])
    whole, cut = build(uses_labels=True), build(uses_labels=True)
    set_norm_groups(whole, parts)
    one, many = take(whole, draw(), label, parts=1), take(cut, draw(), label, parts=parts)
    assert one["loss"].item() == pytest.approx(many["loss"].item(), rel=1e-6)
    assert one["hits"].item() == many["hits"].item()
    for (name, own), other in zip(whole.student.named_parameters(), cut.student.parameters(), strict=True):
        assert own.grad is not None
        scale = float(own.grad.abs().max())
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5 * max(scale, 1e-3), msg=name)
    # The first look at the batch leaves no trace in the statistics.
    for mean, same in zip(running_statistics(whole.student), running_statistics(cut.student), strict=True):
        torch.testing.assert_close(mean, same)
    counted = [int(value) for name, value in cut.student.named_buffers() if name.endswith("num_batches_tracked")]
    assert set(counted) == {1}
