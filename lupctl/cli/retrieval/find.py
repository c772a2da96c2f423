"""`lupctl find`: where and when a person is in footage."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.data.build_options import DetectorOption, FirstFrameOption, FormatOption, WeightsOption
from lupctl.cli.options import (
    DebugOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
    WorkersOption,
)
from lupctl.cli.output import print_json, print_plan, print_table
from lupctl.core.resolve.checkpoints import RUN_ALONE, find_checkpoint, newest_finetuning
from lupctl.core.resolve.data.building import CropOptions
from lupctl.core.resolve.retrieval.footage import find_footage, page_path, parse_window, refuse_without_videos
from lupctl.core.resolve.retrieval.limits import find_limits
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.ranking.reports.model.find import FindResult, FindVideo

PersonArgument = Annotated[
    list[Path],
    typer.Argument(
        metavar="PERSON.jpg...",
        help="Pictures of one person, cut out; several are averaged.",
        show_default=False,
    ),
]
InOption = Annotated[
    str,
    typer.Option(
        "--in",
        metavar="VIDEO|FOLDER|PACK",
        help="Where to look: a video, a folder of videos or of crops, or a pack.",
        show_default=False,
    ),
]
RunOption = Annotated[
    str | None,
    typer.Option(
        "--run",
        metavar="RUN|FILE",
        help="The network, .onnx and .xml too [default: the newest fine-tuning run].",
        show_default=False,
    ),
]
ReportOption = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="The report whose thresholds give the verdicts [default: report.json of the run].",
        show_default=False,
    ),
]
DetectionsOption = Annotated[
    Path | None,
    typer.Option(
        "--detections",
        help="Boxes of the persons, as `data build` takes them [default: VIDEO.txt or gt/gt.txt next to the video].",
        show_default=False,
    ),
]
EveryOption = Annotated[
    int | None,
    typer.Option(
        "--every",
        min=1,
        metavar="K",
        help="Crop from every K-th frame [default: about 5 a second].",
        show_default=False,
    ),
]
TrackOption = Annotated[
    bool | None,
    typer.Option(
        "--track/--no-track",
        help="Link boxes into tracklets, or take each crop alone [default: link boxes without person numbers].",
        show_default=False,
    ),
]
FpsOption = Annotated[
    float | None,
    typer.Option("--fps", min=0.001, help="Frames per second [default: as the video says].", show_default=False),
]
AfterOption = Annotated[
    str | None,
    typer.Option("--after", metavar="TIME", help="Only from this time on: seconds, or 1:30.", show_default=False),
]
BeforeOption = Annotated[
    str | None, typer.Option("--before", metavar="TIME", help="Only before this time.", show_default=False)
]
TopOption = Annotated[int, typer.Option("--top", min=1, help="Tracklets to list of each video.")]
PageOption = Annotated[bool, typer.Option("--page/--no-page", help="Write the page.")]


def find(
    persons: PersonArgument,
    inside: InOption,
    run: RunOption = None,
    report: ReportOption = None,
    detections: DetectionsOption = None,
    format: FormatOption = None,
    detector: DetectorOption = None,
    detector_weights: WeightsOption = None,
    first_frame: FirstFrameOption = None,
    every: EveryOption = None,
    track: TrackOption = None,
    fps: FpsOption = None,
    after: AfterOption = None,
    before: BeforeOption = None,
    top: TopOption = 20,
    page: PageOption = True,
    device: DeviceOption = None,
    workers: WorkersOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Finds a person in footage: which tracklets are most like the person, when, and whether a threshold is reached.

    Several pictures are of one person: `find a.jpg b.jpg` looks for one person with two pictures.

    Examples:

    `lupctl find person.jpg --in pets09 --out page.html`

    `lupctl find a.jpg b.jpg --in hall.mp4 --detections hall.txt --format mot --after 1:30`

    `lupctl find person.jpg --in videos --detector fasterrcnn --run mgn.safetensors --json`
    """
    from lupctl.core.flows.find import FindOrder, find_person, plan_find
    from lupctl.core.system.jobs.device import pick_device

    progress = Progress(quiet=quiet)
    space = open_workspace(home)
    where = pick_device(device)
    after_s, before_s = parse_window(after, before)
    options = CropOptions(
        detections=detections, format=format, detector=detector, weights=detector_weights, device=device,
        first_frame=first_frame,
    )  # fmt: skip
    footage = find_footage(space, inside, options, progress)
    refuse_without_videos(footage, options, every=every, track=track, fps=fps)
    checkpoint = pick_network(space, run, progress)
    order = FindOrder(
        queries=tuple(persons),
        footage=footage,
        checkpoint=checkpoint,
        limits=find_limits(checkpoint, report, progress),
        options=options,
        every=every,
        track=track,
        rate=fps,
        after_s=after_s,
        before_s=before_s,
        top=top,
        page=page_path(space, footage, persons[0], out) if page else None,
        workers=workers,
        force=force or out is None,  # the page of an earlier search in the workspace is made again, as a report is
        command=recorded_command(),
    )
    if dry_run:
        print_plan("lupctl.find-plan/1", "would find", plan_find(space, order, progress), json=json)
        return
    result = find_person(space, order, where, progress)
    if json:
        print_json("lupctl.find/1", result.model_dump(mode="json", exclude={"schema_name"}))
    else:
        show_result(result)


def pick_network(space: Workspace, named: str | None, progress: Progress) -> Path:
    """The checkpoint that is named, else that of the newest fine-tuning run."""
    if named is None:
        return newest_finetuning(space, progress) / CHECKPOINT_NAME
    if Path(named).suffix in RUN_ALONE and Path(named).is_file():
        from lupctl.core.ranking.retrieval.onnx.recorded import recorded_fingerprint

        recorded_fingerprint(Path(named))  # refuses one whose images are prepared nobody knows how
        return Path(named)
    return find_checkpoint(space, named)


def show_result(result: "FindResult") -> None:
    """Prints one table per video, and the answer."""
    from lupctl.core.ranking.reports.page.find import describe_times, describe_window

    total = sum(video.tracklets for video in result.videos)
    for video in result.videos:
        own = [tracklet for tracklet in result.tracklets if tracklet.video == video.name]
        title = video.name or result.source
        if not own:
            if len(result.videos) > 1:
                print(f"{title}: no person was found in this video")
            continue
        rows = [
            (
                number,
                tracklet.best if tracklet.person is None else f"person {tracklet.person}",
                describe_times(tracklet) or "-",
                tracklet.images,
                f"{tracklet.similarity:.3f}",
                f"{tracklet.best_similarity:.3f}",
                tracklet.verdict or "-",
            )
            for number, tracklet in enumerate(own, start=1)
        ]
        print_table(
            title,
            ["rank", "who", "when", "images", "similarity", "best image", "verdict"],
            rows,
            note=_more(video, len(own)),
        )
    if len(result.videos) > 1 and result.tracklets:
        best = max(result.tracklets, key=lambda one: one.similarity)
        print(f"most similar: {best.best} ({describe_times(best) or 'an image'}, {best.similarity:.3f})")
    print(describe_answer(result, total, describe_window(result)))
    if result.page is not None:
        print(result.page)


def describe_answer(result: "FindResult", total: int, window: str) -> str:
    """The answer in one line; `window` names the times that were searched."""
    from lupctl.core.ranking.reports.page.find import clock

    found = result.verdicts
    if not total:
        ends = [video.frames / video.rate for video in result.videos if video.frames and video.rate]
        known = bool(ends) and len(ends) == len(result.videos)
        late = known and result.after_s is not None and result.after_s >= max(ends)
        end = f": {'it ends' if len(ends) == 1 else 'the longest video ends'} at {clock(max(ends))}" if late else ""
        return f"no person was found in {result.source}{window}{end}"
    if found is None or result.limits is None:
        return f"no verdicts: {result.why_no_limits}"
    rest = f"{found['unsure']:,} unsure, {found['other']:,} other"
    if found["same"]:
        return f"same person: {found['same']:,} of {total:,}; {rest}"
    limits = result.limits
    if found["unsure"]:
        return f"nobody for certain: none of {total:,} reaches {limits.same:.3f}; {rest}"
    return f"nobody: none of {total:,} reaches {limits.other:.3f}"


def _more(video: "FindVideo", shown: int) -> str:
    return (
        ""
        if shown == video.tracklets
        else f"the {'' if shown == 1 else f'{shown:,} '}most similar of {video.tracklets:,}; --top lists more"
    )
