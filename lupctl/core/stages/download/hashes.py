"""Hashes of downloads: computed once, recorded, and compared from then on."""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lupctl.core.data.catalog.links import KnownArchive
from lupctl.core.errors import DataError
from lupctl.core.system.disk.atomic import HASH_CHUNK_BYTES, write_text
from lupctl.core.system.documents import parse_json

FOLDER = ".lupctl-hashes"


@dataclass(frozen=True)
class Digests:
    """Length and hashes of a file.

    Args:
        num_bytes: its length.
        sha256: 64 hexadecimal digits.
        md5: 32 hexadecimal digits, to compare with old publications.
    """

    num_bytes: int
    sha256: str
    md5: str


def file_digests(path: Path) -> Digests:
    """Both hashes of a file, in one pass."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    num_bytes = 0
    with path.open("rb") as stream:
        while chunk := stream.read(HASH_CHUNK_BYTES):
            num_bytes += len(chunk)
            sha256.update(chunk)
            md5.update(chunk)
    return Digests(num_bytes, sha256.hexdigest(), md5.hexdigest())


class KnownHashes:
    """The hash of every file that was ever downloaded into a workspace, by address.

    No one publishes hashes of LUPerson's files, so the first download counts; a later one that differs is rejected.

    Args:
        raw: the workspace's `raw/`, with one small file per address in a hidden folder.
    """

    def __init__(self, raw: Path) -> None:
        self._folder = raw / FOLDER

    def recall(self, address: str) -> str | None:
        """The SHA-256 of an earlier download, or None."""
        try:
            known: dict[str, str] = parse_json(self._path(address).read_bytes(), {"sha256": str})
        except (OSError, ValueError):
            return None
        return known.get("sha256")

    def remember(self, address: str, sha256: str, num_bytes: int) -> None:
        """Record the hash of a download."""
        note = {"address": address, "bytes": num_bytes, "sha256": sha256}
        write_text(self._path(address), json.dumps(note, sort_keys=True, indent=1) + "\n", alone=True)

    def check(self, address: str, digests: Digests) -> None:
        """Compare with an earlier download from the same address.

        Raises:
            DataError: the bytes differ.
        """
        known = self.recall(address)
        if known is not None and known != digests.sha256:
            raise DataError(
                f"{address}: sha256 {digests.sha256}, an earlier download had {known}; the file was changed or damaged",
                hint="the same command fetches it again; --force accepts it as it is now",
            )

    def _path(self, address: str) -> Path:
        readable = re.sub(r"[^\w.-]+", "-", address)[-60:]
        return self._folder / f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:12]}.json"


def check_wanted(name: str, digests: Digests, sha256: str) -> None:
    """Compare with the hash that the user gave.

    Raises:
        DataError: it is a different file.
    """
    if sha256 and digests.sha256 != sha256.lower().removeprefix("sha256:"):
        raise DataError(
            f"{name}: sha256 {digests.sha256}, {sha256.lower()} was expected", hint="check the address and --sha256"
        )


def compare_published(name: str, digests: Digests, archives: Sequence[KnownArchive]) -> tuple[str, list[str]]:
    """Compare with the MD5 that others state for an archive; only informative, since counts decide.

    Returns:
        The MD5 stated for a file of this name, empty if there is none; and lines that the user should see.
    """
    by_name = next((known for known in archives if known.name.lower() == name.lower()), None)
    by_hash = next((known for known in archives if known.md5 == digests.md5), None)
    lines = []
    if by_name is not None and by_name.md5 != digests.md5:
        lines.append(
            f"{name}: MD5 {digests.md5}, others state {by_name.md5} ({by_name.origin}); "
            "its counts decide: lupctl data verify"
        )
    known = by_hash or by_name
    if known is not None and known.caution:
        lines.append(f"{name}: {known.caution}")
    return (by_name.md5 if by_name else by_hash.md5 if by_hash else ""), lines
