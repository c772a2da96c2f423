"""Evaluation: from features to a report."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from lupctl.core.choices import SHOT_DRAWS, SHOT_SEED, Protocol, SameCamera, TestedPersons
from lupctl.core.errors import DataError, DeviceError
from lupctl.core.formats.features.file import FeaturesHead
from lupctl.core.formats.features.foreign import is_made_elsewhere
from lupctl.core.ranking.reports.build.images import open_images
from lupctl.core.ranking.reports.build.page import build_page
from lupctl.core.ranking.reports.build.published import beside_published
from lupctl.core.ranking.reports.build.single import build_report, has_ranking
from lupctl.core.ranking.reports.build.training import report_training
from lupctl.core.ranking.reports.build.warnings import warned
from lupctl.core.ranking.reports.model.single import (
    Report,
    ReportExpansion,
    ReportProtocol,
    read_report,
    report_path,
    write_report,
)
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.retrieval.answerable import Counts, check_answerable
from lupctl.core.ranking.retrieval.expansion import ExpansionSettings, expand_features
from lupctl.core.ranking.retrieval.inputs import JoinedFeatures, read_joined, read_joined_head
from lupctl.core.ranking.retrieval.lineage import KnownAs, Lineage, ScoredPack
from lupctl.core.ranking.retrieval.pooling import pool_queries, pool_samples
from lupctl.core.ranking.retrieval.protocol import recorded_protocol
from lupctl.core.ranking.retrieval.score import DetailSettings, Scored, check_directions, estimate_bytes, score
from lupctl.core.ranking.retrieval.warnings import say_warnings, say_where_faiss_runs
from lupctl.core.system.disk.atomic import check_absent, check_not_input, check_writable, file_fingerprint, write_text
from lupctl.core.system.progress.lines import Progress


@dataclass(frozen=True)
class EvaluationJob:
    """The settings of one evaluation.

    Args:
        features: files of one network, written by `dump` or made elsewhere; scored as one set.
        out: the report's file or folder; next to the first features file when None.
        rerank: scores again after re-ranking.
        protocol: the rule; None takes that of the data's split, else Market-1501's.
        shots: number of draws of a single gallery shot, for that protocol.
        seed: of these draws.
        persons: number of persons that each draw tests.
        expansion: first replaces features by means over their nearest neighbours.
        wanted_fpr: false positive rate of the decision threshold; None for equal error rates.
        images: the pack or folder with the images, for the page.
        tested: the packs that the features were made from.
        lineage: what the network that made them was trained on.
        known_as: the published network that it is.
        page: also writes report.html.
        attention: shows in the page's images where the network looks.
        network: the one that made the features, a vision transformer; needed for that.
        force: overwrite an existing report.
        command: the command line, for the record.
    """

    features: tuple[Path, ...]
    out: Path | None = None
    rerank: RerankSettings | None = None
    protocol: Protocol | None = None
    shots: int = SHOT_DRAWS
    seed: int = SHOT_SEED
    persons: TestedPersons | int = "all"
    expansion: ExpansionSettings | None = None
    wanted_fpr: float | None = None
    images: Path | None = None
    tested: tuple[ScoredPack, ...] = ()
    lineage: Lineage = field(default_factory=Lineage)
    known_as: KnownAs | None = None
    page: bool = True
    attention: bool = False
    network: Path | None = None
    force: bool = False
    command: tuple[str, ...] = ()

    def settled(self, progress: Progress, head: FeaturesHead | None = None) -> "EvaluationJob":
        """The same job with a protocol: if it names none, that of the data."""
        record = None if head is None else head.record
        return self if self.protocol else replace(self, protocol=recorded_protocol(self.features[0], progress, record))

    @property
    def same_camera(self) -> SameCamera:
        """Whether gallery images of the query's person from the query's camera are kept or dropped."""
        return "keep" if self.protocol == "same-camera-allowed" else "drop"

    @property
    def rules(self) -> ReportProtocol:
        """The rules as the report names them."""
        draws = self.protocol == "single-shot"
        return ReportProtocol(
            name=self.protocol or "market1501",
            same_camera=self.same_camera,
            query="mean of a person's images from one camera" if self.protocol == "multi-query" else "one image",
            shot_draws=self.shots if draws else 0,
            shot_seed=self.seed if draws else 0,
            shot_persons=self.persons if draws else "all",
            expansion=None if self.expansion is None else ReportExpansion(**asdict(self.expansion)),
        )

    @property
    def report(self) -> Path:
        """The file that is written."""
        return report_path(self.features[0], self.out)

    @property
    def html(self) -> Path:
        """The page next to it."""
        return self.report.with_suffix(".html")


@dataclass(frozen=True)
class EvaluationPlan:
    """What an evaluation would do.

    Args:
        dataset: name of the dataset.
        counts: what would be ranked.
        dimension: length of a feature.
        memory_bytes: upper estimate of the features and what scoring needs in addition.
        report: the file that would be written.
    """

    dataset: str
    counts: Counts
    dimension: int
    memory_bytes: int
    report: Path


def plan_evaluation(job: EvaluationJob, progress: Progress, *, head: FeaturesHead | None = None) -> EvaluationPlan:
    """Examine who is in the features, without reading the vectors; `head` is that of features yet to be made.

    Raises:
        DataError: as `evaluate`, except for features that are not finite.
    """
    job, head = job.settled(progress, head), head or read_joined_head(job.features, progress=progress)
    samples = head.samples
    if job.protocol == "multi-query":
        samples = pool_samples(samples)
    counts = check_answerable(samples, same_camera=job.same_camera)
    stored = head.shape[0] * head.shape[1] * (4 if head.type_name == "float32" else 2)
    return EvaluationPlan(
        dataset=str(head.record.get("dataset", "unknown")),
        counts=counts,
        dimension=head.shape[1],
        memory_bytes=stored + estimate_bytes(counts, head.shape[1], chunk=None, rerank=job.rerank),
        report=job.report,
    )


def evaluate(job: EvaluationJob, devices: Sequence[torch.device], progress: Progress) -> Report:
    """Score features and write `report.json` and `report.html`.

    Args:
        job: what to score, how, and where to write the report.
        devices: at least one; the queries are distributed among them.
        progress: for progress lines and bars.

    Raises:
        DataError: no features, damaged or not finite ones, features of two networks, a query set that cannot be
            scored, or a report that cannot be written.
        UsageError: the report exists.
        DeviceError: the device has too little memory.
    """
    job = job.settled(progress)
    check_not_input(job.report, job.features)
    if not job.force:
        check_replaceable(job)
    check_writable(job.report)
    features = _read(job, devices[0], progress)
    scored = _score(job, features, devices, progress)
    report = _report(job, features, scored)
    if job.page:
        images = open_images(job.images, features.record, progress)
        page = build_page(
            report,
            scored,
            features,
            images,
            same_camera=job.same_camera,
            device=devices[0],
            network=job.network if job.attention else None,
            progress=progress,
        )
        write_text(job.html, page)
    write_report(job.report, report)
    return report


def compute_report(job: EvaluationJob, devices: Sequence[torch.device], progress: Progress) -> Report:
    """The report of an evaluation, without writing anything.

    Raises:
        DataError, DeviceError: as `evaluate`.
    """
    job = job.settled(progress)
    features = _read(job, devices[0], progress)
    return _report(job, features, _score(job, features, devices, progress))


def _read(job: EvaluationJob, device: torch.device, progress: Progress) -> JoinedFeatures:
    """The features as the protocol uses them."""
    features = read_joined(job.features, progress=progress)
    if job.protocol == "multi-query":
        features = pool_queries(features)
    if job.expansion is None:
        return features
    check_answerable(features.samples, same_camera=job.same_camera)
    check_directions(features.vectors, features.samples, device=device)
    return expand_features(features, job.expansion, device=device, progress=progress)


def _score(job: EvaluationJob, features: JoinedFeatures, devices: Sequence[torch.device], progress: Progress) -> Scored:
    if is_made_elsewhere(features.record):
        progress.say(f"{job.features[0]}: made elsewhere; its network and images are not recorded")
    say_where_faiss_runs(job.rerank, devices, progress)
    try:
        scored = score(
            features.vectors,
            features.samples,
            device=devices,
            rerank=job.rerank,
            same_camera=job.same_camera,
            details=DetailSettings(
                shots=job.shots if job.protocol == "single-shot" else 0, seed=job.seed, persons=job.persons
            ),
            progress=progress,
        )
    except torch.OutOfMemoryError as error:
        raise DeviceError(
            f"{devices[0]}: out of memory while scoring {job.features[0]}", hint="--device cpu"
        ) from error
    say_warnings(scored.counts, job.rerank, progress)
    return scored


def _report(job: EvaluationJob, features: JoinedFeatures, scored: Scored) -> Report:
    report = build_report(
        scored,
        features.samples,
        features.record,
        protocol=job.rules,
        rerank=job.rerank,
        wanted_fpr=job.wanted_fpr,
        fingerprints=_fingerprints(job.features, features.record),
        command=job.command,
    )
    report = report.model_copy(update={"training": report_training(job.lineage.checkpoints)})
    return beside_published(warned(report, job.tested, job.lineage), job.known_as, job.tested)


def check_replaceable(job: EvaluationJob) -> None:
    """Let a report replace one that it includes: same features, same rule, and no re-ranking lost.

    Users type `lupctl eval` and then `lupctl eval --rerank`, and the second loses nothing of the first.

    Raises:
        UsageError: a different report exists.
    """
    if not job.report.exists():
        return
    try:
        old: Report | None = read_report(job.report)
    except DataError:
        old = None
    if old is None or not (_is_of(old, job) and (old.rerank is None or has_ranking(old, job.rerank))):
        check_absent(job.report, force=False)


def current_report(job: EvaluationJob) -> Report | None:
    """The existing report at the job's path, if the job would give the same scores; else None."""
    job = job.settled(Progress(quiet=True))
    try:
        old = read_report(job.report)
    except DataError:
        return None
    has_all = old.details is not None and (job.rerank is None or has_ranking(old, job.rerank))
    return old if has_all and _is_of(old, job) else None


def _is_of(report: Report, job: EvaluationJob) -> bool:
    scored = {name: value for name, value in report.fingerprints.items() if name.partition(":")[0] == "features"}
    return scored == _fingerprints(job.features, {}) and report.protocol == job.rules


def _fingerprints(paths: Sequence[Path], record: Mapping[str, Any]) -> dict[str, str]:
    parents = record.get("parents") or {}
    own = {f"features:{index}" if index else "features": file_fingerprint(path) for index, path in enumerate(paths)}
    return {**{str(name): str(value) for name, value in parents.items()}, **own}
