"""The report whose thresholds say which similarity means the same person."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        reason, command: then why, and what makes a report.
        record: of the features that the report was made from.
    """

    limits: "FindLimits | None"
    reason: str = ""
    command: str = ""
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def why_not(self) -> str:
        """Why there are none, and the command that makes a report."""
        return f"{self.reason}; make a report: {self.command}" if self.reason else ""

    @property
    def flip(self) -> bool:
        """Whether the report's features were dumped with the mirrored image."""
        return bool(self.record.get("flip", False))


def find_limits(checkpoint: Path, named: Path | None, progress: Progress, *, own: str | None = None) -> Limits:
    """The limits of the report that is named, else of the run's own; reports which, or why there are none.

    Args:
        checkpoint: the network.
        named: `--report`.
        progress: for that line.
        own: fingerprint of the checkpoint; None takes that of the file.

    Raises:
        DataError: the named report does not exist, is of another network, or has too few pairs.
        FormatError: it is not a report.
    """
    from lupctl.core.ranking.reports.model.find import pick_limits
    from lupctl.core.ranking.reports.model.single import REPORT_NAME
    from lupctl.core.ranking.reports.model.site import read_either
    from lupctl.core.ranking.retrieval.inputs import SHOWN
    from lupctl.core.ranking.retrieval.onnx.recorded import recorded_fingerprint

    command = f"lupctl eval {checkpoint.parent}"
    if checkpoint.name != CHECKPOINT_NAME:
        command = f"lupctl dump {checkpoint} DATASET --out test.features.h5 && lupctl eval test.features.h5"
    path = checkpoint.parent / REPORT_NAME if named is None else named
    if named is None and not path.is_file():
        return _without(f"{path} does not exist, so no similarity is known to mean the same person", command, progress)
    report = read_either(path)
    made_by, own = report.fingerprints.get("checkpoint"), own or recorded_fingerprint(checkpoint)
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
    return Limits(limits, record=report.provenance.features)


def _without(reason: str, command: str, progress: Progress) -> Limits:
    limits = Limits(None, reason, command)
    progress.say(f"no verdicts: {limits.why_not}")
    return limits
