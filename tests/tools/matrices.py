"""Matrices of scores that nobody computed."""

from collections.abc import Mapping, Sequence

from lupctl.core.ranking.reports.model.matrix import MatrixCell, MatrixRun, MatrixSet, ScoreMatrix
from lupctl.core.ranking.reports.model.single import ReportCounts, ReportInterval, ReportProtocol, ReportScores

COUNTS = ReportCounts(
    queries=4, queries_valid=4, queries_absent=0, query_persons=2, gallery=8, junk=0, distractors=0
)  # fmt: skip


def draw_matrix(maps: Mapping[str, Sequence[float]], datasets: Sequence[str]) -> ScoreMatrix:
    """Runs by name with the mAP of each on every test set."""

    def cell(dataset: str, found: float) -> MatrixCell:
        scores = ReportScores(map=found, map_official=found, minp=found, cmc={1: found, 5: 1.0})
        interval = ReportInterval(map=(0.0, 1.0), rank1=(0.0, 1.0), draws=10, seed=0)
        return MatrixCell(
            dataset=dataset, trained_on=False, scores=scores, ci95=interval, rerank=None, warnings=[], fingerprints={}
        )

    return ScoreMatrix(
        protocol=ReportProtocol(name="market1501", same_camera="drop"),
        datasets=[MatrixSet(name=name, counts=COUNTS) for name in datasets],
        runs=[
            MatrixRun(name=name, checkpoint=f"{name}.safetensors", cells=list(map(cell, datasets, found)))
            for name, found in maps.items()
        ],
    )
