"""Curves for TensorBoard, which is an extra."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lupctl.core.errors import UsageError

FOLDER = "tensorboard"


def check_tensorboard() -> None:
    """Refuses curves where the extra is missing.

    Raises:
        UsageError: it is.
    """
    if find_spec("tensorboard") is None:
        raise UsageError("--tensorboard: the package tensorboard is not installed", hint="pip install tensorboard")


class Board:
    """The rows of `metrics.jsonl` as curves, in a folder of their own beside it.

    Args:
        run: the run's folder.
        step: steps done before; what an interrupted run wrote beyond them is hidden.
    """

    def __init__(self, run: Path, *, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        purge = step + 1 if step else None
        self._writer = SummaryWriter(str(run / FOLDER), purge_step=purge)

    def write(self, row: Mapping[str, Any]) -> None:
        """Adds a point to every curve that a row has a number for."""
        for name, value in row.items():
            if name != "step":
                self._writer.add_scalar(name, value, row["step"])

    def close(self) -> None:
        """Brings all points to the disk."""
        self._writer.close()
