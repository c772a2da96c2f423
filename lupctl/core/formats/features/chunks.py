"""Features of a dump that is not over: one finished chunk behind the other, in a file beside the one they will become.

A line of JSON says what they are features of. Each chunk then is a head of four numbers and its body, the images left
out (one line each, with their reasons) and the vectors. The checksum in the head tells a whole chunk from one that a
killed process or a dead machine left half on the disk.
"""

import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import UsageError
from lupctl.core.system.disk.atomic import disk_errors_named
from lupctl.core.system.disk.lock import held

HEAD = struct.Struct("<IIII")  # vectors, their length, bytes of the lines, CRC-32 of the body


class FeatureChunks:
    """The finished chunks of one dump.

    Args:
        path: the file.
        stream: the same, open, at its beginning.
        story: what the features are of and how they are made; chunks of another story are thrown away.
        kind: float32 or float16.

    Attributes:
        done: finished chunks.
        left_out: lines about images that are none, of all finished chunks.
        is_other: whether chunks of another story lay here.
    """

    def __init__(self, path: Path, stream: BinaryIO, story: Mapping[str, Any], kind: str) -> None:
        self.path, self._stream, self._kind = path, stream, np.dtype(kind)
        self.done, self.left_out = 0, list[str]()
        line = json.dumps({**story, "type": kind}, sort_keys=True).encode() + b"\n"
        found = stream.readline()
        self.is_other = found not in (b"", line)
        if found != line:
            stream.seek(0)
            stream.truncate()
            stream.write(line)
        self._begin = end = stream.tell()
        while (chunk := self._read()) is not None:
            self.done += 1
            self.left_out += chunk[0]
            end = stream.tell()
        stream.seek(end)
        stream.truncate()

    def append(self, vectors: NDArray[np.float32], left_out: list[str]) -> None:
        """Adds one chunk, which is safe from the end of this process when this returns.

        Args:
            vectors: (B, D).
            left_out: lines about images of the chunk that are none.
        """
        text = "\n".join(left_out).encode()
        body = text + np.ascontiguousarray(vectors, self._kind).tobytes()
        count, dim = vectors.shape
        with disk_errors_named(self.path):
            self._stream.write(HEAD.pack(count, dim, len(text), zlib.crc32(body)) + body)
            self._stream.flush()
        self.done += 1
        self.left_out += left_out

    def gather(self, count: int) -> NDArray[Any]:
        """(count, D), the vectors of all chunks in their order."""
        self._stream.seek(self._begin)
        features: NDArray[Any] | None = None
        row = 0
        while (chunk := self._read()) is not None:
            _, vectors = chunk
            if features is None:
                features = np.empty((count, vectors.shape[1]), self._kind)
            features[row : row + len(vectors)] = vectors
            row += len(vectors)
        assert features is not None
        assert row == count, f"{row} features of {count} images"
        return features

    def forget(self) -> None:
        """Drops all chunks."""
        self._stream.truncate(self._begin)
        self.done, self.left_out = 0, []

    def _read(self) -> tuple[list[str], NDArray[Any]] | None:
        head = self._stream.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        count, dim, letters, checksum = HEAD.unpack(head)
        length = letters + count * dim * self._kind.itemsize
        body = self._stream.read(length)
        if len(body) < length or zlib.crc32(body) != checksum:
            return None
        lines = body[:letters].decode().split("\n") if letters else []
        return lines, np.frombuffer(body, self._kind, offset=letters).reshape(count, dim)


def chunks_path(out: Path) -> Path:
    """Where the chunks of a features file lie."""
    return out.with_name(f".{out.name}.chunks")


@contextmanager
def open_chunks(out: Path, story: Mapping[str, Any], kind: str) -> Iterator[FeatureChunks]:
    """The chunks of a features file, held against a second process; removed when the block ends well.

    What a block that fails has finished is kept for the next one.

    Raises:
        UsageError: another process writes them.
        DataError: the disk refuses the file.
    """
    path = chunks_path(out)
    with ExitStack() as stack:
        with disk_errors_named(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            is_ours = stack.enter_context(held(out.with_name(f".{out.name}.lock"), remove=True))
            if not is_ours:
                raise UsageError(
                    f"{out}: another lupctl is writing these features", hint="wait for it, or name another --out"
                )
            path.touch()
            stream = path.open("r+b")
        chunks = None
        try:
            with stream:
                chunks = FeatureChunks(path, stream, story, kind)
                yield chunks
        except BaseException:
            if chunks is not None and chunks.done == 0:
                path.unlink(missing_ok=True)
            raise
        path.unlink()
