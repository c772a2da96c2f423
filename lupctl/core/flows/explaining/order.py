"""What an explanation will compute: the network and the images of some features, and what is changed about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, get_args

from lupctl.core.choices import Pooling
from lupctl.core.errors import DataError, UsageError
from lupctl.core.flows.explaining.changes import Change, list_changes
from lupctl.core.flows.fresh_features import find_files
from lupctl.core.resolve.retrieval.lineage import find_exported, runtime_of
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.formats.features.file import FeaturesHead
    from lupctl.core.ranking.reports.model.explanation import NotTried
    from lupctl.core.ranking.retrieval.onnx.open import ForeignPixels
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.evaluate import EvaluationJob


@dataclass(frozen=True)
class ExplainOrder:
    """An explanation with everything it needs found.

    Args:
        rules: how features are scored; its features are those in question.
        own: the dump that made these.
        changes: what is tried.
        not_tried: what cannot be.
        images: of one dump.
    """

    rules: "EvaluationJob"
    own: "DumpJob"
    changes: tuple[Change, ...]
    not_tried: "tuple[NotTried, ...]"
    images: int


def order_explanation(space: Workspace, job: "EvaluationJob") -> ExplainOrder:
    """What an explanation will compute; no image is decoded.

    Args:
        space: where networks and packs are.
        job: the evaluation, with its features, their packs and their lineage.

    Raises:
        DataError: the features were made elsewhere, or their network or images are not here.
        UsageError: there are several files.
    """
    from lupctl.core.data.catalog.weights import PUBLISHED
    from lupctl.core.formats.features.file import read_features_head
    from lupctl.core.formats.features.foreign import is_made_elsewhere, read_any_record
    from lupctl.core.ranking.reports.build.published import read_pixels
    from lupctl.core.stages.dump.job import count_images

    path = job.features[0]
    if len(job.features) > 1:
        raise UsageError(
            f"--explain: {len(job.features)} features files, of one of which the network is run again",
            hint=f"name one: lupctl eval {path} --explain",
        )
    if is_made_elsewhere(read_any_record(path)):
        raise DataError(
            f"--explain: {path} was made elsewhere, and its network and images are not recorded; --explain runs the "
            "network again",
            hint="leave --explain out",
        )
    pack = next((one.path for one in job.tested if one.path is not None), None)
    if pack is None:
        raise DataError(
            f"--explain: the images that {path} was made from are not in {space.packs}; --explain runs the network "
            "on them again",
            hint="put their pack there: lupctl data pack",
        )
    head = read_features_head(path)
    pixels = read_pixels(head.record)
    if pixels is None:
        raise DataError(
            f"--explain: {path} does not say how its images were prepared",
            hint="make it again: lupctl dump RUN DATASET --force",
        )
    own = _own_dump(space, job, head, pack)
    name = None if job.known_as is None else job.known_as.name
    weights = next((one for one in PUBLISHED if one.name == name), None)
    changes, not_tried = list_changes(space, head.record, pixels, own, weights)
    return ExplainOrder(job, own, tuple(changes), tuple(not_tried), count_images(own))


def check_there(space: Workspace, names: list[str], rules: "EvaluationJob") -> None:
    """Refuses to plan what is changed about features that are yet to be made.

    Raises:
        DataError: they are not there.
    """
    _, missing = find_files(space, names, Progress(quiet=True), command=rules.command)
    if missing is not None:
        raise DataError(
            f"--explain --dry-run: {missing.out} is not there yet, or of an older network",
            hint=f"make it first: lupctl dump {quote(str(missing.checkpoint))} {quote(str(missing.data))}"
            f" --out {quote(str(missing.out))} --force",
        )


def _own_dump(space: Workspace, job: "EvaluationJob", head: "FeaturesHead", pack: Path) -> "DumpJob":
    """The dump that made some features."""
    from lupctl.core.formats.features.cameras import read_counts
    from lupctl.core.formats.features.precision import read_precisions
    from lupctl.core.formats.weights.settings import read_settings
    from lupctl.core.ranking.retrieval.onnx.open import ForeignPixels
    from lupctl.core.stages.dump.job import DumpJob

    path, record, foreign = job.features[0], head.record, ForeignPixels()
    counts = read_counts(record)
    if runtime_of(record) is not None or not job.lineage.checkpoints:
        network, foreign = _find_foreign(space, path, record, job.lineage.unknown)
    else:
        network = job.lineage.checkpoints[0]
    return DumpJob(
        checkpoint=network,
        data=pack,
        out=path,
        roles=("query", "gallery"),
        flip=bool(record.get("flip")),
        pooling=next((known for known in get_args(Pooling) if known == record.get("pooling")), None),
        cameras=None if counts is None else counts.rule,
        settings=read_settings(record),
        foreign=foreign,
        kind="float16" if head.type_name == "float16" else "float32",
        precision="bf16" if "bf16" in read_precisions(record) else "float32",
        command=job.command,
    )


def _find_foreign(
    space: Workspace, features: Path, record: Mapping[str, Any], unknown: tuple[str, ...]
) -> "tuple[Path, ForeignPixels]":
    """The ONNX or OpenVINO file that made some features, and how its images were prepared.

    Raises:
        DataError: it is not here.
    """
    from lupctl.core.ranking.retrieval.onnx.recorded import recorded_pixels

    path = find_exported(space, features, record)
    if path is not None:
        return path, recorded_pixels(path, record)
    raise DataError(
        f"--explain: {'; '.join(unknown)} ({features}); --explain runs the network again",
        hint=f"put its file into {features.parent}, or leave --explain out",
    )
