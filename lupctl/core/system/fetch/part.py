"""A partly fetched file: the bytes so far, and which version of the server's file they belong to."""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.documents import parse_as


@dataclass(frozen=True)
class Version:
    """What a server says about a file, so that two versions are never mixed.

    Args:
        url: the requested address.
        etag: the server's ETag; empty if it sends none.
        modified: time of change as the server writes it; empty if it sends none.
        total: bytes of the whole file; None if the server does not say.
    """

    url: str
    etag: str
    modified: str
    total: int | None

    @property
    def range_validator(self) -> str:
        """The value for `If-Range`: a strong ETag, else the time of change (RFC 9110, 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified

    @property
    def is_distinguishable(self) -> bool:
        """Whether another version of the file would be noticed."""
        return bool(self.etag or self.modified)


class Part:
    """`<name>.part`, and next to it `<name>.part.json` with the version that it is the beginning of.

    Args:
        out: the complete file's path.
        url: where it comes from; a part that came from elsewhere is not continued.
        hash_known: whether a mixture of versions would be noticed at the end; if not, and if the server sends neither
            ETag nor time of change, nothing is continued.
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
        """Number of bytes so far."""
        return self.path.stat().st_size if self.path.is_file() else 0

    @property
    def is_complete(self) -> bool:
        """Whether all bytes that the server announced are there."""
        return self.version is not None and self.version.total is not None and self.size == self.version.total

    @property
    def can_continue(self) -> bool:
        """Whether the rest can be requested."""
        version = self.version
        return self.size > 0 and version is not None and (version.is_distinguishable or self._hash_known)

    def request_headers(self) -> dict[str, str]:
        """Headers that request the rest, on condition that the file is still the same."""
        if not self.can_continue or self.version is None:
            return {}
        condition = {"If-Range": self.version.range_validator} if self.version.range_validator else {}
        return {"Range": f"bytes={self.size}-", **condition}

    def begin(self, version: Version) -> None:
        """Discard what is there and start a version."""
        self.close()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(b"")
        self.version = version
        write_text(self._note, json.dumps(asdict(version), sort_keys=True) + "\n", alone=True)

    def append(self, chunk: bytes) -> None:
        """Append bytes."""
        if self._stream is None:
            self._stream = self.path.open("ab", buffering=0)
        view = memoryview(chunk)
        while view:  # an unbuffered write may write only a part, as just before the disk is full
            view = view[self._stream.write(view) :]

    def discard(self) -> None:
        """Discard what is there."""
        self.close()
        self.version = None
        for path in (self.path, self._note):
            with suppress(FileNotFoundError):
                path.unlink()

    def finish(self, out: Path) -> None:
        """Flush the bytes to disk and rename the file to its final name."""
        self.close()
        with self.path.open("rb") as stream:
            os.fsync(stream.fileno())
        self.path.replace(out)
        self._note.unlink(missing_ok=True)

    def close(self) -> None:
        """Close the file; a later `append` opens it again."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _read_note(self) -> Version | None:
        try:
            return parse_as(Version, self._note.read_bytes())
        except (OSError, ValueError):
            return None


def same_version(ours: Version, theirs: Version) -> bool:
    """Whether a server's later answer is about the same version; facts that only one of them states do not count."""

    def differ(one: object, other: object) -> bool:
        return bool(one) and bool(other) and one != other

    return not (
        differ(ours.etag, theirs.etag) or differ(ours.modified, theirs.modified) or differ(ours.total, theirs.total)
    )


def version_of(url: str, headers: Mapping[str, str], *, total: int | None) -> Version:
    """The version according to the headers of a response."""
    return Version(url, headers.get("ETag", ""), headers.get("Last-Modified", ""), total)
