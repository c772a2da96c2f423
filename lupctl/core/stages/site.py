"""Thresholds for a site without labels: from features of its tracklets to a report."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.features.file import Features, FeaturesHead, read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.reports.build.site import build_site
from lupctl.core.ranking.reports.model.single import report_path
from lupctl.core.ranking.reports.model.site import SiteReport, read_either, write_site
from lupctl.core.ranking.retrieval.score import check_directions
from lupctl.core.ranking.site.across import match_across
from lupctl.core.ranking.site.distances import measure_distances
from lupctl.core.ranking.site.gather import gather_site
from lupctl.core.ranking.site.pairs import SitePairs
from lupctl.core.system.disk.atomic import check_absent, check_writable, file_fingerprint
from lupctl.core.system.examples import count_things


@dataclass(frozen=True)
class SiteJob:
    """The settings of one report on a site.

    Args:
        features: of one network, of images without queries.
        pack: that they were made from.
        out: the report's file or folder; next to the features when None.
        wanted_fpr: false match rate of the threshold; None for equal error rates.
        trained_on: whether the network was trained on images of the pack.
        force: overwrite another report.
        command: the command line, for the record.
    """

    features: Path
    pack: Path
    out: Path | None = None
    wanted_fpr: float | None = None
    trained_on: bool = False
    force: bool = False
    command: tuple[str, ...] = ()

    @property
    def report(self) -> Path:
        """The file that is written."""
        return report_path(self.features, self.out)


@dataclass(frozen=True)
class SitePlan:
    """What a report on a site would be made from.

    Args:
        dataset: name of the dataset.
        images: that have features, or will have.
        pairs: of its tracklets.
        report: the file that would be written.
    """

    dataset: str
    images: int
    pairs: SitePairs
    report: Path


def plan_site(pack: Path, head: FeaturesHead, *, report: Path) -> SitePlan:
    """Examines which tracklets there are, without reading vectors.

    Args:
        pack: with the images.
        head: of the features of some of them, which may be yet to be made.
        report: the file that would be written.

    Raises:
        DataError, FormatError: as `find_pairs`.
    """
    dataset = str(head.record.get("dataset", "unknown"))
    return SitePlan(dataset, len(head.samples), find_pairs(pack, head.samples), report)


def find_pairs(pack: Path, samples: Samples) -> SitePairs:
    """The pairs of a site's tracklets.

    Args:
        pack: with the images.
        samples: those to use.

    Raises:
        DataError: there are none of two persons; says why.
        FormatError: the pack is damaged, or lacks an image.
    """
    opened = open_pack(pack)
    site = gather_site([opened], _locate(samples, opened.samples, pack), samples.camera)
    if site.pairs is None:
        images = count_things(len(samples), "image")
        raise DataError(
            f"there is no query among {images}, and no pairs without labels either: {site.why_not}",
            hint=site.hint or "use a dataset with queries: lupctl dump RUN DATASET",
        )
    return site.pairs


def evaluate_site(job: SiteJob, device: torch.device) -> SiteReport:
    """Measures the pairs of a site and writes the report.

    Raises:
        DataError: as `find_pairs`; features that are not finite; or the report cannot be written.
        UsageError: there is a report of something else.
    """
    _check_replaceable(job)
    check_writable(job.report)
    features = read_features(job.features)
    pairs = find_pairs(job.pack, features.samples)
    check_directions(features.features, features.samples, device=device)
    vectors = np.asarray(features.features)
    report = build_site(
        measure_distances(vectors, pairs, device=device),
        match_across(vectors, pairs, device=device),
        features.record,
        images=len(features),
        wanted_fpr=job.wanted_fpr,
        trained_on=job.trained_on,
        fingerprints=_fingerprints(job, features),
        command=job.command,
    )
    write_site(job.report, report)
    return report


def _locate(samples: Samples, packed: Samples, pack: Path) -> NDArray[np.int64]:
    """The row of each image in the pack, by its name."""
    if samples.name == packed.name:
        return np.arange(len(packed))
    row_of = {name: row for row, name in enumerate(packed.name)}
    missing = [name for name in samples.name if name not in row_of]
    if missing:
        raise FormatError(
            f"{pack}: lacks {count_things(len(missing), 'image')} of the features, {missing[0]} for one",
            hint="dump the features again: lupctl dump RUN --force",
        )
    return np.array([row_of[name] for name in samples.name], np.int64)


def _check_replaceable(job: SiteJob) -> None:
    """Lets a report on a site replace one from the same features, as with another threshold."""
    if job.force or not job.report.exists():
        return
    try:
        old = read_either(job.report)
    except DataError:
        check_absent(job.report, force=False)
        return
    if not isinstance(old, SiteReport) or old.fingerprints.get("features") != file_fingerprint(job.features):
        check_absent(job.report, force=False)


def _fingerprints(job: SiteJob, features: Features) -> dict[str, str]:
    parents = features.record.get("parents") or {}
    own = {"features": file_fingerprint(job.features)}
    return {**{str(name): str(value) for name, value in parents.items()}, **own}
