"""Fetching over HTTP from a server that cuts, lies, ignores ranges and changes files."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lupctl.core.errors import DataError, StoppedError
from lupctl.core.system.fetch.http import fetch_http
from lupctl.core.system.fetch.part import Part, Version
from lupctl.core.system.fetch.transfer import MIB, SLOWEST_BYTES, ByteBar, Patience, Stopwatch
from lupctl.core.system.progress.lines import Progress
from tests.tools.flaky_server import Page, Server, serving

CONTENT = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
QUICK = Patience(attempts=3, first_wait_s=0.001, timeout_s=2.0)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


class Counter:
    """A bar that remembers how far it is."""

    def __init__(self) -> None:
        self.done = self.total = 0

    def advance(self, count: int = 1, *, note: str = "") -> None:
        self.done += count

    def grow(self, count: int) -> None:
        self.total += count


def fetch(url: str, out: Path, **more: Any) -> Path:
    given = {"cancel": threading.Event(), "bar": ByteBar(Counter()), "patience": QUICK, **more}
    return fetch_http(url, out, **given)


def ranges(page: Page) -> list[str]:
    return [asked.get("Range", "") for asked in page.asked]


def leave_part(server: Server, out: Path, page: Page, *, num_bytes: int = 100_000) -> None:
    """What a call leaves that was killed after so many bytes."""
    page.cuts = [num_bytes]
    with pytest.raises(DataError, match="the connection was cut"):
        fetch(server.url("/file"), out, patience=Patience(attempts=1, timeout_s=2.0))
    page.asked.clear()
    assert out.with_name("file.part").read_bytes() == page.content[:num_bytes]


def test_a_file_comes(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT)
    bar = Counter()
    with Progress(quiet=True).task("x", total=0, unit="MiB") as task:
        task.grow(3)
        task.advance(3)
    fetch(server.url("/file"), tmp_path / "file", bar=ByteBar(bar))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert page.asked[0]["Accept-Encoding"] == "identity"


def test_an_empty_file_comes(server: Server, tmp_path: Path) -> None:
    server.add("/file", b"")
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == b""


def test_cuts_are_continued(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, cuts=[70_000, 80_000, 1, 0])
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT
    assert ranges(page) == ["", "bytes=70000-", "bytes=150000-", "bytes=150001-", "bytes=150001-"]
    assert {asked["If-Range"] for asked in page.asked[1:]} == {page.mark}
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_attempts_without_a_byte_end_it_and_the_part_stays(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, cuts=[70_000, 0, 0, 0])
    with pytest.raises(DataError, match=r"the connection was cut .*, 3 times in a row; 70,000 bytes are kept") as error:
        fetch(server.url("/file"), tmp_path / "file")
    assert error.value.hint == "type the same command again later; it continues"
    assert len(page.asked) == 3, "the first had progress, and counts as the first failure"
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT


def test_a_later_call_continues(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT)
    leave_part(server, tmp_path / "file", page)
    bar = Counter()
    assert fetch(server.url("/file"), tmp_path / "file", bar=ByteBar(bar)).read_bytes() == CONTENT
    assert ranges(page) == ["bytes=100000-"]


@pytest.mark.parametrize(
    "more",
    [
        {},  # the server notices by If-Range
        {"if_range": False},  # it does not, and its ETag tells
        {"if_range": False, "etag": False, "modified": "Mon, 01 Jan 2024 00:00:00 GMT"},
    ],
)
def test_a_file_that_changed_is_not_glued(server: Server, tmp_path: Path, more: dict[str, Any]) -> None:
    page = server.add("/file", CONTENT, **more)
    leave_part(server, tmp_path / "file", page)
    page.content = OTHER
    if page.modified:
        page.modified = "Tue, 02 Jan 2024 00:00:00 GMT"
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == OTHER


def test_a_file_that_changes_between_two_attempts_of_one_call(server: Server, tmp_path: Path) -> None:
    server.add("/file", CONTENT, cuts=[100_000], then=OTHER)
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == OTHER


def test_a_file_of_another_length_is_not_glued(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, if_range=False, etag=False, modified="Mon, 01 Jan 2024 00:00:00 GMT")
    leave_part(server, tmp_path / "file", page)
    page.content = OTHER[:200_000]  # and the server's clock says nothing changed
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == OTHER[:200_000]


def test_without_a_mark_nothing_is_continued_unless_the_hash_is_known(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, etag=False)
    leave_part(server, tmp_path / "file", page)
    fetch(server.url("/file"), tmp_path / "file")
    assert ranges(page) == [""]
    leave_part(server, tmp_path / "file", page)
    assert fetch(server.url("/file"), tmp_path / "file", hash_known=True).read_bytes() == CONTENT
    assert ranges(page) == ["bytes=100000-"]


def test_a_weak_mark_is_compared_and_not_sent(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, etag=False, headers={"ETag": 'W/"one"'})
    leave_part(server, tmp_path / "file", page)
    page.content, page.headers = OTHER, {"ETag": 'W/"two"'}
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == OTHER
    assert "If-Range" not in page.asked[0]


def test_ranges_that_are_ignored(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, ranges=False, cuts=[100_000, 200_000])
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT
    assert ranges(page) == ["", "bytes=100000-", "bytes=200000-"]


def test_ranges_that_are_ignored_and_always_cut_come_to_an_end(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, ranges=False, cuts=[100_000] * 20)
    with pytest.raises(DataError, match="3 times in a row"):
        fetch(server.url("/file"), tmp_path / "file")
    assert len(page.asked) == 3


def test_another_range_than_asked_for(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT)
    leave_part(server, tmp_path / "file", page)
    page.headers = {"Content-Range": "bytes 5-299999/300000"}
    page.statuses = [206]
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT
    assert ranges(page) == ["bytes=100000-", ""]


def test_a_length_that_is_too_long(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, claimed=500)
    with pytest.raises(DataError, match=r"3 times in a row; 300,000 bytes are kept"):
        fetch(server.url("/file"), tmp_path / "file")
    assert not (tmp_path / "file").exists()
    assert len(page.asked) >= 3


def test_a_length_that_disagrees_with_the_range(server: Server, tmp_path: Path) -> None:
    """The first answer promises 300,000 bytes, the second's range says 400,000: another file."""
    page = server.add("/file", CONTENT, etag=False, modified="Mon, 01 Jan 2024 00:00:00 GMT")
    leave_part(server, tmp_path / "file", page)
    page.content = CONTENT + OTHER[:100_000]
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == page.content


def test_more_than_promised_is_not_kept(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, headers={"Content-Range": "bytes 100000-299989/299990"})
    part = Part(tmp_path / "file", server.url("/file"), hash_known=False)
    part.begin(Version(server.url("/file"), page.mark, "", None))
    part.append(CONTENT[:100_000])
    part.close()
    with pytest.raises(DataError, match="sent more than the 299,990 bytes that it announced; started again, 1 times"):
        fetch(server.url("/file"), tmp_path / "file", patience=Patience(1, 0.001))
    assert list(tmp_path.iterdir()) == []


def test_no_length_at_all(server: Server, tmp_path: Path) -> None:
    server.add("/file", CONTENT, chunked=True)
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT


def test_a_part_that_is_whole_needs_no_server(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT)
    leave_part(server, tmp_path / "file", page)
    (tmp_path / "file.part").write_bytes(CONTENT)  # killed between the last byte and the renaming
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT
    assert page.asked == []


def test_a_part_that_is_too_long(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT)
    leave_part(server, tmp_path / "file", page)
    (tmp_path / "file.part").write_bytes(CONTENT + b"more")
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT


def test_a_part_of_another_address_is_not_continued(server: Server, tmp_path: Path) -> None:
    leave_part(server, tmp_path / "file", server.add("/file", CONTENT))
    other = server.add("/other", OTHER)
    assert fetch(server.url("/other"), tmp_path / "file").read_bytes() == OTHER
    assert ranges(other) == [""]


def test_a_busy_server_is_asked_again(server: Server, tmp_path: Path) -> None:
    page = server.add("/file", CONTENT, statuses=[503, 429])
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT
    assert len(page.asked) == 3
    page.statuses, page.headers = [503] * 9, {"Retry-After": "3600"}
    with pytest.raises(DataError, match="the server answers 503 Service Unavailable, 3 times in a row"):
        fetch(server.url("/file"), tmp_path / "again", patience=Patience(3, 0.001, most_wait_s=0.01))


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_a_refusal_is_final(server: Server, tmp_path: Path, code: int) -> None:
    page = server.add("/file", CONTENT, statuses=[code] * 5)
    with pytest.raises(DataError, match=rf"/file: the server answers {code} .*") as error:
        fetch(server.url("/file"), tmp_path / "file")
    assert error.value.hint == "check the address, or fetch it by hand"
    assert len(page.asked) == 1


def test_redirects_are_followed_to_web_addresses_only(server: Server, tmp_path: Path) -> None:
    server.add("/file", CONTENT)
    moved = server.add("/moved", b"", statuses=[302] * 9, headers={"Location": server.url("/file")})
    assert fetch(server.url("/moved"), tmp_path / "file").read_bytes() == CONTENT
    moved.headers = {"Location": "file:///etc/passwd"}
    with pytest.raises(DataError, match="cannot be requested"):
        fetch(server.url("/moved"), tmp_path / "passwd")
    server.add("/loop", b"", statuses=[302] * 99, headers={"Location": server.url("/loop")})
    with pytest.raises(DataError, match="redirects"):
        fetch(server.url("/loop"), tmp_path / "loop")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "nonsense", "http://"])
def test_other_addresses_are_refused(tmp_path: Path, url: str) -> None:
    with pytest.raises(DataError, match="cannot be requested") as error:
        fetch(url, tmp_path / "file")
    assert error.value.hint == "give an http or https address"


def test_nobody_listens(tmp_path: Path) -> None:
    with serving() as gone:
        url = gone.url("/file")
    with pytest.raises(DataError, match=r"no answer \(.*refused.*\), 3 times in a row; 0 bytes are kept"):
        fetch(url, tmp_path / "file")


def test_a_server_that_compresses_is_refused(server: Server, tmp_path: Path) -> None:
    server.add("/file", CONTENT, headers={"Content-Encoding": "gzip"})
    with pytest.raises(DataError, match=r"compresses it \(gzip\)"):
        fetch(server.url("/file"), tmp_path / "file")
    server.add("/set.tar.gz", CONTENT, headers={"Content-Encoding": "x-gzip"})
    assert fetch(server.url("/set.tar.gz"), tmp_path / "set").read_bytes() == CONTENT


def test_stopping_a_silent_server(server: Server, tmp_path: Path) -> None:
    server.add("/file", CONTENT, silent=60_000)
    cancel = threading.Event()
    threading.Timer(0.3, cancel.set).start()
    started_at = time.perf_counter()
    with pytest.raises(StoppedError, match="stopped on request; what was fetched is kept"):
        fetch(server.url("/file"), tmp_path / "file", cancel=cancel, patience=Patience(timeout_s=20.0))
    assert time.perf_counter() - started_at < 5
    assert (tmp_path / "file.part").read_bytes() == CONTENT[:60_000]


def test_a_silent_server_times_out(server: Server, tmp_path: Path) -> None:
    server.add("/file", CONTENT, silent=0)
    with pytest.raises(DataError, match="the connection was cut"):
        fetch(server.url("/file"), tmp_path / "file", patience=Patience(2, 0.001, timeout_s=0.2))


@pytest.mark.parametrize("more", [{"pause_s": 0.02}, {"slow_head": True}, {"pause_s": 0.02, "chunked": True}])
def test_a_server_that_is_slow_for_ever(server: Server, tmp_path: Path, more: dict[str, Any]) -> None:
    """Every byte comes in time, and the whole never does."""
    server.add("/file", CONTENT, **more)
    started_at = time.perf_counter()
    with pytest.raises(DataError, match="not complete after 1 s; what was fetched is kept") as caught:
        fetch(server.url("/file"), tmp_path / "file", patience=Patience(timeout_s=2.0, whole_s=0.5))
    assert time.perf_counter() - started_at < 5
    assert "--timeout 2 waits longer" in caught.value.hint
    if "pause_s" in more:
        kept = (tmp_path / "file.part").read_bytes()
        assert 0 < len(kept) < 100
        assert CONTENT.startswith(kept)


def test_the_limit_for_a_whole_file_grows_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    given, grown = Stopwatch("a", Patience(whole_s=60.0)), Stopwatch("b", Patience())
    clock[0] = 59.0
    given.check(10**12)
    clock[0] = 3_599.0
    grown.check(0)
    clock[0] = 3_601.0
    with pytest.raises(DataError, match="b: not complete after 3,601 s"):
        grown.check(0)
    grown.check(SLOWEST_BYTES * 2)
    with pytest.raises(DataError, match="a: not complete"):
        given.check(10**12)


def test_a_full_disk_keeps_the_part(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("/file", CONTENT)
    real = Part.append
    slots = 150_000

    def append(part: Part, chunk: bytes) -> None:
        left = slots - part.size
        real(part, chunk[:left])
        if len(chunk) > left:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Part, "append", append)
    with pytest.raises(
        DataError, match=r"file.part: the disk is full \([\d,]+ MiB free\); the first 150,000 bytes"
    ) as e:
        fetch(server.url("/file"), tmp_path / "file")
    assert e.value.hint == "free some space, then type the same command again"
    slots = 10**9
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT
    assert ranges(server.pages["/file"]) == ["", "bytes=150000-"]


def test_what_cannot_fit_is_not_begun(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add("/file", CONTENT)
    monkeypatch.setattr("lupctl.core.system.fetch.transfer.free_bytes", lambda path: 299_999)
    with pytest.raises(DataError, match="needs 0 MiB, the disk has 0 MiB free"):
        fetch(server.url("/file"), tmp_path / "file")
    monkeypatch.setattr("lupctl.core.system.fetch.transfer.free_bytes", lambda path: 300_000)
    fetch(server.url("/file"), tmp_path / "file")


def test_killed_at_any_point_and_typed_again(server: Server, tmp_path: Path) -> None:
    """A process that is killed while a slow server sends, several times; the file is as if nothing had happened."""
    page = server.add("/file", CONTENT)
    code = (
        "import sys, threading; from pathlib import Path\n"
        "from lupctl.core.system.fetch.http import fetch_http\n"
        "from lupctl.core.system.fetch.transfer import ByteBar\n"
        "from lupctl.core.system.progress.lines import _Silent\n"
        "fetch_http(sys.argv[1], Path(sys.argv[2]), cancel=threading.Event(), bar=ByteBar(_Silent()))\n"
    )
    part = tmp_path / "file.part"
    for reach in (50_000, 180_000):
        page.silent = reach - (part.stat().st_size if part.exists() else 0)
        process = subprocess.Popen([sys.executable, "-c", code, server.url("/file"), str(tmp_path / "file")])
        deadline = time.perf_counter() + 20
        while not (part.exists() and part.stat().st_size == reach):
            assert time.perf_counter() < deadline
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
    page.silent = None
    assert fetch(server.url("/file"), tmp_path / "file").read_bytes() == CONTENT
    assert ranges(page) == ["", "bytes=50000-", "bytes=180000-"]


def test_the_bar_counts_mebibytes_of_several_files() -> None:
    counter = Counter()
    bar = ByteBar(counter)
    for _ in range(4):
        bar.grow(MIB // 2)
        bar.advance(MIB // 2)
    assert (counter.total, counter.done) == (2, 2)
    bar.advance(-MIB)
    assert counter.done == 1


def test_a_bar_on_a_terminal_grows(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with Progress().task("downloading", total=0, unit="MiB") as task:
        task.grow(7)
        task.advance(3, note="x")
        assert task._progress.tasks[0].total == 7  # type: ignore[attr-defined]
        assert task._progress.tasks[0].completed == 3  # type: ignore[attr-defined]
