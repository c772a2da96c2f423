"""The training section of a report: what its curve keeps of a run's metrics."""

from typing import Any

import numpy as np

from lupctl.core.ranking.reports.build.training import MOST_POINTS, training_curve


def rows(count: int) -> list[dict[str, Any]]:
    return [{"step": 10 * (at + 1), "loss": float(at), "lr": 0.1 * at, "images_per_s": 50.0} for at in range(count)]


def test_few_rows_are_kept_as_they_are() -> None:
    curve = training_curve(rows(3))
    assert curve is not None
    assert (curve.step, curve.loss, curve.scored_at, curve.map) == ([10, 20, 30], [0, 1, 2], [], [])
    assert np.allclose(curve.rate, [0, 0.1, 0.2])


def test_many_rows_become_means_of_equal_parts() -> None:
    many = rows(5 * MOST_POINTS)
    curve = training_curve(many)
    assert curve is not None
    assert len(curve.step) == len(curve.loss) == len(curve.rate) == MOST_POINTS
    assert curve.loss == [5 * part + 2 for part in range(MOST_POINTS)]
    assert curve.step[-1] == many[-1]["step"], "a curve ends where the run does"


def test_scores_are_those_of_the_first_dataset_or_of_a_probe() -> None:
    scored = [*rows(2), {"step": 20, "dataset": "a", "map": 0.25}, {"step": 20, "dataset": "b", "map": 0.75}]
    curve = training_curve(scored)
    assert curve is not None
    assert (curve.scored_at, curve.map) == ([20], [0.25])
    probed = [{"step": 0, "probe_map": 0.125}, *rows(1), {"step": 10, "probe_map": 0.5}]
    curve = training_curve(probed)
    assert curve is not None
    assert (curve.step, curve.scored_at, curve.map) == ([10], [0, 10], [0.125, 0.5])


def test_no_losses_give_no_curve() -> None:
    assert training_curve([]) is None
    assert training_curve([{"step": 1, "map": 0.5}, {"step": 2, "loss": float("nan"), "lr": 1.0}]) is None
