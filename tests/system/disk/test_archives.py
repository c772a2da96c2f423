"""Unpacking: what comes out is what went in, and hostile archives leave nothing."""

import errno
import io
import os
import stat
import struct
import tarfile
import threading
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.errors import DataError, FormatError, StoppedError
from lupctl.core.system.disk.archives import unpack as unpacking
from lupctl.core.system.disk.archives.kinds import SUFFIXES, archive_kind
from lupctl.core.system.disk.archives.unpack import Limits, unpack

FILES = {
    "Set/train/0001_c1.jpg": b"\xff\xd8first",
    "Set/train/人_c2.jpg": b"second" * 1000,
    "Set/größe/empty.txt": b"",
    "Set/block.bin": bytes(range(256)) * 2,  # exactly one block of a tar
}
CHANGED_AT = 1_500_000_000


def make_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, time.gmtime(CHANGED_AT)[:6]), content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, files: dict[str, bytes]) -> Path:
    mode = {"tar": "w", "tar.gz": "w:gz", "tar.bz2": "w:bz2", "tar.xz": "w:xz"}[archive_kind(path.name) or ""]
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), CHANGED_AT
            archive.addfile(info, io.BytesIO(content))
    return path


def make(path: Path, files: dict[str, bytes]) -> Path:
    return make_zip(path, files) if path.suffix == ".zip" else make_tar(path, files)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def nothing_left(folder: Path, archive: Path) -> bool:
    return [path.name for path in folder.iterdir()] == [archive.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_goes_in_comes_out(tmp_path: Path, suffix: str) -> None:
    archive = make(tmp_path / f"set{suffix}", FILES)
    written: list[int] = []
    result = unpack(archive, tmp_path / "out", advance=written.append)
    assert tree(tmp_path / "out") == FILES
    assert (result.files, result.num_bytes, result.entries) == (4, sum(map(len, FILES.values())), ["Set"])
    assert sum(written) == result.num_bytes
    assert {path.stat().st_mtime for path in (tmp_path / "out").rglob("*") if path.is_file()} == {CHANGED_AT}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", archive.name]


@settings(max_examples=25, deadline=None)
@given(
    files=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/\\:"), min_size=1, max_size=20)
        .filter(lambda name: name not in (".", "..")),
        st.binary(max_size=2000), min_size=1, max_size=6,
    ),
    suffix=st.sampled_from([".zip", ".tar", ".tar.gz"]),
)  # fmt: skip
def test_any_names_and_contents(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes], suffix: str) -> None:
    folder = tmp_path_factory.mktemp("any")
    unpack(make(folder / f"set{suffix}", files), folder / "out")
    assert tree(folder / "out") == files


def test_folders_and_the_folder_itself(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for name in (".", "./a", "./a/b"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
    assert unpack(tmp_path / "set.tar", tmp_path / "out").entries == ["a"]
    assert (tmp_path / "out" / "a" / "b").is_dir()


def test_a_backslash_in_a_zip_is_a_folder(tmp_path: Path) -> None:
    unpack(make_zip(tmp_path / "set.zip", {"a\\b.jpg": b"1"}), tmp_path / "out")
    assert tree(tmp_path / "out") == {"a/b.jpg": b"1"}


def test_no_rights_are_taken_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        info = tarfile.TarInfo("tool")
        info.mode, info.size = 0o6777, 1
        archive.addfile(info, io.BytesIO(b"1"))
    unpack(tmp_path / "set.tar", tmp_path / "out")
    assert not (tmp_path / "out" / "tool").stat().st_mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


@pytest.mark.parametrize("suffix", [".zip", ".tar", ".tgz"])
@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("../evil", "a path that leads outside"),
        ("a/../../evil", "a path that leads outside"),
        (".lupctl.json", "a name that lupctl keeps for its own records"),
        ("Market-1501/.lupctl.json", "a name that lupctl keeps for its own records"),
        (".LUPCTL-part/x/unpacked/a.jpg", "a name that lupctl keeps for its own records"),
        ("/tmp/evil", "an absolute path"),
        ("C:/evil", "an absolute path"),
    ],
)
def test_paths_that_leave_are_refused(tmp_path: Path, suffix: str, name: str, what: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    archive = make(home / f"set{suffix}", {"fine.jpg": b"1", name: b"2"})
    with pytest.raises(FormatError, match=f"holds '{name}', {what}; nothing was unpacked") as error:
        unpack(archive, home / "out")
    assert error.value.hint == "do not unpack this archive"
    assert nothing_left(home, archive)
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_a_backslash_does_not_lead_outside(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="a path that leads outside"):
        unpack(make_zip(tmp_path / "set.zip", {"..\\evil": b"2"}), tmp_path / "out")


@pytest.mark.parametrize(
    ("kind", "what"),
    [(tarfile.SYMTYPE, "link"), (tarfile.LNKTYPE, "link"), (tarfile.CHRTYPE, "device"), (tarfile.FIFOTYPE, "device")],
)
def test_links_and_devices_in_a_tar(tmp_path: Path, kind: bytes, what: str) -> None:
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        info = tarfile.TarInfo("inside/escape")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
        after = tarfile.TarInfo("inside/escape/file")
        archive.addfile(after)
    with pytest.raises(FormatError, match=f"holds 'inside/escape', a {what}; plain files and folders were expected"):
        unpack(tmp_path / "set.tar.gz", tmp_path / "out")
    assert nothing_left(tmp_path, tmp_path / "set.tar.gz")


def test_a_link_in_a_zip(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        info = zipfile.ZipInfo("escape")
        info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(FormatError, match="holds 'escape', a link"):
        unpack(tmp_path / "set.zip", tmp_path / "out")
    assert nothing_left(tmp_path, tmp_path / "set.zip")


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_a_bomb_by_ratio(tmp_path: Path, suffix: str) -> None:
    archive = make(tmp_path / f"bomb{suffix}", {f"{index}.bin": bytes(1 << 20) for index in range(8)})
    assert archive.stat().st_size < 20_000
    with pytest.raises(FormatError, match=r"unpacks to more than [12]00 times its own [\d,]+ bytes; nothing was"):
        unpack(archive, tmp_path / "out", limits=Limits(free_bytes=1 << 20))
    assert nothing_left(tmp_path, archive)
    assert unpack(archive, tmp_path / "out").num_bytes == 8 << 20, "small things may compress well"


def test_a_bomb_whose_headers_lie(tmp_path: Path) -> None:
    """The directory promises 10 bytes, the data gives a million: never more than promised is written, and CRC tells."""
    archive = make_zip(tmp_path / "bomb.zip", {"a.bin": bytes(1_000_000)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace(struct.pack("<L", 1_000_000), struct.pack("<L", 10)))
    written: list[int] = []
    with pytest.raises(FormatError, match="damaged, or not a zip archive"):
        unpack(archive, tmp_path / "out", advance=written.append)
    assert sum(written) <= 10
    assert nothing_left(tmp_path, archive)


def test_a_bomb_in_a_header(tmp_path: Path) -> None:
    """A tar whose extended header says it is a gigabyte long, which tarfile would read into memory."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    archive = tmp_path / "bomb.tar.gz"
    packer = zlib.compressobj(wbits=31)
    archive.write_bytes(packer.compress(info.tobuf(tarfile.USTAR_FORMAT) + bytes(1 << 22)) + packer.flush())
    with pytest.raises(FormatError, match="a header of 1073741824 bytes"):
        unpack(archive, tmp_path / "out")
    assert nothing_left(tmp_path, archive)


def test_too_many_files_and_too_many_bytes(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "set.zip", {f"{index}": b"1234" for index in range(5)})
    with pytest.raises(FormatError, match="unpacks to more than 4 entries"):
        unpack(archive, tmp_path / "out", limits=Limits(files=4))
    with pytest.raises(FormatError, match="unpacks to more than 19 bytes"):
        unpack(archive, tmp_path / "out", limits=Limits(num_bytes=19))
    assert unpack(archive, tmp_path / "out", limits=Limits(files=5, num_bytes=20)).files == 5


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_is_noticed(tmp_path: Path, suffix: str) -> None:
    archive = make(tmp_path / f"set{suffix}", FILES)
    content = archive.read_bytes()
    # A plain tar ends in padding to 10 KiB, of which one block of zeros is needed.
    length = len(content.rstrip(b"\0")) if suffix == ".tar" else len(content)
    for size in sorted({0, 1, 100, 511, 512, 1024, length // 2, length * 9 // 10, length - 1}):
        if size >= length:
            continue
        archive.write_bytes(content[:size])
        with pytest.raises(FormatError, match=f"{archive.name}: damaged, or not"):
            unpack(archive, tmp_path / "out")
        assert nothing_left(tmp_path, archive), size


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_flipped_bits_are_noticed_or_harmless(tmp_path: Path, suffix: str) -> None:
    archive = make(tmp_path / f"set{suffix}", FILES)
    content = archive.read_bytes()
    noticed = 0
    for place in range(0, len(content), max(1, len(content) // 60)):
        archive.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        try:
            unpack(archive, tmp_path / "out")
        except DataError:
            noticed += 1
            assert nothing_left(tmp_path, archive)
        else:
            contents = sorted(tree(tmp_path / "out").values())
            assert contents == sorted(FILES.values()), "names and times of a zip carry no checksum, contents do"
            (tmp_path / "out").rename(tmp_path.parent / f"out{place}{suffix}")
    assert noticed > 30


def test_a_damaged_header_inside_a_tar_is_not_its_end(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "set.tar", FILES)
    content = bytearray(archive.read_bytes())
    content[1024] ^= 1  # the second header
    archive.write_bytes(content)
    with pytest.raises(FormatError, match="cut short or damaged after entry 1"):
        unpack(archive, tmp_path / "out")


def test_a_web_page_instead_of_an_archive(tmp_path: Path) -> None:
    archive = tmp_path / "set.zip"
    archive.write_text("<!DOCTYPE html><title>Quota exceeded</title>")
    with pytest.raises(FormatError, match=r"damaged, or not a zip archive \(it is a web page\)"):
        unpack(archive, tmp_path / "out")


def test_names_that_come_twice(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.jpg", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.jpg", b"2")
    with pytest.raises(FormatError, match=r"holds 'a.jpg' twice; names have to be unique"):
        unpack(tmp_path / "set.zip", tmp_path / "out")
    with pytest.raises(FormatError, match=r"holds 'a.jpg/b' twice"):
        unpack(make_tar(tmp_path / "set.tar", {"a.jpg": b"1", "a.jpg/b": b"2"}), tmp_path / "out")


def test_an_encrypted_zip(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "set.zip", {"a.jpg": b"1234"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    with pytest.raises(FormatError, match=r"a.jpg is encrypted"):
        unpack(archive, tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "beside", "what", "hint"),
    [
        ("set.zip", "set.z01", "one volume of a split zip", "zip -s 0 set.zip --out set-joined.zip"),
        ("set.z01", "", "one volume of a split zip", "zip -s 0 set.zip --out set-joined.zip"),
        ("set.zip.001", "", "one volume of an archive cut into pieces", "cat set.zip.[0-9][0-9][0-9] > set.zip"),
        ("set.7z.001", "", "one volume of a 7z archive", "7z x set.7z.001"),
        ("set.rar", "", "neither zip nor tar; only those are unpacked here", "unrar x set.rar"),
        ("set.pkl", "", "not an archive by its name", "known endings: .zip .tar"),
    ],
)
def test_what_cannot_be_unpacked_says_what_to_type(
    tmp_path: Path, name: str, beside: str, what: str, hint: str
) -> None:
    for file in filter(None, (name, beside)):
        (tmp_path / file).write_bytes(b"PK")
    with pytest.raises(FormatError, match=what) as error:
        unpack(tmp_path / name, tmp_path / "out")
    assert hint in error.value.hint


def test_volumes_that_were_joined_with_cat(tmp_path: Path) -> None:
    whole = make_zip(tmp_path / "whole.zip", FILES).read_bytes()
    pieces = [tmp_path / f"set.zip.{index:03d}" for index in (1, 2)]
    for piece, content in zip(pieces, (whole[:500], whole[500:]), strict=True):
        piece.write_bytes(content)
    with pytest.raises(FormatError) as error:
        unpack(pieces[0], tmp_path / "out")
    command = error.value.hint.removeprefix("join the volumes with ").partition(" and keep")[0]
    assert os.system(f"cd {tmp_path} && {command}") == 0
    unpack(tmp_path / "set.zip", tmp_path / "out")
    assert tree(tmp_path / "out") == FILES


def failing_open(fail: Callable[[], None]) -> Callable[..., IO[bytes]]:
    real = Path.open

    def opened(path: Path, mode: str = "r", *more: object) -> IO[bytes]:
        if mode == "xb" and path.name == "block.bin":
            fail()
        return real(path, mode, *more)  # type: ignore[call-overload, no-any-return]

    return opened


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    archive = make_zip(tmp_path / "set.zip", FILES)
    monkeypatch.setattr(Path, "open", failing_open(fail))
    with pytest.raises(DataError, match=r"the disk is full \(\d+ MiB free\); nothing was written"):
        unpack(archive, tmp_path / "out")
    assert nothing_left(tmp_path, archive)


def test_stopped_and_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_zip(tmp_path / "set.zip", FILES)
    cancel = threading.Event()
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", failing_open(cancel.set))
        with pytest.raises(StoppedError, match="stopped on request"):
            unpack(archive, tmp_path / "out", cancel=cancel)
    assert nothing_left(tmp_path, archive)
    (tmp_path / ".out.unpacking" / "Set").mkdir(parents=True)  # what a kill leaves
    (tmp_path / ".out.unpacking" / "Set" / "block.bin").write_bytes(b"half")
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == FILES
    assert not (tmp_path / ".out.unpacking").exists()


def test_memory_does_not_grow_with_a_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = make_tar(tmp_path / "set.tar", {f"{index}.jpg": b"1" for index in range(50)})
    held: list[int] = []
    real = unpacking._Unpacking._write

    def write(self: unpacking._Unpacking, member: Any) -> None:
        held.append(len(member.open.args[0].members))
        real(self, member)

    monkeypatch.setattr(unpacking._Unpacking, "_write", write)
    assert unpack(archive, tmp_path / "out").files == 50
    assert max(held) == 0
