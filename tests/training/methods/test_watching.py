"""What a step shows of a network's health, against slow counts from the definitions; and when that is a collapse."""

import math
from collections.abc import Iterable, Mapping

import numpy as np
import pytest
import torch

from lupctl.core.training.methods.collapse import Collapse, CollapseKind, CollapseRule
from lupctl.core.training.methods.watching import (
    MOST_ROWS,
    effective_rank,
    feature_spread,
    read_samples,
    share_used,
    watch_features,
    watch_outputs,
)


def slow_entropy(shares: Iterable[float]) -> float:
    return -sum(share * math.log(share) for share in shares if share > 0)


@pytest.mark.parametrize(("n", "dim"), [(5, 3), (3, 5), (40, 8), (1, 4)])
def test_rank_and_spread_are_those_of_the_definitions(n: int, dim: int) -> None:
    features = np.random.default_rng(n).normal(size=(n, dim)) + 0.5
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    values = np.linalg.svd(unit, compute_uv=False)
    found = torch.from_numpy(features).float()
    assert effective_rank(found) == pytest.approx(math.exp(slow_entropy(values / values.sum())), rel=1e-5)
    assert feature_spread(found) == pytest.approx(math.sqrt(unit.var(axis=0).mean() * dim), abs=1e-6)


def test_the_ends_of_the_scales() -> None:
    point = torch.ones(20, 6) * torch.arange(1, 21)[:, None]  # lengths do not count
    assert effective_rank(point) == pytest.approx(1, abs=1e-6)
    assert feature_spread(point) == pytest.approx(0, abs=1e-6)
    everywhere = torch.cat([torch.eye(6), -torch.eye(6)])
    assert effective_rank(everywhere) == pytest.approx(6, rel=1e-9)
    assert feature_spread(everywhere) == pytest.approx(1, rel=1e-9)
    # A line through the origin is one direction, but not one point.
    line = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert effective_rank(line) == pytest.approx(1, abs=1e-6)
    assert feature_spread(line) == 1
    assert math.isnan(effective_rank(torch.full((300, 200), float("nan"))))


def test_outputs_are_described_as_a_slow_count_does() -> None:
    random = torch.Generator().manual_seed(5)
    targets = (3 * torch.randn(7, 11, generator=random)).softmax(dim=1)
    student = torch.randn(7, 11, generator=random).log_softmax(dim=1)
    found = watch_outputs(targets, student, torch.randn(4, 3, generator=random))
    one, other = targets.double().numpy(), student.double().numpy()
    teacher = np.mean([slow_entropy(row) for row in one])
    assert float(found["teacher_entropy"]) == pytest.approx(teacher, rel=1e-5)
    assert float(found["student_entropy"]) == pytest.approx(
        np.mean([slow_entropy(row) for row in np.exp(other)]), rel=1e-5
    )
    kl = np.mean(
        [sum(p * (math.log(p) - q) for p, q in zip(*rows, strict=True)) for rows in zip(one, other, strict=True)]
    )
    assert float(found["kl"]) == pytest.approx(kl, rel=1e-4)
    assert float(found["information"]) == pytest.approx(slow_entropy(one.mean(axis=0)) - teacher, rel=1e-4)
    read = read_samples(found, outputs=11)
    assert set(read) == {"rank", "spread", "used"}
    assert read["used"] == len(set(one.argmax(axis=1))) / 7


def test_targets_with_certain_zeros_have_no_nan() -> None:
    certain = torch.eye(4)
    found = watch_outputs(certain, torch.full((4, 4), 0.25).log(), torch.eye(4))
    assert float(found["teacher_entropy"]) == 0
    assert float(found["kl"]) == pytest.approx(math.log(4))
    assert float(found["information"]) == pytest.approx(math.log(4))
    assert share_used(found["watched_choices"], 4) == 1


def test_parts_are_put_in_the_order_of_the_batch() -> None:
    """Part p has every second image beginning at p; of a large batch only the first images are looked at."""
    whole = torch.randn(2 * MOST_ROWS, 3)
    (kept,) = watch_features([whole[0::2], whole[1::2]]).values()
    assert torch.equal(kept, whole[:MOST_ROWS])
    assert not kept.requires_grad


SOUND = {"rank": 20.0, "spread": 0.6, "teacher_entropy": 2.9, "student_entropy": 3.5, "kl": 0.7, "information": 0.9}
LOG_K = math.log(512)
POINT = SOUND | {"teacher_entropy": 0.1, "student_entropy": 0.2, "kl": 0.01, "information": 0.05}
SAME = SOUND | {"teacher_entropy": 2.0, "information": 0.001}
UNIFORM = SOUND | {"teacher_entropy": LOG_K - 0.01, "student_entropy": LOG_K, "kl": 0.001, "information": 0.004}
FEATURES = SOUND | {"rank": 1.05, "spread": 0.004}


def follow(rows: Iterable[Mapping[str, float]], *, epoch: int = 40, start: int = 0) -> list[Collapse]:
    """What is named in rows ten steps apart."""
    rule = CollapseRule(outputs=512, epoch=epoch, start=start)
    found = [rule.follow({"step": 10 * (number + 1), **row}) for number, row in enumerate(rows)]
    return [collapse for collapse in found if collapse is not None]


@pytest.mark.parametrize(
    ("row", "kind"), [(POINT, "one point"), (SAME, "one point"), (FEATURES, "one point"), (UNIFORM, "uniform")]
)
def test_a_collapse_is_named_once_and_within_an_epoch(row: Mapping[str, float], kind: CollapseKind) -> None:
    assert follow([SOUND] * 3 + [row] * 20) == [Collapse(kind, 40, 80)]
    # Of a long epoch, 200 steps are enough; of a short one, 30 are needed.
    assert follow([row] * 60, epoch=8000) == [Collapse(kind, 10, 210)]
    assert follow([row] * 60, epoch=2) == [Collapse(kind, 10, 40)]


def test_what_recovers_is_none() -> None:
    assert follow([POINT, POINT, POINT, SOUND] * 10) == []
    assert follow([POINT] * 6 + [SOUND] + [POINT] * 6) == [
        Collapse("one point", 10, 50),
        Collapse("one point", 80, 120),
    ]
    assert follow([UNIFORM, POINT] * 20) == []


def test_rows_of_a_fresh_network_do_not_count() -> None:
    assert follow([UNIFORM] * 12 + [SOUND] * 20, start=100) == []
    assert follow([UNIFORM] * 20, start=100) == [Collapse("uniform", 100, 140)]


def test_rows_without_a_watched_step_change_nothing() -> None:
    bare = {"loss": 1.0}
    assert follow([POINT, bare, POINT, bare, POINT, bare, POINT]) == [Collapse("one point", 10, 50)]


def test_a_method_without_targets_is_judged_by_its_features() -> None:
    rule = CollapseRule(outputs=None, epoch=30, start=0)
    rows = [{"step": 10 * number, "rank": 1.0, "spread": 0.001} for number in range(1, 6)]
    assert [rule.follow(row) is not None for row in rows] == [False, False, False, True, False]
    assert rule.is_suspicious
    rule.follow({"step": 60, "rank": 8.0, "spread": 0.4})
    assert not rule.is_suspicious


def test_the_same_rows_after_an_interruption_give_the_same_answer() -> None:
    rows = [{"step": 10 * number, **POINT} for number in range(1, 8)]
    for cut in range(len(rows)):
        whole, again = (CollapseRule(outputs=512, epoch=40, start=0) for _ in range(2))
        expected = [whole.follow(row) for row in rows]
        for row in rows[:cut]:
            again.follow(row)
        assert [again.follow(row) for row in rows[cut:]] == expected[cut:]
