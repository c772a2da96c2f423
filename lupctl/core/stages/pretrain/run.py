"""Pre-training: from packs of unlabelled persons to a backbone."""

from typing import Any

from lupctl.core.dist import launch
from lupctl.core.formats.pack import open_pack
from lupctl.core.progress import Progress
from lupctl.core.recipes.text import dump_recipe
from lupctl.core.stages.pretrain.job import PretrainJob, plan_pretraining
from lupctl.core.stages.pretrain.loop import train_job
from lupctl.core.train.runs import RunFolder
from lupctl.core.train.state import begin_run


def pretrain(job: PretrainJob, progress: Progress) -> dict[str, Any]:
    """Runs, or continues, a job until its checkpoint is written.

    Returns:
        the run's facts, as `run.json` holds them.

    Raises:
        UsageError: the folder holds a run with another recipe or of another command, or is in use.
        DataError: packs are missing or damaged, or the loss is no number any more.
        StoppedError: a request to stop; the state is saved.
    """
    folder = RunFolder(job.run)
    plan_pretraining(job)  # everything that can be refused is refused before a process starts
    with folder.held():
        inputs = {f"pack:{pack.dataset}": pack.fingerprint for pack in map(open_pack, job.packs)}
        story = {"recipe": job.recipe.model_dump(mode="json"), "inputs": inputs}
        if begin_run(folder, story, dump_recipe(job.recipe), force=job.force, progress=progress):
            launch(train_job, job, processes=job.placement.processes, kind=job.placement.kind)
    return folder.read_facts()
