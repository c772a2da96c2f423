"""Files that are small, or no files at all, and would take gigabytes or wait for ever."""

import os
import socket
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SPECIAL = ("fifo", "socket", "link to a device", "link to nothing")


@contextmanager
def special(path: Path, kind: str) -> Iterator[Path]:
    """Something at a path that is no regular file."""
    with socket.socket(socket.AF_UNIX) as listening:
        match kind:
            case "fifo":
                os.mkfifo(path)
            case "socket":
                path.parent.mkdir(parents=True, exist_ok=True)
                # The name of a socket has at most 107 bytes.
                folder = os.open(path.parent, os.O_RDONLY)
                listening.bind(f"/proc/self/fd/{folder}/{path.name}")
                os.close(folder)
            case "link to a device":
                path.symlink_to("/dev/zero")
            case _:
                path.symlink_to("/nowhere")
        yield path


def claim_png(width: int, height: int) -> bytes:
    """A PNG that says it has so many pixels, and has none of them; its checksums are right."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99))) + chunk(b"IEND", b"")


def write_sparse(path: Path, num_bytes: int) -> Path:
    """A file of zeros that takes no space on the disk."""
    with path.open("wb") as stream:
        stream.truncate(num_bytes)
    return path


def write_zip_of_zeros(path: Path, names: list[str], num_bytes: int) -> Path:
    """A zip whose parts are arrays of zeros, a thousandth of their size."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in names:
            with archive.open(name, "w") as part:
                for _ in range(num_bytes >> 20):
                    part.write(bytes(1 << 20))
    return path
