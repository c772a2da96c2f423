"""Features of a dump that is not over: finished chunks, in files beside the one they will become.

Every process of a dump appends to a file of its own. A line of JSON says what its chunks are features of. Each chunk
then is a head of five numbers and its body, the images left out (one line each, with their reasons) and the vectors.
The checksum in the head tells a whole chunk from one that a killed process or a dead machine left half on the disk.
"""

import fcntl
import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import DataError, UsageError
from lupctl.core.system.disk.atomic import disk_errors_named

HEAD = struct.Struct("<IIIII")  # number of the chunk, vectors, their length, bytes of the lines, CRC-32 of the body
LAYOUT = 2
Body = tuple[list[str], NDArray[Any]]


class ChunkFile:
    """Chunks that one process has finished, in the order in which it did.

    Args:
        path: the file.
        stream: the same, open; at its beginning, or where the next chunk goes.
        line: says what the chunks are features of; chunks of something else are thrown away.
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
        """Finds whole chunks from here on, and cuts off what is behind the last one.

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


class FeatureChunks:
    """The finished chunks of one dump, whichever process made them.

    Args:
        out: the file they will become.
        stream: the first process's file, open, at its beginning.
        line: says what the chunks are features of.
        kind: float32 or float16.
        count: chunks of the whole dump.

    Attributes:
        own: the first process's file, which takes more.
        left_out: lines about images that are none, by the number of their chunk.
        dim: length of a vector; 0 as long as no chunk is there.
        is_other: whether chunks of something else lay here.
    """

    def __init__(self, out: Path, stream: BinaryIO, line: bytes, kind: str, *, count: int) -> None:
        self.own = ChunkFile(chunks_path(out), stream, line, kind)
        self.left_out, self.dim, self.is_other = dict[int, list[str]](), 0, False
        self._out, self._line, self._kind = out, line, kind
        self._where = np.full((count, 2), -1, np.int64)  # number of the file and place in it
        self._streams = list[BinaryIO]()
        self._files = {0: self.own}
        self.is_other |= self.own.begin()
        self._find(0, verified=True)
        self.find_others(verified=True)

    @property
    def done(self) -> int:
        """How many chunks are finished."""
        return int((self._where[:, 0] >= 0).sum())

    def missing(self) -> NDArray[np.int64]:
        """Numbers of the chunks that are not there yet."""
        return np.flatnonzero(self._where[:, 0] < 0)

    def append(self, number: int, vectors: NDArray[np.float32], left_out: list[str]) -> None:
        """Adds a chunk that this process made; see `ChunkFile.append`."""
        self._where[number] = 0, self.own.append(number, vectors, left_out)
        self.dim = vectors.shape[1]
        if left_out:
            self.left_out[number] = left_out

    def find_others(self, *, verified: bool) -> None:
        """Finds what other processes have finished; what they have of something else is removed.

        Args:
            verified: read everything, for the checksums.
        """
        for path in sorted(self._out.parent.glob(f".{escape(self._out.name)}.chunks-*")):
            ending = path.name.rpartition("-")[2]
            if not ending.isdecimal():
                continue
            number = int(ending)
            if number not in self._files:
                stream = path.open("r+b")
                self._streams.append(stream)
                self._files[number] = ChunkFile(path, stream, self._line, self._kind)
                self.is_other |= self._files[number].begin()
            self._find(number, verified=verified)

    def each(self) -> Iterator[NDArray[Any]]:
        """(B, D) of each chunk, in their order; all have to be there.

        Raises:
            DataError: the disk gives back other bytes than were written.
        """
        for number, (file, place) in enumerate(self._where.tolist()):
            body = self._files[file].read(place)
            if body is None:
                path = self._files[file].path
                raise DataError(
                    f"{path}: chunk {number} is damaged", hint="type the same command again; it is computed anew"
                )
            yield body[1]

    def forget(self) -> None:
        """Drops all chunks."""
        for file in self._files.values():
            file.forget()
        self._where[:] = -1
        self.left_out = {}

    def close(self, *, remove: bool) -> None:
        """Closes the files of other processes, and removes all files where nothing of them is wanted any more."""
        for stream in self._streams:
            stream.close()
        if remove:
            for file in self._files.values():
                file.path.unlink(missing_ok=True)

    def _find(self, file: int, *, verified: bool) -> None:
        for number, place, dim, lines in self._files[file].scan(verified=verified):
            if number < len(self._where):
                self._where[number] = file, place
                self.dim = dim
                if lines:
                    self.left_out[number] = lines


def chunks_path(out: Path, number: int = 0) -> Path:
    """Where a process of this number keeps the chunks of a features file."""
    return out.with_name(f".{out.name}.chunks{f'-{number}' if number else ''}")


def story_line(story: Mapping[str, Any], kind: str) -> bytes:
    """The line that a file of chunks begins with."""
    return json.dumps({**story, "type": kind, "layout": LAYOUT}, sort_keys=True).encode() + b"\n"


@contextmanager
def open_chunks(out: Path, story: Mapping[str, Any], kind: str, *, count: int) -> Iterator[FeatureChunks]:
    """The chunks of a features file, held against a second job; removed when the block ends well.

    What a block that fails has finished is kept for the next one.

    Args:
        out: the features file.
        story: what the features are of and how they are made; chunks of another story are thrown away.
        kind: float32 or float16.
        count: chunks of the whole dump.

    Raises:
        UsageError: another job writes them.
        DataError: the disk refuses the file.
    """
    with held_chunks(out) as stream:
        chunks = FeatureChunks(out, stream, story_line(story, kind), kind, count=count)
        try:
            yield chunks
        except BaseException:
            chunks.close(remove=chunks.done == 0)
            raise
        chunks.close(remove=True)


@contextmanager
def held_chunks(out: Path) -> Iterator[BinaryIO]:
    """The first file of a features file's chunks, held against a second job.

    Raises:
        UsageError: another job writes these features.
        DataError: the disk refuses the file.
    """
    path = chunks_path(out)
    with disk_errors_named(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
        stream = path.open("r+b")
    with stream:
        try:
            # Not flock: forked decoding workers would inherit that one, and keep it for seconds after a kill.
            fcntl.lockf(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise _in_use(out) from error
        if not path.exists() or path.stat().st_ino != os.fstat(stream.fileno()).st_ino:
            raise _in_use(out)  # it was removed by another one, which has just ended
        yield stream


def _in_use(out: Path) -> UsageError:
    return UsageError(f"{out}: another lupctl is writing these features", hint="wait for it, or name another --out")


@contextmanager
def open_own_chunks(out: Path, story: Mapping[str, Any], kind: str, *, number: int) -> Iterator[ChunkFile]:
    """The file that a further process of a dump appends its chunks to, while the first one holds them.

    Args:
        out: the features file.
        story, kind: as for `open_chunks`.
        number: of the process, from 1.
    """
    path = chunks_path(out, number)
    with disk_errors_named(out):
        path.touch()
        stream = path.open("r+b")
    with stream:
        file = ChunkFile(path, stream, story_line(story, kind), kind)
        file.begin()
        stream.seek(0, os.SEEK_END)
        yield file


def _lines(text: bytes) -> list[str]:
    return text.decode().split("\n") if text else []
