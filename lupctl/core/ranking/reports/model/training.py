"""How the network of a report was trained."""

from typing import Literal

from lupctl.core.ranking.reports.model.details import Part


class ReportTrainingCurve(Part):
    """Means over equal parts of a run's metrics, as columns, and its scores along the way.

    `step` is the last one of each part; `loss` and `rate` (of learning) are means over it. `scored_at` are the steps
    after which the run was scored on its own queries or probed, `map` the mAP found there.
    """

    step: list[int]
    loss: list[float]
    rate: list[float]
    scored_at: list[int]
    map: list[float]


class ReportTraining(Part):
    """The run that made the network, as far as its files say.

    `start` says in words what the run started from. `seconds` are those of the steps, without scoring and saving.
    """

    run: str
    stage: Literal["pretrain", "finetune", "convert"]
    network: str
    height: int
    width: int
    datasets: list[str]
    start: str | None
    method: str | None
    images: int | None
    persons: int | None
    batch: int | None
    epochs: int | None
    steps: int | None
    seconds: int | None
    device: str | None
    curve: ReportTrainingCurve | None
