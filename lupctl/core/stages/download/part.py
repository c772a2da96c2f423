"""A file that is being fetched: what is there, and which version of the server's file it belongs to."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from lupctl.core.system.disk.atomic import write_text


@dataclass(frozen=True)
class Version:
    """What a server says of a file, so that two versions are not glued together.

    Args:
        url: it was asked for.
        etag: the server's own mark; empty where it gives none.
        modified: time of change as the server writes it; empty where it gives none.
        total: bytes of the whole file; None where the server does not say.
    """

    url: str
    etag: str
    modified: str
    total: int | None

    @property
    def range_validator(self) -> str:
        """What `If-Range` may carry: a strong mark, else the time of change (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    @property
    def is_told_apart(self) -> bool:
        """Whether another version would look different."""
        return bool(self.etag or self.modified)


class Part:
    """`<name>.part`, and beside it `<name>.part.json` with the version it is a beginning of.

    Args:
        out: the complete file's path.
        url: where it comes from; a part that came from elsewhere is not continued.
        hash_known: whether a wrong mixture would be noticed at the end; without that, and without a mark of the
            server's, nothing is continued.
    """

    def __init__(self, out: Path, url: str, *, hash_known: bool) -> None:
        self.path = out.with_name(f"{out.name}.part")
        self._note = out.with_name(f"{out.name}.part.json")
        self._url = url
        self._hash_known = hash_known
        self._stream: IO[bytes] | None = None
        self.version: Version | None = self._read_note()
        if self.version is None or self.version.url != url:
            self.version = None

    @property
    def size(self) -> int:
        """Bytes that are there."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def is_complete(self) -> bool:
        """Whether all bytes the server promised are there."""
        return self.version is not None and self.version.total is not None and self.size == self.version.total

    @property
    def can_continue(self) -> bool:
        """Whether the rest can be asked for."""
        version = self.version
        return self.size > 0 and version is not None and (version.is_told_apart or self._hash_known)

    def request_headers(self) -> dict[str, str]:
        """Asks for the rest, on condition that the file is still the same."""
        if not self.can_continue or self.version is None:
            return {}
        condition = {"If-Range": self.version.range_validator} if self.version.range_validator else {}
        return {"Range": f"bytes={self.size}-", **condition}

    def begin(self, version: Version) -> None:
        """Forgets what is there and begins a version."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self.version = version
        write_text(self._note, json.dumps(asdict(version), sort_keys=True) + "\n", alone=True)

    def append(self, chunk: bytes) -> None:
        """Adds bytes at the end."""
        if self._stream is None:
            self._stream = self.path.open("ab", buffering=0)
        view = memoryview(chunk)
        while view:  # an unbuffered write may take a part only, as just before the disk is full
            view = view[self._stream.write(view) :]

    def discard(self) -> None:
        """Forgets what is there."""
        self.close()
        self.version = None
        for path in (self.path, self._note):
            with suppress(FileNotFoundError):
                path.unlink()

    def finish(self, out: Path) -> None:
        """Brings the bytes to the disk and gives the file its name."""
        self.close()
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())
        self.path.replace(out)
        self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the file; a later `append` opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _read_note(self) -> Version | None:
        try:
            note = json.loads(self._note.read_text(encoding="utf-8"))
            return Version(**note)
        except (OSError, ValueError, TypeError):
            return None


def same_version(ours: Version, theirs: Version) -> bool:
    """Whether a server's later answer speaks of the same version; what only one of them tells is no difference."""

    def differ(one: object, other: object) -> bool:
        return bool(one) and bool(other) and one != other

    return not (
        differ(ours.etag, theirs.etag) or differ(ours.modified, theirs.modified) or differ(ours.total, theirs.total)
    )


def version_of(url: str, headers: Mapping[str, str], *, total: int | None) -> Version:
    """The version an answer's headers tell."""
    return Version(url, headers.get("ETag", ""), headers.get("Last-Modified", ""), total)
