"""A pack as a source, so that packs can be merged without the raw data they were made from."""

import hashlib
from bisect import bisect_left
from pathlib import Path

import numpy as np

from lupctl.core.errors import DataError
from lupctl.core.formats.pack.facts import packed_check
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.pack.samples import Samples


class PackedSource:
    """The images of a pack, unchanged.

    Args:
        path: the pack, a file or a folder of shards.

    Raises:
        DataError: there is no such pack.
        FormatError: it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self._pack: Pack = open_pack(path)
        # Rows are sorted by role, then name: one run of sorted names per role.
        self._runs = np.searchsorted(self._pack.samples.role, np.arange(257)).tolist()

    @property
    def dataset(self) -> str:
        """The name stored in the pack."""
        return self._pack.dataset

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the record of another pack."""
        record = self._pack.record
        return {
            "layout": "pack",
            "root": str(self._pack.path),
            "terms": str(record.get("terms", "")),
            "fingerprint": self._pack.fingerprint,
            "source": record.get("source", {}),
            "quarantined": len(record["quarantine"]),
        }

    def list_images(self) -> Samples:
        """Every image of the pack, in pack order."""
        return self._pack.samples

    def read(self, name: str) -> bytes:
        """The encoded image of one name, after a check of its checksum.

        Raises:
            DataError: the pack contains no such image.
            CorruptImageError: the bytes are not those that were packed.
        """
        return self._pack.read(self._row(name))

    def read_checked(self, name: str) -> tuple[bytes, int, int] | None:
        """The same with height and width: it was decoded when it was packed, and its checksum still matches.

        None if the pack's images were not decoded.
        """
        if packed_check(self._pack.record) == "header":
            return None
        row = self._row(name)
        height, width = self._pack.size[row].tolist()
        return self._pack.read(row), height, width

    def digest(self, samples: Samples) -> tuple[str, int | None]:
        """A digest of the images and labels of the pack, whatever file they are in, and the number of bytes."""
        digest = hashlib.sha256(f"pack {self._pack.dataset} {self._pack.fingerprint}".encode())
        return f"sha256:{digest.hexdigest()}", self._pack.num_bytes

    def _row(self, name: str) -> int:
        names = self._pack.samples.name
        for begin, end in zip(self._runs, self._runs[1:], strict=False):
            if begin < end:
                row = bisect_left(names, name, begin, end)
                if row < end and names[row] == name:
                    return row
        raise DataError(f"{self._pack.path}: contains no image {name!r}", hint=f"lupctl data info {self._pack.path}")
