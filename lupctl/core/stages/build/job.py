"""Settings of a crop build, and the result for one video."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from lupctl.core.choices import SHARD_BYTES, DetectionFormat, Detector, Executor, VideoCameras
from lupctl.core.data.video.boxes import Boxes
from lupctl.core.data.video.filters import FilterRules


@dataclass(frozen=True)
class Cutting:
    """Settings that determine which crops are cut from a video.

    Args:
        boxes_from: format of the detections; None if a detector finds the persons.
        first_frame: the detections' number of a video's first frame; None for the format's default.
        rules: conditions that a box has to meet.
        every: N, to cut crops from every N-th frame only.
        max_outside: a video is left out if a larger share of its boxes, 0 to 1, extends beyond the frame.
        track: links boxes into tracklets, which become the persons.
        min_track: least number of frames of a tracklet.
        detector: finds the persons if there are no detections.
        weights: file with the detector's weights.
        device: where the detector runs.
    """

    boxes_from: DetectionFormat | None
    first_frame: int | None = None
    rules: FilterRules = field(default_factory=FilterRules)
    every: int = 1
    max_outside: float = 1.0
    track: bool = False
    min_track: int = 1
    detector: Detector | None = None
    weights: Path | None = None
    device: str | None = None

    @property
    def facts(self) -> dict[str, object]:
        """The same for a record; without the device, which does not affect the result."""
        facts = asdict(self)
        del facts["device"]
        return {
            key: list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Path) else value
            for key, value in facts.items()
        }


@dataclass(frozen=True)
class BuildJob:
    """The settings of one build.

    Args:
        dataset: dataset name in the pack.
        videos: folder of videos, or one file.
        detections: folder or file; None with a detector.
        out: the pack, ending in `.h5`.
        cutting: which crops to cut.
        global_ids: a number means the same person in every video.
        cameras: `video` makes each video its own camera.
        shard_bytes: most encoded bytes in one file of the pack.
        executor: where the videos are processed.
        workers: processes; None for one per core.
        shard: this job's number, from 1, and the number of jobs that share the videos.
        strict: any problem with a video or its detections is an error, and no pack is made.
        force: replaces an existing pack.
        command: the command line, for the record.
    """

    dataset: str
    videos: Path
    detections: Path | None
    out: Path
    cutting: Cutting
    global_ids: bool = False
    cameras: VideoCameras = "none"
    shard_bytes: int = SHARD_BYTES
    executor: Executor = "local"
    workers: int | None = None
    shard: tuple[int, int] | None = None
    strict: bool = False
    force: bool = False
    command: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """The folder with the parts of an unfinished build."""
        return self.out.with_name(f".{self.out.stem}.build")


@dataclass(frozen=True)
class VideoTask:
    """One video with its boxes.

    Args:
        number: in the sorted list of all videos, from 1.
        name: of the video.
        path: its file, or its folder of pictures.
        detections: their file, or the boxes from a file for many videos; None with a detector.
        part: path of its crops without ending: `.h5`, and `.json` when it is done.
        key: changes with everything that its crops depend on.
    """

    number: int
    name: str
    path: Path
    detections: Path | Boxes | None
    part: Path
    key: str


@dataclass
class Outcome:
    """The result for one video; boxes = crops + all that were dropped.

    Args:
        name: of the video.
        key: of its task.
        frames: number of frames passed.
        height: of the frames, in pixels.
        width: of the frames, in pixels.
        boxes: number of boxes in its detections.
        crops: number of crops cut.
        clipped: number of crops whose boxes extend beyond the frame.
        dropped: boxes without a crop, by reason.
        quarantine: descriptions of what is wrong with the video or its boxes.
        warnings: descriptions of what may be wrong with it.
    """

    name: str
    key: str
    frames: int = 0
    height: int = 0
    width: int = 0
    boxes: int = 0
    crops: int = 0
    clipped: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    quarantine: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def drop(self, reason: str, count: int) -> None:
        """Count boxes that give no crop."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count
