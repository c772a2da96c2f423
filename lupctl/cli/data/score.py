"""`lupctl data score`."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.complete import complete_dataset, complete_run
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
    WorkersOption,
)
from lupctl.cli.output import print_json, print_path, print_plan, print_table
from lupctl.cli.retrieval.dump import ShardOption
from lupctl.cli.retrieval.options import CamerasOption
from lupctl.core.choices import MovementDistance, Precision
from lupctl.core.flows.scoring import plan_dumps, score_images
from lupctl.core.resolve.data.scoring import find_networks, find_pack_to_score, say_descent
from lupctl.core.resolve.training.placement import find_machines, place_dump
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.score.run import ScoreResult

BAR_WIDTH = 40

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
    """
    from lupctl.core.formats.scores.file import scores_path
    from lupctl.core.stages.dump.job import fit_processes, parse_shard, plan_dump
    from lupctl.core.stages.score.job import ScoreJob, compare_networks

    machines = find_machines(None, None, None)
    progress = Progress(quiet=quiet or not machines.leads)
    part, space = parse_shard(shard), open_workspace(home)
    where = place_dump(device, gpus, processes, machines, planned=dry_run)
    path = find_pack_to_score(space, pack, progress)
    networks = find_networks(space, before, after)
    job = ScoreJob(
        pack=path,
        before=networks[0],
        after=networks[1],
        out=out or scores_path(path),
        distance=distance,
        sheet=sheet,
        cameras=cameras,
        precision=precision,
        chunk=chunk,
        workers=workers,
        force=force,
        command=recorded_command(),
    )
    compared = compare_networks(job)
    say_descent(space, *networks, progress)
    dumps = plan_dumps(job, compared, part)
    if where.placement is not None and machines.outer is None:
        where = replace(where, placement=fit_processes(dumps[0], where.placement, is_asked=where.is_asked))
    if dry_run:
        plan: dict[str, object] = {
            "pack": str(path),
            "before": str(job.before),
            "after": str(job.after),
            "distance": distance,
            "out": str(job.out),
            "device": where.name,
            **plan_dump(dumps[0], processes=where.processes),
            "dim": compared.dim,
            "features_bytes": 8 * compared.images * compared.dim,
        }
        if machines.leads:
            print_plan("lupctl.score-plan/1", "would score", plan, json=json)
        return
    result = score_images(job, where, progress, shard=part, leads=machines.leads)
    if result is not None:
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
