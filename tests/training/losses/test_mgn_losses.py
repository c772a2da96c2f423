"""Losses of MGN against loops written from their definitions, and their gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lupctl.core.training.losses.circle import circle_logits, cosines
from lupctl.core.training.losses.identity import evenly_smoothed_losses
from lupctl.core.training.losses.mgn import head_losses, mean_of_nonzero, triplet_features
from lupctl.core.training.losses.triplet import batch_hard_triplet, soft_margin
from lupctl.core.training.losses.weighted import weighted_triplet
from tests.references.mgn_losses import slow_circle, slow_head_loss, slow_smoothed


def numbers(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=2, max_size=6), st.integers(0, 5), st.floats(0.05, 0.6), st.floats(1, 100))
def test_circle_logits_are_their_formula(values: list[float], own: int, margin: float, scale: float) -> None:
    own %= len(values)
    found = circle_logits(torch.tensor([values], dtype=torch.float64), torch.tensor([own]), scale=scale, margin=margin)[
        0
    ]
    for place, value in enumerate(values):
        expected = slow_circle(value, place == own, scale, margin)
        assert float(found[place]) == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_circle_at_the_points_one_can_compute_in_the_head() -> None:
    """s 64, m 0.35: at cos 1 the true class has 64 * 0.35 * 0.35; another one at -0.35 and below has nothing."""
    found = circle_logits(torch.tensor([[1.0, -0.35, -0.9, 0.35, 1.0]]), torch.tensor([0]), scale=64, margin=0.35)
    torch.testing.assert_close(found, torch.tensor([[64 * 0.35**2, 0, 0, 0, 64 * 1.35 * 0.65]]))
    assert float(circle_logits(torch.tensor([[0.65]]), torch.tensor([0]), scale=64, margin=0.35)) == pytest.approx(0)


def test_the_weight_of_a_circle_logit_is_a_constant_to_the_gradient() -> None:
    """d z / d cos is s * a, without the term that a's own change would add."""
    cosine = torch.tensor([[0.2, 0.5, -0.6]], dtype=torch.float64, requires_grad=True)
    for place, slope in ((0, 64 * (1.35 - 0.2)), (1, 64 * (0.5 + 0.35)), (2, 0.0)):
        cosine.grad = None
        circle_logits(cosine, torch.tensor([0]), scale=64, margin=0.35)[0, place].backward()
        expected = torch.zeros(1, 3, dtype=torch.float64)
        expected[0, place] = slope
        torch.testing.assert_close(cosine.grad, expected)


def test_cosines_know_no_length_and_stay_in_float32() -> None:
    features, weight = numbers(2, 5, 7, seed=1).float(), numbers(2, 4, 7, seed=2).float()
    found = cosines(features * 13, weight * 0.01)
    for head in range(2):
        for row in range(5):
            for name in range(4):
                one, other = features[head, row].tolist(), weight[head, name].tolist()
                dot = sum(a * b for a, b in zip(one, other, strict=True))
                expected = dot / math.hypot(*one) / math.hypot(*other)
                assert float(found[head, row, name]) == pytest.approx(expected, abs=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(cosines(features.bfloat16(), weight), cosines(features.bfloat16().float(), weight))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
@pytest.mark.parametrize("classes", [2, 7])
def test_even_smoothing_gives_every_other_class_the_same_share(smoothing: float, classes: int) -> None:
    logits = 4 * numbers(3, 5, classes, seed=3)
    label = torch.tensor([0, 1, classes - 1, 1, 0])
    found = evenly_smoothed_losses(logits, label, smoothing)
    assert found.shape == (3, 5)
    for head in range(3):
        for row in range(5):
            expected = slow_smoothed(logits[head, row].tolist(), int(label[row]), smoothing)
            assert float(found[head, row]) == pytest.approx(expected, rel=1e-4, abs=1e-6)
    if smoothing and classes == 7:
        torchs = F.cross_entropy(logits[0], label, label_smoothing=smoothing)
        assert abs(float(torchs - found[0].mean())) > 1e-3, "torch gives the true class a share of the rest too"


def fast_head_loss(features: Tensor, weight: Tensor, label: Tensor) -> Tensor:
    losses = head_losses(features, weight, label, scale=64, margin=0.35, smoothing=0.1)
    return mean_of_nonzero(losses, (losses.detach() != 0).sum(dim=1))


def test_the_identity_loss_of_eight_heads_is_its_loop() -> None:
    features, weight, label = numbers(6, 8, 5, seed=4), numbers(8, 4, 5, seed=5), torch.tensor([0, 1, 3, 3, 0, 2])
    expected = slow_head_loss(features, weight, label)
    assert float(fast_head_loss(features, weight, label)) == pytest.approx(expected, rel=1e-5)


def test_the_gradient_of_the_identity_loss_by_the_chain_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    """d loss / d cos_c = s a_c (p_c - target_c) / (8 B), with p the softmax over circle logits."""
    label = torch.tensor([0, 1, 3])
    cosine = (0.5 * numbers(8, 3, 4, seed=6).tanh()).requires_grad_()
    monkeypatch.setattr("lupctl.core.training.losses.mgn.cosines", lambda features, weight: cosine)
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    fast_head_loss(torch.zeros(3, 8, 5), torch.zeros(8, 4, 5), label).backward()
    expected = torch.zeros_like(cosine)
    for head in range(8):
        for row in range(3):
            values = cosine[head, row].tolist()
            logits = [slow_circle(value, place == int(label[row]), 64, 0.35) for place, value in enumerate(values)]
            share = torch.tensor(logits, dtype=torch.float64).softmax(0).tolist()
            for place, value in enumerate(values):
                is_own = place == int(label[row])
                a = max(0.0, 1.35 - value) if is_own else max(0.0, value + 0.35)
                target = 0.9 if is_own else 0.1 / 3
                expected[head, row, place] = 64 * a * (share[place] - target) / 24
    torch.testing.assert_close(cosine.grad, expected, rtol=1e-6, atol=1e-9)


def test_losses_that_are_exactly_zero_do_not_count() -> None:
    losses = torch.zeros(8, 4)
    losses[0] = torch.tensor([0.0, 3.0, 0.0, 1.0])
    losses[5] = torch.tensor([2.0, 2.0, 2.0, 2.0])
    assert float(mean_of_nonzero(losses, (losses != 0).sum(dim=1))) == pytest.approx((4 / 2 + 8 / 4) / 8)


def test_processes_with_other_counts_make_one_mean() -> None:
    losses = torch.tensor([[0.0, 3, 0, 1, 5, 0]]).expand(8, 6)
    whole = mean_of_nonzero(losses, (losses != 0).sum(dim=1))
    parts = [losses[:, rank::2] for rank in range(2)]
    count = torch.stack([(part != 0).sum(dim=1).float() for part in parts]).mean(dim=0)
    torch.testing.assert_close(torch.stack([mean_of_nonzero(part, count) for part in parts]).mean(), whole)


def test_triplets_are_made_from_five_features() -> None:
    features = torch.arange(8.0).view(1, 8, 1).expand(2, 8, 3)
    found = triplet_features(features)
    assert [part.shape[1] for part in found] == [3, 3, 3, 6, 9]
    assert [sorted(set(part[0].tolist())) for part in found] == [[0], [1], [2], [3, 4], [5, 6, 7]]
    assert found[4][1].tolist() == [5, 5, 5, 6, 6, 6, 7, 7, 7]


def test_an_infinite_soft_margin_becomes_a_hinge() -> None:
    """exp(89) is beyond float32: all anchors take the ranking loss with margin 0.3, with its gradient."""
    gap = torch.tensor([-3.0, 89.0, -0.1], requires_grad=True)
    loss = soft_margin(gap)
    assert loss.item() == pytest.approx((0 + 89.3 + 0.2) / 3)
    loss.backward()
    torch.testing.assert_close(gap.grad, torch.tensor([0, 1, 1]) / 3)
    assert math.isinf(F.soft_margin_loss(-gap.detach(), torch.ones(3)))
    calm = torch.tensor([-3.0, 88.0, -0.1], requires_grad=True)
    loss = soft_margin(calm)
    assert loss.item() == pytest.approx(float(F.soft_margin_loss(-calm.detach(), torch.ones(3))))
    loss.backward()
    torch.testing.assert_close(calm.grad, torch.sigmoid(calm.detach()) / 3)


def test_the_anchor_may_be_its_own_farthest() -> None:
    features = torch.tensor([[0.0, 0], [3, 0], [0, 4]], dtype=torch.float64)
    label = torch.tensor([0, 1, 2])
    loss = batch_hard_triplet(features, label, features, label, margin=0)
    gaps = [1e-6 - 3, 1e-6 - 3, 1e-6 - 4]
    assert float(loss) == pytest.approx(sum(math.log1p(math.exp(gap)) for gap in gaps) / 3, rel=1e-5)


# AGW's triplet


def test_the_weighted_triplet_is_its_loop() -> None:
    features, label = numbers(7, 3, seed=8).float(), torch.tensor([0, 0, 1, 1, 1, 2, 2])
    total = 0.0
    for i in range(7):
        distance = [math.dist(features[i].tolist(), features[j].tolist()) or 1e-6 for j in range(7)]
        near = [d for j, d in enumerate(distance) if label[j] == label[i]]
        far = [d for j, d in enumerate(distance) if label[j] != label[i]]
        pull = sum(d * math.exp(d) for d in near) / sum(math.exp(d) for d in near)
        push = sum(d * math.exp(-d) for d in far) / sum(math.exp(-d) for d in far)
        total += math.log1p(math.exp(pull - push))
    found = weighted_triplet(features, label, features, label)
    assert float(found) == pytest.approx(total / 7, rel=1e-3)
    parts = [weighted_triplet(features[i : i + 1], label[i : i + 1], features, label) for i in range(7)]
    torch.testing.assert_close(torch.stack(parts).mean(), found)


def test_the_weighted_triplet_sends_gradients_to_all() -> None:
    features = numbers(6, 3, seed=9).requires_grad_()
    label = torch.tensor([0, 0, 0, 1, 1, 1])
    weighted_triplet(features[:1], label[:1], features, label).backward()
    assert features.grad is not None
    assert (features.grad.abs().sum(dim=1) > 0).all()
    assert torch.isfinite(features.grad).all()
