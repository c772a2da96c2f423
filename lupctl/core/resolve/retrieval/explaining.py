"""Which options go with `eval --explain`, and where its result goes."""

from collections.abc import Mapping
from pathlib import Path

from lupctl.core.errors import UsageError
from lupctl.core.workspace import output_path

ENDING = ".features.h5"


def refuse_with_explain(explain: bool, others: Mapping[str, object]) -> None:
    """Refuses options that have no meaning with `--explain`.

    Args:
        explain: whether it is given.
        others: the values of these options.

    Raises:
        UsageError: one of them is given.
    """
    for option, value in others.items():
        if explain and value not in (None, False, 0):
            raise UsageError(
                f"{option} has no meaning with --explain, which scores one network several times, without re-ranking "
                "and without a page",
                hint=f"leave {option} out",
            )


def explanation_path(features: Path, out: Path | None) -> Path:
    """Where an explanation goes: `out`, a file or a folder; else beside the features."""
    name = f"{features.name.removesuffix(ENDING)}.explanation.json"
    return features.parent / name if out is None else output_path(out, name)
