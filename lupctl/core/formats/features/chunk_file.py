"""The chunks of features that one process has finished.

A line of JSON says what they are features of. Each chunk then is a head of five numbers and its body, the images left
out (one line each, with their reasons) and the vectors. The checksum in the head tells a whole chunk from one that a
killed process or a dead machine left half on the disk.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lupctl.core.system.disk.atomic import disk_errors_named

HEAD = struct.Struct("<IIIII")  # number of the chunk, vectors, their length, bytes of the lines, CRC-32 of the body
Body = tuple[list[str], NDArray[Any]]


class ChunkFile:
    """Chunks that one process has finished, in the order in which it did.

    Args:
        path: the file.
        stream: the same, open; at its beginning, or where the next chunk goes.
        line: says what the chunks are features of; chunks of something else are discarded.
        kind: float32 or float16.
    """

    def __init__(self, path: Path, stream: BinaryIO, line: bytes, kind: str) -> None:
        self.path, self._stream, self._line, self._kind = path, stream, line, np.dtype(kind)

    def begin(self) -> bool:
        """Goes to the first chunk, and begins the file where it is empty or of something else; whether it was."""
        found = self._stream.readline()
        if found != self._line:
            self._stream.seek(0)
            self._stream.truncate()
            self._stream.write(self._line)
            self._stream.flush()
        return found not in (b"", self._line)

    def scan(self, *, verified: bool) -> Iterator[tuple[int, int, int, list[str]]]:
        """Finds whole chunks from here on, and cuts off what comes after the last one.

        Args:
            verified: read the vectors too, for their checksum; else only heads and lines.

        Yields:
            number of a chunk, its place in the file, length of its vectors, and the lines about images left out.
        """
        place = self._stream.tell()
        size = self._stream.seek(0, os.SEEK_END)
        self._stream.seek(place)
        while (head := self._read_head()) is not None:
            number, count, dim, letters, _ = head
            end = place + HEAD.size + letters + count * dim * self._kind.itemsize
            if end > size:
                break
            if verified:
                self._stream.seek(place)
                body = self._read_body()
                if body is None:
                    break
                lines = body[0]
            else:
                lines = _lines(self._stream.read(letters))
            yield number, place, dim, lines
            place = self._stream.seek(end)
        self._stream.seek(place)
        self._stream.truncate()

    def append(self, number: int, vectors: NDArray[np.float32], left_out: list[str]) -> int:
        """Adds one chunk, which is safe from the end of this process when this returns.

        Args:
            number: of the chunk.
            vectors: (B, D).
            left_out: lines about images of the chunk that are none.

        Returns:
            its place in the file.
        """
        text = "\n".join(left_out).encode()
        body = text + np.ascontiguousarray(vectors, self._kind).tobytes()
        count, dim = vectors.shape
        place = self._stream.tell()
        with disk_errors_named(self.path):
            self._stream.write(HEAD.pack(number, count, dim, len(text), zlib.crc32(body)) + body)
            self._stream.flush()
        return place

    def read(self, place: int) -> Body | None:
        """The lines and the vectors of a chunk, or None where its checksum is wrong."""
        self._stream.seek(place)
        return self._read_body()

    def forget(self) -> None:
        """Drops all chunks."""
        self._stream.truncate(len(self._line))
        self._stream.seek(len(self._line))

    def _read_head(self) -> tuple[int, ...] | None:
        head = self._stream.read(HEAD.size)
        return HEAD.unpack(head) if len(head) == HEAD.size else None

    def _read_body(self) -> Body | None:
        head = self._read_head()
        if head is None:
            return None
        _, count, dim, letters, checksum = head
        length = letters + count * dim * self._kind.itemsize
        body = self._stream.read(length)
        if len(body) < length or zlib.crc32(body) != checksum:
            return None
        return _lines(body[:letters]), np.frombuffer(body, self._kind, offset=letters).reshape(count, dim)


def _lines(text: bytes) -> list[str]:
    return text.decode().split("\n") if text else []
