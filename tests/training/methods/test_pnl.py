"""PNL against the slow reference over all its phases, and its parts one by one."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lupctl.core.choices import ContrastForm, PnlPositives
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.methods.pnl import Pnl, PnlRules
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.nets.labelled import build_labelled
from lupctl.core.training.nets.networks import ContrastiveNetwork
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from tests.references.pnl import PnlReference, ReferenceRules
from tests.tools.networks import plan_network, projection

DIM, CLASSES, QUEUE, BATCH, MOMENTUM, TEMPERATURE = 6, 5, 20, 8, 0.9, 0.2
# Two or three steps in each phase: filling, prototypes, correction, label positives.
EPOCH_OF_STEP = (0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3)
RULES = PnlRules(
    alpha=0.5, threshold=0.55, prototype_momentum=0.7, prototype_epoch=1, correction_epoch=2, positives_epoch=3,
    contrast_weight=0.8, prototype_weight=0.6, positives="given", contrast="mean-of-logs",
)  # fmt: skip


def build(rules: PnlRules = RULES, *, groups: int = 1, persons: Tensor | None = None) -> Pnl:
    torch.manual_seed(1)
    student = build_labelled(plan_network(projection(DIM)), hidden=7, classes=CLASSES)
    assert student.classes is not None
    with torch.no_grad():  # surer than a fresh classifier, so that some of its choices pass the threshold
        student.classes.classifier.weight.mul_(4000)
    method = Pnl(student, queue=QUEUE, classes=CLASSES, dim=DIM, rules=rules, seed=3, persons=persons)
    set_norm_groups(method, groups)
    # Batch norm over few images blows rounding up; in double precision the comparisons can be tight.
    method.student.double()
    assert method.teacher is not None
    method.teacher.double()
    return method.train()


def draw(step: int) -> tuple[Tensor, Tensor, Tensor]:
    """Two views of each image, and labels of which one occurs many times."""
    generator = torch.Generator().manual_seed(step)
    weak, strong = (torch.randn(BATCH, 3, 32, 16, generator=generator, dtype=torch.double) for _ in range(2))
    label = torch.randint(CLASSES - 1, (BATCH,), generator=generator)  # the last class is never seen
    label[: BATCH // 2] = step % 3
    return weak, strong, label


def disturb(network: nn.Module, seed: int) -> None:
    """Stands for an optimizer's step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def now_at(step: int) -> Now:
    return Now(step, EPOCH_OF_STEP[step], rate=0.0, decay=0.0, momentum=MOMENTUM, temperature=TEMPERATURE)


def take(method: Pnl, step: int, *, parts: int = 1, **more: Any) -> dict[str, Tensor]:
    weak, strong, label = draw(step)
    method.follow(now_at(step))
    method.student.zero_grad()
    given = Given((weak, strong), keys=torch.arange(BATCH), label=label, **more)
    gradients = SharedGradients(method.student, parts=parts)
    return method.learn(given, now_at(step), gradients, precision=torch.float32)


def reference_of(method: Pnl, rules: PnlRules = RULES) -> PnlReference:
    assert method.queue is not None
    same = {name: getattr(rules, name) for name in ReferenceRules.__dataclass_fields__ if name != "temperature"}
    expected = ReferenceRules(temperature=TEMPERATURE, **same)
    return PnlReference(method.queue.features, classes=CLASSES, rules=expected)


@pytest.mark.parametrize(
    ("positives", "contrast"),
    [("given", "mean-of-logs"), ("corrected", "mean-of-logs"), ("given", "log-of-mean"), ("corrected", "log-of-mean")],
)
def test_eleven_steps_are_the_definitions(positives: PnlPositives, contrast: ContrastForm) -> None:
    """Losses, gradients, corrections, queue and prototypes over all phases; 8 images into a queue of 20."""
    rules = PnlRules(**{**vars(RULES), "positives": positives, "contrast": contrast})
    method = build(rules)
    assert method.queue is not None
    assert method.prototypes is not None
    reference, corrected, matched = reference_of(method, rules), 0, 0
    for step, epoch in enumerate(EPOCH_OF_STEP):
        disturb(method.student, step)
        weak, _, label = draw(step)
        twin = copy.deepcopy(method.student)
        result = take(method, step)
        out = twin(weak)
        assert isinstance(twin.encoder, ContrastiveNetwork)
        start = (int(method.queue.pointer) - BATCH) % QUEUE
        keys = torch.stack([method.queue.features[:, (start + i) % QUEUE] for i in range(BATCH)])
        expected = reference.step(out.query.double(), out.logits, keys.double(), label.tolist(), epoch=epoch)
        expected.loss.backward()
        for name in ("loss", "loss_class", "loss_contrast", "loss_prototype"):
            assert result[name].item() == pytest.approx(getattr(expected, name).item(), rel=1e-5, abs=1e-6), name
        torch.testing.assert_close(method.queue.features, torch.stack(reference.queue, 1).float(), rtol=1e-5, atol=1e-6)
        assert method.queue.label.tolist() == reference.queue_label, "identical corrections"
        assert int(method.queue.pointer) == reference.pointer
        torch.testing.assert_close(
            method.prototypes.mean, torch.stack(reference.prototypes).float(), rtol=1e-5, atol=1e-6
        )
        changed = sum(one != other for one, other in zip(expected.label, label.tolist(), strict=True))
        assert result["corrected"].item() == pytest.approx(changed / BATCH)
        assert epoch >= 2 or changed == 0
        corrected += changed
        matched += epoch >= 3 and any(kept in label.tolist() for kept in reference.queue_label)
        for (name, own), other in zip(method.student.named_parameters(), twin.parameters(), strict=True):
            assert own.grad is not None
            scale = float(other.grad.abs().max())
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5 * max(scale, 1e-3), msg=name)
    assert corrected >= 5, "the threshold is passed, and not by all"
    assert corrected < 6 * BATCH
    assert matched == 3
    assert float(method.prototypes.mean[CLASSES - 1].norm()) == 0, "a class that was never seen"


@pytest.mark.parametrize("groups", [2, 4])
def test_parts_are_one_batch(groups: int) -> None:
    """Every part sees queue and prototypes from before the step; they move once, by the whole batch in its order."""
    whole, parts = build(groups=groups), build(groups=groups)
    for step in range(len(EPOCH_OF_STEP)):
        set_norm_groups(whole, groups)
        set_norm_groups(parts, 1)
        for method in (whole, parts):
            disturb(method.student, step)
        one, many = take(whole, step), take(parts, step, parts=groups)
        assert {name: value.item() for name, value in one.items()} == pytest.approx(
            {name: value.item() for name, value in many.items()}, rel=1e-5, abs=1e-6
        )
    for (name, value), other in zip(whole.state_dict().items(), parts.state_dict().values(), strict=True):
        torch.testing.assert_close(value, other, rtol=1e-5, atol=1e-6, msg=name)
