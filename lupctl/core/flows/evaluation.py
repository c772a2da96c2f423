"""One evaluation: the features it uses, and the scores it has to reach."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import GateError
from lupctl.core.flows.fresh_features import resolve_files
from lupctl.core.resolve.retrieval.features import find_pictures
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.ranking.reports.model.single import Report
    from lupctl.core.stages.evaluate import EvaluationJob


def take_features(
    space: Workspace,
    names: list[str],
    rules: "EvaluationJob",
    device: "torch.device",
    progress: Progress,
    *,
    images: str | None,
) -> "EvaluationJob":
    """The same evaluation with its features, made if a run has none, and the images for its page.

    Args:
        space: where runs and packs are.
        names: a run, or features files of one network; none for the newest fine-tuning run.
        rules: how they are scored; its features and images are replaced.
        device: where missing features are computed.
        progress: lines and bars.
        images: the pack or folder with the images, as typed; None searches for it.

    Raises:
        DataError: a name matches nothing, no finished fine-tuning run, or the images named do not exist.
        UsageError: several names that are not all files, or a run with features of several datasets.
    """
    from dataclasses import replace

    features = resolve_files(space, names, device, progress, command=rules.command)
    pictures: Path | None = find_pictures(space, images, features[0], progress) if rules.page else None
    return replace(rules, features=features, images=pictures)


def check_gates(report: "Report", *, min_map: float | None, min_rank1: float | None) -> None:
    """Checks that scores without re-ranking reach what the user demanded.

    Raises:
        GateError: one or more are lower; all of them are named.
    """
    gates = (
        ("mAP", report.scores.map, "--min-map", min_map),
        ("rank-1", (report.single_shot or report.scores).cmc[1], "--min-rank1", min_rank1),
    )
    missed = [
        f"{name} {score:.4f} is lower than the {least:g} that {option} demands"
        for name, score, option, least in gates
        if least is not None and score < least
    ]
    if missed:
        raise GateError("; ".join(missed), hint="train longer, or demand less")
