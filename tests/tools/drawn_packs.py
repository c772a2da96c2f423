"""Packs of drawn persons."""

from pathlib import Path

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.stages.pack import pack
from lupctl.core.system.progress.lines import Progress


def pack_drawn(plan: SyntheticPlan, out: Path, *, dataset: str) -> Path:
    """Draws a plan's persons into a pack."""
    pack(SyntheticSource(plan, dataset=dataset), out=out, progress=Progress(quiet=True), workers=1)
    return out
