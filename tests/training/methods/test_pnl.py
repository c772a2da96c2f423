"""PNL against the slow reference over all its phases, and its parts one by one."""

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, strategies
from torch import Tensor, nn

from lupctl.core.choices import ContrastForm, PnlPositives
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.losses.contrastive import info_nce
from lupctl.core.training.losses.noisy_labels import (
    correct_labels,
    label_nce,
    prototype_scores,
    score,
    scored_cross_entropy,
)
from lupctl.core.training.methods.pnl import Pnl, PnlRules
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.methods.prototypes import Prototypes
from lupctl.core.training.methods.queue import LabelledQueue
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
    share = Given((weak, strong), keys=torch.arange(BATCH), label=label, **more)
    gradients = SharedGradients(method.student, parts=parts)
    return method.learn(share, now_at(step), gradients, precision=torch.float32)


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


def one_by_one(mean: Tensor, features: Tensor, label: list[int], momentum: float) -> Tensor:
    """The published loop over samples; at its end all rows get unit length."""
    rows = [row.double().clone() for row in mean]
    for feature, number in zip(features.double(), label, strict=True):
        rows[number] = momentum * rows[number] + (1 - momentum) * feature
    return torch.stack([row / row.norm() if row.norm() > 0 else row for row in rows])


@pytest.mark.parametrize("label", [[3], [2, 2, 2, 2, 2, 2], [0, 4, 0, 0, 1, 4, 0], list(range(5)), [4, 3, 2, 1, 0, 4]])
@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.999])
def test_prototypes_move_as_one_sample_after_the_other(label: list[int], momentum: float) -> None:
    generator = torch.Generator().manual_seed(len(label))
    prototypes, expected = Prototypes(6, 4), torch.zeros(6, 4, dtype=torch.double)
    for _ in range(5):
        features = nn.functional.normalize(torch.randn(len(label), 4, generator=generator), dim=1)
        prototypes.update(features, torch.tensor(label), momentum=momentum)
        expected = one_by_one(expected, features, label, momentum)
        torch.testing.assert_close(prototypes.mean.double(), expected, rtol=1e-6, atol=1e-6)
    assert float(prototypes.mean[5].norm()) == 0


def test_the_first_visit_of_a_class_makes_its_prototype_the_feature() -> None:
    prototypes = Prototypes(3, 4)
    feature = nn.functional.normalize(torch.randn(1, 4, generator=torch.Generator().manual_seed(0)), dim=1)
    prototypes.update(feature, torch.tensor([1]), momentum=0.999)
    torch.testing.assert_close(prototypes.mean[1], feature[0])
    assert torch.equal(prototypes.mean[[0, 2]], torch.zeros(2, 4))


@given(data=strategies.data())
def test_a_correction_is_the_largest_share_of_the_mixture(data: strategies.DataObject) -> None:
    """Two candidates are enough: a share above one half belongs to one class at most."""
    seed, classes = data.draw(strategies.integers(0, 10**6)), data.draw(strategies.integers(2, 9))
    alpha, threshold = data.draw(strategies.floats(0, 1)), data.draw(strategies.floats(0.5, 0.99))
    generator = torch.Generator().manual_seed(seed)
    scale = data.draw(strategies.sampled_from([0.1, 3.0, 30.0]))
    logits = [scale * torch.randn(16, classes, generator=generator, dtype=torch.double) for _ in range(2)]
    label = torch.randint(classes, (16,), generator=generator)
    found = correct_labels(label, score(logits[0]), score(logits[1]), alpha=alpha, threshold=threshold)
    share = alpha * logits[0].softmax(1) + (1 - alpha) * logits[1].softmax(1)
    best, chosen = share.max(dim=1)
    clear = (best - threshold).abs() > 1e-9
    assert torch.equal(found[clear], torch.where(best > threshold, chosen, label)[clear])


def test_a_correction_needs_both_to_agree() -> None:
    """With half of the weight each, one that is certain and one that is not give no more than the threshold."""
    sure, unsure = torch.tensor([[0.0, 50.0, 0.0]]), torch.zeros(1, 3)
    for first, second, expected in ((sure, sure, 1), (sure, unsure, 2), (unsure, sure, 2)):
        found = correct_labels(torch.tensor([2]), score(first), score(second), alpha=0.5, threshold=0.8)
        assert found.tolist() == [expected]


def test_prototypes_take_no_gradient_and_give_one_to_the_query() -> None:
    generator = torch.Generator().manual_seed(5)
    query = nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=1).requires_grad_()
    prototypes = nn.functional.normalize(torch.randn(5, 4, generator=generator), dim=1)
    scores, label = prototype_scores(query, prototypes, 0.07), torch.tensor([4, 0, 4])
    torch.testing.assert_close(scores.logits, query @ prototypes.T / 0.07)
    loss = scored_cross_entropy(scores, label)
    (3 * loss).backward()
    twin = query.detach().clone().requires_grad_()
    expected = nn.functional.cross_entropy(twin @ prototypes.T / 0.07, label)
    (3 * expected).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(query.grad, twin.grad)


@pytest.mark.parametrize("form", ["mean-of-logs", "log-of-mean"])
def test_without_positives_in_the_queue_both_forms_are_infonce(form: ContrastForm) -> None:
    generator = torch.Generator().manual_seed(4)
    query, key = (nn.functional.normalize(torch.randn(5, 4, generator=generator), dim=1) for _ in range(2))
    queue = nn.functional.normalize(torch.randn(4, 11, generator=generator), dim=0)
    plain, hits = info_nce(query, key, queue, 0.1)
    found, same_hits = label_nce(query, key, queue, torch.zeros(5, 11, dtype=torch.bool), 0.1, form=form)
    torch.testing.assert_close(found, plain)
    assert torch.equal(hits, same_hits)


@pytest.mark.parametrize("batch", [3, 7, 10, 13])
def test_a_queue_keeps_label_and_feature_together(batch: int) -> None:
    queue = LabelledQueue(2, 10, seed=1)
    assert queue.label.tolist() == [-1] * 10
    for step in range(4):
        label = torch.arange(batch) + 100 * step
        angle = label.double() / 500
        queue.push(torch.stack([angle.cos(), angle.sin()], dim=1).float(), label)
        filled = queue.label >= 0
        turned = torch.atan2(queue.features[1], queue.features[0])[filled]
        torch.testing.assert_close(turned, (queue.label[filled].double() / 500).float())
    assert len(set(queue.label.tolist())) == 10


def test_purity_is_that_of_the_labels_before_and_after() -> None:
    """Class c shows person 10 + c; half of the given labels are wrong."""
    method = build(persons=torch.arange(CLASSES) + 10)
    assert "persons" not in method.state_dict()
    for step in range(6):
        disturb(method.student, step)
        _, _, label = draw(step)
        truth = torch.where(torch.arange(BATCH) % 2 == 0, label + 10, 99)
        result = take(method, step, truth=truth)
        assert result["purity_given"].item() == pytest.approx(0.5)
        assert method.queue is not None
        start = (int(method.queue.pointer) - BATCH) % QUEUE
        used = torch.tensor([int(method.queue.label[(start + i) % QUEUE]) for i in range(BATCH)])
        assert result["purity"].item() == pytest.approx(float((used + 10 == truth).float().mean()))


def test_a_state_put_back_continues_the_same() -> None:
    method = build(groups=2)
    for step in range(7):
        take(method, step)
    copied = build(groups=2)
    copied.load_state_dict(method.state_dict())
    for step in range(7, 9):
        left, right = take(method, step), take(copied, step)
        assert torch.equal(left["loss"], right["loss"])
    for (name, value), other in zip(method.state_dict().items(), copied.state_dict().values(), strict=True):
        assert torch.equal(value, other), name


def test_the_averaged_encoder_keeps_no_classifier() -> None:
    method = build()
    assert method.teacher is not None
    assert {name for name, _ in method.teacher.named_parameters()} == {
        name for name, _ in method.student.encoder.named_parameters()
    }
    assert not any("class" in name for name in method.teacher.state_dict())


@pytest.mark.parametrize("hidden", [0, 7])
def test_the_published_initialisation(hidden: int) -> None:
    torch.manual_seed(0)
    network = build_labelled(plan_network(projection(64), width=16), hidden=hidden, classes=500)
    assert network.classes is not None
    assert float(network.classes.classifier.weight.detach().std()) == pytest.approx(0.001, rel=0.05)
    assert float(network.classes.classifier.bias.detach().abs().max()) == 0
    assert network.classes.classifier.weight.shape == (500, hidden or 128)
    if network.classes.hidden is not None:
        assert float(network.classes.hidden.bias.detach().abs().max()) == 0
    assert isinstance(network.encoder, ContrastiveNetwork)
    for layer in (network.encoder.head.hidden, network.encoder.head.out):  # std sqrt(2 / outputs)
        assert float(layer.weight.detach().std()) == pytest.approx((2 / layer.weight.shape[0]) ** 0.5, rel=0.05)
