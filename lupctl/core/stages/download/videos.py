"""Download of LUPerson's videos: from a list to files in place, with a ledger of the outcome of each."""

import shutil
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from lupctl.core.data.catalog.links import VIDEO_LIST_NAMES
from lupctl.core.data.catalog.origin import write_origin
from lupctl.core.data.catalog.video_list import VideoName, read_video_list
from lupctl.core.errors import DataError, StoppedError
from lupctl.core.stages.download.ledger import Entry, Ledger
from lupctl.core.stages.download.place import locked_staging, open_slots, slot_of
from lupctl.core.stages.download.plan import Wanted, read_own_origin
from lupctl.core.stages.download.run import origin_of
from lupctl.core.stages.download.youtube import (
    FailedError,
    FullDiskError,
    GoneError,
    Stream,
    check_yt_dlp,
    fetch_video,
)
from lupctl.core.system.disk.atomic import file_fingerprint, sync_path
from lupctl.core.system.fetch.transfer import Patience, free_bytes
from lupctl.core.system.fetch.workers import finish_each
from lupctl.core.system.progress.lines import Progress

LEDGER_NAME = "videos.jsonl"
VIDEOS_FOLDER = "videos"
# That many in a row are no accident: the host is blocking us, or there is no network.
MOST_FAILURES_IN_A_ROW = 25
NUM_REASONS = 5

Fetch = Callable[[VideoName, Path, threading.Event], Stream]


@dataclass(frozen=True)
class VideosPlan:
    """What fetching a list would do.

    Args:
        wanted: the dataset.
        videos: all videos of the list.
        missing: those to fetch.
        done: number of videos that are there.
        gone: number of videos that are known to be gone and are not requested.
        refetch: whether existing files are fetched again.
    """

    wanted: Wanted
    videos: list[VideoName]
    missing: list[VideoName]
    done: int
    gone: int
    refetch: bool

    @property
    def listed(self) -> int:
        """Number of videos in the list."""
        return len(self.videos)

    @property
    def folder(self) -> Path:
        """The folder for the videos."""
        return self.wanted.folder / VIDEOS_FOLDER


@dataclass(frozen=True)
class VideosResult:
    """The result of fetching a list.

    Args:
        listed: number of videos in the list.
        done: number of files that are there now.
        gone: number of videos that their host no longer has.
        failed: number of videos that failed and may work another time.
        fetched: number of files fetched in this call.
        reasons: the most frequent reasons of failures, with their counts.
        folder: of the files.
        ledger: file with one line per attempt.
    """

    listed: int
    done: int
    gone: int
    failed: int
    fetched: int
    reasons: list[str]
    folder: Path
    ledger: Path


def find_list(path: Path, folder: Path) -> Path:
    """The list the user means: the path, its other published name next to it, or either in the dataset's folder."""
    names = [path, *(path.with_name(name) for name in VIDEO_LIST_NAMES if path.name in VIDEO_LIST_NAMES)]
    if path.name == str(path):
        names += [folder / path.name, *(folder / name for name in VIDEO_LIST_NAMES if path.name in VIDEO_LIST_NAMES)]
    return next((candidate for candidate in names if candidate.is_file()), path)


def plan_videos(wanted: Wanted, video_list: Path, *, retry_gone: bool = False, force: bool = False) -> VideosPlan:
    """Read the list and the ledger, and check which files are there.

    Args:
        wanted: the dataset.
        video_list: one `country+city+videoid` per line.
        retry_gone: requests videos again that were gone.
        force: fetches everything again.

    Raises:
        DataError: no such list, or an invalid line.
    """
    videos = read_video_list(video_list)
    entries = Ledger(wanted.folder / LEDGER_NAME).entries
    missing, num_done, num_gone = [], 0, 0
    for video in videos:
        entry = entries.get(str(video))
        if not force and _is_there(wanted.folder / VIDEOS_FOLDER / video.path, entry):
            num_done += 1
        elif not (force or retry_gone) and entry is not None and entry.state == "gone":
            num_gone += 1
        else:
            missing.append(video)
    return VideosPlan(wanted, videos, missing, num_done, num_gone, force)


def fetch_videos(
    plan: VideosPlan, *, jobs: int, progress: Progress, fetch: Fetch | None = None, patience: Patience | None = None
) -> VideosResult:
    """Fetch what is missing, several at once; every outcome is in the ledger when this returns or is stopped.

    Args:
        plan: what to do.
        jobs: videos at once.
        progress: for progress lines and bars.
        fetch: fetches one video into a folder; yt-dlp by default.
        patience: how long yt-dlp may take for each video.

    Raises:
        UsageError: yt-dlp is not installed.
        DataError: the disk is full, or everything fails.
        StoppedError: on request; the same command continues.
    """
    if fetch is None:
        check_yt_dlp()
        fetch = partial(fetch_video, patience=patience)
    folder = plan.wanted.folder
    cancel = threading.Event()
    with locked_staging(folder):
        write_origin(folder, origin_of(plan.wanted, read_own_origin(folder).get("files", [])))
        ledger = Ledger(folder / LEDGER_NAME)
        _clear_finished(plan, ledger)
        work = _Work(plan, ledger, cancel, fetch)
        in_a_row = num_fetched = 0
        with (
            progress.task("videos", total=plan.listed, unit="videos", done=plan.done + plan.gone) as task,
            closing(finish_each(work.get, plan.missing, jobs=jobs, cancel=cancel)) as outcomes,
        ):
            for _, future in outcomes:
                try:
                    entry = future.result()
                except StoppedError:
                    continue
                num_fetched += bool(entry.format)
                in_a_row = in_a_row + 1 if entry.state == "failed" else 0
                task.advance(note=entry.reason)
                if in_a_row >= MOST_FAILURES_IN_A_ROW:
                    raise DataError(
                        f"{in_a_row} videos failed in a row, the last with: {entry.reason}",
                        hint="wait, use fewer --jobs, update yt-dlp, then type the same command again",
                    )
        return _sum_up(plan, ledger, num_fetched)


@dataclass(frozen=True)
class _Work:
    """What all videos of one call share."""

    plan: VideosPlan
    ledger: Ledger
    cancel: threading.Event
    fetch: Fetch

    def get(self, video: VideoName) -> Entry:
        """Fetch one video, or finish one at which an earlier call was killed."""
        folder = self.plan.wanted.folder
        target = folder / VIDEOS_FOLDER / video.path
        slot = slot_of(folder, str(video))
        ready = slot / "ready.mp4"
        known = self.ledger.entries.get(str(video))
        if known is not None and known.state == "done" and _is_there(ready, known):
            return self._finish(known, ready, target)
        if target.is_file() and not self.plan.refetch and (known is None or known.state != "done"):
            # Put there by hand, or by the published script, which also skips existing files.
            return self._note(Entry(str(video), "done", bytes=target.stat().st_size, sha256=_sha256(target)))
        try:
            stream = self.fetch(video, slot, self.cancel)
        except GoneError as error:
            shutil.rmtree(slot, ignore_errors=True)
            return self._note(Entry(str(video), "gone", reason=str(error)))
        except FailedError as error:
            if self.cancel.is_set():
                raise StoppedError("stopped on request", hint="type the same command again") from error
            with suppress(OSError):
                slot.rmdir()  # fails if a part is in it
            return self._note(Entry(str(video), "failed", reason=str(error)))
        except FullDiskError as error:
            raise DataError(
                f"{target}: the disk is full ({free_bytes(target) / 2**20:,.0f} MiB free); what was fetched is kept",
                hint="free some space, then type the same command again",
            ) from error
        stream.path.rename(ready)
        sync_path(ready)
        entry = Entry(
            str(video), "done", bytes=ready.stat().st_size, sha256=_sha256(ready), format=stream.format,
            width=stream.width, height=stream.height, fps=stream.fps,
        )  # fmt: skip
        # First the line, then the file: a kill in between leaves a file that is described by its line.
        return self._finish(self._note(entry), ready, target)

    def _note(self, entry: Entry) -> Entry:
        self.ledger.add(entry)
        return entry

    def _finish(self, entry: Entry, ready: Path, target: Path) -> Entry:
        target.parent.mkdir(parents=True, exist_ok=True)
        ready.replace(target)
        sync_path(target.parent)
        shutil.rmtree(ready.parent)
        return entry


def _clear_finished(plan: VideosPlan, ledger: Ledger) -> None:
    """Remove the slots of videos that are already in place, which a kill left."""
    paths = {str(video): plan.folder / video.path for video in plan.videos}
    for name in open_slots(plan.wanted.folder):
        if name in paths and _is_there(paths[name], ledger.entries.get(name)) and not plan.refetch:
            shutil.rmtree(slot_of(plan.wanted.folder, name))


def _is_there(path: Path, entry: Entry | None) -> bool:
    """Whether a file is the one that its entry describes."""
    return entry is not None and entry.state == "done" and path.is_file() and path.stat().st_size == entry.bytes


def _sha256(path: Path) -> str:
    return file_fingerprint(path).removeprefix("sha256:")


def _sum_up(plan: VideosPlan, ledger: Ledger, num_fetched: int) -> VideosResult:
    entries = [ledger.entries[str(video)] for video in plan.videos if str(video) in ledger.entries]
    states = Counter(entry.state for entry in entries)
    reasons = Counter(entry.reason for entry in entries if entry.state == "failed")
    return VideosResult(
        listed=plan.listed,
        done=states["done"],
        gone=states["gone"],
        failed=states["failed"],
        fetched=num_fetched,
        reasons=[f"{count} x {reason}" for reason, count in reasons.most_common(NUM_REASONS)],
        folder=plan.folder,
        ledger=ledger.path,
    )
