"""What an exported network is given for each image's camera."""

from dataclasses import dataclass
from typing import Any

from lupctl.core.choices import CameraUse
from lupctl.core.formats.features.cameras import DEFAULT_USE
from lupctl.core.ranking.retrieval.cameras import CameraTable, takes_none
from lupctl.core.ranking.retrieval.extract import Encoder
from lupctl.core.stages.export.job import ExportJob
from lupctl.core.training.nets.vit.side import MEAN_ROW, NO_ROW


@dataclass(frozen=True)
class GivenCamera:
    """What a network with a table of cameras is given for each image.

    Args:
        rule: that was asked for.
        row: for every image; None if a second input says it.
        table: of the network.
    """

    rule: CameraUse
    row: int | None
    table: CameraTable

    def to_json(self) -> dict[str, Any]:
        """The part of the record that says what the rows are."""
        others = {"mean": MEAN_ROW, "none": NO_ROW} | ({"unknown": self.table.rows} if self.table.has_unknown else {})
        return {
            "rule": self.rule,
            "row": self.row,
            "rows": self.table.rows,
            "names": list(self.table.cameras),
            "other_rows": others,
        }

    def tried_rows(self) -> list[int]:
        """Rows that are tried before a file with an input for them is trusted: all kinds of them."""
        return [0, self.table.rows - 1, MEAN_ROW, NO_ROW, *([self.table.rows] if self.table.has_unknown else [])]


def choose_camera(encoder: Encoder, job: ExportJob) -> GivenCamera | None:
    """What a network is given as cameras; None for one that takes none.

    Raises:
        UsageError: there is a rule, and the network takes no cameras.
    """
    if encoder.cameras is None:
        if job.cameras is not None:
            raise takes_none(job.cameras, str(job.checkpoint))
        return None
    rule = job.cameras or DEFAULT_USE
    row = {"mean": encoder.cameras.unknown_row, "none": NO_ROW, "known": None}[rule]
    return GivenCamera(rule, row, encoder.cameras)
