"""Details of a report beyond its main scores: curve, pairs, cameras, persons, queries."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class Part(BaseModel):
    """A part of a report: no field is missing or unknown, and no number is NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)


class ReportPoint(Part):
    """A threshold on the cosine distance 1 - cos, and its rates on some pairs."""

    threshold: float
    fpr: float
    tpr: float


class ReportThreshold(Part):
    """A threshold chosen on the queries of one half of the persons and measured on those of the other half.

    The gallery is the same for both; `persons` gives the sizes of the halves, which are drawn with `seed`.
    """

    rule: Literal["equal error", "false positive rate"]
    wanted_fpr: float | None
    seed: int
    persons: tuple[int, int]
    chosen: ReportPoint
    held_out: ReportPoint
    held_out_same: int
    held_out_different: int


class ReportPairs(Part):
    """Distances of the pairs of a query and a gallery image that count under the protocol.

    `same_counts` and `different_counts` are histograms over bins of width `bin`, starting at 0; `at_fpr` gives the
    largest threshold that does not exceed each false positive rate, null if there are too few pairs to tell.
    """

    same: int
    different: int
    bin: float
    same_counts: list[int]
    different_counts: list[int]
    at_fpr: dict[str, ReportPoint | None]
    roc_fpr: list[float]
    roc_tpr: list[float]
    threshold: ReportThreshold | None


class ReportCameras(Part):
    """Scores by camera of the query (rows) and of the gallery (columns); null where no query has a right answer."""

    query: list[int]
    gallery: list[int]
    queries: list[list[int]]
    map: list[list[float | None]]
    rank1: list[list[float | None]]


class ReportPersons(Part):
    """Scores of each query person over its valid queries, as columns, hardest first."""

    person: list[int]
    queries: list[int]
    map: list[float]
    rank1: list[float]
    minp: list[float]


class ReportQueries(Part):
    """All queries in the order of the features, as columns; null where a query has no right answer.

    `first_rank` is the rank of the first right answer, `right` the number of right answers, `ap_reranked` the AP after
    re-ranking.
    """

    name: list[str]
    person: list[int]
    camera: list[int]
    right: list[int]
    ap: list[float | None]
    ap_official: list[float | None]
    inp: list[float | None]
    first_rank: list[int | None]
    ap_reranked: list[float | None] | None
    first_rank_reranked: list[int | None] | None


class ReportCurve(Part):
    """CMC at ranks 1, 2, … up to 50 or the size of the gallery."""

    plain: list[float]
    reranked: list[float] | None


class ReportDetails(Part):
    """Everything but the main scores."""

    curve: ReportCurve
    pairs: ReportPairs
    cameras: ReportCameras
    persons: ReportPersons
    queries: ReportQueries
