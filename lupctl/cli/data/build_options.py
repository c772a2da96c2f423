"""Options of `lupctl data build`."""

from pathlib import Path
from typing import Annotated

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.core.choices import BoxFilters, DetectionFormat, Detector, Executor, VideoCameras

NameArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="The dataset to be made.", autocompletion=complete_dataset)
]
VideosOption = Annotated[
    Path | None,
    typer.Option(
        "--videos",
        help="Folder of videos or of folders of pictures, or one video [default: raw/NAME/videos].",
        show_default=False,
    ),
]
DetectionsOption = Annotated[
    Path | None,
    typer.Option(
        "--detections",
        help="Folder with a file per video, named as the video is, or one file [default: raw/NAME/detections].",
        show_default=False,
    ),
]
FormatOption = Annotated[
    DetectionFormat | None,
    typer.Option(
        "--format",
        help="Of the detections: luperson (pickles, frames from 1); luperson-nl (pickles with pid, from 0); mot (text, "
        "from 1); coco (JSON, frame_id from 0) [default: by NAME, or by the ending .txt or .json].",
        show_default=False,
    ),
]
DetectorOption = Annotated[
    Detector | None,
    typer.Option("--detector", help="Find the persons with torchvision's network instead.", show_default=False),
]
WeightsOption = Annotated[
    Path | None,
    typer.Option("--detector-weights", help="Its weights from a file [default: fetched once].", show_default=False),
]
FirstFrameOption = Annotated[
    int | None,
    typer.Option(
        "--first-frame", min=0, help="What the detections call the first frame [default: as above].", show_default=False
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
    float | None, typer.Option("--min-score", help="The score has to be above.", show_default=False)
]
MinWidthOption = Annotated[
    float | None, typer.Option("--min-width", min=0, help="Pixels; the box has to be wider.", show_default=False)
]
AspectOption = Annotated[
    str | None, typer.Option("--aspect", metavar="LOW:HIGH", help="Range of height / width.", show_default=False)
]
MinKeypointOption = Annotated[
    float | None,
    typer.Option(
        "--min-keypoint",
        help="A keypoint is visible from this score; the head, both shoulders and a hip, knee or ankle have to be.",
        show_default=False,
    ),
]
MaxOutsideOption = Annotated[
    float | None,
    typer.Option(
        "--max-outside",
        min=0,
        max=1,
        help="Leave a video out when a larger share of its boxes leaves the frame [default: 0.05 for luperson and "
        "luperson-nl, else 1].",
        show_default=False,
    ),
]
EveryOption = Annotated[int, typer.Option("--every", min=1, metavar="K", help="Crops of every K-th frame only.")]
TrackOption = Annotated[bool, typer.Option("--track", help="Link boxes into tracklets, which become the persons.")]
MinTrackOption = Annotated[int, typer.Option("--min-track", min=1, help="Frames that a tracklet has to have.")]
GlobalIdsOption = Annotated[
    bool,
    typer.Option("--global-ids", help="A person's number means the same in every video, as it does in luperson-nl."),
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
        "--shard", metavar="I/N", help="This is job I of N that share the videos; the last makes the pack.",
        show_default=False,
    ),
]  # fmt: skip
ExecutorOption = Annotated[Executor, typer.Option("--executor", help="Processes here, or a Ray cluster.")]
ProcessesOption = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Videos at once [default: the cores, at most 16].", show_default=False),
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Make no pack when anything is wrong; exit with 3.")]
