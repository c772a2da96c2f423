"""Packing by headers: what counts as plain and whole, the same pack as by decoding, and what is told about it."""

import resource
import shutil
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import cv2
import h5py
import lmdb
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.choices import ROLE_CODES
from lupctl.core.data.packing.filling import PackSettings
from lupctl.core.data.packing.pack_source import PackedSource
from lupctl.core.data.sources.layouts.images import ImagesSource
from lupctl.core.data.sources.layouts.lmdb_folder import LmdbSource
from lupctl.core.data.sources.layouts.read_ahead import REQUEST_BYTES, STEP_BYTES, WINDOW_BYTES, ReadAhead
from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.images.headers import HeaderReader, plain_size
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.write_shard import PackedBlock, ShardWriter
from lupctl.core.stages.pack import pack
from lupctl.core.stages.verify import verify_pack
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import build_column
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny

QUIET = Progress(quiet=True)
HEADER, DECODE = PackSettings(check="header"), PackSettings()


def draw(height: int, width: int, *, seed: int = 0, ending: str = ".jpg", flags: tuple[int, ...] = ()) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.imencode(ending, pixels, list(flags))[1].tobytes()


def turned(encoded: bytes) -> bytes:
    """The same JPEG with Exif's word that it lies on its side."""
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)
    body = b"Exif\0\0" + tiff
    return encoded[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + encoded[2:]


def unreadable(encoded: bytes) -> bytes:
    """The same JPEG, whole by its structure, with Huffman tables that no decoder takes."""
    at = encoded.index(b"\xff\xc4")
    return encoded[: at + 5] + b"\xff" * 16 + encoded[at + 21 :]


KINDS = {
    "small": draw(1, 1),
    "usual": draw(64, 32),
    "quality": draw(64, 32, seed=1, flags=(cv2.IMWRITE_JPEG_QUALITY, 30)),
    "progressive": draw(40, 80, flags=(cv2.IMWRITE_JPEG_PROGRESSIVE, 1)),
    "tables of its own": draw(33, 17, flags=(cv2.IMWRITE_JPEG_OPTIMIZE, 1)),
    "restarts": draw(70, 31, flags=(cv2.IMWRITE_JPEG_RST_INTERVAL, 2)),
    "grey": cv2.imencode(".jpg", np.zeros((300, 7), np.uint8))[1].tobytes(),
    "png": draw(64, 32, ending=".png"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_plain_images_state_the_size_they_decode_to(kind: str) -> None:
    assert plain_size(KINDS[kind]) == decode_rgb(KINDS[kind]).shape[:2]


@pytest.mark.parametrize("kind", KINDS)
def test_no_beginning_of_an_image_is_a_whole_one(kind: str) -> None:
    encoded = KINDS[kind]
    assert [end for end in range(len(encoded)) if plain_size(encoded[:end]) is not None] == []


def test_what_a_header_does_not_settle_is_decoded() -> None:
    usual = KINDS["usual"]
    assert decode_rgb(turned(usual)).shape[:2] == (32, 64), "Exif's word counts"
    for left in (
        turned(usual),
        usual + b"\0" * 3,
        b"",
        b"text",
        usual[:2] + b"\xff\xff" + usual[3:],
        draw(8, 8, ending=".bmp"),
    ):
        assert plain_size(left) is None
    arithmetic = usual.replace(b"\xff\xc0", b"\xff\xc9", 1)
    assert plain_size(arithmetic) is None
    png = bytearray(KINDS["png"])
    png[60] ^= 1
    assert plain_size(bytes(png)) is None, "a chunk's checksum"


@given(st.lists(st.sampled_from([*KINDS.values(), turned(KINDS["usual"]), KINDS["usual"][:-1], b"text"]), min_size=1))
@settings(max_examples=60, deadline=None)
def test_many_at_once_as_one_by_one(images: list[bytes]) -> None:
    offsets = np.cumsum([0, *map(len, images)])
    found = HeaderReader().read_sizes(b"".join(images), offsets)
    assert found.tolist() == [list(plain_size(image) or (0, 0)) for image in images]


def write_database(path: Path, values: Mapping[str, bytes]) -> LmdbSource:
    path.mkdir(parents=True)
    with lmdb.open(str(path), map_size=1 << 24) as environment, environment.begin(write=True) as change:
        for key, value in values.items():
            change.put(key.encode(), value)
    return LmdbSource(path, dataset="crops")


def crops(count: int) -> dict[str, bytes]:
    return {f"00_00_0000_{row:08d}": draw(16 + row % 3, 8, seed=row) for row in range(count)}


def content(path: Path) -> list[dict[str, bytes]]:
    """Everything in the files of a pack but their records."""
    found = []
    for file in sorted(path.glob("*.h5")) if path.is_dir() else [path]:
        with h5py.File(file) as opened:
            names = [f"{group}/{name}" for group in opened for name in opened[group]]
            # Names are of variable length, and in the fingerprint.
            found.append({name: opened[name][()].tobytes() for name in names if name != "samples/name"})
    return found


@pytest.mark.parametrize("shard_bytes", [2**30, 9_000])
def test_the_pack_is_that_of_decoding(tmp_path: Path, shard_bytes: int) -> None:
    values = crops(150)
    values["00_00_0000_00000040"] = turned(values["00_00_0000_00000040"])
    values["00_00_0000_00000041"] = KINDS["png"]
    values["00_00_0000_00000100"] = draw(9, 9, ending=".bmp")
    source = write_database(tmp_path / "lmdb", values)
    made = {
        check: pack(source, out=tmp_path / f"{check}.h5", progress=QUIET, settings=chosen)
        for check, chosen in (
            ("decode", PackSettings(shard_bytes=shard_bytes)),
            ("header", PackSettings(check="header", shard_bytes=shard_bytes)),
        )
    }
    assert made["header"].images == 150
    assert made["header"].fingerprint == made["decode"].fingerprint
    assert content(made["header"].path) == content(made["decode"].path)
    assert open_pack(made["header"].path).record["check"] == "header"
    assert open_pack(made["decode"].path).record["check"] == "decode"


def test_bad_values_are_left_out_as_by_decoding(tmp_path: Path) -> None:
    values = crops(100)
    keys = sorted(values)
    values |= {keys[0]: values[keys[0]][:-1], keys[50]: b"text", keys[51]: b"", keys[99]: values[keys[99]][:40]}
    source = write_database(tmp_path / "lmdb", values)
    reasons = [
        pack(source, out=tmp_path / f"{chosen.check}.h5", progress=QUIET, settings=chosen).quarantined
        for chosen in (PackSettings(max_bad=0.1), PackSettings(max_bad=0.1, check="header"))
    ]
    assert reasons[0] == reasons[1]
    assert [entry["name"] for entry in reasons[1]] == [f"{keys[row]}.jpg" for row in (0, 50, 51, 99)]


def test_files_by_header(tmp_path: Path) -> None:
    for row, image in enumerate(KINDS.values()):
        (tmp_path / f"{row}.img.jpg").write_bytes(image)
    source = ImagesSource(tmp_path, dataset="files")
    made = [
        pack(source, out=tmp_path / f"{chosen.check}.h5", progress=QUIET, settings=chosen)
        for chosen in (HEADER, DECODE)
    ]
    assert made[0].fingerprint == made[1].fingerprint
    assert content(made[0].path) == content(made[1].path)


def test_only_decoding_finds_what_is_damaged_inside(tmp_path: Path) -> None:
    values = crops(20)
    broken = unreadable(values["00_00_0000_00000007"])
    with pytest.raises(CorruptImageError):
        decode_rgb(broken)
    source = write_database(tmp_path / "lmdb", {**values, "00_00_0000_00000007": broken})
    by_header = pack(source, out=tmp_path / "h.h5", progress=QUIET, settings=HEADER)
    assert (by_header.images, by_header.check) == (20, "header")
    shallow = verify_pack(by_header.path, progress=QUIET)
    assert [(finding.severity, finding.what) for finding in shallow.findings] == [("note", "check")]
    assert "--deep decodes" in shallow.findings[0].message
    deep = verify_pack(by_header.path, progress=QUIET, deep=True)
    assert [(finding.severity, finding.what, finding.count) for finding in deep.findings] == [
        ("error", "unreadable", 1)
    ]
    again = pack(
        PackedSource(by_header.path), out=tmp_path / "d.h5", progress=QUIET, settings=PackSettings(max_bad=0.1)
    )
    assert [entry["name"] for entry in again.quarantined] == ["00_00_0000_00000007.jpg"], "it was never decoded"


class StoppedError(Exception):
    """Stands for a kill."""


def test_a_pack_resumed_with_another_check_is_that_of_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_database(tmp_path / "lmdb", crops(100))
    small = {check: PackSettings(check=check, shard_bytes=9_000) for check in ("decode", "header")}
    whole = {
        check: pack(source, out=tmp_path / f"{check}.h5", progress=QUIET, settings=small[check]).path for check in small
    }
    real, calls = ShardWriter.add, 0

    def stop(self: ShardWriter, image: object) -> None:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise StoppedError
        real(self, image)  # type: ignore[arg-type]

    for first, second in (("header", "decode"), ("decode", "header"), ("header", "header")):
        calls = 0
        with monkeypatch.context() as patch:
            patch.setattr(ShardWriter, "add", stop)
            patch.setattr(ShardWriter, "add_block", lambda self, block: [stop(self, image) for image in block])
            with pytest.raises(StoppedError):
                pack(source, out=tmp_path / "t.h5", progress=QUIET, settings=small[first])
        made = pack(source, out=tmp_path / "t.h5", progress=QUIET, settings=small[second]).path
        assert [file.read_bytes() for file in sorted(made.glob("*.h5"))] == [
            file.read_bytes() for file in sorted(whole[second].glob("*.h5"))
        ]
        shutil.rmtree(made)


def test_a_block_is_the_rows_it_stands_for() -> None:
    images = [encode_tiny(seed) for seed in range(3)]
    block = PackedBlock(
        encoded=b"".join(images),
        offsets=np.cumsum([0, *map(len, images)]),
        crc32=np.zeros(3, np.uint32),
        size=np.array([[1, 2], [3, 4], [5, 6]], np.uint16),
        samples=Samples(
            person=np.array([7, 8, 9]),
            camera=np.array([1, 2, 3], np.int16),
            role=np.full(3, ROLE_CODES["train"], np.uint8),
            name=build_column(["a", "b", "c"]),
        ),
    )
    assert [(row.encoded, row.height, row.width, row.name, row.person, row.camera, row.role) for row in block] == [
        (images[0], 1, 2, "a", 7, 1, "train"),
        (images[1], 3, 4, "b", 8, 2, "train"),
        (images[2], 5, 6, "c", 9, 3, "train"),
    ]


def test_the_command_says_what_was_checked(tmp_path: Path, lupctl: Shell) -> None:
    write_database(tmp_path / "lup" / "raw" / "crops", crops(30))
    packed = lupctl("data pack crops --check header")
    assert packed.code == 0
    assert "images were not decoded (--check header)" in packed.err
    assert "header" in packed.out
    assert "headers and ends" in lupctl("data info crops").out
    again = lupctl("data pack")
    assert (again.code, "is up to date" in again.err) == (0, True), "nothing was asked of the check"
    stricter = lupctl("data pack crops --check decode")
    assert stricter.code == 2
    assert "its images were not decoded when they were packed (--check header)" in stricter.err
    assert lupctl("data pack crops --check decode --force").code == 0
    assert lupctl("data pack crops --check header").code == 0, "decoding is more than was asked"
    both = lupctl("data pack crops --check header --size 8x8")
    assert (both.code, "resizing decodes the images anyway" in both.err) == (2, True)


@pytest.mark.parametrize("check", ["header", "decode"])
def test_a_disk_that_takes_no_more(tmp_path: Path, check: str) -> None:
    write_database(tmp_path / "lmdb", crops(300))
    line = [sys.executable, "-c", "from lupctl.cli.app import main; main()", "data", "pack", "lmdb", "--check", check]

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    ran = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, preexec_fn=limit)
    assert (ran.returncode, "allow a file this large" in ran.stderr, "--shard-bytes" in ran.stderr) == (3, True, True)
    assert not list(tmp_path.rglob("*.h5*"))
    assert subprocess.run(line, cwd=tmp_path, capture_output=True).returncode == 0
    assert len(open_pack(tmp_path / "lup" / "packs" / "lmdb.h5")) == 300


def test_reading_ahead_asks_for_every_byte_once_and_not_too_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.mdb"
    with path.open("wb") as stream:
        stream.truncate(5 * WINDOW_BYTES)
    asked: list[int] = []
    at = 0.0

    def advise(descriptor: int, begin: int, length: int, what: int) -> None:
        assert length == REQUEST_BYTES
        assert begin <= at * 5 * WINDOW_BYTES + WINDOW_BYTES + STEP_BYTES
        asked.append(begin)

    monkeypatch.setattr("os.posix_fadvise", advise)
    ahead = ReadAhead(path)
    for row in range(1001):
        at = row / 1000
        ahead.move(at)
        assert asked[-1] + REQUEST_BYTES >= min(at * 5 + 0.8, 5) * WINDOW_BYTES, "the reader never catches up"
    assert asked == list(range(0, 5 * WINDOW_BYTES, REQUEST_BYTES))
    resumed = ReadAhead(path)
    asked.clear()
    at = 0.5
    resumed.move(at)
    assert asked[0] >= 2.4 * WINDOW_BYTES
