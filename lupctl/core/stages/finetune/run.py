"""Fine-tuning: from a labelled pack and a start to a re-id network."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Final

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.recipes.text import dump_recipe
from lupctl.core.stages.finetune.job import FinetuneJob, describe_setup, network_plan, plan_finetuning
from lupctl.core.stages.finetune.loop import train_job
from lupctl.core.stages.finetune.network import load_imagenet
from lupctl.core.stages.finetune.persons import Camera
from lupctl.core.stages.finetune.starts import load_checkpoint
from lupctl.core.system.command_line import comment_command
from lupctl.core.system.examples import count_images_of, count_things
from lupctl.core.system.jobs.device import computing_threads, pick_threads
from lupctl.core.system.jobs.launch import launch
from lupctl.core.system.jobs.messages import decide_first, rank
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.engine.state import Settled, claimed_run, settle_precision
from lupctl.core.training.nets.build import Classifying
from lupctl.core.training.nets.meta import build_empty

# Process 0 finds the clusters while the others wait for it: longer than PyTorch's limit of some minutes where images
# are many, as the time grows with their square. A process that dies ends the job at once all the same.
CLUSTERING_TIMEOUT: Final = timedelta(days=1)


def finetune(job: FinetuneJob, progress: Progress) -> dict[str, Any]:
    """Runs, or continues, a job until its checkpoint is written and evaluated.

    Args:
        job: what to do.
        progress: takes the lines about the data and about whether a run begins or continues.

    Returns:
        the run's facts, as `run.json` holds them, with the scores under `scores`; nothing where process 0 of the job
        ran on another machine, or is another process of a job that torchrun or srun started.

    Raises:
        UsageError: the folder holds a run with another recipe.
        DataError: the folder is in use, the data or the start cannot be used, or the loss is no longer finite.
        FormatError: the start does not fit the network.
        StoppedError: a request to stop; the state is saved.
    """
    plan = plan_finetuning(job)  # everything that can be refused is refused before a process starts
    subset, repeat = job.recipe.data.subset, job.recipe.data.repeat
    if subset:
        progress.say(f"subset {subset}: {count_images_of(plan.images, plan.persons)}")
    if repeat != 1:
        progress.say(f"repeat {repeat}: {count_things(plan.steps_per_epoch, 'step')} an epoch")
    if len(job.packs) > 1:
        names = " and ".join(map(str, job.packs))
        apart = f"{count_images_of(plan.images, plan.persons)}, each pack's its own classes"
        together = f"{count_things(plan.images, 'image')}, clustered together"
        progress.say(f"{names}: {together if job.recipe.labels == 'clusters' else apart}")
    check_fit(job, plan.persons, plan.cameras)
    folder = RunFolder(job.run)
    settled = settle_precision(folder, job.recipe.precision, job.placement.kind, force=job.force)
    leads = launch(
        _train,
        (job, progress, settled),
        processes=job.local_processes,
        kind=job.placement.kind,
        rendezvous=job.rendezvous,
        timeout=None if job.recipe.clusters is None else CLUSTERING_TIMEOUT,
    )
    return folder.read_facts() if leads else {}


def _train(given: tuple[FinetuneJob, Progress, Settled]) -> bool:
    """One process of the job; says whether it is the one that wrote the results."""
    job, progress, own = given
    settled = decide_first(lambda: own)  # processors may differ
    setup, text = describe_setup(job), comment_command(job.command) + dump_recipe(job.recipe)
    with claimed_run(RunFolder(job.run), setup, text, force=job.force, progress=progress) as is_wanted:
        if is_wanted:
            with computing_threads(pick_threads(job.placement, shares=job.local_processes)):
                if settled.line:
                    progress.say(settled.line)
                train_job(job, settled.kind)
    return rank() == 0


def check_fit(job: FinetuneJob, num_classes: int, cameras: Sequence[Camera]) -> None:
    """Refuses a start that is not here, lacks a tensor, or has one too many, before anything is written.

    Raises:
        DataError: the ImageNet weights cannot be fetched.
        FormatError: names the first tensor that does not fit.
    """
    if job.start is None and job.recipe.start != "imagenet":
        return
    network = build_empty(network_plan(job.recipe, num_classes, cameras))
    assert isinstance(network, Classifying)
    if job.start is None:
        load_imagenet(network, job)
    else:
        load_checkpoint(network, job.start, [open_pack(path).dataset for path in job.packs])
