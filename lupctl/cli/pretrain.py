"""`lupctl pretrain`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.datasets import complete_dataset
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
from lupctl.cli.resolve import find_pretraining_packs
from lupctl.cli.show import print_json, print_path, print_plan
from lupctl.core.choices import Method
from lupctl.core.progress import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.pretrain.job import PretrainJob

DEFAULT_RECIPE = "luperson-moco"

DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="Pack to train on, by name or path; repeatable [default: the one unlabelled pack].",
        show_default=False,
        autocompletion=complete_dataset,
    ),
]
MethodOption = Annotated[
    Method | None, typer.Option("--method", help="Self-supervision [default: the recipe's].", show_default=False)
]


def pretrain(
    method: MethodOption = None,
    arch: ArchOption = None,
    data: DataOption = None,
    gpus: GpusOption = None,
    processes: ProcessesOption = None,
    recipe: RecipeOption = None,
    set_: SetOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    workers: WorkersOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Trains a backbone on persons without labels; the same command continues a stopped run.

    Examples:

    `lupctl pretrain --arch r50 --gpus 8`

    `lupctl pretrain --arch r18 --data market1501 --set data.batch=256 --set schedule.epochs=50`
    """
    from lupctl.core.device import pick_placement
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.recipes.shipped import resolve_recipe
    from lupctl.core.stages.pretrain.job import PretrainJob, plan_pretraining
    from lupctl.core.stages.pretrain.run import pretrain as run

    progress = Progress(quiet=quiet)
    space = open_workspace(home)
    placement = pick_placement(gpus=gpus, processes=processes)
    if recipe is None:
        progress.say(f"recipe: {DEFAULT_RECIPE} (LUPerson's, the default)")
    flags = {"method": method, "net.arch": arch, "data.packs": data}
    resolved = resolve_recipe("pretrain", recipe or DEFAULT_RECIPE, overrides=set_ or (), flags=flags)
    assert isinstance(resolved, PretrainRecipe)
    packs = find_pretraining_packs(space, resolved.data.packs, progress)
    progress.say(placement.line)
    job = PretrainJob(
        recipe=resolved,
        packs=packs,
        run=out or default_run(space, resolved.method, resolved.net.arch, packs),
        placement=placement,
        workers=workers,
        command=("lupctl", *sys.argv[1:]),
        force=force,
        quiet=quiet,
    )
    if dry_run:
        show_plan(job, asdict(plan_pretraining(job)), json=json)
        return
    facts = run(job, progress)
    if json:
        print_json("lupctl.pretrain/1", {"run": str(job.run), **facts})
    else:
        print_path(job.run)


def default_run(space: Workspace, method: str, arch: str, packs: tuple[Path, ...]) -> Path:
    """Where a run goes when nobody says: the same command finds it again."""
    return space.runs / "-".join(["pretrain", method, arch, *(path.stem for path in packs)])


def show_plan(job: "PretrainJob", counts: dict[str, int], *, json: bool) -> None:
    """Prints what a run would do."""
    recipe = job.recipe
    plan = {
        "run": str(job.run),
        "packs": [str(path) for path in job.packs],
        "device": job.placement.kind,
        "devices": job.placement.processes,
        "arch": recipe.net.arch,
        "epochs": recipe.schedule.epochs,
        "batch": recipe.data.batch,
        "bn_groups": recipe.bn_groups,
        **counts,
    }
    print_plan("lupctl.pretrain-plan/1", "would pre-train", plan, json=json)
