"""`lupctl finetune`."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lupctl.cli.complete import complete_dataset, complete_start
from lupctl.cli.options import (
    ArchOption,
    DebugOption,
    DryRunOption,
    ForceOption,
    GpusOption,
    HomeOption,
    JsonOption,
    OutOption,
    ProcessesOption,
    QuietOption,
    RecipeOption,
    SetOption,
    WorkersOption,
)
from lupctl.cli.output import SCORE_NAMES, print_json, print_path, print_plan, print_table
from lupctl.cli.train.options import (
    BatchOption,
    DataOption,
    EndpointOption,
    EpochsOption,
    NodeRankOption,
    NodesOption,
    RateOption,
    TensorboardOption,
    common_flags,
    join_names,
)
from lupctl.cli.train.plan import COMPILING, ProbeSecondsOption, check_probe, show_steps
from lupctl.core.choices import Labels
from lupctl.core.resolve.data.splits import say_tests
from lupctl.core.resolve.training.finetuning import default_run, resolve, settle
from lupctl.core.resolve.training.labels import find_finetuning_packs
from lupctl.core.resolve.training.placement import find_machines, place
from lupctl.core.resolve.training.teachers import find_teacher
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.finetune.job import FinetuneJob
    from lupctl.core.stages.finetune.speed import StepTimes


DatasetsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[DATASET]...",
        help="Pack, by name or path; of several, each one's persons are others, and the first is the test "
        "[default: the one labelled pack].",
        show_default=False,
        autocompletion=complete_dataset,
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Run, checkpoint file, published weights that are here (lupctl model list), imagenet, scratch, or "
        "finetuned, the newest fine-tuning run on another dataset [default: the newest pre-training run of that "
        "architecture].",
        show_default=False,
        autocompletion=complete_start,
    ),
]
SubsetOption = Annotated[
    str | None,
    typer.Option(
        "--subset",
        metavar="ids:R|images:R|FILE",
        help="Train on a part: R of the persons, R of the images (every person keeps one), or what a split file names "
        "[default: all].",
        show_default=False,
    ),
]
LabelsOption = Annotated[
    Labels | None,
    typer.Option(
        help="Who is on the images: the persons that the packs name, or clusters of similar images, found without "
        "looking at labels [default: what the recipe says, mostly persons].",
        show_default=False,
    ),
]
TeacherOption = Annotated[
    str | None,
    typer.Option(
        "--teacher",
        metavar="RUN",
        help="Also learn which images a trained network finds similar: a run, a checkpoint file, or published weights "
        "that are here [default: no teacher].",
        show_default=False,
        autocompletion=complete_start,
    ),
]
RepeatOption = Annotated[
    str | None,
    typer.Option(
        metavar="R|full",
        help="Go through the part R times an epoch, or as often as makes an epoch as long as on the whole set.",
        show_default=False,
    ),
]


def finetune(
    datasets: DatasetsArgument = None,
    data: DataOption = None,
    start: FromOption = None,
    subset: SubsetOption = None,
    repeat: RepeatOption = None,
    labels: LabelsOption = None,
    teacher: TeacherOption = None,
    arch: ArchOption = None,
    epochs: EpochsOption = None,
    batch: BatchOption = None,
    lr: RateOption = None,
    gpus: GpusOption = None,
    processes: ProcessesOption = None,
    nodes: NodesOption = None,
    rdzv_endpoint: EndpointOption = None,
    node_rank: NodeRankOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    workers: WorkersOption = None,
    tensorboard: TensorboardOption = False,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    probe_seconds: ProbeSecondsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Trains a re-id network on labelled persons and evaluates it; the same command continues a stopped run.

    Examples:

    `lupctl finetune market1501`

    `lupctl finetune market1501 --from scratch --arch r18 --epochs 60 --batch 32`

    `lupctl finetune market1501 --subset ids:0.1 --repeat full`

    `lupctl finetune market1501 cuhk03-labeled --from scratch`

    `lupctl finetune street --labels clusters`

    `lupctl finetune msmt17 --gpus 8 --nodes 2 --rdzv-endpoint node1:29400`
    """
    from lupctl.core.stages.finetune.job import FinetuneJob
    from lupctl.core.stages.finetune.run import finetune as run

    check_probe(probe_seconds, planned=dry_run)
    space, machines = open_workspace(home), find_machines(nodes, rdzv_endpoint, node_rank)
    progress = Progress(quiet=quiet or not machines.leads)
    placement = place(gpus, processes, machines, planned=dry_run)
    packs = find_finetuning_packs(space, join_names(datasets, data), recipe, set_ or [], progress, labels=labels)
    flags = common_flags(arch, epochs=epochs, batch=batch, lr=lr)
    flags |= {"data.packs": [pack.stem for pack in packs], "data.subset": subset, "start": start, "labels": labels}
    flags |= {"data.repeat": parse_repeat(repeat), "distil.teacher": teacher}
    origin, resolved = resolve(space, recipe, flags, set_ or [], progress, packs=packs)
    progress.say(placement.line)
    say_tests(space, packs, progress)
    job = FinetuneJob(
        recipe=resolved,
        packs=packs,
        start=origin.checkpoint,
        run=default_run(space, packs, resolved, origin) if out is None else out,
        placement=placement,
        workers=workers,
        command=recorded_command(),
        rendezvous=machines.rendezvous,
        tensorboard=tensorboard,
        force=force,
        quiet=quiet,
        teacher=find_teacher(space, resolved),
    )
    job = settle(job, is_named=out is not None, progress=progress)
    if dry_run:
        plan_job(job, origin.name, probe_seconds, leads=machines.leads, json=json)
    elif (facts := run(job, progress)) and machines.leads:
        show_result(job, facts, progress, json=json)


def show_result(job: "FinetuneJob", facts: dict[str, Any], progress: Progress, *, json: bool) -> None:
    """Prints the scores and the run's folder, or all that it records."""
    if json:
        print_json("lupctl.finetune/1", {"run": str(job.run), **facts})
        return
    show_scores(facts)
    print_path(job.run)
    if "page" in facts:
        page = job.run / facts["page"]
        progress.say(
            f"clusters: {page}"
            if facts["scores"] or facts.get("all_scores") or "site" in facts
            else f"{facts['dataset']}: no queries, so the network cannot be scored; what can be seen: {page}"
        )
    if facts["scores"] or facts.get("all_scores"):
        progress.say(f"on every test set here: lupctl eval --all {job.run}")


def plan_job(job: "FinetuneJob", start: str, seconds: float | None, *, leads: bool, json: bool) -> None:
    """Counts what a run would do, and measures how long its steps take here.

    Args:
        job: the run.
        start: what it begins from, as the user called it.
        seconds: how long to measure; None to leave it.
        leads: whether this process measures and prints.
        json: whether as JSON.
    """
    from lupctl.core.stages.finetune.job import plan_finetuning
    from lupctl.core.stages.finetune.speed import probe_steps

    counts = asdict(plan_finetuning(job))
    if leads:
        show_plan(job, start, counts, None if seconds is None else probe_steps(job, seconds=seconds), json=json)


def show_plan(job: "FinetuneJob", start: str, counts: dict[str, Any], steps: "StepTimes | None", *, json: bool) -> None:
    """Prints what a run would do and, if that was measured, how long its steps take here."""
    from lupctl.core.system.jobs.precision import name_precision
    from lupctl.core.training.engine.runs import RunFolder
    from lupctl.core.training.engine.state import plan_precision

    precision = plan_precision(RunFolder(job.run), job.recipe.precision, job.placement.kind, force=job.force)
    cameras, teacher = counts.pop("cameras"), counts.pop("teacher")
    if json:
        counts["cameras"] = list(cameras)
    elif cameras:
        counts["cameras"] = f"{len(cameras)}: {', '.join(map(str, cameras))}"
    plan = {
        "run": str(job.run),
        "packs": [str(pack) for pack in job.packs],
        "start": start,
        **({} if teacher is None else {"teacher": teacher if json else describe_teacher(job, teacher)}),
        "arch": job.recipe.net.arch,
        "machines": 1 if job.rendezvous is None else job.rendezvous.nodes,
        "device": job.placement.kind,
        "devices": job.placement.processes,
        "precision": name_precision(precision),
        "epochs": job.recipe.schedule.epochs,
        **counts,
        **({"compile": COMPILING} if job.recipe.net.compile else {}),
    }
    if steps is not None and json:
        plan["steps_measured"] = asdict(steps)
    print_plan("lupctl.finetune-plan/1", "would fine-tune", plan, json=json)
    if steps is not None and not json:
        show_steps(steps, job, total=counts["steps"])


def describe_teacher(job: "FinetuneJob", teacher: Mapping[str, Any]) -> str:
    """A teacher and what it costs, on one line."""
    assert job.recipe.distil is not None
    size = f"{teacher['height']} x {teacher['width']}"
    return (
        f"{job.recipe.distil.teacher}: {teacher['description']}, {teacher['parameters']:,} parameters; "
        f"one pass at {size} for each image, without gradients"
    )


def show_scores(facts: Mapping[str, Any]) -> None:
    """Prints a run's scores on its own test set, or on that of each of its packs."""
    found = facts.get("all_scores", {facts["dataset"]: facts["scores"]})
    rows = [(name, *(f"{100 * scores[key]:.2f}" for key in SCORE_NAMES)) for name, scores in found.items() if scores]
    if rows:
        print_table("", ["%", *SCORE_NAMES.values()], rows)


def parse_repeat(text: str | None) -> float | str | None:
    """The number in what a user typed; anything else is left for the recipe to judge."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text
