"""When a frame of a video was shown: its number, and the frame rate of the video."""

from dataclasses import dataclass
from pathlib import Path

from lupctl.core.choices import DetectionFormat
from lupctl.core.data.video.detections import first_frame_of
from lupctl.core.data.video.frames import open_frames
from lupctl.core.data.video.listing import find_videos
from lupctl.core.errors import DataError


@dataclass(frozen=True)
class Clock:
    """The frames of one video.

    Args:
        rate: frames per second; 0 if unknown.
        first: number of the first frame, as the detections count.
        frames: how many there are, by the header; 0 if unknown.

    >>> Clock(rate=10.0, first=1, frames=200).time(51)
    5.0
    """

    rate: float = 0.0
    first: int = 0
    frames: int = 0

    def time(self, frame: int) -> float | None:
        """Seconds from the beginning of the video to a frame; None if the rate is unknown."""
        return (frame - self.first) / self.rate if self.rate else None


class Clocks:
    """The clocks of videos by name; a video is opened when it is asked for, so that thousands cost nothing.

    Args:
        root: the videos that crops were cut from, as `find_videos` takes them; None where they are unknown.
        boxes_from: format of the detections; None for a detector.
        first_frame: number of the first frame, where it is not the format's.
        rate: frames per second, in place of what the videos say; folders of pictures say nothing.
    """

    def __init__(
        self,
        root: Path | None,
        *,
        boxes_from: DetectionFormat | None = None,
        first_frame: int | None = None,
        rate: float | None = None,
    ) -> None:
        self._boxes_from, self._first_frame, self._rate = boxes_from, first_frame, rate or 0.0
        self._paths: dict[str, Path] = {}
        if root is not None:
            try:
                self._paths = {video.name: video.path for video in find_videos(root)}
            except DataError:  # moved or deleted since the crops were cut: then the times are unknown
                self._paths = {}
        self._known: dict[str, Clock] = {}

    @property
    def names(self) -> list[str]:
        """The names of the videos that are there."""
        return list(self._paths)

    def of(self, name: str) -> Clock:
        """The clock of a video; without a rate if it cannot be opened and no rate was given."""
        if name not in self._known:
            self._known[name] = self._read(name)
        return self._known[name]

    def _read(self, name: str) -> Clock:
        first = self._first_frame
        default = first_frame_of(self._boxes_from) if self._boxes_from else 0
        if name not in self._paths:
            return Clock(self._rate, default if first is None else first)
        try:
            frames = open_frames(self._paths[name])
        except DataError:
            return Clock(self._rate, default if first is None else first)
        frames.close()
        if first is None and self._boxes_from == "coco" and frames.first_name is not None:
            default = frames.first_name  # frames are then numbered as the files are
        return Clock(self._rate or frames.rate, default if first is None else first, frames.promised)
