"""From files to a pack: what is kept, what is left out, what stops it."""

import errno
import io
import os
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from lupctl.core.choices import ROLE_CODES
from lupctl.core.data.packing.filling import PackSettings
from lupctl.core.data.sources.layouts.images import ImagesSource
from lupctl.core.data.sources.layouts.market1501 import Market1501Source
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.images.codec import decode_rgb, image_encoding
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.write_shard import ShardWriter
from lupctl.core.stages.pack import pack, plan_pack, read_packed_source
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import build_column
from lupctl.core.system.threads.ordered import map_in_order, pick_workers
from tests.tools.tiny.images import TinyImages, draw_tiny, encode_tiny

QUIET = Progress(quiet=True)


def fill(root: Path, images: list[bytes]) -> ImagesSource:
    root.mkdir(parents=True, exist_ok=True)
    for row, image in enumerate(images):
        (root / f"{row:04d}.jpg").write_bytes(image)
    return ImagesSource(root, dataset="tiny")


def test_a_market_folder_becomes_a_pack(market_folder: Path, tmp_path: Path) -> None:
    result = pack(Market1501Source(market_folder), out=tmp_path / "m.h5", progress=QUIET, command=["lupctl", "x"])
    assert (result.images, result.persons, result.cameras, result.shards) == (16, 4, 2, 1)
    assert result.roles == {"unlabelled": 0, "train": 8, "query": 2, "gallery": 6}
    made = open_pack(result.path)
    assert result.num_bytes == sum(path.stat().st_size for path in market_folder.rglob("*.jpg"))
    for row, name in enumerate(made.samples.name):
        assert made.read(row) == (market_folder / name).read_bytes(), "JPEG bytes are kept"
        assert made.samples.person[row] == int(Path(name).name.split("_")[0])
    assert made.samples.role.tolist() == [1] * 8 + [2] * 2 + [3] * 6
    assert made.record["command"] == ["lupctl", "x"]
    assert made.record["source"]["layout"] == "market1501"
    assert made.fingerprint == result.fingerprint


def test_every_number_of_workers_packs_the_same(tmp_path: Path, tiny_images: TinyImages) -> None:
    source = fill(tmp_path / "files", tiny_images(60))
    contents = {
        pack(source, out=tmp_path / f"{workers}.h5", progress=QUIET, workers=workers).path.read_bytes()
        for workers in (1, 2, 5)
    }
    assert len(contents) == 1


def test_encodings(tmp_path: Path) -> None:
    root = tmp_path / "files"
    root.mkdir()
    for suffix in (".jpg", ".png", ".bmp", ".webp", ".tiff"):
        (root / f"a{suffix}").write_bytes(encode_tiny(0, suffix))
    (root / "is-a-png.jpg").write_bytes(encode_tiny(1, ".png"))
    made = open_pack(pack(ImagesSource(root, dataset="tiny"), out=tmp_path / "e.h5", progress=QUIET).path)
    for row, name in enumerate(made.samples.name):
        original, stored = (root / name).read_bytes(), made.read(row)
        if name in ("a.jpg", "a.png", "is-a-png.jpg"):
            assert stored == original
        else:
            assert image_encoding(stored) == "png"
            assert (decode_rgb(stored) == decode_rgb(original)).all(), "nothing is lost"


def test_size_encodes_again(tmp_path: Path, tiny_images: TinyImages) -> None:
    source = fill(tmp_path / "files", tiny_images(3))
    made = open_pack(pack(source, out=tmp_path / "s.h5", progress=QUIET, settings=PackSettings(size=(64, 24))).path)
    assert made.size.tolist() == [[64, 24]] * 3
    for row, image in enumerate(tiny_images(3)):
        pixels = decode_rgb(made.read(row))
        assert pixels.shape == (64, 24, 3)
        wanted = cv2.resize(decode_rgb(image), (24, 64), interpolation=cv2.INTER_LINEAR)
        assert np.abs(pixels.astype(int) - wanted).mean() < 4, "JPEG at quality 95 is close"


BAD = {
    "text.jpg": (b"hello, I am a text file", "begins with the text 'hello, I'"),
    "zero.jpg": (b"", "empty, 0 bytes"),
    "short.jpg": (encode_tiny(7)[:300], "cut short"),
    "short.png": (encode_tiny(7, ".png")[:300], "cut short"),
}


def test_bad_images_are_left_out_with_their_reason(
    tmp_path: Path, tiny_images: TinyImages, capsys: pytest.CaptureFixture[str]
) -> None:
    source = fill(tmp_path / "files", tiny_images(10))
    for name, (content, _) in BAD.items():
        (tmp_path / "files" / name).write_bytes(content)
    (tmp_path / "files" / "gone.jpg").symlink_to(tmp_path / "nowhere")
    result = pack(source, out=tmp_path / "b.h5", progress=QUIET, settings=PackSettings(max_bad=0.5))
    assert result.images == 10
    reasons = {entry["name"]: entry["reason"] for entry in result.quarantined}
    assert set(reasons) == set(BAD)
    for name, (_, reason) in BAD.items():
        assert reason in reasons[name]
    made = open_pack(result.path)
    assert made.record["source"]["left_out"] == ["gone.jpg"], "no image, and no file"
    assert made.record["quarantine"] == result.quarantined
    assert made.samples.name == [f"{row:04d}.jpg" for row in range(10)]
    assert "4 of 14 images cannot be read and are left out: short.jpg: " in capsys.readouterr().err


@pytest.mark.parametrize(("num_bad", "max_bad", "passes"), [(1, 0.05, True), (2, 0.05, False), (1, 0.0, False)])
def test_the_share_of_bad_images(
    tmp_path: Path, tiny_images: TinyImages, num_bad: int, max_bad: float, passes: bool
) -> None:
    source = fill(tmp_path / "files", [b"text"] * num_bad + tiny_images(20 - num_bad))
    if passes:
        assert (
            pack(source, out=tmp_path / "b.h5", progress=QUIET, settings=PackSettings(max_bad=max_bad)).images
            == 20 - num_bad
        )
        return
    with pytest.raises(DataError, match=rf"{num_bad} of the 20 images cannot be read, --max-bad {max_bad:g} allows"):
        pack(source, out=tmp_path / "b.h5", progress=QUIET, settings=PackSettings(max_bad=max_bad))
    assert [path.name for path in tmp_path.iterdir()] == ["files"], "no pack, and nothing beside it"


def test_far_too_many_bad_images_stop_early(tmp_path: Path) -> None:
    source = fill(tmp_path / "files", [b"text"] * 200)
    with pytest.raises(DataError, match="5 of the first 5 of 200 images cannot be read") as caught:
        pack(source, out=tmp_path / "b.h5", progress=QUIET)
    for row in range(5):
        assert f"{row:04d}.jpg: does not decode" in caught.value.message


def test_all_bad_is_an_error_even_when_all_may_be_bad(tmp_path: Path) -> None:
    source = fill(tmp_path / "files", [b"text"] * 3)
    with pytest.raises(DataError, match="there are no images to pack"):
        pack(source, out=tmp_path / "b.h5", progress=QUIET, settings=PackSettings(max_bad=1.0))


class OtherSource:
    """A source as somebody else may write one."""

    dataset = "other"

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.facts: dict[str, object] = {"layout": "other"}

    def list_images(self) -> Samples:
        count = len(self.names)
        return Samples(
            person=np.zeros(count, np.int64),
            camera=np.zeros(count, np.int16),
            role=np.ones(count, np.uint8),
            name=build_column(self.names),
        )

    def read(self, name: str) -> bytes:
        return encode_tiny(0)


def test_names_twice_and_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"other: 1 name given more than once: b\.jpg"):
        pack(OtherSource(["a.jpg", "b.jpg", "b.jpg"]), out=tmp_path / "o.h5", progress=QUIET)
    with pytest.raises(DataError, match="other: has no images"):
        pack(OtherSource([]), out=tmp_path / "o.h5", progress=QUIET)
    assert list(tmp_path.iterdir()) == []


def test_up_to_date_changed_absent(tmp_path: Path, tiny_images: TinyImages) -> None:
    out = tmp_path / "t.h5"

    def state(size: tuple[int, int] | None = None) -> tuple[str, str]:
        plan = plan_pack(ImagesSource(tmp_path / "files", dataset="tiny"), out=out, size=size)
        return plan.state, plan.reason

    source = fill(tmp_path / "files", tiny_images(8))
    assert state() == ("absent", "")
    pack(source, out=out, progress=QUIET, settings=PackSettings(shard_bytes=2000))
    assert (tmp_path / "t").is_dir()
    assert state() == ("current", ""), "a folder of shards counts as well"
    assert state((64, 32))[0] == "changed"
    assert read_packed_source(out)["layout"] == "images"
    with pytest.raises(UsageError, match="exists already"):
        pack(source, out=out, progress=QUIET)
    (tmp_path / "files" / "0003.jpg").write_bytes(encode_tiny(99))
    assert state() == ("changed", "it was made from other files or in another way")
    pack(ImagesSource(tmp_path / "files", dataset="tiny"), out=out, progress=QUIET, force=True)
    assert state() == ("current", "")
    assert open_pack(out).read(3) == encode_tiny(99)
    out.write_bytes(out.read_bytes()[:1000])
    assert state()[0] == "changed"
    assert "cannot be read" in state()[1]


class StoppedError(Exception):
    """Stands for Ctrl-C in the middle."""


def test_a_stopped_pack_goes_on(tmp_path: Path, tiny_images: TinyImages, monkeypatch: pytest.MonkeyPatch) -> None:
    source = fill(tmp_path / "files", tiny_images(40))
    whole = pack(source, out=tmp_path / "whole.h5", progress=QUIET, settings=PackSettings(shard_bytes=4000))
    real_add, calls = ShardWriter.add, 0

    def add(self: ShardWriter, image: object) -> None:
        nonlocal calls
        calls += 1
        if calls == 27:
            raise StoppedError
        real_add(self, image)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(ShardWriter, "add", add)
        with pytest.raises(StoppedError):
            pack(source, out=tmp_path / "t.h5", progress=QUIET, settings=PackSettings(shard_bytes=4000))
    assert not (tmp_path / "t.h5").exists()
    assert not (tmp_path / "t").exists()
    read_names: list[str] = []
    real_read = source.read
    monkeypatch.setattr(source, "read", lambda name: (read_names.append(name), real_read(name))[1])
    again = pack(source, out=tmp_path / "t.h5", progress=QUIET, settings=PackSettings(shard_bytes=4000))
    assert again.fingerprint == whole.fingerprint
    assert 13 <= len(read_names) < 40, "what is packed is not read again"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["files", "t", "whole"]


def test_a_full_disk(tmp_path: Path, tiny_images: TinyImages, monkeypatch: pytest.MonkeyPatch) -> None:
    class FullStream(io.BytesIO):
        def write(self, content: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    source = fill(tmp_path / "files", tiny_images(5))
    real_init = ShardWriter.__init__

    def init(self: ShardWriter, path: Path) -> None:
        real_init(self, path)
        self._stream.close()
        self._stream = FullStream()

    monkeypatch.setattr(ShardWriter, "__init__", init)
    with pytest.raises(DataError, match=r"t\.h5: the disk is full") as caught:
        pack(source, out=tmp_path / "t.h5", progress=QUIET)
    assert caught.value.exit_code == 3
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


def test_a_disk_that_is_too_small_is_noticed_first(
    tmp_path: Path, tiny_images: TinyImages, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = fill(tmp_path / "files", tiny_images(5))
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    with pytest.raises(DataError, match=r"needs about 0 MiB, the disk has 0 MiB free"):
        pack(source, out=tmp_path / "t.h5", progress=QUIET)
    assert [path.name for path in tmp_path.iterdir()] == ["files"]


def test_drawn_persons_are_packed(tmp_path: Path) -> None:
    from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource

    source = SyntheticSource(SyntheticPlan(unlabelled_persons=2, train_persons=2, test_persons=2, cameras=2))
    result = pack(source, out=tmp_path / "s.h5", progress=QUIET)
    samples = source.list_images()
    assert result.roles == {role: int((samples.role == code).sum()) for role, code in ROLE_CODES.items()}
    assert plan_pack(source, out=tmp_path / "s.h5").state == "current"
    other = SyntheticSource(SyntheticPlan(seed=1, unlabelled_persons=2, train_persons=2, test_persons=2, cameras=2))
    assert plan_pack(other, out=tmp_path / "s.h5").state == "changed"


def test_the_pixels_of_a_tiny_image_survive(tmp_path: Path) -> None:
    source = fill(tmp_path / "files", [encode_tiny(5, ".png")])
    made = open_pack(pack(source, out=tmp_path / "p.h5", progress=QUIET).path)
    assert (decode_rgb(made.read(0)) == draw_tiny(5)[:, :, ::-1]).all()


# threads


def test_results_come_in_order_however_long_they_take() -> None:
    def slow_first(item: int) -> int:
        time.sleep(0.002 if item % 32 < 16 else 0)
        return item * item

    assert list(map_in_order(slow_first, range(100), workers=4)) == [item * item for item in range(100)]
    assert list(map_in_order(slow_first, range(0), workers=4)) == []


def test_only_so_many_results_wait() -> None:
    """The consumer takes nothing after the first result; the threads must not run through all items."""
    begun, lock = 0, threading.Lock()

    def count(item: int) -> int:
        nonlocal begun
        with lock:
            begun += 1
        return item

    results = map_in_order(count, range(100_000), workers=2)
    assert next(results) == 0
    time.sleep(0.1)
    assert begun <= 32 * 2 + 48
    results.close()


def test_an_error_comes_at_its_place() -> None:
    def fail(item: int) -> int:
        if item == 20:
            raise ValueError("twenty")
        return item

    results = map_in_order(fail, range(50), workers=3)
    assert [next(results) for _ in range(16)] == list(range(16)), "whole chunks before it"
    with pytest.raises(ValueError, match="twenty"):
        next(results)


def test_workers() -> None:
    assert pick_workers(7) == 7
    assert pick_workers(0) == 1
    assert 1 <= pick_workers() <= 16
