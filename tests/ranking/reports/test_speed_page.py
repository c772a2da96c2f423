"""mAP against milliseconds: which points are drawn, and that they are where their numbers are."""

import re
from pathlib import Path

import pytest

from lupctl.core.ranking.reports.model.matrix import MatrixRun, ScoreMatrix
from lupctl.core.ranking.reports.model.speed import Bench, BenchMachine, BenchNetwork, BenchRun
from lupctl.core.ranking.reports.page.matrix import render_matrix
from lupctl.core.ranking.reports.page.speed import SpeedPoint, draw_speed, find_points, pick_batch
from tests.tools.matrices import draw_matrix


def timed(name: str, backend: str, batch: int, milliseconds: float) -> BenchRun:
    return BenchRun(
        name=name, backend=backend, batch=batch, rounds=5, median_ms=milliseconds, p95_ms=2 * milliseconds,
        images_per_s=1e3 * batch / milliseconds, memory_bytes=None,
    )  # fmt: skip


def network(name: str, fingerprint: str) -> BenchNetwork:
    return BenchNetwork(
        name=name, path=name, fingerprint=fingerprint, description="", height=2, width=1, parameters=1, flops=None
    )


def test_a_network_is_found_by_its_fingerprint() -> None:
    runs = [timed("a.onnx", "onnxruntime", 1, 5.0), timed("a", "torch", 1, 9.0), timed("a", "onnxruntime", 1, 4.0)]
    runs += [timed("b", "torch", 1, 1.0)]
    bench = Bench(
        machine=BenchMachine(device="cpu", cores=2, threads=1, versions={}),
        networks=[network("a", "sha256:1"), network("b", "sha256:2"), network("a.onnx", "sha256:1")],
        runs=runs,
        notes=[],
    )
    assert bench.runs_of("sha256:1", Path("a")) == [runs[1], runs[2]], "not of the file that was exported from it"
    assert bench.runs_of("sha256:1", Path("a.onnx")) == [runs[0]]
    assert bench.runs_of("sha256:1", Path("moved/a.onnx")) == [runs[0]]
    assert bench.runs_of("sha256:1", Path("a.xml")) == [], "other files say nothing of it"
    assert bench.runs_of("sha256:1", Path("a.safetensors")) == [runs[1], runs[2]], "elsewhere"
    assert bench.runs_of("sha256:2", Path("b")) == [runs[3]]
    assert bench.runs_of("sha256:3", Path("c")) == []


@pytest.fixture
def matrix() -> ScoreMatrix:
    """Two runs on two test sets with mAP .8, .4 and .6, .3."""
    return draw_matrix({"one": (0.8, 0.4), "two": (0.6, 0.3)}, ("market1501", "msmt17"))


def with_speeds(matrix: ScoreMatrix, speeds: dict[str, list[BenchRun]]) -> ScoreMatrix:
    runs: list[MatrixRun] = [run.model_copy(update={"speeds": speeds.get(run.name, [])}) for run in matrix.runs]
    return matrix.model_copy(update={"runs": runs})


def test_the_fastest_backend_is_drawn(matrix: ScoreMatrix) -> None:
    assert pick_batch(matrix) is None
    one = [timed("one", "torch", 1, 9.0), timed("one", "onnxruntime", 1, 4.0), timed("one", "torch", 32, 90.0)]
    both = with_speeds(matrix, {"one": one, "two": [timed("two", "torch", 32, 50.0)]})
    assert pick_batch(with_speeds(matrix, {"one": one})) == 1
    assert pick_batch(both) == 32  # where both can be compared
    assert find_points(both, 1) == [
        SpeedPoint("one", "market1501", 4.0, 0.8),
        SpeedPoint("one", "msmt17", 4.0, 0.4),
    ]
    assert [(point.name, point.milliseconds) for point in find_points(both, 32)][::2] == [
        ("one", 90.0), ("two", 50.0)
    ]  # fmt: skip


def test_faster_is_further_left_and_better_is_higher() -> None:
    points = [SpeedPoint("quick <b> $x$", "market1501", 3.0, 0.5), SpeedPoint("slow", "market1501", 300.0, 0.9)]
    chart = draw_speed(points, 1)
    assert "quick &lt;b&gt; $x$" in chart  # neither markup nor mathematics
    assert "milliseconds of a pass over 1 image<" in chart
    spots = re.findall(r'<use xlink:href="#m\w+" x="([\d.]+)" y="([\d.]+)" style="fill: var\(--first\)', chart)
    quick, slow, _ = ((float(x), float(y)) for x, y in spots)  # the third one is in the legend
    assert quick[0] < slow[0]
    assert quick[1] > slow[1]  # SVG counts from the top
    # Ticks are plain numbers.
    assert all(f">{tick}<" in chart for tick in (2, 5, 10, 100, 500))


def test_the_page_has_the_chart_where_something_was_timed(matrix: ScoreMatrix) -> None:
    assert "milliseconds" not in render_matrix(matrix)
    page = render_matrix(with_speeds(matrix, {"one": [timed("one", "torch", 1, 1234.5)]}))
    assert 'aria-label="mAP against milliseconds"' in page
    assert "<td>1,234.5</td><td>2,469.0</td><td>0.8</td><td>-</td>" in page
