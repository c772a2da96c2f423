"""Options of `lupctl data build`."""

from pathlib import Path
from typing import Annotated

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.core.choices import BoxFilters, DetectionFormat, Detector, Executor, VideoCameras

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The dataset to build.", autocompletion=complete_dataset)
]
VideosOption = Annotated[
    Path | None,
    typer.Option(
        "--videos",
        help="Folder of videos or of folders of frames, or one video [default: raw/NAME/videos].",
        show_default=False,
    ),
]
DetectionsOption = Annotated[
    Path | None,
    typer.Option(
        "--detections",
        help="Folder with one file per video, named like the video, or one file [default: raw/NAME/detections].",
        show_default=False,
    ),
]
FormatOption = Annotated[
    DetectionFormat | None,
    typer.Option(
        "--format",
        help="Format of the detections: luperson (pickles, frames from 1); luperson-nl (pickles with pid, from 0); mot "
        "(text, from 1); coco (JSON, frame_id from 0) [default: by NAME, or by the ending .txt or .json].",
        show_default=False,
    ),
]
DetectorOption = Annotated[
    Detector | None,
    typer.Option("--detector", help="Find the persons with this torchvision network instead.", show_default=False),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option(
        "--detector-weights",
        help="The detector's weights, from a file [default: downloaded once].",
        show_default=False,
    ),
]
FirstFrameOption = Annotated[
    int | None,
    typer.Option(
        "--first-frame",
        min=0,
        help="The detections' number of the first frame [default: by --format].",
        show_default=False,
    ),
]
FiltersOption = Annotated[
    BoxFilters | None,
    typer.Option(
        "--filters",
        help="Which boxes become crops: published (LUPerson's rules: score over 0.72, wider than 48 pixels, height / "
        "width from 1.5 to 5); none (all) [default: published for luperson and --detector].",
        show_default=False,
    ),
]
MinScoreOption = Annotated[
    float | None, typer.Option("--min-score", help="Keep boxes with a score above this.", show_default=False)
]
MinWidthOption = Annotated[
    float | None,
    typer.Option("--min-width", min=0, help="Keep boxes wider than this, in pixels.", show_default=False),
]
AspectOption = Annotated[
    str | None,
    typer.Option(
        "--aspect", metavar="LOW:HIGH", help="Keep boxes with a height / width in this range.", show_default=False
    ),
]
MinKeypointOption = Annotated[
    float | None,
    typer.Option(
        "--min-keypoint",
        help="Score from which a keypoint is visible; head, both shoulders and a hip, knee or ankle must be visible.",
        show_default=False,
    ),
]
MaxOutsideOption = Annotated[
    float | None,
    typer.Option(
        "--max-outside",
        min=0,
        max=1,
        help="Leave a video out when more than this share of its boxes leaves the frame [default: 0.05 for luperson "
        "and luperson-nl, else 1].",
        show_default=False,
    ),
]
EveryOption = Annotated[int, typer.Option("--every", min=1, metavar="K", help="Crop from every K-th frame only.")]
TrackOption = Annotated[bool, typer.Option("--track", help="Link boxes into tracklets, which become the persons.")]
MinTrackOption = Annotated[int, typer.Option("--min-track", min=1, help="Keep tracklets of at least this many frames.")]
GlobalIdsOption = Annotated[
    bool,
    typer.Option("--global-ids", help="A number means the same person in every video, as in luperson-nl."),
]
CamerasOption = Annotated[
    VideoCameras | None,
    typer.Option(
        "--cameras",
        help="video (each video is a camera) or none [default: none for luperson and luperson-nl].",
        show_default=False,
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard", metavar="I/N", help="This is job I of N that share the videos; the last one writes the pack.",
        show_default=False,
    ),
]  # fmt: skip
ExecutorOption = Annotated[Executor, typer.Option("--executor", help="Processes on this machine, or a Ray cluster.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Videos at once [default: one per core, at most 16].", show_default=False),
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Write no pack if anything is wrong; exit with 3.")]
