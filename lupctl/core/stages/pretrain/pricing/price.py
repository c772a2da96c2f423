"""What a pre-training will cost, from some steps of it on this machine."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

import torch

from lupctl.core.data.catalog.costs import PUBLISHED_COSTS, PublishedCost
from lupctl.core.data.catalog.datasets import catalog_entry
from lupctl.core.errors import UsageError
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import uses_labels
from lupctl.core.stages.pretrain.job import PretrainJob, PretrainPlan, estimate_device, plan_pretraining
from lupctl.core.stages.pretrain.keeping import count_kept
from lupctl.core.stages.pretrain.pricing.cheaper import Change, list_changes
from lupctl.core.stages.pretrain.pricing.measure import Measured, Trial, measure
from lupctl.core.stages.pretrain.pricing.shares import cut_recipe, fits, list_shares
from lupctl.core.system.jobs.device import Placement, describe_devices
from lupctl.core.system.jobs.outer import find_outer_job

DEVICES: Final = (1, 2, 4, 8)
HOUR_S: Final = 3600
Basis = Literal["measured", "linear"]


@dataclass(frozen=True)
class Scaled:
    """The whole run on some devices.

    Args:
        devices: GPUs; of a CPU, machines.
        images_per_s, hours: of all of them together.
        memory_bytes: estimate on each; of a CPU, for each process.
        basis: measured on so many, or in proportion to what was measured, without further messages.
    """

    devices: int
    images_per_s: float
    hours: float
    memory_bytes: int
    basis: Basis


@dataclass(frozen=True)
class Price:
    """What a run will cost.

    Args:
        device: that was measured.
        kind: cuda or cpu.
        processes: that were measured, one for each GPU.
        asked_kind, asked_processes: what the run is for, on all machines; another kind where no GPU is here.
        measured: the steps; their memory is of one process.
        estimated_bytes: memory of these steps as a plan estimates it, without the process itself.
        pixels: of the pack's images, or random.
        images: that the whole run reads, once for each epoch.
        images_of: the data that has so many.
        images_per_s: of all processes.
        scaled: the whole run on one device and on more, as many as can share the batch.
        cheaper: changes that need less memory, on the devices that were asked for.
        published: what authors say that such a training cost them.
    """

    device: str
    kind: str
    processes: int
    asked_kind: str
    asked_processes: int
    measured: Measured
    estimated_bytes: int
    pixels: Literal["pack", "random"]
    images: int
    images_of: str
    images_per_s: float
    scaled: tuple[Scaled, ...]
    cheaper: tuple[Change, ...]
    published: tuple[PublishedCost, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def price(job: PretrainJob, seconds: float) -> Price | None:
    """Run steps of a job for about some seconds, with its data or random pixels, and say what all of it will cost.

    Nothing is written. Where fewer GPUs are here than the job is for, a device's share of the batch is measured; where
    none is, this CPU is. A CPU that is too slow for whole steps is measured on parts of the batch.

    Returns:
        what it costs; None where process 0 of an outer job ran elsewhere.

    Raises:
        DataError, UsageError: as `plan_pretraining`.
        InterruptedRunError: it was stopped.
    """
    plan = plan_pretraining(job)
    recipe, asked, here = job.recipe, job.placement, place_here(job)
    local, classes = here.placement, plan.classes or 0
    # On GPUs every device does what it would do among all that were asked for; a CPU is measured by itself.
    divisor = asked.processes // local.processes if local.kind == "cuda" else 1
    shares = list_shares(recipe, local.kind, processes=local.processes, first=divisor)
    if not shares:
        raise UsageError(
            f"{local.processes} processes of this machine cannot run a part of a batch of {recipe.data.batch}",
            hint="leave out --processes" if local.kind == "cpu" else "--gpus 1",
        )
    found = measure(Trial(here, tuple(shares), seconds, classes))
    if found is None:
        return None
    images, images_of = count_images(job, plan)
    rate = rate_of(found, divisor=found.share // divisor)
    others = (*DEVICES, asked.processes if local.kind == "cuda" else asked.processes // local.processes)
    numbers = sorted({*others}) if local.kind == asked.kind else [1]
    rows = scale(recipe, rate, numbers=numbers, images=images, classes=classes, local=local)
    part = cut_recipe(recipe, found.share)
    return Price(
        device=describe_devices(local),
        kind=local.kind,
        processes=local.processes,
        asked_kind=asked.kind,
        asked_processes=asked.processes,
        measured=found,
        estimated_bytes=estimate_device(part, local.kind, processes=local.processes, classes=classes),
        pixels="pack" if job.packs else "random",
        images=images,
        images_of=images_of,
        images_per_s=rate,
        scaled=tuple(rows),
        cheaper=tuple(list_changes(recipe, asked.kind, processes=asked.processes, classes=classes)),
        published=tuple(one for one in PUBLISHED_COSTS if one.method == recipe.method),
    )


def place_here(job: PretrainJob) -> PretrainJob:
    """The job on the devices of this machine that can stand for those that it is for."""
    placement, processes = job.placement, job.local_processes
    if find_outer_job(os.environ) is not None:
        return job
    if placement.kind == "cuda":
        visible = torch.cuda.device_count()
        if visible == 0:
            placement, processes = replace(placement, kind="cpu"), 1
        else:
            processes = max(number for number in range(1, visible + 1) if processes % number == 0)
    return replace(job, placement=replace(placement, processes=processes), rendezvous=None)


def count_images(job: PretrainJob, plan: PretrainPlan) -> tuple[int, str]:
    """The images that a run reads, and whose they are; without data those of LUPerson or LUPerson-NL."""
    recipe = job.recipe
    if plan.steps is not None:
        return plan.steps * recipe.data.batch, ", ".join(path.stem for path in job.packs)
    entry = catalog_entry("luperson-nl" if uses_labels(recipe.settings) else "luperson")
    published = sum(entry.images.values())
    number = count_kept(recipe.data.keep, published) if recipe.data.keep else published
    return (number - number % recipe.data.batch) * recipe.schedule.epochs, f"{number:,} images of {entry.title}"


def rate_of(found: Measured, *, divisor: int) -> float:
    """Images per second of steps, from steps of a part of their batch.

    Args:
        found: what was measured.
        divisor: of the batch of a step, to get what was measured.
    """
    whole_s = found.update_s + (found.step_s - found.update_s) * divisor
    return found.batch * divisor / whole_s


def scale(
    recipe: PretrainRecipe, rate: float, *, numbers: Sequence[int], images: int, classes: int, local: Placement
) -> Iterator[Scaled]:
    """The whole run on some numbers of devices that can share the batch.

    Args:
        recipe: of the run.
        rate: images per second of this machine.
        numbers: of GPUs; of a CPU, machines.
        images: that the run reads.
        classes: number of labels; 0 for a method without.
        local: what was measured.
    """
    measured = local.processes if local.kind == "cuda" else 1
    for number in numbers:
        processes = number * local.processes // measured
        if not fits(recipe, 1, local.kind, processes=processes):
            continue
        yield Scaled(
            devices=number,
            images_per_s=rate * number / measured,
            hours=images * measured / (rate * number * HOUR_S),
            memory_bytes=estimate_device(recipe, local.kind, processes=processes, classes=classes),
            basis="measured" if number == measured else "linear",
        )
