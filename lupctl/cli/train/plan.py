"""What `--dry-run` of a training prints: the plan and, with --probe-seconds, the price."""

import math
import shlex
import sys
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.output import print_plan, print_table
from lupctl.core.errors import UsageError
from lupctl.core.system.examples import count_things

if TYPE_CHECKING:
    from lupctl.core.stages.finetune.job import FinetuneJob
    from lupctl.core.stages.finetune.speed import StepTimes
    from lupctl.core.stages.pretrain.job import PretrainJob, PretrainPlan
    from lupctl.core.stages.pretrain.pricing.measure import Measured
    from lupctl.core.stages.pretrain.pricing.price import Price

# Above this share of a step, waiting for data is worth a word.
WAITING = 0.05
# One slow step among fewer than these would count too much.
FEW_STEPS = 5
HOUR_S, DAY_H = 3600, 24
COMPILING = (
    "the first step takes a minute or more of a core, or seconds where its code is kept; "
    "--probe-seconds 60 says whether it pays"
)

ProbeSecondsOption = Annotated[
    float | None,
    typer.Option(
        "--probe-seconds",
        metavar="SECONDS",
        min=1,
        max=HOUR_S,
        help="With --dry-run: run steps for about so long, say what all of it will cost, keep nothing.",
        show_default=False,
    ),
]


def check_probe(seconds: float | None, *, planned: bool) -> None:
    """Refuses to measure a price where the training itself would follow.

    Raises:
        UsageError: there is no --dry-run.
    """
    if seconds is not None and not planned:
        raise UsageError(
            f"--probe-seconds {seconds:g}: only with --dry-run, which trains nothing",
            hint=shlex.join(["lupctl", *sys.argv[1:], "--dry-run"]),
        )


def plan_job(job: "PretrainJob", seconds: float | None, *, leads: bool, json: bool) -> None:
    """Counts what a run would do, and measures what it would cost.

    Args:
        job: the run.
        seconds: how long to measure; None to leave it.
        leads: whether this process prints.
        json: whether as JSON.
    """
    from lupctl.core.stages.pretrain.job import plan_pretraining
    from lupctl.core.stages.pretrain.pricing.price import price

    counted = plan_pretraining(job)
    cost = None if seconds is None else price(job, seconds)
    if leads:
        show_plan(job, counted, cost, json=json)


def show_plan(job: "PretrainJob", counted: "PretrainPlan", cost: "Price | None" = None, *, json: bool) -> None:
    """Prints what a run would do, and what it would cost, if that was measured."""
    from lupctl.core.system.jobs.precision import name_precision
    from lupctl.core.training.engine.runs import RunFolder
    from lupctl.core.training.engine.state import plan_precision

    recipe, kept = job.recipe, counted.kept
    precision = plan_precision(RunFolder(job.run), recipe.precision, job.placement.kind, force=job.force)
    plan: dict[str, object] = {
        "run": str(job.run),
        "packs": [str(path) for path in job.packs],
        **({} if recipe.solider is None else {"start": recipe.solider.start or None}),
        "machines": 1 if job.rendezvous is None else job.rendezvous.nodes,
        "device": job.placement.kind,
        "devices": job.placement.processes,
        "precision": name_precision(precision),
        "arch": recipe.net.arch,
        "rate": recipe.optim.lr,
        "epochs": recipe.schedule.epochs,
        "batch": recipe.data.batch,
        "accumulate": recipe.optim.accumulate,
        "bn_groups": recipe.bn_groups,
        **{name: value for name, value in asdict(counted).items() if name != "kept"},
        **({"compile": COMPILING} if recipe.net.compile else {}),
    }
    for name in ("classes", "sharded_memory_bytes"):  # of a method without labels
        if plan[name] is None:
            del plan[name]
    if kept is not None:
        by = ", ".join(one.path for one in kept.lists)
        plan["kept"] = kept.to_json() if json else f"{counted.images:,} of {kept.of:,}, by {by}"
    if cost is not None and json:
        plan["price"] = cost.to_json()
    print_plan("lupctl.pretrain-plan/1", "would pre-train", plan, json=json)
    if cost is not None and not json:
        show_price(cost)


def show_price(price: "Price") -> None:
    """Prints what a run costs, on what, and what would need less memory."""
    print("\n".join(describe_measurement(price)))
    is_cpu = price.kind == "cpu"
    print_table(
        f"\nall of it: {price.images:,} images ({price.images_of})",
        ["machines" if is_cpu else "devices", "images/s", "time", "memory of each, estimated", "how known"],
        [
            (
                one.devices,
                write_rate(one.images_per_s),
                write_time(one.hours),
                write_bytes(one.memory_bytes),
                "measured" if one.basis == "measured" else "in proportion, without further messages",
            )
            for one in price.scaled
        ],
    )
    if price.cheaper:
        rows = [(one.options, write_bytes(one.memory_bytes), one.effect) for one in price.cheaper]
        where = f" on {count_things(price.asked_processes, 'GPU')}" if price.asked_kind == "cuda" else ""
        print_table(f"less memory{where}", ["add", "memory, estimated", "effect"], rows)
    for cost in price.published:
        print(
            f"published: {cost.project}, {cost.what}: about {write_time(cost.hours)} on {cost.devices}; {cost.page}",
        )


def describe_measurement(price: "Price") -> Iterator[str]:
    """Lines on what was measured, and how."""
    found = price.measured
    name = count_things(price.processes, "process", "processes") if price.kind == "cpu" else "with messages"
    on = f"{price.device}, {name}" if price.kind == "cpu" or price.processes > 1 else price.device
    yield f"measured: {write_rate(price.images_per_s)} images/s on {on}; nothing was kept"
    part = f", 1 / {found.share} of the batch" if found.share > 1 else ""
    pixels = "the pack's images" if price.pixels == "pack" else "random pixels"
    steps = count_things(found.steps, "step")
    yield f"steps: {steps} of {found.step_s:.3g} s with {found.batch:,} images{part}, {pixels}"
    if found.plain_s is not None:
        yield describe_compiling(found, found.plain_s, batch=found.batch, images=price.images)
    if price.asked_kind != price.kind:
        yield "device: no GPU is visible here; this is the CPU, from which nothing follows for GPUs"
    if found.steps < FEW_STEPS:
        yield f"rough: few steps; --probe-seconds {max(60, 10 * found.step_s):.0f} takes more"
    if found.waiting_s > WAITING * found.step_s:
        yield (
            f"data: {found.waiting_s / found.step_s:.0%} of a step waits for it; --profile 20 in place of "
            "--dry-run and --probe-seconds says why"
        )
    used, before = write_bytes(found.memory_bytes), write_bytes(found.before_bytes)
    estimate = f"{write_bytes(price.estimated_bytes)} estimated for these steps"
    if price.kind == "cuda":
        yield f"memory: {used} allocated at the peak; {estimate}"
    elif not found.memory_bytes:
        yield f"memory: {estimate}; this system does not say what was used"
    else:
        yield f"memory: {used} in RAM at the peak, {before} of it before the networks; {estimate} without that"


def describe_compiling(found: "Measured | StepTimes", plain_s: float, *, batch: int, images: int) -> str:
    """Whether what compiled steps save is more than the first of them cost, within a run.

    Args:
        found: steps of compiled networks.
        plain_s: duration of a step of the same networks without.
        batch: images of a step, of all devices that take it together.
        images: that the run reads.
    """
    took = (
        f"compile: the first step took {write_time(found.first_s / HOUR_S)}, "
        f"the others {found.step_s:.3g} s, without {plain_s:.3g} s"
    )
    saved_s = (plain_s - found.step_s) / batch
    needed = found.first_s / saved_s if saved_s > 0 else math.inf
    if needed < images:
        return f"{took}; that pays after {needed:,.0f} of {images:,} images"
    return f"{took}; that does not pay in this run: --set net.compile=false"


def show_steps(found: "StepTimes", job: "FinetuneJob", *, total: int) -> None:
    """Prints how long a fine-tuning takes on this machine.

    Args:
        found: steps of one device.
        job: the run.
        total: number of its steps.
    """
    name = "GPU" if found.device == "cuda" else "CPU process"
    print(
        f"measured: a step of {found.step_s:.3g} s with {found.batch:,} images of random pixels on one {name}; "
        "nothing was kept"
    )
    if job.placement.kind != found.device:
        print("device: no GPU is visible here; this is the CPU, from which nothing follows for GPUs")
    left_out = ["reading images", *(["the teacher"] if job.teacher else []), "evaluation"]
    if job.placement.processes > 1:
        left_out.append("messages between devices")
    time = write_time(total * found.step_s / HOUR_S)
    print(f"all of it: {time} for {count_things(total, 'step')}, without {', '.join(left_out)}")
    if found.plain_s is not None:
        batch = found.batch * job.placement.processes
        print(describe_compiling(found, found.plain_s, batch=batch, images=total * batch))


def write_rate(images_per_s: float) -> str:
    """Images per second, with two digits at least.

    >>> write_rate(0.5123), write_rate(2345.6)
    ('0.51', '2,346')
    """
    return f"{images_per_s:,.0f}" if images_per_s >= 10 else f"{images_per_s:.2g}"


def write_bytes(number: int) -> str:
    """Bytes as people count memory.

    >>> write_bytes(3 * 2**20), write_bytes(20 * 2**30)
    ('3 MiB', '20.0 GiB')
    """
    return f"{number / 2**30:,.1f} GiB" if number >= 10 * 2**30 else f"{number / 2**20:,.0f} MiB"


def write_time(hours: float) -> str:
    """A duration in the unit that suits it; hours beside days.

    >>> write_time(0.001), write_time(0.5), write_time(20.0), write_time(120), write_time(2640)
    ('4 s', '30 min', '20.0 h', '120 h (5.0 days)', '2,640 h (110 days)')
    """
    if hours * HOUR_S < 60:
        return f"{hours * HOUR_S:.0f} s"
    if hours < 1:
        return f"{hours * 60:.0f} min"
    if hours < 2 * DAY_H:
        return f"{hours:.1f} h"
    days = hours / DAY_H
    return f"{hours:,.0f} h ({days:,.{0 if days >= 10 else 1}f} days)"
