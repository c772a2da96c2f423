"""The report whose thresholds say which similarity means the same person."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME

if TYPE_CHECKING:
    from lupctl.core.ranking.reports.model.find import FindLimits


@dataclass(frozen=True)
class Limits:
    """The limits of a report.

    Args:
        limits: None if there are none.
        why_not: then the reason, and the command that makes a report.
        flip: whether the report's features were dumped with the mirrored image.
    """

    limits: "FindLimits | None"
    why_not: str
    flip: bool


def find_limits(checkpoint: Path, named: Path | None, progress: Progress) -> Limits:
    """The limits of the report that is named, else of the run's own; reports which, or why there are none.

    Args:
        checkpoint: the network.
        named: `--report`.
        progress: for that line.

    Raises:
        DataError: the named report does not exist, is of another network, or has too few pairs.
        FormatError: it is not a report.
    """
    from lupctl.core.ranking.reports.model.find import pick_limits
    from lupctl.core.ranking.reports.model.single import REPORT_NAME
    from lupctl.core.ranking.reports.model.site import read_either
    from lupctl.core.ranking.retrieval.inputs import SHOWN
    from lupctl.core.system.disk.atomic import file_fingerprint

    command = f"lupctl eval {checkpoint.parent}"
    if checkpoint.name != CHECKPOINT_NAME:
        command = f"lupctl dump {checkpoint} DATASET --out test.features.h5 && lupctl eval test.features.h5"
    path = checkpoint.parent / REPORT_NAME if named is None else named
    if named is None and not path.is_file():
        return _without(f"{path} does not exist, so no similarity is known to mean the same person", command, progress)
    report = read_either(path)
    made_by, own = report.fingerprints.get("checkpoint"), file_fingerprint(checkpoint)
    if made_by != own:
        reason = f"{path} is of another network ({(made_by or 'unknown')[:SHOWN]}; {checkpoint} is {own[:SHOWN]})"
        if named is not None:
            raise DataError(reason, hint=f"{command} makes one of this network")
        return _without(reason, f"{command} --force", progress)
    limits = pick_limits(report, str(path))
    if limits is None:
        reason = f"{path} has too few pairs of single images for thresholds"
        if named is not None:
            raise DataError(reason, hint=f"{command} --force makes one where there are enough persons")
        return _without(reason, f"{command} --force", progress)
    source = f"{limits.dataset}, from tracklets without labels" if limits.from_tracklets else limits.dataset
    progress.say(f"thresholds: {path} ({source}): same from {limits.same:.3f}, other below {limits.other:.3f}")
    return Limits(limits, "", bool(report.provenance.features.get("flip", False)))


def _without(reason: str, command: str, progress: Progress) -> Limits:
    why = f"{reason}; make a report: {command}"
    progress.say(f"no verdicts: {why}")
    return Limits(None, why, False)
