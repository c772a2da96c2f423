"""Images drawn for one command and discarded after it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lupctl.core.choices import SYNTHETIC
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.stages.pretrain.job import PretrainJob
    from lupctl.core.stages.pretrain.profile import Profile


def wants_drawing(space: Workspace, names: tuple[str, ...]) -> bool:
    """Whether synthetic is the only pack named, and does not exist."""
    return names == (SYNTHETIC,) and not space.pack_path(SYNTHETIC).exists() and not Path(SYNTHETIC).exists()


def profile_steps(job: "PretrainJob", steps: int, progress: Progress, *, draws: bool) -> "Profile | None":
    """Runs some steps of a pre-training and keeps nothing.

    Args:
        job: the pre-training.
        steps: number of steps.
        progress: reports that images are drawn.
        draws: whether its images are drawn for this command.

    Returns:
        where the time went; None on all but one process of a job.
    """
    from lupctl.core.stages.pretrain.profile import profile

    if not draws:
        return profile(job, steps)
    from lupctl.core.recipes.pretrain_sections import uses_labels

    with drawn_pack(job.recipe.data.batch, progress, labelled=uses_labels(job.recipe.settings)) as pack:
        return profile(replace(job, packs=(pack,)), steps)


@contextmanager
def drawn_pack(batch: int, progress: Progress, *, labelled: bool = False) -> Iterator[Path]:
    """A pack of drawn persons that fills at least one batch, for the duration of the block.

    Args:
        batch: images.
        progress: reports it.
        labelled: whether the persons have labels.
    """
    from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
    from lupctl.core.stages.pack import pack

    persons = -(-batch // 2)  # each has at least two images
    plan = SyntheticPlan(train_persons=persons) if labelled else SyntheticPlan(unlabelled_persons=persons)
    source = SyntheticSource(plan)
    progress.say(f"data: {SYNTHETIC}, images of 128 x 64 drawn for this command")
    with TemporaryDirectory(prefix="lupctl-drawn-") as folder:
        yield pack(source, out=Path(folder) / f"{SYNTHETIC}.h5", progress=progress).path
