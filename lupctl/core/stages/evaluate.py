"""Evaluation: from features to a report."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch

from lupctl.core.choices import SameCamera
from lupctl.core.errors import DataError, DeviceError
from lupctl.core.files import check_absent, file_fingerprint
from lupctl.core.formats.features import Features, read_features, read_features_head
from lupctl.core.formats.report import (
    REPORT_NAME,
    Report,
    ReportCounts,
    ReportInterval,
    ReportProtocol,
    ReportProvenance,
    ReportRerank,
    ReportScores,
    read_report,
    write_report,
)
from lupctl.core.metrics.bootstrap import DRAWS, SEED
from lupctl.core.metrics.rerank import RerankSettings
from lupctl.core.metrics.scores import Scores
from lupctl.core.progress import Progress
from lupctl.core.retrieval.answerable import Counts, check_answerable
from lupctl.core.retrieval.score import Scored, estimate_bytes, score


@dataclass(frozen=True)
class EvaluationPlan:
    """What an evaluation would do.

    Args:
        dataset: name of the dataset.
        counts: what would be ranked.
        dimension: length of a feature.
        memory_bytes: features and what scoring takes beyond them, an upper estimate.
        report: the file that would be written.
    """

    dataset: str
    counts: Counts
    dimension: int
    memory_bytes: int
    report: Path


def report_path(features_path: Path, out: Path | None) -> Path:
    """Where the report goes: `out`, a file or a folder that exists; else beside the features."""
    if out is None:
        return features_path.parent / REPORT_NAME
    return out / REPORT_NAME if out.is_dir() else out


def plan_evaluation(
    features_path: Path, *, out: Path | None, rerank: RerankSettings | None, same_camera: SameCamera
) -> EvaluationPlan:
    """Looks at who is in the features, without reading them.

    Raises:
        DataError: as `evaluate`, but for features that are not finite.
    """
    head = read_features_head(features_path)
    counts = check_answerable(head.samples, same_camera=same_camera)
    stored = head.shape[0] * head.shape[1] * (4 if head.type_name == "float32" else 2)
    return EvaluationPlan(
        dataset=str(head.record.get("dataset", "unknown")),
        counts=counts,
        dimension=head.shape[1],
        memory_bytes=stored + estimate_bytes(counts, head.shape[1], chunk=None, rerank=rerank),
        report=report_path(features_path, out),
    )


def evaluate(
    features_path: Path,
    *,
    out: Path | None = None,
    rerank: RerankSettings | None = None,
    same_camera: SameCamera = "drop",
    device: torch.device,
    command: Sequence[str] = (),
    force: bool = False,
    progress: Progress,
) -> Report:
    """Scores a features file and writes `report.json`.

    Args:
        features_path: a file that `dump` wrote.
        out: the report's file or folder; beside the features when None.
        rerank: scores once more after re-ranking.
        same_camera: whether the query's person seen by the query's camera is ignored or right.
        device: where distances are computed.
        command: the command line, for the record.
        force: overwrite a report that is there.
        progress: lines and bars.

    Raises:
        DataError: no features, damaged or not finite ones, or a query set that cannot be scored.
        UsageError: the report exists.
        DeviceError: the device has too little memory.
    """
    path = report_path(features_path, out)
    if not force:
        check_replaceable(path, features_path, rerank=rerank, same_camera=same_camera)
    features = read_features(features_path)
    try:
        scored = score(
            features.features,
            features.samples,
            device=device,
            rerank=rerank,
            same_camera=same_camera,
            progress=progress,
        )
    except torch.OutOfMemoryError as error:
        raise DeviceError(f"{device}: out of memory while scoring {features_path}", hint="--device cpu") from error
    _say_invalid(scored.counts, progress)
    report = Report(
        dataset=str(features.record.get("dataset", "unknown")),
        counts=_report_counts(scored.counts),
        scores=_report_scores(scored.scores),
        rerank=_report_rerank(rerank, scored.rerank_scores),
        ci95=_report_interval(scored),
        protocol=ReportProtocol(same_camera=same_camera),
        fingerprints=_fingerprints(features_path, features),
        provenance=ReportProvenance(version=version("lupctl"), command=list(command), features=dict(features.record)),
    )
    write_report(path, report)
    return report


def check_replaceable(
    path: Path, features_path: Path, *, rerank: RerankSettings | None, same_camera: SameCamera
) -> None:
    """Lets a report take the place of one that it contains: same features, same rule, no re-ranking lost.

    `lupctl eval` and then `lupctl eval --rerank` is what people type, and nothing of the first is lost by the second.

    Raises:
        UsageError: another report lies there.
    """
    if not path.exists():
        return
    try:
        old = read_report(path)
    except DataError:
        check_absent(path, force=False)
        return
    same_ranking = old.rerank is None or (
        rerank is not None
        and (old.rerank.k1, old.rerank.k2, old.rerank.weight, old.rerank.base)
        == (rerank.k1, rerank.k2, rerank.weight, rerank.base)
    )
    same_input = old.fingerprints.get("features") == file_fingerprint(features_path)
    if not (same_input and same_ranking and old.protocol.same_camera == same_camera):
        check_absent(path, force=False)


def _say_invalid(counts: Counts, progress: Progress) -> None:
    invalid = counts.queries - counts.valid
    if invalid:
        progress.say(
            f"{invalid} of {counts.queries} queries have no right answer ({counts.absent} show a person absent from "
            f"the gallery): mAP, mINP and CMC are over the other {counts.valid}, mAP official counts them as 0"
        )


def _fingerprints(path: Path, features: Features) -> dict[str, str]:
    parents = features.record.get("parents") or {}
    return {**{str(name): str(value) for name, value in parents.items()}, "features": file_fingerprint(path)}


def _report_counts(counts: Counts) -> ReportCounts:
    return ReportCounts(
        queries=counts.queries,
        queries_valid=counts.valid,
        queries_absent=counts.absent,
        query_persons=counts.persons,
        gallery=counts.gallery,
        junk=counts.junk,
        distractors=counts.distractors,
    )


def _report_scores(scores: Scores) -> ReportScores:
    return ReportScores(**asdict(scores))


def _report_rerank(settings: RerankSettings | None, scores: Scores | None) -> ReportRerank | None:
    if settings is None or scores is None:
        return None
    return ReportRerank(
        k1=settings.k1, k2=settings.k2, weight=settings.weight, base=settings.base, scores=_report_scores(scores)
    )


def _report_interval(scored: Scored) -> ReportInterval:
    return ReportInterval(
        map=(scored.map_interval.lower, scored.map_interval.upper),
        rank1=(scored.rank1_interval.lower, scored.rank1_interval.upper),
        draws=DRAWS,
        seed=SEED,
    )
