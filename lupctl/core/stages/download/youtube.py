"""Download of one video through yt-dlp, as exactly the stream that the published boxes need."""

import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lupctl.core.data.catalog.video_list import VideoName
from lupctl.core.errors import DataError, StoppedError, UsageError
from lupctl.core.system.fetch.transfer import Patience, Stopwatch, stopped

# The published boxes are in pixels of the stream that this rule selects; both collections use it.
STREAM_RULE: Final = "bestvideo[ext=mp4][height<=?720][filesize<=500M]/best[height<=?720][filesize<=500M]"
ADDRESS: Final = "https://www.youtube.com/watch?v={id}"
GONE: Final = re.compile(
    r"video (is )?unavailable|video is not available|private video|has been removed|no longer available"
    r"|account .*terminated|been terminated|does not exist|video is private|members-only|join this channel",
    re.IGNORECASE,
)
FULL_DISK: Final = re.compile(r"no space left|errno 28|disk quota exceeded", re.IGNORECASE)


class GoneError(Exception):
    """The host no longer has the video."""


class FailedError(Exception):
    """The download of a video failed this time."""


class FullDiskError(Exception):
    """The disk has no room for the video."""


@dataclass(frozen=True)
class Stream:
    """A fetched video.

    Args:
        path: of the file.
        format: the stream's number at the source.
        width: in pixels, if known.
        height: the same.
        fps: frames per second, if known.
    """

    path: Path
    format: str
    width: int | None
    height: int | None
    fps: float | None


class _SilentLogger:
    """Discards yt-dlp's many messages; the ones that matter arrive as exceptions."""

    def debug(self, message: str) -> None:
        return

    def warning(self, message: str) -> None:
        return

    def error(self, message: str) -> None:
        return


def check_yt_dlp() -> None:
    """Fail early if yt-dlp is missing.

    Raises:
        UsageError: it is not installed.
    """
    try:
        import yt_dlp  # noqa: F401
    except ImportError as error:
        raise UsageError("videos need yt-dlp, which is not installed", hint="pip install 'lupctl[videos]'") from error


def fetch_video(
    video: VideoName,
    slot: Path,
    cancel: threading.Event,
    *,
    address: str = ADDRESS,
    patience: Patience | None = None,
    **options: Any,
) -> Stream:
    """Fetch one video, continuing what an earlier call left in its folder.

    The id is always part of an address, never an argument by itself, since it may begin with `-`; no shell is involved.

    Args:
        video: the video.
        slot: a folder for this video only.
        cancel: set by another thread to stop.
        address: of a video, with `{id}` in it.
        patience: how long the whole video may take.
        options: of yt-dlp, for tests.

    Raises:
        GoneError: its host no longer has it.
        FailedError: anything else that went wrong.
        FullDiskError: the disk is full.
        StoppedError: `cancel` was set.
    """
    import yt_dlp

    stopwatch = Stopwatch(str(video), patience or Patience())

    def check_cancel(status: dict[str, Any]) -> None:
        if cancel.is_set():
            raise stopped()
        try:
            stopwatch.check(status.get("total_bytes") or status.get("downloaded_bytes") or 0)
        except DataError as error:
            raise FailedError(error.message) from error

    slot.mkdir(parents=True, exist_ok=True)
    given = {
        "format": STREAM_RULE,
        # The stream's number is in the name, so that two streams are never mixed.
        "outtmpl": {"default": f"{str(slot).replace('%', '%%')}/%(format_id)s.%(ext)s"},
        "noplaylist": True, "quiet": True, "no_warnings": True, "noprogress": True, "color": "no_color",
        "logger": _SilentLogger(), "progress_hooks": [check_cancel], "continuedl": True, "overwrites": False,
        "updatetime": False, "retries": 5, "fragment_retries": 5, "socket_timeout": 30, "fixup": "never",
        "cachedir": False,
        **options,
    }  # fmt: skip
    try:
        with yt_dlp.YoutubeDL(given) as client:
            info = client.extract_info(address.format(id=video.id), download=True)
    except StoppedError:
        raise
    except yt_dlp.utils.YoutubeDLError as error:
        raise _judge(str(error)) from error
    except OSError as error:
        raise _judge(str(error)) from error
    downloads = (info or {}).get("requested_downloads") or []
    if not downloads:
        raise FailedError("yt-dlp gave no file")
    first = downloads[0]
    return Stream(
        Path(first["filepath"]),
        str(first.get("format_id") or "unknown"),
        first.get("width"),
        first.get("height"),
        first.get("fps"),
    )


def _judge(message: str) -> Exception:
    reason = " ".join(re.sub(r"^(ERROR: )?(\[[\w:]+\] )?([\w-]{11}: )?", "", message).split())[:300]
    if FULL_DISK.search(reason):
        return FullDiskError(reason)
    return GoneError(reason) if GONE.search(reason) else FailedError(reason)
