"""Pre-training: from packs of persons to a backbone."""

from typing import Any

from lupctl.core.choices import SCRATCH
from lupctl.core.errors import UsageError
from lupctl.core.recipes.text import dump_recipe
from lupctl.core.stages.pretrain.job import PretrainJob, describe_setup, plan_pretraining, threads_of
from lupctl.core.stages.pretrain.loop import train_job
from lupctl.core.system.command_line import comment_command
from lupctl.core.system.jobs.device import computing_threads
from lupctl.core.system.jobs.launch import launch
from lupctl.core.system.jobs.messages import decide_first, rank
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.engine.state import Settled, claimed_run, settle_precision


def pretrain(job: PretrainJob, progress: Progress) -> dict[str, Any]:
    """Runs, or continues, a job until its checkpoint is written.

    Args:
        job: what to do.
        progress: takes the line that says whether a run begins or continues.

    Returns:
        the run's facts, as `run.json` holds them; nothing where process 0 of the job ran on another machine, or is
        another process of a job that torchrun or srun started.

    Raises:
        UsageError: the folder holds a run with another recipe or of another command.
        DataError: the folder is in use, packs are missing or damaged, or the loss is no longer finite.
        StoppedError: a request to stop; the state is saved.
    """
    check_started(job)
    plan_pretraining(job)  # everything that can be refused is refused before a process starts
    folder = RunFolder(job.run)
    settled = settle_precision(folder, job.recipe.precision, job.placement.kind, force=job.force)
    leads = launch(
        _train,
        (job, progress, settled),
        processes=job.local_processes,
        kind=job.placement.kind,
        rendezvous=job.rendezvous,
    )
    return folder.read_facts() if leads else {}


def check_started(job: PretrainJob) -> None:
    """Refuses a run of SOLIDER that neither has a start nor says that it begins from scratch.

    Raises:
        UsageError: the recipe leaves it open, which a command settles.
    """
    solider = job.recipe.solider
    if solider is not None and job.start is None and solider.start != SCRATCH:
        raise UsageError(
            f"solider.start = '{solider.start}' names no start here; a command finds one, or takes --from",
            hint=f"--set solider.start={SCRATCH} begins from random weights",
        )


def _train(given: tuple[PretrainJob, Progress, Settled]) -> bool:
    """One process of the job; says whether it is the one that wrote the results."""
    job, progress, own = given
    settled = decide_first(lambda: own)  # processors may differ
    setup, text = describe_setup(job), comment_command(job.command) + dump_recipe(job.recipe)
    with claimed_run(RunFolder(job.run), setup, text, force=job.force, progress=progress) as is_wanted:
        if is_wanted:
            with computing_threads(threads_of(job)):
                if settled.line:
                    progress.say(settled.line)
                train_job(job, settled.kind)
    return rank() == 0
