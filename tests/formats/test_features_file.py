"""Features files: what is written comes back, and damage is named."""

import gc
import json
import random
import threading
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.features import checksums
from lupctl.core.formats.features.file import (
    Features,
    map_matrix,
    read_features,
    read_features_head,
    write_blocks,
    write_features,
)
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.record import build_record, write_record
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.neighbours import find_nearest
from lupctl.core.ranking.retrieval.inputs import read_joined
from lupctl.core.ranking.retrieval.score import score
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import build_column

CPU = torch.device("cpu")
QUIET = Progress(quiet=True)


def draw_features(kind: str = "float32", *, count: int = 7) -> Features:
    rng = np.random.default_rng(0)
    return Features(
        features=rng.standard_normal((count, 5)).astype(kind),
        samples=Samples(
            person=rng.integers(-1, 4, count).astype(np.int64),
            camera=rng.integers(-1, 3, count).astype(np.int16),
            role=rng.integers(0, 4, count).astype(np.uint8),
            name=build_column([f"kamera ü/{row}.jpg" for row in range(count)]),
        ),
        record=build_record("features", 1, command=["lupctl", "dump"], facts={"dataset": "toy"}),
    )


def test_every_flipped_bit_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In vectors, persons, cameras, roles, names and the record; and however they are written, it is one file."""
    monkeypatch.setattr(checksums, "BLOCK_BYTES", 64)  # three rows
    path, features = tmp_path / "a.features.h5", draw_features(count=11)
    write_features(path, features)
    whole = path.read_bytes()
    blocks = [features.features[row : row + 4] for row in range(0, 11, 4)]
    write_blocks(path, blocks, features.samples, features.record, dim=5, type_name="float32")
    assert path.read_bytes() == whole
    known = [features.features.tobytes(), features.samples.person.tobytes(), features.samples.camera.tobytes(),
             features.samples.role.tobytes(), "kamera ü/7.jpg".encode(), b'"command": ["lupctl", "dump"]']  # fmt: skip
    chance = random.Random(0)
    for part in known:
        begin = whole.index(part)
        for bit in chance.sample(range(8 * len(part)), 20):
            damaged = bytearray(whole)
            damaged[begin + bit // 8] ^= 1 << bit % 8
            path.write_bytes(bytes(damaged))
            with pytest.raises(FormatError):
                read_features(path)
    damaged = bytearray(whole)
    damaged[whole.index(known[0]) + 20 * 4] ^= 1
    path.write_bytes(bytes(damaged))
    with pytest.raises(FormatError, match=r"the features of images 4 to 6 are not those that were written") as caught:
        read_features(path)
    assert caught.value.hint == "make it again: lupctl dump --force"
    assert read_features_head(path).shape == (11, 5), "the head is read without the vectors"


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    path, features = tmp_path / "a.features.h5", draw_features()
    write_features(path, features)
    with h5py.File(path, "r+") as file:
        write_record(file, features.record)
    assert np.array_equal(read_features(path).features, features.features)


@pytest.mark.parametrize("count", [7, 0])
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_round_trip(tmp_path: Path, kind: str, count: int) -> None:
    features = draw_features(kind, count=count)
    path = tmp_path / "run" / "toy.features.h5"
    write_features(path, features)
    back = read_features(path)
    assert back.features.dtype == np.dtype(kind)
    np.testing.assert_array_equal(back.features, features.features)
    for column in ("person", "camera", "role"):
        np.testing.assert_array_equal(getattr(back.samples, column), getattr(features.samples, column))
    assert back.samples.name == features.samples.name
    assert back.record == features.record
    head = read_features_head(path)
    assert (head.shape, head.type_name, head.samples.name) == ((count, 5), kind, features.samples.name)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def test_vectors_are_mapped_where_they_lie_in_one_piece(tmp_path: Path) -> None:
    features = draw_features(count=90)
    path = tmp_path / "toy.features.h5"
    write_features(path, features)
    mapped = read_features(path).features
    assert isinstance(mapped, np.memmap)
    assert not mapped.flags.writeable
    # A file that takes its place changes nothing that is in use.
    write_features(path, draw_features(count=3))
    np.testing.assert_array_equal(mapped, features.features)
    for name, options in (("chunked", {"chunks": (8, 5), "compression": "gzip"}), ("swapped", {"dtype": ">f4"})):
        with h5py.File(tmp_path / "raw.h5", "w", userblock_size=512) as file:
            placed = file.create_dataset(name, data=features.features, **options)
            read = map_matrix(placed, tmp_path / "raw.h5")
        assert not isinstance(read, np.memmap)
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, features.features)
    with h5py.File(tmp_path / "raw.h5", "w", userblock_size=512) as file:
        file["after a user block"] = features.features
        file.flush()
        placed = map_matrix(file["after a user block"], tmp_path / "raw.h5")
    assert isinstance(placed, np.memmap)
    np.testing.assert_array_equal(placed, features.features)


def own_bytes() -> int:
    """Resident memory that no file stands behind."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory where Linux tells it")
def test_scoring_and_searching_stream_through_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """46 MiB of features in two files; what is taken beside them stays far below."""
    monkeypatch.setattr("lupctl.core.ranking.metrics.vectors.BLOCK_BYTES", 1 << 20)
    monkeypatch.setattr("lupctl.core.ranking.metrics.ranking.CHUNK_BYTES", 1 << 20)
    count, half = 24_000, 12_000
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, 500), dtype=np.float32)
    samples = Samples(
        person=np.arange(count) % 1000 + 1,
        camera=(np.arange(count) // 1000 % 3).astype(np.int16),
        role=np.where(np.arange(count) < 40, 2, 3).astype(np.uint8),
        name=build_column([str(row) for row in range(count)]),
    )
    paths = [tmp_path / "a.features.h5", tmp_path / "b.features.h5"]
    record = build_record("features", 1, command=[], facts={"dataset": "toy"}, parents={"checkpoint": "sha256:1"})
    for path, rows in zip(paths, (np.arange(half), np.arange(half, count)), strict=True):
        write_features(path, Features(vectors[rows], samples.select(rows), record))
    expected = score(vectors, samples, device=CPU).scores
    unit = vectors[:40] / np.linalg.norm(vectors[:40], axis=1, keepdims=True)
    del vectors
    gc.collect()
    before, peaks, is_done = own_bytes(), [0], threading.Event()

    def watch() -> None:
        while not is_done.wait(0.002):
            peaks.append(own_bytes() - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        joined = read_joined(paths, progress=QUIET)
        found = score(joined.vectors, joined.samples, device=CPU).scores
        gallery = UnitRows(joined.vectors, np.arange(count), device=CPU)
        _, row = find_nearest(gallery, torch.from_numpy(unit), 5)
    finally:
        is_done.set()
        watcher.join()
    assert found == expected
    assert row[:, 0].tolist() == list(range(40))
    assert len(peaks) > 10
    assert max(peaks) < 20 << 20, f"{max(peaks) / 2**20:.0f} MiB"


def test_the_same_features_give_the_same_bytes(tmp_path: Path) -> None:
    write_features(tmp_path / "a.features.h5", draw_features())
    write_features(tmp_path / "b.features.h5", draw_features())
    assert (tmp_path / "a.features.h5").read_bytes() == (tmp_path / "b.features.h5").read_bytes()


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toy.features.h5"
    write_features(path, draw_features())
    before = path.read_bytes()

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lupctl.core.formats.features.file.write_samples", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_features(path, draw_features("float16"))
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("shape", [(6, 5), (7,)])
def test_a_matrix_that_does_not_fit_the_images_is_not_written(tmp_path: Path, shape: tuple[int, ...]) -> None:
    features = draw_features()
    wrong = Features(features=np.zeros(shape, np.float32), samples=features.samples, record=features.record)
    with pytest.raises(ValueError, match="for 7 images"):
        write_features(tmp_path / "toy.features.h5", wrong)
    assert not list(tmp_path.iterdir())


def test_missing_text_and_cut_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "toy.features.h5"
    with pytest.raises(DataError, match=r"toy\.features\.h5: there is no such file"):
        read_features(path)
    path.write_text("not a features file")
    with pytest.raises(FormatError, match="not an HDF5 file; a features file was expected"):
        read_features(path)
    write_features(path, draw_features())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(FormatError, match="cut short") as caught:
        read_features(path)
    assert "lupctl dump" in caught.value.hint


def rewrite(path: Path, **entries: object) -> None:
    with h5py.File(path, "r+") as file:
        file.attrs["lupctl"] = json.dumps({**json.loads(file.attrs["lupctl"]), **entries})


def test_other_formats_and_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "toy.features.h5"
    write_features(path, draw_features())
    rewrite(path, format=2)
    with pytest.raises(FormatError, match="features format 2; this lupctl reads format 1"):
        read_features(path)
    rewrite(path, format=1, kind="pack")
    with pytest.raises(FormatError, match="contains pack; a features file was expected"):
        read_features_head(path)


def test_a_null_in_a_record_is_nothing_and_a_missing_parent_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "toy.features.h5"
    write_features(path, draw_features())
    rewrite(path, quarantine=None, shard=None, source=None, recipe=None)
    record = read_features_head(path).record
    assert {"quarantine", "shard", "source"}.isdisjoint(record)
    assert record["recipe"] is None
    rewrite(path, parents=None)
    with pytest.raises(FormatError, match=r"lupctl's record is damaged \(parents is missing\)"):
        read_features_head(path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((6, 5), np.float32), r"features of shape \(6, 5\) for 7 images"),
        (np.zeros((7, 5), np.float64), "features of type float64"),
        (None, "has no features"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, values: Any, message: str) -> None:
    path = tmp_path / "toy.features.h5"
    write_features(path, draw_features())
    with h5py.File(path, "r+") as file:
        del file["features"]
        if values is not None:
            file["features"] = values
    with pytest.raises(FormatError, match=message):
        read_features(path)
