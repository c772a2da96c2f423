"""The build that a short `lupctl data build` means: where boxes come from, and which of them become crops."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import BoxFilters, DetectionFormat, Detector, VideoCameras
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.data.datasets import check_name
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.data.video.filters import FilterRules
    from lupctl.core.stages.build.job import BuildJob

DETECTION_FOLDERS = ("detections", "dets", "dets.pkl")
# Largest share of the boxes of LUPerson's and LUPerson-NL's videos that may leave the frame.
MAX_OUTSIDE = 0.05


@dataclass(frozen=True)
class CropOptions:
    """Options for the boxes and the crops made from them; None where not given.

    Args:
        detections: folder or file.
        format: of the detections.
        detector: finds the persons where there are no detections.
        weights: the detector's, from a file.
        device: where the detector runs.
        first_frame: the detections' number of a video's first frame.
        filters: rules to start from.
        min_score, min_width, aspect, min_keypoint: replace those rules, as in `FilterRules`.
        max_outside: largest share of a video's boxes, 0 to 1, that may leave the frame.
        every: crops of every N-th frame only.
        track: links boxes into tracklets.
        min_track: fewest frames of a tracklet.
    """

    detections: Path | None = None
    format: DetectionFormat | None = None
    detector: Detector | None = None
    weights: Path | None = None
    device: str | None = None
    first_frame: int | None = None
    filters: BoxFilters | None = None
    min_score: float | None = None
    min_width: float | None = None
    aspect: tuple[float, float] | None = None
    min_keypoint: float | None = None
    max_outside: float | None = None
    every: int = 1
    track: bool = False
    min_track: int = 1


def resolve_build(
    space: Workspace,
    name: str,
    options: CropOptions,
    *,
    videos: Path | None,
    out: Path | None,
    cameras: VideoCameras | None,
    global_ids: bool,
) -> "BuildJob":
    """The build job, as one process here would do it.

    Args:
        space: the workspace.
        name: of the dataset.
        options: boxes and crops.
        videos: folder of videos, or one file; None for the dataset's own.
        out: the pack; None for the workspace's.
        cameras: None for the dataset's default.
        global_ids: a person's number means the same person in every video.

    Raises:
        DataError: there are no detections.
        UsageError: options that do not go together, or detections of an unknown format.
    """
    from lupctl.core.stages.build.job import BuildJob, Cutting

    check_name(name, hint="choose another, such as")
    boxes_at = None if options.detector else options.detections or _find_detections(space, name)
    boxes_from = _pick_format(options, name, boxes_at)
    is_published = boxes_from in ("luperson", "luperson-nl")
    max_outside = options.max_outside
    if max_outside is None:
        max_outside = MAX_OUTSIDE if is_published else 1.0
    cutting = Cutting(
        boxes_from=boxes_from,
        first_frame=options.first_frame,
        rules=_pick_rules(options, boxes_from),
        every=options.every,
        max_outside=max_outside,
        track=options.track,
        min_track=_check_min_track(options.min_track, track=options.track),
        detector=options.detector,
        weights=_check_weights(options.weights, options.detector),
        device=options.device,
    )
    return BuildJob(
        dataset=name,
        videos=videos or space.raw / name / "videos",
        detections=boxes_at,
        out=out or space.packs / f"{name}.h5",
        cutting=cutting,
        global_ids=(global_ids or boxes_from == "luperson-nl") and not options.track,
        cameras=cameras or ("none" if is_published else "video"),
    )


def _find_detections(space: Workspace, name: str) -> Path:
    """The default path of a dataset's detections; the stage reports it if they do not exist."""
    paths = [space.raw / name / folder for folder in DETECTION_FOLDERS]
    return next((path for path in paths if path.exists()), paths[0])


def _pick_format(options: CropOptions, name: str, found: Path | None) -> DetectionFormat | None:
    """The format of the detections; a pickle's is never guessed, because LUPerson and LUPerson-NL count differently."""
    if options.detector is not None:
        if options.detections is not None or options.format is not None:
            raise UsageError(
                "--detector finds the boxes; --detections and --format read them", hint="use one or the other"
            )
        return None
    if options.format is not None:
        return options.format
    match name:
        case "luperson" | "luperson-nl":
            return name
    assert found is not None
    if not found.exists():
        raise DataError(
            f"{found}: there are no detections", hint="--detections FOLDER --format FORMAT, or --detector fasterrcnn"
        )
    match found.suffix.lower():
        case ".txt":
            return "mot"
        case ".json":
            return "coco"
        case _:
            raise UsageError(
                f"{found}: unclear format of detections; LUPerson counts frames from 1, LUPerson-NL from 0",
                hint="--format luperson|luperson-nl|mot|coco, or --detector fasterrcnn",
            )


def _pick_rules(options: CropOptions, boxes_from: DetectionFormat | None) -> "FilterRules":
    from lupctl.core.data.video.filters import FilterRules, pick_filters

    rules = pick_filters(options.filters, boxes_from)
    return FilterRules(
        min_score=rules.min_score if options.min_score is None else options.min_score,
        min_width=rules.min_width if options.min_width is None else options.min_width,
        aspect=options.aspect or rules.aspect,
        min_keypoint=rules.min_keypoint if options.min_keypoint is None else options.min_keypoint,
    )


def _check_min_track(min_track: int, *, track: bool) -> int:
    if min_track > 1 and not track:
        raise UsageError("--min-track filters tracklets, and none are made", hint="add --track")
    return min_track


def _check_weights(weights: Path | None, detector: Detector | None) -> Path | None:
    if weights is not None and detector is None:
        raise UsageError("--detector-weights needs a detector, and none is named", hint="--detector fasterrcnn")
    if weights is not None and not weights.is_file():
        raise UsageError(f"--detector-weights {weights}: there is no such file", hint="check the path with ls -l")
    return weights
