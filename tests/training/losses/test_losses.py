"""Losses against loops written from their definitions."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lupctl.core.training.losses.contrastive import info_nce
from lupctl.core.training.losses.identity import smoothed_cross_entropy
from lupctl.core.training.losses.triplet import batch_hard_triplet, euclidean


def unit(*shape: int, dim: int, seed: int) -> Tensor:
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return F.normalize(numbers, dim=dim)


def slow_info_nce(query: Tensor, key: Tensor, queue: Tensor, temperature: float) -> tuple[float, float]:
    total, hits = 0.0, 0
    for q, k in zip(query.tolist(), key.tolist(), strict=True):
        positive = sum(a * b for a, b in zip(q, k, strict=True)) / temperature
        negatives = [sum(a * b for a, b in zip(q, column, strict=True)) / temperature for column in queue.T.tolist()]
        total -= positive - math.log(math.exp(positive) + sum(math.exp(value) for value in negatives))
        hits += positive > max(negatives)
    return total / len(query), hits / len(query)


@pytest.mark.parametrize("temperature", [0.07, 0.1, 1.0])
def test_info_nce_is_its_double_sum(temperature: float) -> None:
    query = unit(6, 8, dim=1, seed=1)
    key = F.normalize(query + 0.9 * unit(6, 8, dim=1, seed=2), dim=1)
    queue = unit(8, 40, dim=0, seed=3)
    loss, hits = info_nce(query, key, queue, temperature)
    expected, expected_hits = slow_info_nce(query, key, queue, temperature)
    assert float(loss) == pytest.approx(expected, rel=1e-9)
    assert float(hits) == pytest.approx(expected_hits)
    assert 0 < expected_hits < 1


def test_info_nce_moves_the_query_from_the_negatives_to_the_key() -> None:
    """d loss / d q_i = (sum over j of p_ij c_j - k_i) / (B T), p the softmax over key and queue."""
    temperature = 0.2
    query = unit(5, 8, dim=1, seed=1).requires_grad_()
    key, queue = unit(5, 8, dim=1, seed=2), unit(8, 30, dim=0, seed=3)
    info_nce(query, key, queue, temperature)[0].backward()
    with torch.no_grad():
        logits = torch.cat([(query * key).sum(1, keepdim=True), query @ queue], dim=1) / temperature
        p = logits.softmax(1)
        expected = (p[:, :1] * key + p[:, 1:] @ queue.T - key) / (5 * temperature)
    torch.testing.assert_close(query.grad, expected)


def test_info_nce_of_identical_vectors_is_the_log_of_their_number() -> None:
    same = torch.ones(3, 4) / 2
    loss, _ = info_nce(same, same, same[0][:, None].expand(4, 15), 0.1)
    assert float(loss) == pytest.approx(math.log(16), rel=1e-6)


def test_info_nce_stays_in_full_precision_under_autocast() -> None:
    query, key = unit(6, 8, dim=1, seed=1).float(), unit(6, 8, dim=1, seed=2).float()
    queue = unit(8, 40, dim=0, seed=3).float()
    plain = info_nce(query, key, queue, 0.07)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = info_nce(query, key, queue, 0.07)[0]
    assert inside.dtype == torch.float32
    assert torch.equal(plain, inside)


def slow_triplet(
    anchors: Tensor, anchor_label: Tensor, candidates: Tensor, candidate_label: Tensor, margin: float
) -> float:
    total = 0.0
    for anchor, own in zip(anchors.tolist(), anchor_label.tolist(), strict=True):
        farthest, nearest = -math.inf, math.inf
        for candidate, other in zip(candidates.tolist(), candidate_label.tolist(), strict=True):
            distance = math.dist(anchor, candidate)
            if own == other:
                farthest = max(farthest, distance)
            else:
                nearest = min(nearest, distance)
        gap = farthest - nearest
        total += math.log(1 + math.exp(gap)) if margin == 0 else max(gap + margin, 0)
    return total / len(anchors)


@pytest.mark.parametrize("margin", [0, 0.3, 1.2])
def test_triplet_is_its_loop(margin: float) -> None:
    generator = torch.Generator().manual_seed(4)
    label = torch.tensor([4, 4, 4, 7, 7, 7, 0, 0, 0])
    features = torch.randn(9, 3, generator=generator) + F.one_hot(label, 8)[:, [0, 4, 7]] * 2.5
    loss = batch_hard_triplet(features, label, features, label, margin=margin)
    expected = slow_triplet(features, label, features, label, margin)
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    gaps = [slow_triplet(features[i : i + 1], label[i : i + 1], features, label, 0.3) for i in range(9)]
    assert 0 in gaps  # some hinges rest
    assert max(gaps) > 0.3


def test_triplet_of_a_share_takes_candidates_of_all() -> None:
    generator = torch.Generator().manual_seed(5)
    label = torch.tensor([1, 2] * 6)
    features = torch.randn(12, 4, generator=generator)
    whole = batch_hard_triplet(features, label, features, label, margin=0.3)
    parts = [batch_hard_triplet(features[rank::3], label[rank::3], features, label, margin=0.3) for rank in range(3)]
    torch.testing.assert_close(torch.stack(parts).mean(), whole)


def test_triplet_pulls_the_farthest_and_pushes_the_nearest() -> None:
    features = torch.tensor([[0.0, 0], [1, 0], [3, 0], [0, 2.5], [0, 9]], requires_grad=True)
    label = torch.tensor([0, 0, 0, 1, 1])
    loss = batch_hard_triplet(features[:1], label[:1], features, label, margin=0.3)
    assert loss.item() == pytest.approx(3 - 2.5 + 0.3)
    loss.backward()
    expected = torch.tensor([[-1.0, 1], [0, 0], [1, 0], [0, -1], [0, 0]])
    torch.testing.assert_close(features.grad, expected)


def test_the_soft_margin_takes_features_as_they_are() -> None:
    """Twice the same image of a person, 30 from the origin: its distance is the root of the clamp, 1e-12."""
    features = torch.tensor([[30.0, 0], [30, 0], [30, 4], [30, 4]])
    label = torch.tensor([0, 0, 1, 1])
    loss = batch_hard_triplet(features, label, features, label, margin=0)
    assert float(loss) == pytest.approx(math.log1p(math.exp(1e-6 - 4)), rel=1e-5)
    scaled = batch_hard_triplet(2 * features, label, 2 * features, label, margin=0)
    assert float(scaled) == pytest.approx(math.log1p(math.exp(1e-6 - 8)), rel=1e-5)


def test_distances_of_equal_rows_are_tiny_with_finite_gradients() -> None:
    rows = torch.randn(6, 16, generator=torch.Generator().manual_seed(6))
    rows = torch.cat([rows, rows]).requires_grad_()
    distance = euclidean(rows, rows)
    assert distance.diagonal().max().item() < 5e-3
    distance.sum().backward()
    assert rows.grad is not None
    assert bool(torch.isfinite(rows.grad).all())
    torch.testing.assert_close(distance.detach(), torch.cdist(rows, rows).detach(), atol=5e-3, rtol=0)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_smoothed_cross_entropy_is_its_formula(smoothing: float) -> None:
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(7)) * 3
    label = torch.tensor([0, 6, 3, 3, 1])
    total = 0.0
    for row, wanted in zip(logits.tolist(), label.tolist(), strict=True):
        log_sum = math.log(sum(math.exp(value) for value in row))
        for place, value in enumerate(row):
            target = (1 - smoothing) * (place == wanted) + smoothing / 7
            total -= target * (value - log_sum)
    assert float(smoothed_cross_entropy(logits, label, smoothing)) == pytest.approx(total / 5, rel=1e-5)
    half = smoothed_cross_entropy(logits.bfloat16(), label, smoothing)
    assert half.dtype == torch.float32
