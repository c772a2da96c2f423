"""Outcome of each video: one appended JSON line per attempt, so that a crash loses at most one line."""

import json
import os
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lupctl.core.errors import FormatError
from lupctl.core.system.disk.atomic import disk_errors_named
from lupctl.core.system.documents import parse_as

Outcome = Literal["done", "gone", "failed"]


@dataclass(frozen=True)
class Entry:
    """One attempt at one video.

    Args:
        video: `country+city+videoid`.
        state: done; gone, so that trying again makes little sense; or failed, and may work another time.
        reason: why it is gone or failed.
        bytes: of the file.
        sha256: of the file.
        format: the stream's number at the source; empty for a file that already existed.
        width: of the stream in pixels, if known.
        height: the same.
        fps: frames per second, if known.
    """

    video: str
    state: Outcome
    reason: str = ""
    bytes: int = 0
    sha256: str = ""
    format: str = ""
    width: int | None = None
    height: int | None = None
    fps: float | None = None


class Ledger:
    """The last entry of each video, and a file to append to.

    A last line that a crash cut short is dropped: that attempt is made again.

    Args:
        path: `*.jsonl`; created with the first entry.

    Raises:
        FormatError: a line other than the last is not an entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, Entry] = {}
        self._adding = threading.Lock()
        content = path.read_bytes() if path.is_file() else b""
        self._sound_bytes = content.rfind(b"\n") + 1
        for row, line in enumerate(content[: self._sound_bytes].splitlines(), 1):
            entry = self._parse(line, row)
            self.entries[entry.video] = entry

    def add(self, entry: Entry) -> None:
        """Append an entry and flush it to disk.

        Raises:
            DataError: the disk is full.
        """
        line = json.dumps({key: value for key, value in asdict(entry).items() if value not in ("", 0, None)})
        with self._adding, disk_errors_named(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab") as stream:
                if stream.tell() != self._sound_bytes:
                    stream.truncate(self._sound_bytes)
                stream.write(line.encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())
                self._sound_bytes += len(line) + 1
            self.entries[entry.video] = entry

    def _parse(self, line: bytes, row: int) -> Entry:
        try:
            return parse_as(Entry, line)
        except ValueError as error:
            raise FormatError(
                f"{self.path}: line {row} is not an entry of a ledger",
                hint=f"remove that line: sed -i {row}d {self.path}",
            ) from error
