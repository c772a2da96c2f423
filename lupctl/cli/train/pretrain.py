"""`lupctl pretrain`."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lupctl.cli.complete import complete_dataset, complete_method
from lupctl.cli.model.convert import differences_shown
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
from lupctl.cli.output import LABEL_NAMES, print_json, print_path, print_table
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
from lupctl.cli.train.plan import ProbeSecondsOption, check_probe, plan_job
from lupctl.core.choices import Method
from lupctl.core.flows.drawn_pack import profile_steps, wants_drawing
from lupctl.core.resolve.training.keeping import parse_keep
from lupctl.core.resolve.training.placement import find_machines, place
from lupctl.core.resolve.training.pretraining import (
    default_recipe,
    default_run,
    find_pretraining_packs,
    say_what_follows,
    settle,
)
from lupctl.core.resolve.training.probes import pick_probe
from lupctl.core.resolve.training.solider import resolve_started, schedule_recipe
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.pretrain.job import PretrainJob
    from lupctl.core.stages.pretrain.profile import Profile


PacksArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PACK]...",
        help="Pack to train on, by name or path [default: the one unlabelled pack].",
        show_default=False,
        autocompletion=complete_dataset,
    ),
]
MethodOption = Annotated[
    Method | None, typer.Option("--method", help="Method of pre-training [default: the recipe's].", show_default=False)
]
ProbeOption = Annotated[
    str | None,
    typer.Option(
        "--probe",
        metavar="DATASET",
        help="Labelled pack to look at the features with, every probe.every_epochs.",
        show_default=False,
        autocompletion=complete_dataset,
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="With solider: run of dino or solider, converted training checkpoint, or scratch [default: the newest run "
        "of dino that fits].",
        show_default=False,
        autocompletion=complete_method,
    ),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option(
        "--keep",
        metavar="SHARE|COUNT|FILE",
        help="Train on the best: a share or a number of the images by their scores, or what a list names; repeatable, "
        "a number with a file [default: all].",
        show_default=False,
    ),
]
ProfileOption = Annotated[
    int | None,
    typer.Option(
        "--profile", metavar="N", min=1, help="Run N steps, say where the time went, keep nothing.", show_default=False
    ),
]


def pretrain(
    packs: PacksArgument = None,
    method: MethodOption = None,
    arch: ArchOption = None,
    start: FromOption = None,
    data: DataOption = None,
    keep: KeepOption = None,
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
    probe: ProbeOption = None,
    tensorboard: TensorboardOption = False,
    profile: ProfileOption = None,
    probe_seconds: ProbeSecondsOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Trains a backbone on persons without labels, or with noisy ones; the same command continues a stopped run.

    Examples:

    `lupctl pretrain --arch r50 --gpus 8`

    `lupctl pretrain market1501 --arch r18 --batch 256 --epochs 50`

    `lupctl pretrain --gpus 8 --nodes 4 --rdzv-endpoint node1:29400`
    """
    from lupctl.core.stages.pretrain.job import PretrainJob
    from lupctl.core.stages.pretrain.run import pretrain as run

    check_probe(probe_seconds, planned=dry_run)
    space, machines = open_workspace(home), find_machines(nodes, rdzv_endpoint, node_rank)
    progress = Progress(quiet=quiet or not machines.leads)
    placement = place(gpus, processes, machines, planned=dry_run)
    recipe = recipe or default_recipe(arch, method, progress)
    flags = common_flags(arch, epochs=epochs, batch=batch, lr=lr) | parse_keep(keep or [])
    flags |= {"method": method, "data.packs": join_names(packs, data) or None, "probe.pack": probe}
    needs_none = dry_run or profile is not None
    resolved, method_file = resolve_started(
        space, recipe, start, flags=flags, overrides=set_ or [], progress=progress, planned=needs_none
    )
    is_drawn = (profile is not None or probe_seconds is not None) and wants_drawing(space, resolved.data.packs)
    found = () if is_drawn else find_pretraining_packs(space, resolved, progress, planned=dry_run)
    progress.say(placement.line)
    job = PretrainJob(
        recipe=resolved,
        packs=found,
        start=method_file,
        run=default_run(space, resolved, found) if out is None else out,
        placement=placement,
        workers=workers,
        command=recorded_command(),
        rendezvous=machines.rendezvous,
        probe=pick_probe(space, resolved.probe.pack, progress) if resolved.probe.pack else None,
        tensorboard=tensorboard,
        force=force,
        quiet=quiet,
    )
    job = settle(job, is_named=out is not None or profile is not None, progress=progress)
    say_what_follows(job, schedule_recipe(recipe, resolved), progress, planned=dry_run)
    with differences_shown():
        if dry_run:
            plan_job(job, probe_seconds, leads=machines.leads, json=json)
        elif profile is not None:
            show_profile(profile_steps(job, profile, progress, draws=is_drawn), leads=machines.leads, json=json)
        else:
            show_result(job, run(job, progress), leads=machines.leads, json=json)


def show_result(job: "PretrainJob", facts: dict[str, Any], *, leads: bool, json: bool) -> None:
    """Prints what became of the labels, if any were corrected, and the run's folder; or all that it records.

    Args:
        job: the run.
        facts: that it recorded; none in a process that did not write them.
        leads: whether this process prints.
        json: whether as JSON.
    """
    if not facts or not leads:
        return
    if json:
        print_json("lupctl.pretrain/1", {"run": str(job.run), **facts})
        return
    history = facts.get("labels", [])
    if history:
        names = {name: shown for name, shown in LABEL_NAMES.items() if name in history[0]}
        rows = [(row["epoch"], *(f"{100 * row[name]:.1f}" for name in names)) for row in history]
        print_table("labels, % of the images", ["epoch", *names.values()], rows)
    print_path(job.run)


def show_profile(profile: "Profile | None", *, leads: bool, json: bool) -> None:
    """Prints where the time of a step goes, and what to change.

    Args:
        profile: what was measured; None in a process that did not.
        leads: whether this process prints.
        json: whether as JSON.
    """
    if profile is None or not leads:
        return
    found = profile.to_json()
    if json:
        print_json("lupctl.pretrain-profile/1", found)
        return
    rows: list[tuple[object, ...]] = [
        (name, "loop", f"{1000 * seconds:.1f}", f"{found['shares'][name]:.1%}")
        for name, seconds in found["loop_s"].items()
    ]
    workers = found["workers"]
    where = f"{workers} worker{'s' if workers != 1 else ''}" if workers else "loop, in wait"
    rows += [(name, where, f"{1000 * seconds:.1f}", None) for name, seconds in found["worker_s"].items()]
    speed = f"{1000 * found['step_s']:.0f} ms a step, {found['images_per_s']:,.0f} images/s"
    title = f"{speed}, over {found['steps']} steps"
    print_table(title, ["part", "where", "ms", "share"], rows)
    print("\n".join(found["advice"]))
