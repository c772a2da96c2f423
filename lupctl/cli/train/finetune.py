"""`lupctl finetune`."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lupctl.cli.command_line import lasting_command
from lupctl.cli.complete import complete_start
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
from lupctl.cli.output import print_json, print_path, print_plan, print_table
from lupctl.core.errors import UsageError
from lupctl.core.resolve.checkpoints import Start, find_start
from lupctl.core.resolve.datasets import complete_dataset
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.recipes.models import FinetuneRecipe

DEFAULT_RECIPE = "mgn-luperson"
# What an MGN's pixel constants and extra batch norm are depends on what it starts from.
IMAGENET_RECIPE = "mgn-imagenet"
NL_RECIPE = "mgn-luperson-nl"
# A run of another seed has it in its name.
DEFAULT_SEED = 1

DatasetsArgument = Annotated[
    list[str],
    typer.Argument(
        metavar="DATASET...",
        help="Labelled pack, by name or path; of several, each one's persons are others, and the first is the test.",
        autocompletion=complete_dataset,
    ),
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Run, checkpoint file, published weights that are here (lupctl model list), imagenet or scratch "
        "[default: the newest pre-training run of that architecture].",
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
RepeatOption = Annotated[
    str | None,
    typer.Option(
        metavar="R|full",
        help="Go through the part R times an epoch, or as often as makes an epoch as long as on the whole set.",
        show_default=False,
    ),
]


def finetune(
    datasets: DatasetsArgument,
    start: FromOption = None,
    subset: SubsetOption = None,
    repeat: RepeatOption = None,
    arch: ArchOption = None,
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
    """Trains a re-id network on labelled persons and evaluates it; the same command continues a stopped run.

    Examples:

    `lupctl finetune market1501`

    `lupctl finetune market1501 --from scratch --arch r18 --set schedule.epochs=60`

    `lupctl finetune market1501 --subset ids:0.1 --repeat full`

    `lupctl finetune market1501 cuhk03-labeled --from scratch`
    """
    from lupctl.core.stages.finetune.job import FinetuneJob, plan_finetuning
    from lupctl.core.stages.finetune.run import finetune as run
    from lupctl.core.system.jobs.device import pick_placement

    progress = Progress(quiet=quiet)
    space = open_workspace(home)
    placement = pick_placement(gpus=gpus, processes=processes)
    packs = tuple(space.find_pack(name) for name in datasets)
    flags: dict[str, Any] = {
        "net.arch": arch,
        "data.packs": [pack.stem for pack in packs],
        "data.subset": subset,
        "data.repeat": parse_repeat(repeat),
        "start": start,
    }
    origin, resolved = resolve(space, recipe, flags, set_ or [], progress)
    progress.say(placement.line)
    job = FinetuneJob(
        recipe=resolved,
        packs=packs,
        start=origin.checkpoint,
        run=out or default_run(space, packs, resolved, origin),
        placement=placement,
        workers=workers,
        command=lasting_command(),
        force=force,
        quiet=quiet,
    )
    if dry_run:
        plan: dict[str, object] = {
            "run": str(job.run),
            "packs": [str(pack) for pack in packs],
            "start": origin.name,
            "arch": resolved.net.arch,
        }
        plan |= {"device": placement.kind, "devices": placement.processes, "epochs": resolved.schedule.epochs}
        print_plan("lupctl.finetune-plan/1", "would fine-tune", {**plan, **asdict(plan_finetuning(job))}, json=json)
        return
    facts = run(job, progress)
    if json:
        print_json("lupctl.finetune/1", {"run": str(job.run), **facts})
        return
    show_scores(facts)
    print_path(job.run)
    progress.say(f"on every test set here: lupctl eval --all {job.run}")


def show_scores(facts: Mapping[str, Any]) -> None:
    """Prints a run's scores on its own test set, or on that of each of its packs."""
    names = {"map": "mAP", "map_official": "mAP official", "minp": "mINP", "rank1": "rank-1"}
    found = facts.get("all_scores", {facts["dataset"]: facts["scores"]})
    rows = [(name, *(f"{100 * scores[key]:.2f}" for key in names)) for name, scores in found.items() if scores]
    if rows:
        print_table("", ["%", *names.values()], rows)


def parse_repeat(text: str | None) -> float | str | None:
    """The number in what a user typed; anything else is left for the recipe to judge."""
    try:
        return None if text is None else float(text)
    except ValueError:
        return text


def resolve(
    space: Workspace, recipe: str | None, flags: dict[str, Any], overrides: list[str], progress: Progress
) -> tuple[Start, "FinetuneRecipe"]:
    """The start, and the recipe with what the start decides filled in.

    A checkpoint brings its pixel constants, which the recipe's own text stands above when it was named, and, being
    what it is, the depth and width of its trunk, and of an mgn its heads, which only `--set` and named flags stand
    above.
    """
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.recipes.shipped import resolve_recipe

    if any(entry.partition("=")[0].strip() == "data.batch" for entry in overrides):
        raise UsageError(
            "data.batch: a batch of fine-tuning is data.persons persons with data.images images each",
            hint="--set data.persons=16 --set data.images=4",
        )
    first = resolve_recipe("finetune", recipe or DEFAULT_RECIPE, overrides=overrides, flags=flags)
    assert isinstance(first, FinetuneRecipe)
    named = first.start or None
    origin = find_start(space, named, None if named else first.net.arch, progress)
    if recipe is None:
        recipe, more = default_recipe(origin, first.net.arch, progress)
        overrides = [*more, *overrides]
    adopted: dict[str, Any] = {}
    if origin.checkpoint is not None:
        network, pixels = origin.header["network"], origin.header["preprocessing"]
        adopted = {"pixels.mean": pixels["mean"], "pixels.std": pixels["std"]}
        heads = ("embedding", "extra_bn") if network["head"] == "mgn" and first.net.head == "mgn" else ()
        facts = [f"net.{key}={str(network[key]).lower()}" for key in ("arch", "width", *heads)]
        overrides = [*facts, *overrides]
    final = resolve_recipe(
        "finetune", recipe, overrides=overrides, flags={**flags, "start": origin.name}, adopted=adopted
    )
    assert isinstance(final, FinetuneRecipe)
    return origin, final


def default_recipe(origin: Start, arch: str, progress: Progress) -> tuple[str, list[str]]:
    """The recipe for a start when nobody names one, and what that start has that the recipe has not.

    Constants of a start that are neither LUPerson's nor LUPerson-NL's are its own, and are kept; so do the published
    runs from momentum contrast on ImageNet, which have the extra batch norm too.
    """
    from lupctl.core.recipes.sections import LUPERSON_MEAN, LUPERSON_NL_MEAN

    recipe, settings, why = DEFAULT_RECIPE, list[str](), ""
    if origin.checkpoint is None:
        if origin.name == "imagenet":
            recipe = f"{IMAGENET_RECIPE}-r101" if arch == "r101" else IMAGENET_RECIPE
    else:
        pixels = origin.header["preprocessing"]
        mean = tuple(pixels["mean"])
        if mean == LUPERSON_NL_MEAN:
            recipe = NL_RECIPE
        elif mean != LUPERSON_MEAN:
            settings = [f"pixels.mean={list(mean)}", f"pixels.std={list(pixels['std'])}"]
            why = ", with the start's pixel constants"
    progress.say(f"recipe: {recipe} (the default for this start{why}; --recipe bot is lighter)")
    return recipe, settings


def default_run(space: Workspace, packs: tuple[Path, ...], recipe: "FinetuneRecipe", origin: Start) -> Path:
    """Where a run goes when nobody says: the same command finds it again, one of another part or seed does not."""
    begun = Path(origin.name).stem if origin.checkpoint is not None else origin.name
    if begun == "checkpoint" and origin.checkpoint is not None:
        begun = origin.checkpoint.resolve().parent.name
    words = ["finetune", "+".join(pack.stem for pack in packs), recipe.net.arch, "from", begun]
    data = recipe.data
    if data.subset:
        words.append(Path(data.subset.replace(":", "-")).name.removesuffix(".txt"))
    if data.subset_seed:
        words.append(f"part{data.subset_seed}")
    if data.repeat != 1:
        words.append(f"repeat-{data.repeat:g}" if isinstance(data.repeat, float) else f"repeat-{data.repeat}")
    if recipe.seed != DEFAULT_SEED:
        words.append(f"seed{recipe.seed}")
    return space.runs / "-".join(words)
