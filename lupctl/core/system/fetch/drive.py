"""Fetching a file from Google Drive through gdown."""

import json
import re
import shutil
import threading
from pathlib import Path

import gdown
import requests
from gdown.exceptions import DownloadCancelled, DownloadError, FileURLRetrievalError

from lupctl.core.errors import DataError
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.documents import parse_json
from lupctl.core.system.fetch.transfer import ByteBar, Patience, Stopwatch, full_disk_named, innermost_reason, stopped

QUOTA = re.compile(r"too many users|quota|many accesses", re.IGNORECASE)
NOTE_NAME = "total.json"


def drive_page(drive_id: str) -> str:
    """The page to open in a browser."""
    return f"https://drive.google.com/file/d/{drive_id}/view"


def fetch_drive(
    drive_id: str,
    folder: Path,
    name: str,
    *,
    cancel: threading.Event,
    bar: ByteBar,
    patience: Patience | None = None,
) -> Path:
    """Fetch a file, continuing what an earlier call left; no cookies are read or kept.

    Google does not identify the version of a file, so a file that changed meanwhile is noticed only by its length;
    the caller compares hashes if it knows them.

    Args:
        drive_id: of the file.
        folder: for this file only; an interrupted call leaves its part there.
        name: of the file in that folder; if empty, its name on Drive.
        cancel: set by another thread to stop.
        bar: counts the bytes.
        patience: how often and how long to try.

    Returns:
        The file's path in `folder`.

    Raises:
        DataError: Google refuses it, as after too many downloads by others; the network fails; or the disk is full.
        StoppedError: `cancel` was set; what was fetched is kept.
    """
    patience = patience or Patience()
    folder.mkdir(parents=True, exist_ok=True)
    complete = _keep_one_part(folder)
    if complete is not None:
        return complete
    progress = _Progress(folder, bar, Stopwatch(f"Google Drive: {drive_id}", patience))
    try:
        with full_disk_named(folder / name if name else folder):
            fetched = gdown.download(
                id=drive_id,
                output=str(folder / name) if name else f"{folder}/",
                quiet=True,
                use_cookies=False,
                resume=True,
                retries=patience.attempts - 1,
                timeout=patience.timeout_s,
                progress=progress.note,
                cancel=cancel,
            )
    except DownloadCancelled as error:
        raise stopped() from error
    except _ChangedError:
        shutil.rmtree(folder)
        return fetch_drive(drive_id, folder, name, cancel=cancel, bar=bar, patience=patience)
    except FileURLRetrievalError as error:
        raise _refused(drive_id, error) from error
    except DownloadError as error:
        if "byte range" in str(error) and any(folder.glob("*.part")):
            shutil.rmtree(folder)  # the part cannot be continued
            return fetch_drive(drive_id, folder, name, cancel=cancel, bar=bar, patience=patience)
        raise _failed(drive_id, error) from error
    except requests.RequestException as error:
        raise _failed(drive_id, error) from error
    path = Path(str(fetched))
    if path.parent != folder or path.name.startswith("."):
        raise DataError(
            f"Google Drive gives the file the unusable name {path.name!r}",
            hint=f"fetch it by hand: {drive_page(drive_id)}",
        )
    (folder / NOTE_NAME).unlink(missing_ok=True)
    return path


class _ChangedError(Exception):
    """The file has a different length than when its part was started."""


class _Progress:
    """Turns gdown's progress reports into steps of the bar; records the length for a later call."""

    def __init__(self, folder: Path, bar: ByteBar, stopwatch: Stopwatch) -> None:
        self._stopwatch = stopwatch
        self._path = folder / NOTE_NAME
        self._bar = bar
        self._done = 0
        self._total: int | None = None

    def note(self, done: int, total: int | None) -> None:
        if total is not None and self._total is None:
            before = _read_total(self._path)
            if before is None:
                write_text(self._path, json.dumps(total))
            elif before != total:
                raise _ChangedError
            self._total = total
            self._bar.grow(total)
        self._stopwatch.check(total or done)
        self._bar.advance(done - self._done)
        self._done = done


def _keep_one_part(folder: Path) -> Path | None:
    """Keep only the longest part, since gdown refuses to choose among several; rename it if it is complete."""
    parts = sorted(folder.glob("*.part"), key=lambda path: (path.stat().st_size, path.name))
    for path in parts[:-1]:
        path.unlink()
    note = folder / NOTE_NAME
    if not parts:
        note.unlink(missing_ok=True)
        return None
    if _read_total(note) != parts[-1].stat().st_size:
        return None
    # gdown appends eight letters and `.part` to the name; a request to continue a complete file fails.
    complete = parts[-1].rename(folder / parts[-1].name[: -len(".part") - 8])
    note.unlink()
    return complete


def _read_total(path: Path) -> int | None:
    try:
        total = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return total if isinstance(total, int) else None


def _refused(drive_id: str, error: Exception) -> DataError:
    message = " ".join(str(error).split())
    why = "too many users fetched it recently" if QUOTA.search(message) else "it shows a page instead of the file"
    return DataError(
        f"Google Drive does not deliver {drive_id}: {why}",
        hint=f"try again tomorrow, or open {drive_page(drive_id)} in a browser and put the file where the steps say",
    )


def _failed(drive_id: str, error: Exception) -> DataError:
    cause = error.__cause__ or error
    first = " ".join(innermost_reason(cause).split())[:200]
    return DataError(
        f"Google Drive: {drive_id}: {first or type(error).__name__}; what was fetched is kept",
        hint="type the same command again; it continues",
    )
