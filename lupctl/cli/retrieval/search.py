"""`lupctl search`: the images of a gallery that are nearest to some pictures."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.options import (
    DebugOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    QuietOption,
)
from lupctl.cli.output import print_json, print_plan, print_table
from lupctl.cli.retrieval.options import CamerasOption
from lupctl.core.choices import SearchIndex
from lupctl.core.flows.fresh_features import find_features, make_features
from lupctl.core.resolve.retrieval.features import find_images_of_features, resolve_features
from lupctl.core.resolve.retrieval.galleries import find_queries, gallery_checkpoint, refuse_swapped
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.search import Found

GalleryArgument = Annotated[
    str,
    typer.Argument(
        metavar="RUN|FEATURES", help="A run, or a features file as `lupctl dump` writes it.", show_default=False
    ),
]
QueriesArgument = Annotated[
    list[Path],
    typer.Argument(metavar="IMAGE|FOLDER...", help="Pictures of persons, or folders of them.", show_default=False),
]
TopOption = Annotated[int, typer.Option("--top", min=1, help="Results for each picture.")]
IndexOption = Annotated[
    SearchIndex,
    typer.Option("--index", help="exact compares with every image; ivf uses a faiss index, built once and kept."),
]
SheetOption = Annotated[
    Path | None, typer.Option("--sheet", help="Draw the results into this image file.", show_default=False)
]
FromOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="RUN|FILE",
        help="The network that made the gallery, .onnx and .xml too [default: the one its record names, if found].",
        show_default=False,
    ),
]
ImagesOption = Annotated[
    str | None,
    typer.Option(
        "--images",
        metavar="PACK|FOLDER",
        help="Where the sheet takes its images from [default: the dataset's pack].",
        show_default=False,
    ),
]


def search(
    target: GalleryArgument,
    queries: QueriesArgument,
    top: TopOption = 20,
    index: IndexOption = "exact",
    sheet: SheetOption = None,
    start: FromOption = None,
    images: ImagesOption = None,
    cameras: CamerasOption = None,
    device: DeviceOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Finds the images of a gallery that are nearest to some pictures, with names, cameras and distances.

    Examples:

    `lupctl search market1501.features.h5 person.jpg --top 20 --sheet out.png`

    `lupctl search RUN ~/queries --sheet out.png` (every image in that folder)

    `lupctl search city.features.h5 a.jpg b.jpg --index ivf --json`
    """
    from lupctl.core.stages.search import SearchJob, plan_search
    from lupctl.core.stages.search import search as find
    from lupctl.core.system.jobs.device import pick_device

    progress = Progress(quiet=quiet)
    space = open_workspace(home)
    where = pick_device(device)
    refuse_swapped(target, queries)
    pictures = find_queries(queries)
    named = resolve_features(space, target, progress=progress, command="search")
    gallery, missing = find_features(space, named, progress, command=recorded_command(), cameras=cameras)
    if missing is not None and dry_run:
        plan = {"gallery": f"{named.run}: its features would be made first", "queries": [str(one) for one in pictures]}
        print_plan("lupctl.search-plan/1", "would search", plan, json=json)
        return
    if missing is not None:
        make_features(missing, where, progress)
    job = SearchJob(
        gallery=gallery,
        queries=pictures,
        checkpoint=gallery_checkpoint(space, gallery, start, progress),
        top=top,
        index=index,
        images=find_images_of_features(space, images, gallery, progress),
        sheet=sheet,
        force=force,
    )
    if dry_run:
        print_plan("lupctl.search-plan/1", "would search", plan_search(job), json=json)
        return
    found = find(job, where, progress)
    if json:
        result = [
            {"query": str(one.query), "hits": [asdict(hit) for hit in one.hits], "left_out": one.left_out}
            for one in found
        ]
        facts = {"gallery": str(gallery), "checkpoint": str(job.checkpoint), "index": index}
        print_json("lupctl.search/1", {**facts, "sheet": None if sheet is None else str(sheet), "queries": result})
    else:
        show_found(found, sheet)


def show_found(found: "list[Found]", sheet: Path | None) -> None:
    """Prints one table per picture."""
    for one in found:
        rows = [(hit.rank, f"{hit.distance:.4f}", hit.person, hit.camera, hit.name) for hit in one.hits]
        note = "" if sheet is None or one is not found[-1] else f"sheet: {sheet}"
        print_table(str(one.query), ["rank", "1 - cos", "person", "camera", "name"], rows, note=note)
