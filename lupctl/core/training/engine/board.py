"""Curves for TensorBoard, which is an optional extra."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lupctl.core.errors import UsageError
from lupctl.core.training.engine.runs import BOARD_NAME


def check_tensorboard() -> None:
    """Checks that TensorBoard is installed.

    Raises:
        UsageError: it is not.
    """
    if find_spec("tensorboard") is None:
        raise UsageError("--tensorboard: the package tensorboard is not installed", hint="pip install tensorboard")


class Board:
    """Writes the rows of `metrics.jsonl` as curves, in a separate folder next to it.

    Args:
        run: the run's folder.
        step: steps done before; points that an interrupted run wrote after them are hidden.
    """

    def __init__(self, run: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = step + 1 if step else None
        self._writer = SummaryWriter(str(run / BOARD_NAME), purge_step=purge)

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a point to every curve for which a row has a number; each dataset has curves of its own."""
        where = f"/{row['dataset']}" if "dataset" in row else ""
        for name, value in row.items():
            if name not in ("step", "steps", "dataset") and not isinstance(value, str):
                self._writer.add_scalar(f"{name}{where}", value, row["step"])

    def close(self) -> None:
        """Writes all points to disk."""
        self._writer.close()
