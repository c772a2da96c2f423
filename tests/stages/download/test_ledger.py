"""LUPerson's videos: the list, the ledger, and what becomes of each video."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.data.catalog.video_list import VideoName, read_video_list
from lupctl.core.errors import DataError, FormatError, LupError, StoppedError, UsageError
from lupctl.core.stages.download import youtube
from lupctl.core.stages.download.ledger import Entry, Ledger
from lupctl.core.stages.download.plan import Wanted, find_wanted
from lupctl.core.stages.download.videos import VideosResult, fetch_videos, find_list, plan_videos
from lupctl.core.stages.download.youtube import (
    STREAM_RULE,
    FailedError,
    FullDiskError,
    GoneError,
    Stream,
    fetch_video,
)
from lupctl.core.system.progress.lines import Progress
from tests.tools.flaky_server import Server, serving
from tests.tools.shell import Shell

# The first lines of the published list: their ids begin with a dash.
LINES = ["argentina+buenos_aires+-0UsgiQiPbY", "argentina+buenos_aires+-5Q9cKUWgAM", "us+washington_dc+abcdefghij_"]
QUIET = Progress(quiet=True)


def write_list(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_the_list(tmp_path: Path) -> None:
    path = tmp_path / "vnames.txt"
    path.write_bytes(f"{LINES[2]}\r\n{LINES[0]}  \n\n{LINES[1]}\n{LINES[0]}".encode())
    videos = read_video_list(path)
    assert [str(video) for video in videos] == LINES
    assert videos[0] == VideoName("argentina", "buenos_aires", "-0UsgiQiPbY")
    assert videos[0].path == Path("argentina/buenos_aires/argentina+buenos_aires+-0UsgiQiPbY.mp4")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("us+new_york", "line 2: 2 fields in 'us+new_york'; country+city+videoid was expected"),
        ("us+new+york+abcdefghijk", "line 2: 4 fields"),
        ("us+new_york+abc", "line 2: 'abc' is not a video id; eleven of A-Z a-z 0-9 _ - were expected"),
        ("us+new_york+abcdefghij/", "'abcdefghij/' is not a video id"),
        ("us+new_york+abcdefghijkl", "is not a video id"),
        ("../x+new_york+abcdefghijk", "line 2: '../x' is not a country; lower case with underscores was expected"),
        ("us+..+abcdefghijk", "'..' is not a city"),
        ("US+new_york+abcdefghijk", "'US' is not a country"),
        ("us+new york+abcdefghijk", "'new york' is not a city"),
    ],
)
def test_lines_that_are_none(tmp_path: Path, line: str, message: str) -> None:
    with pytest.raises(FormatError) as error:
        read_video_list(write_list(tmp_path / "vnames.txt", [LINES[0], line]))
    assert error.value.message.startswith(f"{tmp_path / 'vnames.txt'}: line 2: ")
    assert message in error.value.message
    assert error.value.hint == "lines such as argentina+buenos_aires+-0UsgiQiPbY"


def test_lists_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n\n")
    with pytest.raises(FormatError, match="lists no video"):
        read_video_list(tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FormatError, match="not a text file; a list of videos was expected"):
        read_video_list(tmp_path / "binary")


def test_both_published_names_of_the_list(tmp_path: Path) -> None:
    write_list(tmp_path / "vname.txt", LINES)
    assert find_list(tmp_path / "vnames.txt", tmp_path / "raw") == tmp_path / "vname.txt"
    write_list(tmp_path / "vnames.txt", LINES)
    assert find_list(tmp_path / "vnames.txt", tmp_path / "raw") == tmp_path / "vnames.txt"
    assert find_list(Path("vname.txt"), tmp_path) == tmp_path / "vname.txt", "in the dataset's folder"
    assert find_list(tmp_path / "other.txt", tmp_path) == tmp_path / "other.txt", "which the reader then misses"


entries = st.builds(
    Entry,
    video=st.sampled_from(LINES),
    state=st.sampled_from(["done", "gone", "failed"]),
    reason=st.text(max_size=10),
    bytes=st.integers(0, 10**9),
    sha256=st.just("ab"),
    format=st.text(max_size=3),
    width=st.none() | st.integers(1, 4000),
    height=st.none() | st.integers(1, 4000),
    fps=st.none() | st.floats(1, 60),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(entries, max_size=5), st.binary(max_size=30))
def test_a_ledger_keeps_the_last_entry_and_survives_any_tail(
    tmp_path_factory: pytest.TempPathFactory, added: list[Entry], tail: bytes
) -> None:
    path = tmp_path_factory.mktemp("ledger") / "videos.jsonl"
    ledger = Ledger(path)
    for entry in added:
        ledger.add(entry)
    expected = {entry.video: entry for entry in added}
    assert Ledger(path).entries == ledger.entries == expected
    with path.open("ab") as stream:  # a line that a crash cut short
        stream.write(tail.replace(b"\n", b""))
    again = Ledger(path)
    assert again.entries == expected
    again.add(Entry(LINES[0], "gone", reason="removed"))
    assert Ledger(path).entries == {**expected, LINES[0]: Entry(LINES[0], "gone", reason="removed")}
    assert len(path.read_text().splitlines()) == len(added) + 1


def test_a_line_in_the_middle_that_is_no_entry(tmp_path: Path) -> None:
    path = tmp_path / "videos.jsonl"
    Ledger(path).add(Entry(LINES[0], "done", bytes=1))
    for bad in (b"not json\n", b'{"video": "x", "state": "lost"}\n', b'{"state": "done"}\n', b"[]\n"):
        good = path.read_bytes()
        path.write_bytes(good + bad + good)
        with pytest.raises(FormatError, match=r"videos.jsonl: line 2 is not an entry of a ledger") as error:
            Ledger(path)
        assert error.value.hint == f"remove that line: sed -i 2d {path}"
        path.write_bytes(good)


def test_a_ledger_on_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger = Ledger(tmp_path / "videos.jsonl")
    ledger.add(Entry(LINES[0], "done", bytes=1))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DataError, match="the disk is full"):
            ledger.add(Entry(LINES[1], "done", bytes=1))
    ledger.add(Entry(LINES[2], "done", bytes=2))
    assert set(Ledger(tmp_path / "videos.jsonl").entries) == {LINES[0], LINES[2]}


def test_threads_share_a_ledger(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "videos.jsonl")
    names = [f"us+x+{number:011d}" for number in range(60)]
    threads = [
        threading.Thread(target=lambda part=part: [ledger.add(Entry(name, "gone")) for name in part])  # type: ignore[misc]
        for part in (names[:20], names[20:40], names[40:])
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(Ledger(ledger.path).entries) == set(names)


Behaviour = dict[str, Exception | bytes]


class Host:
    """Stands in for a video site."""

    def __init__(self, videos: Behaviour) -> None:
        self.videos = videos
        self.asked: list[str] = []

    def __call__(self, video: VideoName, slot: Path, cancel: threading.Event, **_: Any) -> Stream:
        self.asked.append(video.id)
        found = self.videos.get(video.id, str(video).encode())
        if isinstance(found, Exception):
            raise found
        slot.mkdir(parents=True, exist_ok=True)
        (slot / "136.mp4").write_bytes(found)
        return Stream(slot / "136.mp4", "136", 1280, 720, 25.0)


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    return find_wanted(tmp_path / "raw", "luperson")


def get(wanted: Wanted, lines: list[str], host: Callable[..., Stream], *, jobs: int = 1, **more: Any) -> VideosResult:
    path = write_list(wanted.folder.parent.parent / "list.txt", lines)
    return fetch_videos(plan_videos(wanted, path, **more), jobs=jobs, progress=QUIET, fetch=host)


def test_done_gone_and_failed(wanted: Wanted) -> None:
    host = Host({"-5Q9cKUWgAM": GoneError("Video unavailable"), "abcdefghij_": FailedError("HTTP Error 503")})
    result = get(wanted, LINES, host)
    assert (result.listed, result.done, result.gone, result.failed, result.fetched) == (3, 1, 1, 1, 1)
    assert result.reasons == ["1 x HTTP Error 503"]
    video = wanted.folder / "videos/argentina/buenos_aires/argentina+buenos_aires+-0UsgiQiPbY.mp4"
    assert video.read_bytes() == LINES[0].encode()
    lines = [json.loads(line) for line in result.ledger.read_text().splitlines()]
    assert lines[0] == {
        "video": LINES[0], "state": "done", "bytes": 34, "format": "136", "width": 1280, "height": 720, "fps": 25.0,
        "sha256": hashlib.sha256(LINES[0].encode()).hexdigest(),
    }  # fmt: skip
    assert lines[1:] == [
        {"video": LINES[1], "state": "gone", "reason": "Video unavailable"},
        {"video": LINES[2], "state": "failed", "reason": "HTTP Error 503"},
    ]
    origin = json.loads((wanted.folder / ".lupctl.json").read_text())
    assert origin["terms"].startswith("research only, no commercial use")
    assert not (wanted.folder / ".lupctl-part").exists()

    host.asked.clear()
    host.videos.pop("abcdefghij_")
    result = get(wanted, LINES, host)
    assert (host.asked, result.done, result.failed, result.fetched) == (["abcdefghij_"], 2, 0, 1)
    host.asked.clear()
    host.videos.clear()
    assert get(wanted, LINES, host, retry_gone=True).done == 3
    assert host.asked == ["-5Q9cKUWgAM"]
    host.asked.clear()
    get(wanted, LINES, host, force=True)
    assert host.asked == ["-0UsgiQiPbY", "-5Q9cKUWgAM", "abcdefghij_"]


def test_files_that_are_there_already_are_taken_over(wanted: Wanted) -> None:
    video = wanted.folder / "videos" / "us" / "washington_dc" / f"{LINES[2]}.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(b"from the published script")
    host = Host({})
    assert (get(wanted, LINES[2:], host).done, host.asked) == (1, [])
    assert Ledger(wanted.folder / "videos.jsonl").entries[LINES[2]].bytes == 25
    video.write_bytes(b"cut")  # not what the ledger tells
    assert (get(wanted, LINES[2:], host).done, host.asked) == (1, ["abcdefghij_"])
    assert video.read_bytes() == LINES[2].encode()


def test_many_failures_in_a_row_end_it(wanted: Wanted) -> None:
    lines = [f"us+x+{number:011d}" for number in range(100)]
    host = Host({line[-11:]: FailedError("Sign in to confirm you are not a bot") for line in lines})
    with pytest.raises(DataError, match="25 videos failed in a row, the last with: Sign in to confirm"):
        get(wanted, lines, host)
    assert 25 <= len(host.asked) <= 27
    host = Host({line[-11:]: GoneError("Video unavailable") for line in lines})
    assert get(wanted, lines, host).gone == 100, "gone is nobody's fault"


def test_a_full_disk_ends_it(wanted: Wanted) -> None:
    with pytest.raises(DataError, match=r"the disk is full \([\d,]+ MiB free\); what was fetched is kept") as error:
        get(wanted, LINES, Host({"-5Q9cKUWgAM": FullDiskError("No space left on device")}))
    assert error.value.hint == "free some space, then type the same command again"
    assert get(wanted, LINES, Host({})).done == 3


def test_stopping(wanted: Wanted) -> None:
    """SIGTERM while the second video comes: what is begun ends, and the same command goes on."""
    host = Host({})

    def stopping(video: VideoName, slot: Path, cancel: threading.Event) -> Stream:
        if video.id == "-5Q9cKUWgAM":
            os.kill(os.getpid(), signal.SIGTERM)
            assert cancel.wait(5)
            raise StoppedError("stopped", hint="")
        return host(video, slot, cancel)

    with pytest.raises(LupError, match="stopped on request; what was fetched is kept") as error:
        get(wanted, LINES, stopping)
    assert error.value.exit_code == 75
    assert host.asked == ["-0UsgiQiPbY"]
    assert get(wanted, LINES, host).done == 3
    assert host.asked == ["-0UsgiQiPbY", "-5Q9cKUWgAM", "abcdefghij_"]


def test_several_at_once(wanted: Wanted) -> None:
    together = threading.Barrier(3, timeout=10)

    def waiting(video: VideoName, slot: Path, cancel: threading.Event) -> Stream:
        together.wait()
        return Host({})(video, slot, cancel)

    assert get(wanted, LINES, waiting, jobs=3).done == 3


@pytest.mark.parametrize("place", ["add", "replace", "rename", "rmtree"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_the_line_and_the_file(wanted: Wanted, tmp_path: Path, place: str, when: str) -> None:
    """The ledger and the files are, byte for byte, those of an undisturbed run."""
    other = find_wanted(tmp_path / "other" / "raw", "luperson")
    get(other, LINES, Host({}))

    class KilledError(BaseException):
        """Nothing handles it, as nothing handles a kill."""

    import shutil

    owner: Any = {"add": Ledger, "replace": Path, "rename": Path, "rmtree": shutil}[place]
    real = getattr(owner, place)

    def dies(*given: Any, **more: Any) -> Any:
        mine = place == "add" or "washington" in str(given[0])
        if mine and when == "before":
            raise KilledError
        result = real(*given, **more)
        if mine:
            raise KilledError
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, place, dies)
        with pytest.raises(KilledError):
            get(wanted, LINES, Host({}))
    assert get(wanted, LINES, Host({})).done == 3

    def tree(folder: Path) -> dict[str, bytes]:
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    ours, theirs = tree(wanted.folder), tree(other.folder)
    assert sorted(ours.pop("videos.jsonl").splitlines()) == sorted(theirs.pop("videos.jsonl").splitlines())
    assert ours == theirs


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


# A plain web server tells no size before the file comes, and the rule takes no stream of unknown size.
LOCAL: Any = {"proxy": "", "format": "best"}
VIDEO = VideoName("us", "x", "-0123456789")


def test_yt_dlp_itself(server: Server, tmp_path: Path) -> None:
    """The real program, on a file of this machine: an id with a dash, a folder with a percent sign."""
    pytest.importorskip("yt_dlp")
    content = b"\0\0\0\x18ftypmp42" + bytes(50_000)
    server.add("/-0123456789.mp4", content, headers={"Content-Type": "video/mp4"})
    slot = tmp_path / "50%(id)s" / str(VIDEO)
    stream = fetch_video(VIDEO, slot, threading.Event(), address=server.url("/{id}.mp4"), **LOCAL)
    assert stream.path.parent == slot
    assert stream.path.read_bytes() == content
    assert stream.format
    assert [path.name for path in slot.iterdir()] == [stream.path.name]


def test_yt_dlp_itself_and_a_missing_file(server: Server, tmp_path: Path) -> None:
    pytest.importorskip("yt_dlp")
    with pytest.raises(FailedError, match="404"):
        fetch_video(VIDEO, tmp_path / "x", threading.Event(), address=server.url("/{id}.mp4"), **LOCAL)
    cancel = threading.Event()
    cancel.set()
    server.add("/-0123456789.mp4", bytes(50_000), headers={"Content-Type": "video/mp4"})
    with pytest.raises(StoppedError):
        fetch_video(VIDEO, tmp_path / "x", cancel, address=server.url("/{id}.mp4"), **LOCAL)


def formats(*heights: int | None, megabytes: int = 100, ext: str = "mp4", audio: bool = False) -> list[dict[str, Any]]:
    return [
        {
            "format_id": f"{ext}-{height}-{'both' if audio else 'video'}", "url": "http://127.0.0.1/", "ext": ext,
            "height": height, "filesize": megabytes << 20, "vcodec": "avc1", "acodec": "mp4a" if audio else "none",
            "protocol": "http",
        }
        for height in heights
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [
        (formats(360, 480, 720, 1080), "mp4-720-video"),
        (formats(360, 480), "mp4-480-video"),
        (formats(1080) + formats(360, audio=True), "mp4-360-both"),
        (formats(720, megabytes=501) + formats(480), "mp4-480-video"),
        (formats(720, ext="webm") + formats(480), "mp4-480-video"),
        (formats(480, audio=True) + formats(360), "mp4-360-video"),
        (formats(1080), None),
    ],
)
def test_the_stream_that_the_boxes_mean(offered: list[dict[str, Any]], chosen: str | None) -> None:
    """The rule, judged by yt-dlp: at most 720 rows and 500 MB, video alone before video with sound."""
    yt_dlp = pytest.importorskip("yt_dlp")
    info = {"id": "x", "title": "x", "extractor": "x", "extractor_key": "X", "webpage_url": "x", "formats": offered}
    with yt_dlp.YoutubeDL({"format": STREAM_RULE, "quiet": True, "simulate": True}) as client:
        try:
            picked = client.process_ie_result(info, download=False)["format_id"]
        except yt_dlp.utils.YoutubeDLError:
            picked = None
    assert picked == chosen


class FakeYoutubeDL:
    """Stands in for yt-dlp's class, and remembers what it was asked."""

    seen: list[tuple[dict[str, Any], str]]
    behaviour: Any

    def __init__(self, options: dict[str, Any]) -> None:
        self.options = options

    def __enter__(self) -> "FakeYoutubeDL":
        return self

    def __exit__(self, *error: object) -> None:
        return

    def extract_info(self, address: str, download: bool) -> Any:
        type(self).seen.append((self.options, address))
        if isinstance(type(self).behaviour, Exception):
            raise type(self).behaviour
        return type(self).behaviour


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[FakeYoutubeDL]:
    pytest.importorskip("yt_dlp")
    monkeypatch.setattr(FakeYoutubeDL, "seen", [], raising=False)
    monkeypatch.setattr(FakeYoutubeDL, "behaviour", None, raising=False)
    monkeypatch.setattr("yt_dlp.YoutubeDL", FakeYoutubeDL)
    return FakeYoutubeDL


def test_what_yt_dlp_is_asked(fake: type[FakeYoutubeDL], tmp_path: Path) -> None:
    fake.behaviour = {"requested_downloads": [{"filepath": "x.mp4", "format_id": 136, "height": 720}]}
    assert fetch_video(VIDEO, tmp_path, threading.Event()) == Stream(Path("x.mp4"), "136", None, 720, None)
    ((options, address),) = fake.seen
    assert address == "https://www.youtube.com/watch?v=-0123456789"
    assert options["format"] == ("bestvideo[ext=mp4][height<=?720][filesize<=500M]/best[height<=?720][filesize<=500M]")
    assert not {"exec_cmd", "external_downloader", "postprocessors"} & set(options), "no other program is started"


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("ERROR: [youtube] -0123456789: Video unavailable", GoneError),
        ("ERROR: [youtube] -0123456789: Private video. Sign in if you've been granted access", GoneError),
        ("ERROR: [youtube] -0123456789: This video has been removed by the uploader", GoneError),
        ("ERROR: [youtube] -0123456789: ... because the YouTube account of this user has been terminated", GoneError),
        ("ERROR: [youtube] -0123456789: Sign in to confirm you’re not a bot", FailedError),
        ("ERROR: [youtube] -0123456789: Requested format is not available", FailedError),
        ("ERROR: Unable to download webpage: HTTP Error 429: Too Many Requests", FailedError),
        ("ERROR: unable to write data: [Errno 28] No space left on device", FullDiskError),
    ],
)
def test_what_yt_dlp_says(fake: type[FakeYoutubeDL], tmp_path: Path, message: str, kind: type[Exception]) -> None:
    import yt_dlp

    fake.behaviour = yt_dlp.utils.DownloadError(message)
    with pytest.raises(kind) as error:
        fetch_video(VIDEO, tmp_path, threading.Event())
    assert type(error.value) is kind
    assert "-0123456789" not in str(error.value)


def test_no_file_at_all(fake: type[FakeYoutubeDL], tmp_path: Path) -> None:
    with pytest.raises(FailedError, match="yt-dlp gave no file"):
        fetch_video(VIDEO, tmp_path, threading.Event())


def test_yt_dlp_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    with pytest.raises(UsageError, match="videos need yt-dlp, which is not installed") as error:
        youtube.check_yt_dlp()
    assert error.value.hint == "pip install 'lupctl[videos]'"


def test_as_typed(lupctl: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    host = Host({"-5Q9cKUWgAM": GoneError("Video unavailable"), "abcdefghij_": FailedError("HTTP Error 503")})
    monkeypatch.setattr("lupctl.core.stages.download.videos.fetch_video", host)
    monkeypatch.setattr("lupctl.core.stages.download.videos.check_yt_dlp", lambda: None)
    write_list(tmp_path / "lup/raw/luperson/vname.txt", LINES)
    line = "data download luperson --list vnames.txt"
    assert lupctl(line).code == 3
    assert host.asked == []
    planned = lupctl(f"{line} --dry-run --json").json
    assert planned["videos"] == {
        "listed": 3, "done": 0, "gone": 0, "to_fetch": 3, "folder": "lup/raw/luperson/videos"
    }  # fmt: skip
    ran = lupctl(f"{line} --accept-terms --jobs 2 --json")
    assert (ran.code, ran.json["schema"]) == (3, "lupctl.download/1")
    assert {key: ran.json["videos"][key] for key in ("listed", "done", "gone", "failed")} == {
        "listed": 3, "done": 1, "gone": 1, "failed": 1
    }  # fmt: skip
    assert "error: 1 of 3 videos failed and may work another time: 1 x HTTP Error 503" in ran.err
    host.videos.pop("abcdefghij_")
    again = lupctl(f"{line} --accept-terms")
    assert (again.code, again.err) == (0, "")
    assert "fetched now" in again.out


def test_ctrl_c_while_videos_come(tmp_path: Path) -> None:
    """As a process: 130, the ledger whole, and nothing of the interrupted video among the files."""
    write_list(tmp_path / "list.txt", LINES)
    code = (
        "import sys, time; from pathlib import Path\n"
        "from lupctl.core.stages.download import videos\n"
        "from lupctl.core.errors import StoppedError\n"
        "from lupctl.core.stages.download.youtube import Stream\n"
        "def fetch(video, slot, cancel, **more):\n"
        "    slot.mkdir(parents=True)\n"
        "    (slot / 'v.mp4').write_bytes(b'video')\n"
        "    if video.id[0] != '-':\n"
        "        Path(sys.argv[0]).with_name('ready').touch()\n"
        "        if cancel.wait(20): raise StoppedError('x', hint='y')\n"
        "    return Stream(slot / 'v.mp4', '1', None, None, None)\n"
        "videos.fetch_video, videos.check_yt_dlp = fetch, lambda: None\n"
        "from lupctl.cli.app import main\n"
        "main()\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code)
    argv = ["data", "download", "luperson", "--list", "list.txt", "--accept-terms", "--jobs", "2"]
    process = subprocess.Popen([sys.executable, str(script), *argv], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.perf_counter() + 30
    while not (tmp_path / "ready").exists():
        assert time.perf_counter() < deadline
        time.sleep(0.02)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == "error: stopped on request; what was fetched is kept\nhint: type the same command again\n"
    folder = tmp_path / "lup/raw/luperson"
    assert sorted(Ledger(folder / "videos.jsonl").entries) == LINES[:2]
    assert sorted(path.name for path in (folder / "videos").rglob("*.mp4")) == [f"{line}.mp4" for line in LINES[:2]]
