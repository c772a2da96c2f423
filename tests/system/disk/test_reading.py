"""Files that a user names: regular ones alone are opened, and no more is read of them than the limits allow."""

import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from lupctl.core.data.catalog.video_list import read_video_list
from lupctl.core.data.video.coco import read_coco
from lupctl.core.data.video.mot import read_mot
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.images.files import read_encoded
from lupctl.core.formats.images.headers import plain_size
from lupctl.core.formats.scores.lists import read_names
from lupctl.core.system.disk import limits
from lupctl.core.system.disk.limits import IMAGE_PIXELS, Limit, check_growth, check_zip
from lupctl.core.system.disk.pickles import load_plain
from lupctl.core.system.disk.reading import open_stream, open_to_read, read_bytes, read_text, say_missing
from tests.tools.bombs import SPECIAL, claim_png, special, write_sparse, write_zip_of_zeros
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny

FEW = Limit("LUPCTL_MAX_TEST_BYTES", "bytes in a test", 100)


@pytest.mark.parametrize("kind", SPECIAL)
def test_special_files_are_not_called_missing(tmp_path: Path, kind: str, lupctl: Shell) -> None:
    with special(tmp_path / "x.h5", kind) as path:
        assert say_missing(path).endswith(", not a regular file") == (kind != "link to nothing")
        for line in (f"eval {path}", f"data verify {path}", f"model info {path}"):
            ran = lupctl(line)
            assert ran.code == 3
            assert "Traceback" not in ran.err
            assert f"x.h5: {say_missing(path)}" in ran.err or kind == "link to nothing"
    assert say_missing(tmp_path / "y.h5") == "there is no such file"


@pytest.mark.parametrize("kind", SPECIAL)
def test_special_files_are_not_opened(tmp_path: Path, kind: str) -> None:
    with special(tmp_path / "x.jpg", kind) as path:
        for read in (open_to_read, read_encoded, open_stream):
            with pytest.raises(OSError, match=r"not a regular file|No such"):
                read(path)
        with pytest.raises(OSError, match=r"not a regular file|No such"):
            read_text(path, FEW)
    with pytest.raises(OSError, match="a folder, not a regular file"):
        open_to_read(tmp_path)


def test_a_limit_and_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_sparse(tmp_path / "list.txt", 150)
    with pytest.raises(DataError, match=r"list.txt: 150 bytes in a test; LUPCTL_MAX_TEST_BYTES allows 100") as caught:
        read_bytes(path, FEW)
    assert caught.value.hint == "if you trust it: export LUPCTL_MAX_TEST_BYTES=150"
    for text, most in (("150", 150), ("1K", 1024), ("2M", 2**21), ("1G", 2**30)):
        monkeypatch.setenv("LUPCTL_MAX_TEST_BYTES", text)
        assert FEW.most == most
        assert read_bytes(path, FEW) == bytes(150)
    monkeypatch.setenv("LUPCTL_MAX_TEST_BYTES", "99")
    assert FEW.most == 100, "the environment allows more, never less"
    assert len(read_bytes(write_sparse(path, 99), FEW)) == 99
    for text in ("", "much", "-1", "1.5", "9" * 20, "²", "K"):
        monkeypatch.setenv("LUPCTL_MAX_TEST_BYTES", text)
        with pytest.raises(UsageError, match=r"LUPCTL_MAX_TEST_BYTES=.*: a whole number was expected"):
            _ = FEW.most


def test_lines_end_as_python_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes(b"\xef\xbb\xbfa\r\nb\rc\n")
    assert read_text(path, FEW, encoding="utf-8-sig") == path.read_text(encoding="utf-8-sig") == "a\nb\nc\n"


def test_what_grows_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_growth(tmp_path, 1000, 64 << 20)
    check_growth(tmp_path, 10 << 20, 1000 << 20)
    with pytest.raises(FormatError, match="1,000 bytes that decode to 67,108,865, more than 100 times as much"):
        check_growth(tmp_path, 1000, (64 << 20) + 1)
    path = write_zip_of_zeros(tmp_path / "a.npz", ["a.npy", "b.npy"], 40 << 20)
    with pytest.raises(FormatError, match="that decode to 83,886,080"):
        check_zip(path)
    check_zip(write_zip_of_zeros(tmp_path / "b.npz", ["a.npy"], 40 << 20))
    monkeypatch.setattr(limits, "MOST_PARTS", 9)
    with pytest.raises(FormatError, match="10 parts; at most 9 are read"):
        check_zip(write_zip_of_zeros(tmp_path / "c.npz", [f"{row}" for row in range(10)], 0))
    with pytest.raises(FormatError, match="a damaged zip"):
        check_zip(tmp_path / "none.npz")


def test_more_pixels_than_allowed() -> None:
    """In any encoding: OpenCV asks its own limit before it takes memory."""
    encoded = claim_png(20_000, 20_000)
    assert plain_size(encoded) is None, "left to the decoder"
    assert plain_size(claim_png(10_000, 10_000)) == (10_000, 10_000)
    bitmap = b"BM" + bytes(8) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    bitmap += (20_000).to_bytes(4, "little") * 2 + b"\x01\0\x18\0" + bytes(24)
    for content in (encoded, bitmap):
        with pytest.raises(FormatError, match=re.escape(f"more pixels than the {IMAGE_PIXELS.default:,} that LUPCTL")):
            decode_rgb(content)


@pytest.mark.parametrize("check", ["decode", "header"])
def test_a_folder_of_images_and_other_things(lupctl: Shell, tmp_path: Path, check: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for row in range(3):
        (folder / f"{row}.jpg").write_bytes(encode_tiny(row))
    (folder / "bomb.png").write_bytes(claim_png(30_000, 30_000))
    write_sparse(folder / "sparse.jpg", 3 << 30)
    with special(folder / "a.jpg", "fifo"), special(folder / "b.jpg", "socket"), special(folder / "c.jpg", SPECIAL[2]):
        ran = lupctl(f"data pack photos --layout images --name p --check {check} --max-bad 0.5 --json")
    assert ran.code == 0, ran.err
    assert ran.json["packs"][0]["images"] == 3
    assert (
        "3 names are no regular file but a FIFO, a socket, a device or a link to nothing, and are left out: "
        "a.jpg, b.jpg, c.jpg"
    ) in ran.err
    assert "bomb.png: more pixels than the 134,217,728 that LUPCTL_MAX_IMAGE_PIXELS allows" in ran.err
    assert "sparse.jpg: 3,221,225,472 bytes in an image; LUPCTL_MAX_IMAGE_BYTES allows 268,435,456" in ran.err


COMMANDS = {
    "recipe show x.toml": 2,
    "eval x.h5": 3,
    "eval x.npz": 3,
    "model info x.safetensors": 3,
    "model convert x.pth": 3,
    "data pack x.zip": 3,
    "data build new --videos videos --detections detections --format mot": 3,
    "search x.h5 x.jpg": 3,
}


@pytest.mark.parametrize("line", COMMANDS)
def test_special_files_on_a_command_line(lupctl: Shell, tmp_path: Path, line: str) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "detections").mkdir()
    words = [word for word in line.split() if word.startswith("x.")] or ["videos/a.mp4", "detections/a.txt"]
    with ExitStack() as there:
        for word in words:
            there.enter_context(special(tmp_path / word, "fifo"))
        ran = lupctl(line)
    assert ran.code == COMMANDS[line], ran.err
    assert "error: " in ran.err
    assert "hint: " in ran.err


def test_recipes_and_lists_have_a_size(lupctl: Shell, tmp_path: Path) -> None:
    write_sparse(tmp_path / "x.toml", 1 << 30)
    ran = lupctl("recipe show x.toml")
    assert ran.code == 2
    assert "x.toml: 1,073,741,824 bytes in a recipe or a record; LUPCTL_MAX_TEXT_BYTES allows 16,777,216" in ran.err
    for read in (read_names, read_video_list, read_coco, read_mot):
        with pytest.raises(
            DataError, match=r"bytes in a list, which is read whole; LUPCTL_MAX_LIST_BYTES allows 1,073"
        ):
            read(write_sparse(tmp_path / "list.txt", 2 << 30))
    with pytest.raises(DataError, match="LUPCTL_MAX_PICKLE_BYTES allows 1,073,741,824"):
        load_plain(write_sparse(tmp_path / "keys.pkl", 2 << 30))
