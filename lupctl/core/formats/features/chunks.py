"""Features of a dump that is not over: finished chunks, in files beside the one they will become.

Every process of a dump appends to a file of its own, and the first one holds and joins them all.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from glob import escape
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import DataError
from lupctl.core.formats.features.chunk_file import ChunkFile
from lupctl.core.system.disk.atomic import disk_errors_named
from lupctl.core.system.disk.lock import held

LAYOUT = 2


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
                    f"{path}: chunk {number} is damaged", hint="type the same command again; it is computed again"
                )
            yield body[1]

    def forget(self) -> None:
        """Drops all chunks."""
        for file in self._files.values():
            file.forget()
        self._where[:] = -1
        self.left_out = {}

    def close(self, *, remove: bool) -> None:
        """Closes the files of other processes, and removes all files where they are no longer needed."""
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
        story: what the features are of and how they are made; other chunks are discarded.
        kind: float32 or float16.
        count: chunks of the whole dump.

    Raises:
        DataError: another job writes them.
        DataError: the disk refuses the file.
    """
    with hold_features(out), _open(chunks_path(out), out) as stream:
        chunks = FeatureChunks(out, stream, story_line(story, kind), kind, count=count)
        try:
            yield chunks
        except BaseException:
            chunks.close(remove=chunks.done == 0)
            raise
        chunks.close(remove=True)


@contextmanager
def hold_features(out: Path) -> Iterator[None]:
    """Holds a features file, which need not be there yet, against a second job.

    Raises:
        DataError: another job writes these features, or the disk refuses the file.
    """
    with ExitStack() as stack:
        with disk_errors_named(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            is_ours = stack.enter_context(held(out.with_name(f".{out.name}.lock"), remove=True))
        if not is_ours:
            raise DataError(
                f"{out}: another lupctl is writing these features", hint="wait for it, or name another --out"
            )
        yield


@contextmanager
def open_own_chunks(out: Path, story: Mapping[str, Any], kind: str, *, number: int) -> Iterator[ChunkFile]:
    """The file that a further process of a dump appends its chunks to, while the first one holds them.

    Args:
        out: the features file.
        story, kind: as for `open_chunks`.
        number: of the process, from 1.
    """
    path = chunks_path(out, number)
    with _open(path, out) as stream:
        file = ChunkFile(path, stream, story_line(story, kind), kind)
        file.begin()
        stream.seek(0, os.SEEK_END)
        yield file


def _open(path: Path, out: Path) -> BinaryIO:
    with disk_errors_named(out):
        path.touch()
        return path.open("r+b")
