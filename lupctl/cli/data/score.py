"""`lupctl data score`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lupctl.cli.complete import complete_dataset, complete_run
from lupctl.cli.data.curve import CurveOption, CurveOptions, ProbeOption, show_curve, show_curve_plan
from lupctl.cli.options import (
    DebugOption,
    DeviceOption,
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
from lupctl.cli.retrieval.dump import ShardOption
from lupctl.cli.retrieval.options import CamerasOption
from lupctl.core.choices import MovementDistance, Precision
from lupctl.core.errors import UsageError
from lupctl.core.resolve.data.scoring import find_networks, find_pack_to_score, say_descent
from lupctl.core.resolve.training.placement import DumpPlace, Machines, find_machines, place, place_dump
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.dump.job import Shard
    from lupctl.core.stages.score.job import ScoreJob
    from lupctl.core.stages.score.run import ScoreResult

BAR_WIDTH: Final = 40

PackArgument = Annotated[
    str, typer.Argument(metavar="PACK", help="A pack, by name or path.", autocompletion=complete_dataset)
]
BeforeOption = Annotated[
    str | None,
    typer.Option(
        "--before",
        metavar="RUN|CHECKPOINT",
        help="A pre-trained network.",
        show_default=False,
        autocompletion=complete_run,
    ),
]
AfterOption = Annotated[
    str | None,
    typer.Option(
        "--after",
        metavar="RUN|CHECKPOINT",
        help="The same network, fine-tuned.",
        show_default=False,
        autocompletion=complete_run,
    ),
]
DistanceOption = Annotated[
    MovementDistance,
    typer.Option("--distance", help="How far a feature moved: by direction (cosine, l2) or as it is (raw-l2)."),
]
SheetOption = Annotated[
    Path | None,
    typer.Option(
        "--sheet", metavar="PICTURE", help="Draw the best, the middle and the worst images.", show_default=False
    ),
]


def score(
    pack: PackArgument,
    before: BeforeOption = None,
    after: AfterOption = None,
    distance: DistanceOption = "cosine",
    sheet: SheetOption = None,
    curve: CurveOption = None,
    recipe: RecipeOption = None,
    probe: ProbeOption = None,
    set_: SetOption = None,
    cameras: CamerasOption = None,
    precision: Annotated[Precision, typer.Option("--precision", help="Number type of forward passes.")] = "float32",
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="Images per forward pass.")] = 128,
    device: DeviceOption = None,
    gpus: GpusOption = None,
    processes: ProcessesOption = None,
    shard: ShardOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    workers: WorkersOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Scores a pack's images by how little fine-tuning moved their features; `pretrain --keep` trains on the best.

    Examples:

    `lupctl data score luperson --before dino --after dino-on-market --gpus 8`

    `lupctl data score luperson --before dino --after dino-on-market --shard 2/4` (one of four machines)

    `lupctl data score market1501 --before RUN --after RUN --sheet best.png`

    `lupctl data score market1501 --curve 0.25,0.5,0.75,1` (with the scores that are there: does filtering pay?)
    """
    from lupctl.core.flows.score_curve import plan_curve, run_curve
    from lupctl.core.formats.scores.file import scores_path
    from lupctl.core.stages.dump.job import parse_shard
    from lupctl.core.stages.score.job import ScoreJob

    machines, space = find_machines(None, None, None), open_workspace(home)
    progress = Progress(quiet=quiet or not machines.leads)
    options = CurveOptions(curve, recipe, probe, tuple(set_ or ()))
    options.check(machines, device=device, shard=shard)
    path = find_pack_to_score(space, pack, progress)
    scores = out or scores_path(path)
    if before is not None or after is not None or curve is None:
        networks = find_networks(space, before, after)
        job = ScoreJob(
            pack=path,
            before=networks[0],
            after=networks[1],
            out=scores,
            distance=distance,
            sheet=sheet,
            cameras=cameras,
            precision=precision,
            chunk=chunk,
            workers=workers,
            force=force,
            command=recorded_command(),
        )
        where = place_dump(device, gpus, processes, machines, planned=dry_run)
        _score(space, job, where, machines, progress, parse_shard(shard), dry_run=dry_run, json=json)
        if curve is None or dry_run:
            return
    elif sheet is not None:
        raise UsageError("--sheet is of a scoring: --before and --after are missing", hint="--before RUN --after RUN")
    request = options.request(space, path, scores, progress, workers=workers, force=force, quiet=quiet)
    jobs = plan_curve(space, request, place(gpus, processes, machines, planned=dry_run), progress)
    if dry_run:
        show_curve_plan(jobs, json=json)
        return
    show_curve(run_curve(jobs, progress), scores, json=json)


def _score(
    space: Workspace,
    job: "ScoreJob",
    where: "DumpPlace",
    machines: Machines,
    progress: Progress,
    shard: "Shard | None",
    *,
    dry_run: bool,
    json: bool,
) -> None:
    """Plans or makes the scores, and prints them."""
    from lupctl.core.flows.scoring import plan_dumps, score_images
    from lupctl.core.stages.dump.job import fit_processes, plan_dump
    from lupctl.core.stages.score.job import compare_networks

    compared = compare_networks(job)
    say_descent(space, job.before, job.after, progress)
    dumps = plan_dumps(job, compared, shard)
    if where.placement is not None and machines.outer is None:
        where = replace(where, placement=fit_processes(dumps[0], where.placement, is_asked=where.is_asked))
    if dry_run:
        plan: dict[str, object] = {
            "pack": str(job.pack),
            "before": str(job.before),
            "after": str(job.after),
            "distance": job.distance,
            "out": str(job.out),
            "device": where.name,
            **plan_dump(dumps[0], processes=where.processes),
            "dim": compared.dim,
            "features_bytes": 8 * compared.images * compared.dim,
        }
        if machines.leads:
            print_plan("lupctl.score-plan/1", "would score", plan, json=json)
        return
    result = score_images(job, where, progress, shard=shard, leads=machines.leads)
    if result is not None and machines.leads:
        show_result(result, json=json)


def show_result(result: "ScoreResult", *, json: bool) -> None:
    """Prints how the scores are distributed, and where they are."""
    if json:
        print_json("lupctl.scores/1", asdict(result))
        return
    title = f"{result.images:,} images, {result.distance} between {result.before} and {result.after}"
    print_table(
        title,
        [f"{share:.0%}" if share not in (0, 1) else ("worst", "best")[int(share)] for share in result.quantiles],
        [[f"{value:.4f}" for value in result.quantiles.values()]],
    )
    highest = max(result.counts)
    rows = [
        (f"{low:.4f}", f"{high:.4f}", count, "█" * round(BAR_WIDTH * count / highest) or ("▏" if count else ""))
        for low, high, count in zip(result.edges, result.edges[1:], result.counts, strict=False)
    ]
    print_table("", ["from", "to", "images", "of the most"], list(reversed(rows)))
    if result.sheet is not None:
        print_path(result.sheet)
    print_path(result.path)
