"""The page of a sweep: one table, one curve with its band, and what is said of the best value."""

import re
from typing import Any

import pytest

from lupctl.core.ranking.reports.model.single import ReportInterval, ReportProtocol, ReportScores
from lupctl.core.ranking.reports.model.sweep import Sweep, SweepDifference, SweepPoint, SweepRerank
from lupctl.core.ranking.reports.page.sweep import render_sweep


def scores(share: float) -> ReportScores:
    return ReportScores(map=share, map_official=share, minp=share / 2, cmc={1: share, 5: 1.0, 10: 1.0, 20: 1.0})


def gap(value: float, *, reranked: bool = False) -> SweepDifference:
    ends = (value - 0.01, value + 0.01)
    return SweepDifference(measure="map", reranked=reranked, value=value, ci95=ends, exceeds=ends[0] > 0)


def point(value: float | str, share: float, own: float, *, again: float | None) -> SweepPoint:
    is_own = share == own
    differences = [] if is_own else [gap(share - own), *([] if again is None else [gap(0.005, reranked=True)])]
    return SweepPoint(
        value=value,
        is_own=is_own,
        set={},
        scores=scores(share),
        ci95=ReportInterval(map=(share, share), rank1=(share, share), draws=10, seed=0),
        reranked=None if again is None else scores(again),
        differences=differences,
        features=f"{value}.features.h5",
        fingerprints={"features": f"sha256:{value}"},
    )


def make_sweep(values: list[Any], shares: list[float], *, again: float | None = None, **more: Any) -> Sweep:
    own = shares[1]
    fields: dict[str, Any] = {
        "network": "run/checkpoint.safetensors", "dataset": "toy", "key": "semantic_weight", "own": values[1],
        "base": {}, "best": values[shares.index(max(shares))], "best_reranked": None if again is None else values[0],
        "queries": 9, "queries_valid": 8, "draws": 1000, "seed": 0,
        "protocol": ReportProtocol(name="market1501", same_camera="drop", query="one image"),
        "rerank": None if again is None else SweepRerank(k1=20, k2=6, weight=0.3, base="d2"), "warnings": [],
        "points": [point(value, share, own, again=again) for value, share in zip(values, shares, strict=True)],
    }  # fmt: skip
    return Sweep(**{**fields, **more})


def test_numbers_are_a_curve_with_a_band() -> None:
    page = render_sweep(make_sweep([0.0, 0.2, 1.0], [0.5, 0.6, 0.65]))
    assert "toy: semantic weight, 3 values" in page
    assert re.search(r'scope="row">0\.2 \(own\)', page)
    assert re.search(r'scope="row">1 \(best\)', page)
    assert "It was chosen on the test queries that it is scored on" in page
    assert page.count("<svg ") == 1
    assert page.count('class="text yes"') == 1, "the worse value does not exceed, the own one is not compared"
    assert 'data-key="points.2.scores.map" data-value="0.65"' in page
    assert 'data-key="points.0.difference" data-value="-0.' in page
    assert "re-ranked" not in page


def test_names_are_bars_and_reranked_scores_have_rows() -> None:
    sweep = make_sweep(["256x128", "384x128"], [0.7, 0.6], again=0.8, key="size", base={"semantic_weight": 0.5})
    page = render_sweep(sweep)
    assert "Also set: semantic_weight=0.5." in page
    assert page.count("256x128") >= 4, "in both rows, in the chart, among the features"
    assert "256x128, re-ranked (best)" in page
    assert "384x128, re-ranked (own)" in page
    assert "k1 = 20, k2 = 6, lambda = 0.3, base d2" in page


@pytest.mark.parametrize("values", [[0.0, 0.2], ["bilinear", "dino"]])
def test_the_same_sweep_gives_the_same_page(values: list[Any]) -> None:
    assert render_sweep(make_sweep(values, [0.5, 0.5])) == render_sweep(make_sweep(values, [0.5, 0.5]))
