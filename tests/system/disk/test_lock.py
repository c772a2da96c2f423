"""Lock files: one holder or several sharers, free at once when a holder is gone, however it went."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import filelock
import pytest

from lupctl.core.system.disk import lock
from lupctl.core.system.disk.lock import check_locks, held, held_alone, held_shared

HOLDER = r"""
import os, sys, time
from pathlib import Path
import filelock

from lupctl.core.system.disk import lock
with getattr(lock, sys.argv[2])(Path(sys.argv[1])) as is_free:
    assert is_free
    child = os.fork()
    if child == 0:
        os.write(1, b"ready\n")
        time.sleep(60)
    os.write(1, b"%d\n" % child)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(path: Path, how: str = "held") -> Iterator[subprocess.Popen[str]]:
    """A process that holds a lock file, as does, for all it knows, a child that it forked; both end with the block."""
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path), how], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    said = {holder.stdout.readline().strip() for _ in range(2)}
    (child,) = said - {"ready"}
    try:
        yield holder
        os.kill(int(child), 0)  # it lives on
    finally:
        holder.kill()
        os.kill(int(child), signal.SIGKILL)
        holder.communicate()


def test_a_killed_holder_lets_go_at_once_though_its_forked_child_lives_on(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held_elsewhere(path) as holder:
        with held(path) as is_free:
            assert not is_free
        holder.kill()
        holder.wait(timeout=10)
        with held(path) as is_free:
            assert is_free


def test_a_held_file_is_not_free_in_the_same_process_either(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    for _ in range(2):
        with held(path) as is_free, held(path) as is_free_again:
            assert (is_free, is_free_again) == (True, False)
    assert path.read_bytes() == b""


def test_a_forked_child_neither_has_nor_frees_its_parents_lock(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held(path):
        child = os.fork()
        if child == 0:
            # The number of the closed copy is taken by another file, which the end of the block must leave open.
            taken = os.open(tmp_path, os.O_RDONLY)
            try:
                raise KeyboardInterrupt
            except KeyboardInterrupt:
                for number in list(lock._held):
                    lock._release(number, path)
                os.fstat(taken)
                os._exit(len(lock._held))
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        with held(path) as is_free:
            assert not is_free


def test_a_file_that_goes_at_the_end_is_still_held_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has opened the file just before its holder removes it locks a file without a name, and opens it again."""
    path, real = tmp_path / "lock", filelock.lock_descriptor
    with ExitStack() as first:
        assert first.enter_context(held(path, remove=True))

        def slow(number: int, *, blocking: bool) -> bool:
            monkeypatch.setattr(lock, "lock_descriptor", real)
            first.close()  # between opening and locking
            return real(number, blocking=blocking)

        monkeypatch.setattr(lock, "lock_descriptor", slow)
        with held(path) as is_free:
            assert is_free
            assert path.exists()
            with held(path) as is_free_again:
                assert not is_free_again


def test_a_file_that_is_removed_is_gone(tmp_path: Path) -> None:
    with held(tmp_path / "lock", remove=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_sharers_and_one_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "GATE_S", 0.1)
    path = tmp_path / "lock"
    with held_shared(path) as first, held_shared(path) as second, held_alone(path) as alone:
        assert (first, second, alone) == (True, True, False)
    with held_alone(path) as alone, held_shared(path) as shared:
        assert (alone, shared) == (True, False)
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"]


def test_a_killed_sharer_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with held_elsewhere(path, "held_shared") as holder:
        with held_alone(path) as alone, held_shared(path) as shared:
            assert (alone, shared) == (False, True)
        holder.kill()
        holder.wait(timeout=10)
        with held_alone(path) as alone:
            assert alone
    assert [entry.name for entry in tmp_path.iterdir()] == ["lock"], "what it left is removed"


def test_a_disk_without_locks_lets_everybody_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int, *, blocking: bool) -> bool:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock, "lock_descriptor", refuse)
    monkeypatch.setattr(lock, "GATE_S", 0.1)
    with held(tmp_path / "lock") as first, held(tmp_path / "lock") as second:
        assert (first, second) == (True, True)
    with pytest.raises(OSError, match="No locks"):
        check_locks(tmp_path)
    monkeypatch.undo()
    check_locks(tmp_path)
