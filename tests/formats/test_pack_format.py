"""Format 1 of packs: written, read, damaged, interrupted, sharded."""

import errno
import json
import multiprocessing
import os
import pickle
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.choices import Role
from lupctl.core.errors import CorruptImageError, DataError, FormatError, UsageError
from lupctl.core.formats.images.codec import decode_rgb, encode_jpeg, encode_png, image_encoding
from lupctl.core.formats.pack import write_shard as shard_writer
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.shards import PACK_FORMAT
from lupctl.core.formats.pack.write import PackWriter, write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.formats.record import build_record
from tests.tools.tiny.images import TinyImages, draw_tiny, encode_tiny


def rows_of(images: list[bytes]) -> list[PackedImage]:
    """Half to train on, half gallery; the names hold letters beyond ASCII."""
    half = len(images) // 2
    roles: list[Role] = ["train" if row < half else "gallery" for row in range(len(images))]
    return [
        PackedImage(image, 32, 16, f"ä/{row:04d}.jpg", person=row // 3, camera=1 + row % 2, role=role)
        for row, (image, role) in enumerate(zip(images, roles, strict=True))
    ]


@pytest.fixture
def pack_path(tmp_path: Path, tiny_images: TinyImages) -> Path:
    return write_pack(tmp_path / "tiny.h5", rows_of(tiny_images(10)), dataset="tiny")


def change(path: Path, at: int) -> None:
    """Flips one bit."""
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def test_what_is_written_is_read(pack_path: Path, tiny_images: TinyImages) -> None:
    images = tiny_images(10)
    pack = open_pack(pack_path)
    assert len(pack) == 10
    assert [pack.read(row) for row in range(10)] == images
    assert pack.dataset == "tiny"
    assert pack.num_bytes == sum(map(len, images))
    assert pack.samples.name == [f"ä/{row:04d}.jpg" for row in range(10)]
    assert pack.samples.person.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert pack.samples.camera.tolist() == [1, 2] * 5
    assert pack.samples.role.tolist() == [1] * 5 + [3] * 5
    assert pack.size.tolist() == [[32, 16]] * 10
    assert (pack.record["format"], pack.record["kind"], pack.record["quarantine"]) == (PACK_FORMAT, "pack", [])


def test_the_file_is_as_the_format_says(pack_path: Path, tiny_images: TinyImages) -> None:
    """Read with h5py alone: another program has to find the images by the description of the format."""
    images = tiny_images(10)
    with h5py.File(pack_path) as file:
        run = file["images/bytes"]
        assert (run.dtype, run.chunks, run.compression) == (np.uint8, None, None)
        assert run[()].tobytes() == b"".join(images)
        assert file["images/offsets"][()].tolist() == [0, *np.cumsum([len(image) for image in images]).tolist()]
        assert file["images/crc32"][()].tolist() == [zlib.crc32(image) for image in images]
        types = {name: file[name].dtype for name in ("images/offsets", "images/crc32", "images/size")}
        assert types == {"images/offsets": np.int64, "images/crc32": np.uint32, "images/size": np.uint16}
        types = {name: file[f"samples/{name}"].dtype for name in ("person", "camera", "role")}
        assert types == {"person": np.int64, "camera": np.int16, "role": np.uint8}
        assert h5py.check_string_dtype(file["samples/name"].dtype).encoding == "utf-8"
        assert json.loads(file.attrs["lupctl"])["dataset"] == "tiny"


def test_the_file_is_little_larger_than_its_images(tmp_path: Path) -> None:
    image = encode_tiny(0) + bytes(10_000)
    rows = [PackedImage(image, 32, 16, f"{row:05d}.jpg") for row in range(500)]
    path = write_pack(tmp_path / "large.h5", rows, dataset="large")
    assert path.stat().st_size < 1.02 * 500 * len(image)
    assert path.stat().st_blocks * 512 >= 500 * len(image), "no holes"


def test_same_input_same_bytes(tmp_path: Path, tiny_images: TinyImages) -> None:
    rows = rows_of(tiny_images(6))
    first = write_pack(tmp_path / "a.h5", rows, dataset="tiny").read_bytes()
    assert write_pack(tmp_path / "b.h5", rows, dataset="tiny").read_bytes() == first


@settings(max_examples=25, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 400), min_size=1, max_size=30), shard_bytes=st.integers(1, 2000), chance=st.randoms()
)
def test_any_sharding_reads_the_same(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], shard_bytes: int, chance: Random
) -> None:
    folder = tmp_path_factory.mktemp("any")
    images = [bytes([1 + row % 255]) * size for row, size in enumerate(sizes)]
    rows = [PackedImage(image, 1, 1, f"{row:03d}", person=row) for row, image in enumerate(images)]
    whole = open_pack(write_pack(folder / "whole.h5", rows, dataset="any"))
    path = write_pack(folder / "parts.h5", rows, dataset="any", shard_bytes=shard_bytes)
    parts = open_pack(path)
    assert [parts.read(row) for row in range(len(sizes))] == images
    mixed = chance.choices(range(len(sizes)), k=40)
    assert [parts.read_place(place) for place in parts.find(np.array(mixed))] == [images[row] for row in mixed]
    assert parts.fingerprint == whole.fingerprint
    assert parts.samples.name == whole.samples.name
    assert parts.samples.person.tolist() == list(range(len(sizes)))
    assert path.is_dir() == (sum(sizes) > shard_bytes and len(sizes) > 1)
    for shard in parts.shards:
        assert shard.offsets[0] == 0
        assert shard.offsets[-1] <= shard_bytes or len(shard) == 1


def test_the_images_of_each_shard_may_begin_elsewhere(tmp_path: Path) -> None:
    images = [bytes([row]) * 700 for row in range(1, 5)]
    rows = [PackedImage(image, 1, 1, f"{row}") for row, image in enumerate(images)]
    second = write_pack(tmp_path / "any.h5", rows, dataset="any", shard_bytes=1500) / "00001.h5"
    written = second.rename(tmp_path / "written")
    with h5py.File(written) as source, h5py.File(second, "w") as target:
        target["something else"] = np.arange(9999)
        target.attrs.update(source.attrs)
        for name in source:
            source.copy(name, target)
    pack = open_pack(tmp_path / "any")
    assert len({shard.base for shard in pack.shards}) == 2
    assert [pack.read(row) for row in range(4)] == images
    assert [pack.read_place(place) for place in pack.find(np.arange(4))] == images


def test_the_fingerprint_sees_every_column(tmp_path: Path, tiny_images: TinyImages) -> None:
    image, other = tiny_images(2)
    variants = [
        PackedImage(image, 32, 16, "a.jpg", person=1, camera=1, role="train"),
        PackedImage(other, 32, 16, "a.jpg", person=1, camera=1, role="train"),
        PackedImage(image, 32, 16, "b.jpg", person=1, camera=1, role="train"),
        PackedImage(image, 32, 16, "a.jpg", person=2, camera=1, role="train"),
        PackedImage(image, 32, 16, "a.jpg", person=1, camera=2, role="train"),
        PackedImage(image, 32, 16, "a.jpg", person=1, camera=1, role="query"),
    ]
    prints = {
        open_pack(write_pack(tmp_path / f"{row}.h5", [variant], dataset="tiny")).fingerprint
        for row, variant in enumerate(variants)
    }
    assert len(prints) == len(variants)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # numpy has threads of its own
def test_reading_after_fork_pickle_and_in_threads(pack_path: Path, tiny_images: TinyImages) -> None:
    images = tiny_images(10)
    pack = open_pack(pack_path)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(pack.read, list(range(10)) * 20)) == images * 20
    assert pickle.loads(pickle.dumps(pack)).read(7) == images[7]
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        sender.send_bytes(pack.read(3) + pack.read(9))
        os._exit(0)
    assert receiver.recv_bytes() == images[3] + images[9]
    os.waitpid(child, 0)
    assert pack.read(4) == images[4], "the child's close left ours open"


@pytest.mark.parametrize("row", [-1, 10])
def test_a_row_that_is_not_there(pack_path: Path, row: int) -> None:
    with pytest.raises(IndexError, match="of a pack of 10 images"):
        open_pack(pack_path).read(row)
    with pytest.raises(IndexError, match=f"row {row} of a pack of 10 images"):
        open_pack(pack_path).find(np.array([3, row, 4]))


def test_a_flipped_bit_in_an_image(pack_path: Path, tiny_images: TinyImages) -> None:
    pack = open_pack(pack_path)
    change(pack_path, pack.shards[0].base + int(pack.shards[0].offsets[6]) + 40)
    damaged = open_pack(pack_path)
    with pytest.raises(CorruptImageError, match=r"tiny\.h5: image 6 \(ä/0006\.jpg\) is damaged: wrong checksum"):
        damaged.read(6)
    with pytest.raises(CorruptImageError, match=r"image 6 \(ä/0006\.jpg\) is damaged: wrong checksum"):
        damaged.read_place(next(damaged.find(np.array([6]))))
    assert [damaged.read(row) for row in (5, 7)] == [tiny_images(10)[row] for row in (5, 7)]


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_pack_is_refused(pack_path: Path, share: float) -> None:
    content = pack_path.read_bytes()
    pack_path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(FormatError, match=r"tiny\.h5: (cut short|not an HDF5 file|damaged)") as caught:
        open_pack(pack_path)
    assert "lupctl data pack" in caught.value.hint


def test_a_file_that_shrinks_while_it_is_open(pack_path: Path) -> None:
    pack = open_pack(pack_path)
    pack.read(0)
    os.truncate(pack_path, pack.shards[0].base + int(pack.shards[0].offsets[9]) + 5)
    with pytest.raises(CorruptImageError, match=r"image 9 .* cut short"):
        pack.read(9)


def test_any_flipped_bit_is_an_error_of_ours_or_harmless(tmp_path: Path, tiny_images: TinyImages) -> None:
    """Whatever bit of the file flips: the images come back whole or with one of our errors, never with a traceback."""
    images = tiny_images(3)
    path = write_pack(tmp_path / "bits.h5", rows_of(images), dataset="tiny")
    content = path.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(content), 150).tolist():
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        try:
            pack = open_pack(path)
            found = [pack.read(row) for row in range(len(pack))]
        except (FormatError, DataError):
            continue
        assert found == images


def test_another_format_number(pack_path: Path) -> None:
    with h5py.File(pack_path, "r+") as file:
        file.attrs["lupctl"] = json.dumps({**json.loads(file.attrs["lupctl"]), "format": 7})
    with pytest.raises(FormatError, match="pack format 7; this lupctl reads format 1") as caught:
        open_pack(pack_path)
    assert "lupctl data pack" in caught.value.hint


def edit(path: Path, name: str, values: object) -> None:
    with h5py.File(path, "r+") as file:
        del file[name]
        if values is not None:
            file[name] = values


def test_offsets_that_do_not_rise(pack_path: Path) -> None:
    offsets = open_pack(pack_path).shards[0].offsets.copy()
    offsets[4], offsets[5] = offsets[5], offsets[4]
    edit(pack_path, "images/offsets", offsets)
    with pytest.raises(FormatError, match="offsets do not rise"):
        open_pack(pack_path)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("images/crc32", np.zeros(3, np.uint32), r"crc32 has shape \(3,\); \(10,\) was expected"),
        ("samples/person", np.zeros(3, np.int64), r"person has shape \(3,\) for 10 names"),
        ("samples/role", None, "has no samples/role"),
        ("images/size", None, "has no images/size"),
        ("images/bytes", np.zeros(9, np.uint8), "offsets do not rise from 0 to the 9 bytes"),
        ("images/bytes", np.zeros(9, np.int32), "not a contiguous run of uint8"),
    ],
)
def test_columns_that_do_not_fit(pack_path: Path, name: str, values: object, message: str) -> None:
    edit(pack_path, name, values)
    with pytest.raises(FormatError, match=message):
        open_pack(pack_path)


def test_a_chunked_byte_run(pack_path: Path) -> None:
    with h5py.File(pack_path, "r+") as file:
        content = file["images/bytes"][()]
        del file["images/bytes"]
        file.create_dataset("images/bytes", data=content, chunks=(100,))
    with pytest.raises(FormatError, match="not a contiguous run"):
        open_pack(pack_path)


def test_what_is_no_pack(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such pack"):
        open_pack(tmp_path / "nothing.h5")
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(FormatError, match="not an HDF5 file"):
        open_pack(tmp_path / "text.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(FormatError, match="without lupctl's record"):
        open_pack(tmp_path / "foreign.h5")
    with h5py.File(tmp_path / "features.h5", "w") as file:
        file.attrs["lupctl"] = json.dumps({"kind": "features", "format": 1})
    with pytest.raises(FormatError, match="contains features; a pack file was expected"):
        open_pack(tmp_path / "features.h5")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FormatError, match="a folder without any"):
        open_pack(tmp_path / "empty")


@pytest.mark.parametrize("lost", [0, 1, -1])
def test_a_missing_shard_is_noticed(tmp_path: Path, tiny_images: TinyImages, lost: int) -> None:
    folder = write_pack(tmp_path / "tiny.h5", rows_of(tiny_images(10)), dataset="tiny", shard_bytes=2000)
    shards = sorted(folder.iterdir())
    assert len(shards) >= 3
    shards[lost].unlink()
    with pytest.raises(FormatError, match="a shard is missing"):
        open_pack(folder)


def test_names_out_of_order_or_twice(tmp_path: Path, tiny_images: TinyImages) -> None:
    first, second = rows_of(tiny_images(10))[:2]
    with pytest.raises(DataError, match=r"ä/0000\.jpg comes twice"):
        write_pack(tmp_path / "a.h5", [first, first], dataset="tiny")
    with pytest.raises(DataError, match=r"ä/0000\.jpg comes after ä/0001\.jpg"):
        write_pack(tmp_path / "a.h5", [second, first], dataset="tiny")
    with pytest.raises(DataError, match="no images to pack"):
        write_pack(tmp_path / "a.h5", [], dataset="tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shard_bytes", [2**33, 2000])
def test_nothing_is_overwritten_without_force(tmp_path: Path, tiny_images: TinyImages, shard_bytes: int) -> None:
    rows = rows_of(tiny_images(10))
    path = write_pack(tmp_path / "tiny.h5", rows, dataset="tiny", shard_bytes=shard_bytes)
    with pytest.raises(UsageError, match="exists already"):
        write_pack(tmp_path / "tiny.h5", rows, dataset="tiny")
    assert len(open_pack(path)) == 10
    for new_bytes in (2000, 2**33, 2000):
        new = write_pack(tmp_path / "tiny.h5", rows[:7], dataset="tiny", shard_bytes=new_bytes, force=True)
        assert [entry.name for entry in tmp_path.iterdir()] == [new.name]
        assert len(open_pack(new)) == 7


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, tiny_images: TinyImages) -> None:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "holiday.jpg").write_bytes(b"x")
    rows = rows_of(tiny_images(10))
    with pytest.raises(UsageError, match="is in the way"):
        write_pack(tmp_path / "tiny.h5", rows, dataset="tiny", shard_bytes=2000, force=True)
    assert write_pack(tmp_path / "tiny.h5", rows, dataset="tiny", force=True) == tmp_path / "tiny.h5"
    assert (tmp_path / "tiny" / "holiday.jpg").read_bytes() == b"x"


def test_a_name_without_the_ending(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"must end in \.h5"):
        write_pack(tmp_path / "tiny", [], dataset="tiny")


def write_until(path: Path, rows: list[PackedImage], stop: int | None, *, shard_bytes: int = 2000) -> int:
    """Writes as a stage does, is gone before row `stop`; returns where it began."""
    record = build_record("pack", PACK_FORMAT, command=["test"], facts={"dataset": "tiny", "digest": "sha256:0"})
    writer = PackWriter(path, record=record, shard_bytes=shard_bytes, resume=True).__enter__()
    begin = writer.position
    for row, image in enumerate(rows[begin:], start=begin):
        if row == stop:
            assert writer._shard is not None
            writer._shard._stream.close()  # what a killed process leaves: bytes on the disk, nothing tidied up
            writer._held.close()
            return begin
        if row % 4 == 1:
            writer.reject(image.name, "tried out")
        else:
            writer.add(image)
    writer.finish()
    writer.__exit__(None, None, None)
    return begin


def test_an_interrupted_pack_goes_on_at_the_first_missing_shard(tmp_path: Path, tiny_images: TinyImages) -> None:
    rows = rows_of(tiny_images(24))
    write_until(tmp_path / "whole.h5", rows, None)
    whole = tmp_path / "whole"
    assert len(list(whole.iterdir())) >= 5
    begins = [write_until(tmp_path / "tiny.h5", rows, stop) for stop in (9, 15, 23)]
    assert not (tmp_path / "tiny.h5").exists()
    assert not (tmp_path / "tiny").exists(), "what is not complete is not seen"
    begins.append(write_until(tmp_path / "tiny.h5", rows, None))
    assert begins[0] == 0
    assert 0 < begins[1] <= 9
    assert begins[1] < begins[2] <= 15
    assert begins[2] < begins[3] <= 23
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["tiny", "whole"]
    for shard in whole.iterdir():
        assert (tmp_path / "tiny" / shard.name).read_bytes() == shard.read_bytes()
    assert [entry["name"] for entry in open_pack(whole).record["quarantine"]] == [row.name for row in rows[1::4]]


def test_two_writers_at_once(tmp_path: Path, tiny_images: TinyImages) -> None:
    record = build_record("pack", PACK_FORMAT, command=[], facts={"dataset": "tiny"})
    first, second = rows_of(tiny_images(2))
    with PackWriter(tmp_path / "tiny.h5", record=record) as writer:
        writer.add(first)
        with pytest.raises(DataError, match=r"tiny\.h5: another process is packing it"):
            PackWriter(tmp_path / "tiny.h5", record=record).__enter__()
        writer.add(second)
        writer.finish()
    assert len(open_pack(tmp_path / "tiny.h5")) == 2


def test_other_settings_begin_again(tmp_path: Path, tiny_images: TinyImages) -> None:
    rows = rows_of(tiny_images(24))
    write_until(tmp_path / "tiny.h5", rows, 15)
    assert write_until(tmp_path / "tiny.h5", rows, None, shard_bytes=3000) == 0


def test_a_damaged_finished_shard_is_made_again(tmp_path: Path, tiny_images: TinyImages) -> None:
    rows = rows_of(tiny_images(24))
    write_until(tmp_path / "tiny.h5", rows, 23)
    shards = sorted((tmp_path / ".tiny.part").glob("*.h5"))
    shards[1].write_bytes(shards[1].read_bytes()[:500])
    begin = write_until(tmp_path / "tiny.h5", rows, None)
    assert 0 < begin < 9
    pack = open_pack(tmp_path / "tiny")
    kept = [row for number, row in enumerate(rows) if number % 4 != 1]
    assert [pack.read(row) for row in range(len(pack))] == [row.encoded for row in kept]


@pytest.mark.parametrize("after", [0, 1, 7])
def test_a_full_disk_leaves_nothing(
    tmp_path: Path, tiny_images: TinyImages, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    """The disk refuses the write after some images; there is one error line, and no file."""
    real_add, calls = shard_writer.ShardWriter.add, 0

    def add(self: shard_writer.ShardWriter, image: PackedImage) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_add(self, image)

    monkeypatch.setattr(shard_writer.ShardWriter, "add", add)
    with pytest.raises(DataError, match=r"tiny\.h5: the disk is full .* nothing was written"):
        write_pack(tmp_path / "tiny.h5", rows_of(tiny_images(10)), dataset="tiny")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_fills_up_at_the_very_end(
    tmp_path: Path, tiny_images: TinyImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reserve(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old = write_pack(tmp_path / "tiny.h5", rows_of(tiny_images(4)), dataset="tiny").read_bytes()
    monkeypatch.setattr(shard_writer, "reserve_space", reserve)
    with pytest.raises(DataError, match="the disk is full"):
        write_pack(tmp_path / "tiny.h5", rows_of(tiny_images(10)), dataset="tiny", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.h5"]
    assert (tmp_path / "tiny.h5").read_bytes() == old, "the pack that was there is still there"


def test_a_quarantine_of_any_length_fits(tmp_path: Path, tiny_images: TinyImages) -> None:
    record = build_record("pack", PACK_FORMAT, command=[], facts={"dataset": "tiny"})
    with PackWriter(tmp_path / "tiny.h5", record=record) as writer:
        writer.add(rows_of(tiny_images(2))[0])
        for number in range(20_000):
            writer.reject(f"{number:08d}.jpg", "empty, 0 bytes")
        path = writer.finish()
    assert len(open_pack(path).record["quarantine"]) == 20_000  # 1.2 MB of JSON, HDF5's own limit being 64 kB


# images


def test_decoding_gives_red_green_blue() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:, :, 0] = 200  # red
    assert (decode_rgb(encode_png(pixels)) == pixels).all()
    assert decode_rgb(encode_jpeg(pixels))[2, 3].tolist() == pytest.approx([200, 0, 0], abs=3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp"])
def test_other_encodings_decode(suffix: str) -> None:
    decoded = decode_rgb(encode_tiny(3, suffix))
    assert decoded.shape == (32, 16, 3)
    difference = np.abs(decoded.astype(int) - draw_tiny(3)[:, :, ::-1])
    assert difference.mean() < (0.001 if suffix in (".png", ".bmp") else 15)
    assert image_encoding(encode_tiny(3, suffix)) == {".jpg": "jpeg", ".png": "png"}.get(suffix, "other")


@pytest.mark.parametrize(
    ("encoded", "message"),
    [
        (b"", "empty, 0 bytes"),
        (b"this is no image", "begins with the text 'this is '"),
        (bytes(100), "begins with the bytes 00 00"),
        (encode_tiny(0)[:-2], "cut short"),
        (encode_tiny(0)[:400], "cut short"),
        (encode_tiny(0)[:3], "cut short"),
        (encode_tiny(0, ".png")[:-12], "cut short"),
        (encode_tiny(0, ".png")[:200], "cut short"),
        (encode_tiny(0, ".png")[:80] + b"?" + encode_tiny(0, ".png")[81:], "IDAT chunk is damaged"),
    ],
)
def test_what_does_not_decode(encoded: bytes, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CorruptImageError, match=message):
        decode_rgb(encoded)
    assert capfd.readouterr().err == "", "the decoder's own lines are kept off the screen"


def test_bytes_behind_a_jpeg_are_allowed_and_previews_do_not_count() -> None:
    whole = encode_tiny(0)
    assert (decode_rgb(whole + b"camera's own notes") == decode_rgb(whole)).all()
    preview = encode_tiny(1, height=16, width=8)
    segment = b"\xff\xe1" + (len(preview) + 2).to_bytes(2, "big") + preview
    with_preview = whole[:2] + segment + whole[2:]
    assert decode_rgb(with_preview).shape == (32, 16, 3)
    with pytest.raises(CorruptImageError, match="cut short"):
        decode_rgb(with_preview[:-2])


def test_a_jpeg_that_stands_on_its_side_is_turned() -> None:
    """EXIF orientation 6: the camera was turned, the picture has to be turned back."""
    whole = encode_tiny(0)
    tiff = b"MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00"
    segment = b"\xff\xe1" + (len(tiff) + 8).to_bytes(2, "big") + b"Exif\x00\x00" + tiff
    turned = decode_rgb(whole[:2] + segment + whole[2:])
    assert (turned == cv2.rotate(decode_rgb(whole), cv2.ROTATE_90_CLOCKWISE)).all()
