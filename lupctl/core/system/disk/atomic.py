"""Writing files so that a reader never sees half of one, and fingerprints of files."""

import errno
import glob
import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lupctl.core.errors import DataError, LupError, UsageError
from lupctl.core.system.disk.reading import open_stream

HASH_CHUNK_BYTES = 1 << 20
OTHERS = stat.S_IRWXG | stat.S_IRWXO
IN_MESSAGE = re.compile(r"(?:\(os error |errno = )(\d{1,5})")
UNWRITABLE = (
    errno.EROFS, errno.EACCES, errno.EPERM, errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EIO,
    errno.EBUSY,
)  # fmt: skip


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path next to `path` that replaces it if the block succeeds.

    The content is flushed to the disk before the rename, and so is the folder after it: after a crash there is
    the old file or the new one, never a part. On any exception the temporary file is removed. Whoever wrote it, the
    file has the permissions that the user's umask gives.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with disk_errors_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            _share(partial)
            sync_path(partial)
            partial.replace(path)
            sync_path(path.parent)
    finally:
        with suppress(OSError):  # it is gone, or its name is impossible; the error itself is raised already
            partial.unlink()


def _share(partial: Path) -> None:
    """Gives a file the permissions of any new file here; safetensors and others leave theirs to its owner alone."""
    if os.name == "nt" or not partial.is_file() or partial.stat().st_mode & OTHERS:
        return
    # A new file shows what umask and the folder give; asking for umask itself would change it for other threads.
    example = partial.with_name(f"{partial.name.removesuffix('.part')}.mode.part")
    try:
        os.close(os.open(example, os.O_WRONLY | os.O_CREAT, 0o666))
        partial.chmod(stat.S_IMODE(example.stat().st_mode))
    finally:
        example.unlink(missing_ok=True)


@contextmanager
def disk_errors_named(path: Path) -> Iterator[None]:
    """Turns the errors of a full or read-only disk, or of an impossible path, into one line that names the file."""
    try:
        yield
    except LupError:
        raise  # has its line already, whatever the system said before
    except Exception as error:
        number = _system_error(error)
        if number in (errno.ENOSPC, errno.EDQUOT):
            existing = next(folder for folder in path.absolute().parents if folder.is_dir())
            free = shutil.disk_usage(existing).free
            raise DataError(
                f"{path}: the disk is full ({free / 2**20:.0f} MiB free); nothing was written",
                hint="free some space, or name another place with --out or --home, then type the same command again",
            ) from error
        if number == errno.EFBIG:
            raise DataError(
                f"{path}: this disk, or this account, does not allow a file this large ({os.strerror(errno.EFBIG)})",
                hint="name another place with --out or --home; a pack can also be split into smaller files, as with "
                "--shard-bytes 2000000000",
            ) from error
        if number in UNWRITABLE:
            raise DataError(
                f"{path}: cannot be written ({os.strerror(number)})", hint="name another place with --out or --home"
            ) from error
        raise


def check_writable(path: Path) -> None:
    """Refuses a path that cannot be written to, before hours of work rather than after.

    Raises:
        DataError: the folder cannot be made or refuses a file.
    """
    try:
        with disk_errors_named(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}."):
                pass
    except OSError as error:  # system folders raise errors of their own
        raise DataError(
            f"{path}: cannot be written ({error.strerror})", hint="name another place with --out or --home"
        ) from error


def is_writable(path: Path) -> bool:
    """Whether a file can be written to its folder; makes the folder."""
    try:
        check_writable(path)
    except DataError:
        return False
    return True


def _system_error(error: BaseException | None) -> int | None:
    """The system's error number; HDF5 and libraries written in Rust, such as safetensors, give it in their message.

    After a failed write torch's writer complains about its own position, and the cause is the context of that.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error.errno
        if found := IN_MESSAGE.search(str(error)):
            return int(found[1])
        error = error.__context__
    return None


def sync_path(path: Path) -> None:
    """Asks the system to flush a file's content, or a folder's entries, to the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder, and journals its entries
    # Windows flushes only files that are open for writing.
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str, *, alone: bool = False) -> None:
    """Writes a whole text file, or leaves what was there.

    Args:
        path: the file.
        text: its content.
        alone: no other process is writing this file, so leftovers of killed ones next to it can be removed.
    """
    if alone:
        for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
            leftover.unlink(missing_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_absent(path: Path, *, force: bool, option: str = "--out") -> None:
    """Refuses to overwrite.

    Args:
        path: what would be written.
        force: overwriting was requested.
        option: the one that names another path, for the hint.

    Raises:
        UsageError: `path` exists and `force` is not set.
    """
    if path.exists() and not force:
        raise UsageError(
            f"{path}: exists already and would be overwritten", hint=f"add --force, or name another {option}"
        )


def check_not_input(out: Path, inputs: Iterable[Path]) -> None:
    """Refuses to overwrite what is read, which --force does not mean.

    Raises:
        UsageError: one of the inputs is what would be written.
    """
    for path in inputs:
        if out.exists() and path.exists() and out.samefile(path):
            name = out.with_name(f"{out.name.partition('.')[0]}.json")
            raise UsageError(f"{out}: is what this command reads, and would be overwritten", hint=f"--out {name}")


def file_fingerprint(path: Path, *, advance: Callable[[int], None] | None = None) -> str:
    """SHA-256 of a file's bytes, as `sha256:` and 64 hexadecimal digits.

    Args:
        path: the file.
        advance: called with the number of bytes after each chunk read.
    """
    digest = hashlib.sha256()
    with open_stream(path) as stream:
        while chunk := stream.read(HASH_CHUNK_BYTES):
            digest.update(chunk)
            if advance is not None:
                advance(len(chunk))
    return f"sha256:{digest.hexdigest()}"
