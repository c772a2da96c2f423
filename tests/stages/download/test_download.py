"""`lupctl data download` as a user types it, against a server of this machine and a fake Google Drive."""

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lupctl.core.data.catalog import links
from lupctl.core.data.catalog.datasets import catalog_entry
from lupctl.core.data.catalog.origin import read_origin
from lupctl.core.stages.download import place, run
from lupctl.core.system.fetch.drive import fetch_drive
from lupctl.core.system.fetch.transfer import Patience
from lupctl.core.system.progress.lines import Progress
from tests.tools import kill_points
from tests.tools.flaky_server import Page, Server, serving
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny

MARKET = {
    f"Market-1501-v15.09.15/{folder}/{person:04d}_c{camera}s1_000051_0{camera}.jpg": encode_tiny(person * 10 + camera)
    for folder, person in (("bounding_box_train", 2), ("query", 3), ("bounding_box_test", 3))
    for camera in (1, 2)
}
DRIVE_ID = links.MARKET1501.downloads[0].address.removeprefix("drive:")
MARKET_FILE = "Market-1501-v15.09.15.zip"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


def zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, (2015, 9, 15, 0, 0, 0)), content)
    return out.getvalue()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class FakeDrive:
    """Stands in for gdown: gives files by their id, into `output`, as gdown does."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[str, bytes]] = {}
        self.asked: list[str] = []

    def download(self, *, id: str, output: str, **options: Any) -> str:
        assert (options["use_cookies"], options["resume"], options["quiet"]) == (False, True, True)
        self.asked.append(id)
        if id not in self.files:
            from gdown.exceptions import FileURLRetrievalError

            raise FileURLRetrievalError("Failed to retrieve file url:\n\n\tToo many users have viewed this file")
        name, content = self.files[id]
        path = Path(output) / name if output.endswith("/") else Path(output)
        path.write_bytes(content)
        options["progress"](len(content), len(content))
        return str(path)


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> FakeDrive:
    fake = FakeDrive()
    fake.files[DRIVE_ID] = (MARKET_FILE, zipped(MARKET))
    monkeypatch.setattr("gdown.download", fake.download)
    return fake


def test_terms_come_first(lupctl: Shell, drive: FakeDrive, tmp_path: Path) -> None:
    ran = lupctl("data download market1501 luperson")
    assert ran.code == 3
    assert "market1501: academic research only (Zheng et al. 2015)" in ran.out
    assert "luperson: research only, no commercial use" in ran.out
    assert "terms of use above have to be accepted first\nhint: read them, then add --accept-terms" in ran.err
    assert drive.asked == []
    assert list(tmp_path.iterdir()) == []


def test_from_nothing_to_a_pack(lupctl: Shell, drive: FakeDrive, tmp_path: Path) -> None:
    ran = lupctl("data download market1501 --accept-terms --json")
    assert (ran.code, ran.json["schema"], ran.json["dry_run"]) == (0, "lupctl.download/1", False)
    content = drive.files[DRIVE_ID][1]
    (file,) = ran.json["datasets"][0]["files"]
    assert file == {
        "name": MARKET_FILE,
        "address": f"drive:{DRIVE_ID}",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "md5": hashlib.md5(content).hexdigest(),
        "published_md5": "65005ab7d12ec1c44de4eeafe813e68a",
        "content": ["Market-1501-v15.09.15"],
    }
    assert "others state 65005ab7d12ec1c44de4eeafe813e68a (constant in the 2017 loader" in ran.err
    folder = tmp_path / "lup" / "raw" / "market1501"
    assert sorted(path.name for path in folder.iterdir()) == [".lupctl.json", "Market-1501-v15.09.15"]
    assert {name: content for name, content in tree(folder).items() if name != ".lupctl.json"} == MARKET
    origin = read_origin(folder / "Market-1501-v15.09.15")
    assert origin == json.loads((folder / ".lupctl.json").read_text())
    assert (origin["terms"], origin["terms_accepted"]) == ("academic research only (Zheng et al. 2015)", True)
    assert origin["published"] == "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"
    assert origin["files"] == [file]
    assert lupctl("data pack market1501").code == 0

    again = lupctl("data download market1501 --accept-terms")
    assert (again.code, again.out) == (0, "")
    assert again.err == "market1501: everything to download is already in lup/raw/market1501\n"
    assert len(drive.asked) == 1


def test_the_published_checksum_is_confirmed_in_silence(
    lupctl: Shell, drive: FakeDrive, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = drive.files[DRIVE_ID][1]
    known = links.KnownArchive(MARKET_FILE, hashlib.md5(content).hexdigest(), "someone")
    monkeypatch.setattr(links, "MARKET1501", replace(links.MARKET1501, archives=(known,)))
    ran = lupctl("data download market1501 --accept-terms")
    assert (ran.code, ran.err) == (0, "")


def test_two_datasets_of_one_archive_are_one_download(lupctl: Shell, drive: FakeDrive, tmp_path: Path) -> None:
    drive_id = links.CUHK03.downloads[0].address.removeprefix("drive:")
    files = {f"cuhk03-np/{folder}/0001_c1_1.png": b"1" for folder in links.CUHK03_FOLDERS}
    drive.files[drive_id] = ("the name on the server.zip", zipped(files))
    ran = lupctl("data download cuhk03-labeled cuhk03-detected --accept-terms --json")
    assert (ran.code, drive.asked) == (0, [drive_id])
    assert [entry["files"][0]["name"] for entry in ran.json["datasets"]] == ["the name on the server.zip"]
    assert set(tree(tmp_path / "lup/raw/cuhk03-np")) == {*files, ".lupctl.json"}
    for name in ("cuhk03-np", "cuhk03-labeled", "cuhk03-detected"):
        assert "everything to download is already in" in lupctl(f"data download {name} --accept-terms").err


def test_luperson(lupctl: Shell, drive: FakeDrive, tmp_path: Path) -> None:
    contents = {"vnames.txt": b"us+x+aaaaaaaaaaa\n", "dets.pkl": b"pickle", "CFS_list.pkl": b"list"}
    for download in links.LUPERSON.downloads:
        drive.files[download.address.removeprefix("drive:")] = ("other name", contents[download.name])
    ran = lupctl("data download luperson --accept-terms")
    assert ran.code == 0
    assert "luperson: its images are not among these files; next:\n  1. the authors publish no images: fetch" in ran.err
    raw = tmp_path / "lup/raw"
    assert {name: content for name, content in tree(raw / "luperson").items() if name[0] != "."} == contents
    assert len(list((raw / ".lupctl-hashes").iterdir())) == 3
    (raw / "luperson" / "dets.pkl").unlink()
    (raw / "luperson" / "vnames.txt").rename(raw / "luperson" / "vname.txt")
    drive.asked.clear()
    assert lupctl("data download luperson --accept-terms").code == 0
    assert drive.asked == ["1t_XPHOI_VzuebaAnXccu4iIzDXMNpTJO"], "the list's other published name is accepted"


def test_detections_are_unpacked_into_their_folder(lupctl: Shell, drive: FakeDrive, tmp_path: Path) -> None:
    listed, packed = (download.address.removeprefix("drive:") for download in links.LUPERSON_NL.downloads)
    drive.files[listed] = ("vnames.txt", b"us+x+aaaaaaaaaaa\n")
    drive.files[packed] = ("dets.zip", zipped({"some/folder/us+x+aaaaaaaaaaa.pkl": b"1", "some/b.pkl": b"2"}))
    assert lupctl("data download luperson-nl --accept-terms").code == 0
    folder = tmp_path / "lup/raw/luperson-nl"
    assert set(tree(folder)) == {
        ".lupctl.json", "vnames.txt", "dets/folder/us+x+aaaaaaaaaaa.pkl", "dets/b.pkl"
    }  # fmt: skip
    assert "everything to download is already in" in lupctl("data download luperson-nl --accept-terms").err


def test_what_changed_since_the_first_download_is_refused(lupctl: Shell, drive: FakeDrive, tmp_path: Path) -> None:
    """Nobody publishes hashes of LUPerson's files: the first download counts."""
    for download in links.LUPERSON.downloads:
        drive.files[download.address.removeprefix("drive:")] = ("x", b"first " + download.name.encode())
    assert lupctl("data download luperson --accept-terms").code == 0
    list_id = links.LUPERSON.downloads[0].address
    (tmp_path / "lup/raw/luperson/vnames.txt").unlink()
    drive.files[list_id.removeprefix("drive:")] = ("x", b"second")
    ran = lupctl("data download luperson --accept-terms")
    assert ran.code == 3
    digests = [hashlib.sha256(content).hexdigest() for content in (b"second", b"first vnames.txt")]
    assert f"error: {list_id}: sha256 {digests[0]}, an earlier download had {digests[1]}" in ran.err
    assert not (tmp_path / "lup/raw/luperson/vnames.txt").exists()
    assert not (tmp_path / "lup/raw/luperson/.lupctl-part").exists()
    assert lupctl("data download luperson --accept-terms --force").code == 0
    assert (tmp_path / "lup/raw/luperson/vnames.txt").read_bytes() == b"second"
    assert lupctl("data download luperson --accept-terms").code == 0


def test_one_that_fails_does_not_keep_the_others(lupctl: Shell, drive: FakeDrive, tmp_path: Path) -> None:
    ran = lupctl("data download luperson-nl market1501 --accept-terms")
    assert ran.code == 3
    assert "error: 2 failures:" in ran.err
    assert (
        "Google Drive does not deliver 1-bFKMRglmD_e3wdtq4jlpjX3N3xGo2d2: too many users fetched it recently" in ran.err
    )
    assert "https://drive.google.com/file/d/" in ran.err.partition("hint: ")[2]
    assert "luperson-nl, by hand:\n  1. link to list of videos: https://drive.google.com/file/d/19XP" in ran.out
    assert "code plnl" in ran.out
    assert (tmp_path / "lup/raw/market1501/Market-1501-v15.09.15").is_dir()


def test_what_only_a_person_can_fetch(lupctl: Shell, tmp_path: Path) -> None:
    ran = lupctl("data download msmt17 --accept-terms")
    assert ran.code == 3
    assert "msmt17, by hand:\n  1. ask its owners, the authors of https://arxiv.org/abs/1711.08565 , for" in ran.out
    assert "put the archive they send you into lup/raw/msmt17" in ran.out
    assert "error: msmt17: it has to be downloaded by hand" in ran.err
    found = lupctl("data download msmt17 --accept-terms --json").json["datasets"]
    assert [(entry["dataset"], entry["state"], len(entry["steps"])) for entry in found] == [("msmt17", "by hand", 2)]
    assert not (tmp_path / "lup").exists()


def test_an_archive_that_a_person_put_there(lupctl: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "lup/raw/msmt17"
    folder.mkdir(parents=True)
    names = ["train/0000/a.jpg", "test/0000/b.jpg", *links.MSMT17_LISTS]
    with tarfile.open(folder / "MSMT17_V1.tar.gz", "w:gz") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(f"MSMT17_V1/{name}"), io.BytesIO())
    ran = lupctl("data download msmt17 --accept-terms")
    assert ran.code == 0
    assert "MSMT17_V1.tar.gz: MD5" in ran.err
    assert "ea5502ae9dd06c596ad866bd1db0280d (second-hand: checked by two third-party loaders" in ran.err
    assert set(tree(folder)) == {*(f"MSMT17_V1/{name}" for name in names), "MSMT17_V1.tar.gz", ".lupctl.json"}
    assert read_origin(folder)["files"][0]["address"] == "placed by hand"
    again = lupctl("data download msmt17 --accept-terms")
    assert (again.code, again.err) == (0, "msmt17: everything to download is already in lup/raw/msmt17\n")


def test_volumes_that_a_person_put_there(lupctl: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "lup/raw/luperson"
    folder.mkdir(parents=True)
    for download in links.LUPERSON.downloads:
        (folder / download.name).write_bytes(b"")
    (folder / "images.zip.001").write_bytes(b"PK")
    ran = lupctl("data download luperson --accept-terms")
    assert ran.code == 3
    assert "images.zip.001: one volume of an archive cut into pieces" in ran.err
    assert "hint: join the volumes with cat images.zip.[0-9][0-9][0-9] > images.zip" in ran.err
    (folder / "images.zip.001").rename(folder / "images.zip")
    (folder / "images.zip").write_bytes(zipped({"images/30_00_0292_00000238.jpg": encode_tiny(1)}))
    assert lupctl("data download luperson --accept-terms").code == 0
    assert (folder / "images/30_00_0292_00000238.jpg").is_file()


def test_data_that_is_unpacked_already_is_left_alone(lupctl: Shell, market_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lup/raw/market1501"
    folder.parent.mkdir(parents=True)
    market_folder.rename(folder)
    (folder / MARKET_FILE).write_bytes(b"the archive, kept")
    before = tree(folder)
    ran = lupctl("data download market1501 --accept-terms")
    assert ran.code == 3
    assert ran.err == (
        "error: market1501: lup/raw/market1501 is another version or a cut of it: train 8 of 12,936 images, query 2 of "
        "3,368 images, gallery 6 of 19,732 images; nothing was downloaded\n"
        "hint: mv lup/raw/market1501 lup/raw/market1501-cut, then type the same command again\n"
    )
    assert tree(folder) == before


def test_a_cut_makes_room_for_the_whole(lupctl: Shell, drive: FakeDrive, market_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lup/raw/market1501"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(market_folder)
    assert lupctl("data download market1501 --accept-terms").code == 3
    folder.rename(tmp_path / "lup/raw/market1501-cut")
    assert lupctl("data download market1501 --accept-terms").code == 0
    assert drive.asked == [DRIVE_ID]
    assert "already in" in lupctl("data download market1501 --accept-terms").err


def test_all_published_counts_are_not_a_cut(
    lupctl: Shell, market_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = replace(catalog_entry("market1501"), images={"train": 8, "query": 2, "gallery": 6})
    monkeypatch.setattr("lupctl.core.data.catalog.datasets.find_entry", lambda name: entry)
    folder = tmp_path / "lup/raw/market1501"
    folder.parent.mkdir(parents=True)
    market_folder.rename(folder)
    ran = lupctl("data download market1501 --accept-terms")
    assert (ran.code, ran.err) == (0, "market1501: everything to download is already in lup/raw/market1501\n")


@pytest.mark.parametrize(
    ("line", "code", "message", "hint"),
    [
        (
            "dukemtmc --accept-terms",
            3,
            "dukemtmc: withdrawn by its authors in 2019 for the privacy",
            "lupctl data list",
        ),
        ("synthetic --accept-terms", 2, "synthetic: it is drawn by lupctl itself", "lupctl data pack synthetic"),
        (
            "makret1501 --accept-terms",
            2,
            "'makret1501' is not a dataset that lupctl knows",
            "did you mean market1501?",
        ),
        ("a b --url http://x/y.zip", 2, "--url goes with one dataset, 2 were named", "name one dataset"),
        ("a --sha256 00", 2, "--sha256 goes with --url", "add --url"),
        ("a --url http://x/y.zip --sha256 00", 2, "--sha256 00: 64 hexadecimal digits were expected", "--sha256 HEX"),
        ("a --url file:///etc/passwd", 2, "an http or https address was expected", "--url https://"),
        ("a --url http://x/", 2, "its path does not end in a file name", "give the address of a file"),
        ("a --url http://x/%2e%2e", 2, "its path does not end in a file name", "give the address of a file"),
        ("../a --url http://x/y.zip", 2, "'../a' is not a valid dataset name", "letters"),
        ("market1501 --list v.txt --accept-terms", 2, "market1501 is not cut from videos", "luperson"),
        ("luperson --list v.txt --accept-terms", 3, "v.txt: there is no such list", "lupctl data download luperson"),
    ],
)
def test_mistakes(lupctl: Shell, tmp_path: Path, line: str, code: int, message: str, hint: str) -> None:
    ran = lupctl(f"data download {line}")
    assert ran.code == code
    error, _, hinted = ran.err.partition("\nhint: ")
    assert message in error
    assert hint in hinted
    assert "duke" not in hinted
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


def test_dry_run_touches_nothing(lupctl: Shell, drive: FakeDrive, tmp_path: Path) -> None:
    ran = lupctl("data download market1501 msmt17 --dry-run --json")
    assert (ran.code, ran.json["dry_run"]) == (0, True)
    market, msmt = ran.json["datasets"]
    assert (market["state"], market["missing"][0]["address"]) == ("would be downloaded", f"drive:{DRIVE_ID}")
    assert (msmt["state"], msmt["missing"]) == ("by hand", [])
    table = lupctl("data download market1501 msmt17 --dry-run").out
    assert MARKET_FILE in table
    assert "msmt17, by hand:" in table
    assert (drive.asked, list(tmp_path.iterdir())) == ([], [])


def test_an_address_of_ones_own(lupctl: Shell, server: Server, tmp_path: Path) -> None:
    content = zipped({"a/1.jpg": encode_tiny(1), "a/2.jpg": encode_tiny(2)})
    page = server.add("/crops.zip", content, cuts=[500])
    digest = hashlib.sha256(content).hexdigest()
    line = f"data download crops --url {server.url('/crops.zip')} --accept-terms"
    assert "not known to lupctl: ask the publisher of the file" in lupctl(line.removesuffix("--accept-terms")).out
    assert lupctl(f"{line} --sha256 {digest}").code == 0
    assert len(page.asked) == 2
    folder = tmp_path / "lup/raw/crops"
    assert set(tree(folder)) == {"a/1.jpg", "a/2.jpg", ".lupctl.json"}
    assert "everything to download is already in" in lupctl(line).err
    assert lupctl("data pack crops").code == 0
    assert "everything to download is already in" in lupctl(line).err
    assert len(page.asked) == 2


def test_an_archive_of_many_loose_files_is_told_in_few_words(lupctl: Shell, server: Server) -> None:
    server.add("/crops.zip", zipped({f"{row:03d}.jpg": encode_tiny(row) for row in range(200)}))
    ran = lupctl(f"data download crops --url {server.url('/crops.zip')} --accept-terms")
    assert (ran.code, len(ran.out) < 2_000) == (0, True)
    assert "000.jpg, 001.jpg, 002.jpg, 003.jpg, 004.jpg, ..." in " ".join(ran.out.split())


def test_a_wrong_checksum(lupctl: Shell, server: Server, tmp_path: Path) -> None:
    server.add("/crops.zip", zipped({"a.jpg": b"1"}))
    ran = lupctl(f"data download crops --url {server.url('/crops.zip')} --sha256 {'0' * 64} --accept-terms")
    assert ran.code == 3
    assert (
        f"crops.zip: sha256 {hashlib.sha256(server.pages['/crops.zip'].content).hexdigest()}, {'0' * 64} was" in ran.err
    )
    assert not (tmp_path / "lup/raw/crops").exists()


@pytest.mark.parametrize("name", ["../evil.jpg", "/tmp/evil.jpg"])
def test_a_tampered_archive(lupctl: Shell, server: Server, tmp_path: Path, name: str) -> None:
    page = server.add("/crops.zip", zipped({"a.jpg": b"1", name: b"2"}))
    line = f"data download crops --url {server.url('/crops.zip')} --accept-terms"
    ran = lupctl(line)
    assert (ran.code, f"holds '{name}'" in ran.err) == (3, True)
    assert not (tmp_path / "lup/raw/crops").exists()
    page.content = zipped({"a.jpg": b"1"})  # the owner repairs it; the bad one was not remembered
    assert lupctl(line).code == 0
    assert (tmp_path / "lup/raw/crops/a.jpg").read_bytes() == b"1"


def test_a_web_page_instead_of_an_archive(lupctl: Shell, server: Server) -> None:
    server.add("/crops.zip", b"<html>please log in</html>")
    ran = lupctl(f"data download crops --url {server.url('/crops.zip')} --accept-terms")
    assert (ran.code, "damaged, or not a zip archive (it is a web page)" in ran.err) == (3, True)


def test_what_would_be_replaced_needs_force(lupctl: Shell, server: Server, tmp_path: Path) -> None:
    server.add("/crops.zip", zipped({"a/1.jpg": b"new"}))
    folder = tmp_path / "lup/raw/crops"
    (folder / "a").mkdir(parents=True)
    (folder / "a" / "mine.jpg").write_bytes(b"old")
    line = f"data download crops --url {server.url('/crops.zip')} --accept-terms"
    ran = lupctl(line)
    assert (ran.code, "a already exists and would be replaced" in ran.err) == (3, True)
    assert (folder / "a" / "mine.jpg").read_bytes() == b"old"
    assert lupctl(f"{line} --force").code == 0
    assert (set(tree(folder)), (folder / "a/1.jpg").read_bytes()) == ({"a/1.jpg", ".lupctl.json"}, b"new")


def test_a_second_process_is_refused(lupctl: Shell, drive: FakeDrive, tmp_path: Path) -> None:
    with place.locked_staging(tmp_path / "lup/raw/market1501"):
        ran = lupctl("data download market1501 --accept-terms")
    assert ran.code == 3
    assert "lup/raw/market1501: another lupctl is downloading into it" in ran.err


@pytest.mark.parametrize(
    ("name", "steps", "least"),
    [
        ("crops.zip", "unpack_into_slot,move_unpacked", 4),
        pytest.param("crops.zip", "all", 50, marks=pytest.mark.slow),
        pytest.param("crops.bin", "all", 30, marks=pytest.mark.slow),
    ],
)
def test_killed_and_typed_again(server: Server, tmp_path: Path, name: str, steps: str, least: int) -> None:
    """Byte for byte what an undisturbed run leaves, wherever the first one was ended."""
    server.add(f"/{name}", zipped({"a/1.jpg": b"one", "b/2.jpg": b"two", "c.txt": b"three"}))
    words = ["data", "download", "crops", "--accept-terms", "--quiet", "--url", server.url(f"/{name}")]
    command = [sys.executable, kill_points.__file__, str(tmp_path), steps, *words]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout.splitlines()[-1])
    assert found["different"] == []
    assert sum(found["ended"].values()) >= least


def test_ctrl_c_and_sigterm(server: Server, tmp_path: Path) -> None:
    content = np.random.default_rng(0).bytes(200_000)
    page = server.add("/file.bin", content)
    argv = ["data", "download", "x", "--url", server.url("/file.bin"), "--accept-terms", "--home", str(tmp_path)]
    command = [sys.executable, "-c", "from lupctl.cli.app import main; main()", *argv]
    part = tmp_path / "raw/x/.lupctl-part/file.bin/file.bin.part"
    for sent, code, reach in ((signal.SIGINT, 130, 60_000), (signal.SIGTERM, 75, 120_000)):
        page.silent = reach - (part.stat().st_size if part.exists() else 0)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        deadline = time.perf_counter() + 30
        while not (part.exists() and part.stat().st_size == reach):
            assert time.perf_counter() < deadline
            time.sleep(0.02)
        process.send_signal(sent)
        _, err = process.communicate(timeout=20)
        assert process.returncode == code
        assert err == "error: stopped on request; what was fetched is kept\nhint: type the same command again\n"
    page.silent = None
    assert subprocess.run(command, capture_output=True).returncode == 0
    assert (tmp_path / "raw/x/file.bin").read_bytes() == content
    assert [asked.get("Range") for asked in page.asked] == [None, "bytes=60000-", "bytes=120000-"]


def test_several_at_once(server: Server, tmp_path: Path) -> None:
    """Two slow files take as long as one."""
    from lupctl.core.stages.download.plan import find_wanted, plan_download

    for name in ("a", "b"):
        server.add(f"/{name}.bin", name.encode(), statuses=[503], headers={"Retry-After": "1"})
    plans = [plan_download(find_wanted(tmp_path, name, url=server.url(f"/{name}.bin"))) for name in ("a", "b")]
    started_at = time.perf_counter()
    results, errors = run.download(plans, raw=tmp_path, jobs=2, progress=Progress(quiet=True))
    assert time.perf_counter() - started_at < 1.9
    assert (errors, [result.state for result in results]) == ([], ["downloaded", "downloaded"])


class Redirected:
    """Sends gdown's requests for Google Drive to a server of this machine."""

    def __init__(self, patch: pytest.MonkeyPatch, server: Server) -> None:
        import requests

        real = requests.Session.get

        def get(session: requests.Session, url: str, **options: Any) -> requests.Response:
            for host in ("drive.google.com", "drive.usercontent.google.com"):
                url = url.replace(f"https://{host}", server.url("").rstrip("/"))
            return real(session, url, **options)

        patch.setattr(requests.Session, "get", get)


def fetch(tmp_path: Path, name: str = "x.zip") -> Path:
    import threading

    from lupctl.core.system.fetch.transfer import ByteBar

    class Nothing:
        def advance(self, count: int = 1, *, note: str = "") -> None:
            return

        def grow(self, count: int) -> None:
            return

    return fetch_drive(
        "abc", tmp_path / "slot", name, cancel=threading.Event(), bar=ByteBar(Nothing()), patience=Patience(1, 0.001)
    )


ATTACHED = {"Content-Disposition": 'attachment; filename="crops.zip"', "Content-Type": "application/octet-stream"}
CONFIRM = (
    b'<html><form id="download-form" action="https://drive.usercontent.google.com/download">'
    b'<input type="hidden" name="id" value="abc"><input type="hidden" name="confirm" value="t"></form></html>'
)


def test_real_gdown(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page that asks whether an unscanned file is really wanted, a cut, and the same command again."""
    Redirected(monkeypatch, server)
    server.add("/uc", CONFIRM, headers={"Content-Type": "text/html"})
    content = np.random.default_rng(0).bytes(3_000_000)
    page: Page = server.add("/download", content, cuts=[1_500_000], headers=ATTACHED)
    with pytest.raises(Exception, match="what was fetched is kept"):
        fetch(tmp_path)
    assert [path.stat().st_size for path in (tmp_path / "slot").glob("*.part")] == [1 << 20], "gdown's chunks"
    assert fetch(tmp_path).read_bytes() == content
    assert page.asked[-1]["Range"] == "bytes=1048576-"
    assert [path.name for path in (tmp_path / "slot").iterdir()] == ["x.zip"]
    (tmp_path / "slot" / "x.zip").unlink()
    assert fetch(tmp_path, "").name == "crops.zip"


def test_real_gdown_and_a_file_that_changed(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Redirected(monkeypatch, server)
    page = server.add("/uc", b"a" * 3_000_000, cuts=[1_500_000], headers=ATTACHED)
    with pytest.raises(Exception, match="what was fetched is kept"):
        fetch(tmp_path)
    page.content = b"b" * 2_900_000
    assert fetch(tmp_path).read_bytes() == page.content


def test_real_gdown_killed_before_the_renaming(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Redirected(monkeypatch, server)
    page = server.add("/uc", b"a" * 3_000_000, cuts=[1_500_000], headers=ATTACHED)
    with pytest.raises(Exception, match="what was fetched is kept"):
        fetch(tmp_path)
    (part,) = (tmp_path / "slot").glob("*.part")
    part.write_bytes(page.content)
    (tmp_path / "slot" / "x.zipshorter_.part").write_bytes(b"an older beginning")
    page.asked.clear()
    assert fetch(tmp_path).read_bytes() == page.content
    assert page.asked == []
    assert [path.name for path in (tmp_path / "slot").iterdir()] == ["x.zip"]


@pytest.mark.parametrize(
    ("page", "why"),
    [
        (
            b'<p class="uc-error-subcaption">Too many users have viewed or downloaded this file recently.</p>',
            "too many",
        ),
        (b"<html>Sign in</html>", "it shows a page instead of the file|too many users"),
    ],
)
def test_real_gdown_and_a_refusal(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: bytes, why: str
) -> None:
    Redirected(monkeypatch, server)
    server.add("/uc", page, headers={"Content-Type": "text/html"})
    with pytest.raises(Exception, match=f"Google Drive does not deliver abc: ({why})") as error:
        fetch(tmp_path)
    assert "open https://drive.google.com/file/d/abc/view in a browser" in error.value.hint  # type: ignore[attr-defined]


def test_real_gdown_and_a_full_disk(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    Redirected(monkeypatch, server)
    server.add("/uc", b"a" * 100, headers=ATTACHED)

    def full(*given: Any, **more: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("lupctl.core.system.fetch.drive._Progress.note", full)
    with pytest.raises(Exception, match="the disk is full"):
        fetch(tmp_path)
