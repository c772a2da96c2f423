"""Scores of a pack's images from the features that two networks gave them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.choices import CameraUse, Precision
from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.features.cameras import CAMERAS_KEY, DEFAULT_USE, read_counts, same_result
from lupctl.core.formats.features.file import Features, read_features
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.record import build_record
from lupctl.core.formats.scores.file import SCORES_FORMAT, Scores, read_scores, write_scores
from lupctl.core.formats.weights.header import CheckpointHeader, describe_network
from lupctl.core.ranking.metrics.movement import movement_scores
from lupctl.core.stages.score.job import Compared, ScoreJob, name_network
from lupctl.core.stages.score.sheet import write_score_sheet
from lupctl.core.system.examples import count_things
from lupctl.core.system.jobs.precision import pick_precision

QUANTILES: Final = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
BINS: Final = 20
# Of scores, or of the largest of them: what is less far apart differs by rounding.
SAME: Final = 1e-6
# Features of so many images at a time: 100 MB of the widest networks.
BLOCK_IMAGES: Final = 1 << 13
HINT: Final = "score again: the same command with --force"


@dataclass(frozen=True)
class ScoreResult:
    """Scores that were written, in numbers.

    Args:
        path: the scores file.
        images: that were scored.
        distance: by which.
        before, after: the two networks, as a user would call them.
        quantiles: share of the images and the score that so many do not exceed, the worst first.
        edges: (B+1) of the histogram's bins, from the worst score to the best; a little beyond where all are the same.
        counts: (B) images in each.
        sheet: the picture, if one was asked for.
    """

    path: Path
    images: int
    distance: str
    before: str
    after: str
    quantiles: dict[float, float]
    edges: list[float]
    counts: list[int]
    sheet: Path | None = None

    @property
    def is_flat(self) -> bool:
        """Whether all scores are the same, to rounding."""
        return _is_flat(self.quantiles[0.0], self.quantiles[1.0])


def is_made(job: ScoreJob, compared: Compared) -> bool:
    """Whether the scores that a job would write are there."""
    if not job.out.exists():
        return False
    try:
        scores = read_scores(job.out)
    except FormatError:
        return False
    parents = scores.record["parents"]
    own = (scores.fingerprint, parents.get("before"), parents.get("after"), scores.record.get("distance"))
    if own != (open_pack(job.pack).fingerprint, *compared.prints, job.distance):
        return False
    sides = [scores.record.get(side) or {} for side in ("before", "after")]
    return all(is_as_asked(side, precision=job.precision, cameras=job.cameras) for side in sides)


def is_as_asked(record: Mapping[str, Any], *, precision: Precision, cameras: CameraUse | None) -> bool:
    """Whether a network's features were computed in a precision and by a rule for cameras.

    Args:
        record: of the features, or what scores say of them.
        precision: asked for; auto takes any.
        cameras: asked for; None for the default. It does not matter to a network that takes none.
    """
    wanted = str(pick_precision(precision, torch.device("cpu"))).removeprefix("torch.")
    counts = read_counts(record)
    has_precision = precision == "auto" or record.get("precision") == wanted
    return has_precision and (counts is None or same_result(counts, cameras or DEFAULT_USE))


def score_features(job: ScoreJob, compared: Compared, before: Path, after: Path) -> ScoreResult:
    """Write the scores of a pack's images, and their sheet.

    Args:
        job: what was asked for.
        compared: its networks.
        before, after: features of all images of the pack, of the two networks.

    Raises:
        DataError: an image has a feature without a direction, or the disk is full.
        FormatError: features are damaged, or not those of this pack.
    """
    pack = open_pack(job.pack)
    first, second = (_read_all(path, pack) for path in (before, after))
    score = np.empty(len(pack), np.float64)
    for begin in range(0, len(pack), BLOCK_IMAGES):
        some = slice(begin, begin + BLOCK_IMAGES)
        score[some] = movement_scores(first.features[some], second.features[some], job.distance)
    lost = np.flatnonzero(~np.isfinite(score))
    if len(lost):
        raise DataError(
            f"{job.pack}: {count_things(len(lost), 'image')} with a feature of length 0 or with NaN, as a network that "
            f"has collapsed gives ({pack.samples.name[lost[0]]})",
            hint="score with networks that learned something: lupctl run show RUN",
        )
    write_scores(job.out, Scores(score, _record(job, compared, pack, (first, second))))
    return show_scores(job, score)


def read_result(job: ScoreJob) -> ScoreResult:
    """The scores that are there, in numbers, with a sheet if one is asked for.

    Raises:
        DataError, FormatError: as `read_scores`.
    """
    return show_scores(job, read_scores(job.out).score)


def show_scores(job: ScoreJob, score: NDArray[np.float64]) -> ScoreResult:
    """Scores (N) in numbers; draws their sheet if one is asked for."""
    if job.sheet is not None:
        write_score_sheet(open_pack(job.pack), score, job.sheet)
    low, high = float(score.min()), float(score.max())
    margin = SAME * max(1.0, abs(high)) if _is_flat(low, high) else 0.0  # no bin can be narrower than rounding
    counts, edges = np.histogram(score, bins=BINS, range=(low - margin, high + margin))
    values = np.quantile(score, QUANTILES).tolist()
    return ScoreResult(
        path=job.out,
        images=len(score),
        distance=job.distance,
        before=name_network(job.before),
        after=name_network(job.after),
        quantiles=dict(zip(QUANTILES, values, strict=True)),
        edges=edges.tolist(),
        counts=counts.tolist(),
        sheet=job.sheet,
    )


def _is_flat(low: float, high: float) -> bool:
    return high - low <= SAME * max(1.0, abs(high))


def _read_all(path: Path, pack: Pack) -> Features:
    """The features of all images of a pack.

    Raises:
        FormatError: they are of others.
    """
    found = read_features(path)
    parent = found.record["parents"].get(f"pack:{pack.dataset}")
    if len(found) != len(pack) or parent != pack.fingerprint:
        raise FormatError(
            f"{path}: features of {len(found):,} images ({parent}); those of all {len(pack):,} of {pack.path} "
            f"({pack.fingerprint}) were expected",
            hint=HINT,
        )
    return found


def _record(job: ScoreJob, compared: Compared, pack: Pack, features: tuple[Features, Features]) -> dict[str, Any]:
    return build_record(
        "scores",
        SCORES_FORMAT,
        command=job.command,
        parents={
            f"pack:{pack.dataset}": pack.fingerprint,
            "before": compared.prints[0],
            "after": compared.prints[1],
        },
        facts={
            "dataset": pack.dataset,
            "distance": job.distance,
            "pooling": compared.pooling,
            "before": _describe(job.before, compared.before, features[0].record),
            "after": _describe(job.after, compared.after, features[1].record),
        },
    )


def _describe(checkpoint: Path, header: CheckpointHeader, made: Mapping[str, Any]) -> dict[str, Any]:
    """A network, and how its features were computed."""
    return {
        "name": name_network(checkpoint),
        "network": describe_network(header),
        "stage": header.stage,
        "parents": header.parents,
        "preprocessing": header.preprocessing.to_json(),
        "device": made.get("device"),
        "precision": made.get("precision"),
        **({CAMERAS_KEY: made[CAMERAS_KEY]} if CAMERAS_KEY in made else {}),
    }
