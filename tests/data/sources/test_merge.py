"""Sources put together, packs as sources, and the memory that packing takes."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.choices import Role
from lupctl.core.data.packing import stored
from lupctl.core.data.packing.filling import PackSettings
from lupctl.core.data.packing.pack_source import PackedSource
from lupctl.core.data.packing.stored import build_reader
from lupctl.core.data.sources.layouts.images import ImagesSource
from lupctl.core.data.sources.merged import MergedSource
from lupctl.core.errors import CorruptImageError, DataError, UsageError
from lupctl.core.formats.pack.facts import read_pack_facts
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.stages.pack import pack, plan_pack
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import build_column
from tests.tools.tiny.images import TinyImages, encode_tiny

QUIET = Progress(quiet=True)


class Named:
    """A source of given rows (role, name), sorted as a source's list is."""

    def __init__(self, dataset: str, rows: list[tuple[int, str]]) -> None:
        self.dataset = dataset
        self.rows = sorted(rows)
        self.facts: dict[str, object] = {"layout": "made", "terms": f"terms of {dataset}"}

    def list_images(self) -> Samples:
        roles = np.array([role for role, _ in self.rows], np.uint8)
        count = len(roles)
        return Samples(
            person=np.arange(count),
            camera=np.ones(count, np.int16),
            role=roles,
            name=build_column(name for _, name in self.rows),
        )

    def read(self, name: str) -> bytes:
        return f"{self.dataset}:{name}".encode()


DATASETS = st.lists(st.sampled_from(["a", "a-b", "a.b", "a0", "B", "b"]), min_size=1, max_size=4, unique=True)
ROWS = st.dictionaries(st.sampled_from(["x", "x/y", "x.y", "x-", "ü", "z/1", "z/10", "z/2"]), st.integers(0, 3))


@settings(max_examples=120, deadline=None)
@given(DATASETS, st.lists(ROWS, min_size=4, max_size=4))
def test_merged_names_are_sorted_and_lead_back(datasets: list[str], rows: list[dict[str, int]]) -> None:
    parts = [
        Named(dataset, [(role, name) for name, role in part.items()])
        for dataset, part in zip(datasets, rows, strict=False)
    ]
    merged = MergedSource(parts, dataset="all")
    samples = merged.list_images()
    wanted = [f"{part.dataset}/{name}" for part in parts for role, name in part.rows if role < 2]
    assert samples.name == sorted(wanted)
    assert set(samples.role.tolist()) <= {0}
    assert set(samples.person.tolist()) <= {-1}
    assert set(samples.camera.tolist()) <= {-1}
    for name in wanted:
        assert merged.read(name).decode() == name.replace("/", ":", 1)
        assert merged.read_checked(name) is None
    left_out = {part.dataset: sum(role > 1 for role, _ in part.rows) for part in parts}
    assert merged.left_out == {dataset: count for dataset, count in left_out.items() if count}


def test_what_a_merged_source_says_of_its_parts() -> None:
    parts = [Named("b", [(0, "1")]), Named("a", [(1, "1"), (2, "2")])]
    merged = MergedSource(parts, dataset="all")
    assert merged.facts["terms"] == "a: terms of a; b: terms of b"
    digest, num_bytes = merged.digest(merged.list_images())
    assert num_bytes is None, "made images have no files"
    assert MergedSource(parts[::-1], dataset="other").digest(merged.list_images())[0] == digest
    parts[0].rows = [(0, "2")]
    assert MergedSource(parts, dataset="all").digest(merged.list_images())[0] != digest
    with pytest.raises(UsageError, match="two of the merged datasets are named a"):
        MergedSource([parts[1], parts[1]], dataset="all")


@pytest.fixture
def packed(tmp_path: Path, tiny_images: TinyImages) -> Path:
    """Eight images of every role but gallery in several shards, named alike in each role."""
    roles: list[Role] = ["unlabelled", "train", "query"]
    rows = [
        PackedImage(image, 32, 16, f"{role}/{row}.jpg", person=row, camera=1, role=role)
        for place, role in enumerate(roles)
        for row, image in enumerate(tiny_images(8, seed=8 * place))
    ]
    return write_pack(tmp_path / "old.h5", rows, dataset="old", facts={"terms": "as agreed"}, shard_bytes=7000)


def test_a_pack_is_a_source(packed: Path) -> None:
    made, source = open_pack(packed), PackedSource(packed)
    assert len(made.shards) > 1
    samples = source.list_images()
    assert samples.name == made.samples.name
    for row, name in enumerate(samples.name):
        assert source.read(name) == made.read(row)
        assert source.read_checked(name) == (made.read(row), 32, 16)
    for name in ("train/9.jpg", "", "zzz"):
        with pytest.raises(DataError, match="contains no image"):
            source.read(name)
    assert source.facts["terms"] == "as agreed"
    assert source.facts["fingerprint"] == made.fingerprint
    assert source.digest(samples)[1] == made.num_bytes
    facts = read_pack_facts(packed)
    assert (facts.images, facts.persons, facts.cameras, facts.files) == (24, 7, 1, len(made.shards))
    assert (facts.num_bytes, facts.fingerprint) == (made.num_bytes, made.fingerprint)


def test_images_of_a_pack_are_copied_and_not_decoded(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(encoded: bytes) -> None:
        raise AssertionError("decoded once more")

    merged = MergedSource([PackedSource(packed)], dataset="new")
    with monkeypatch.context() as patch:
        patch.setattr(stored, "decode_rgb", refuse)
        made = open_pack(pack(merged, out=tmp_path / "new.h5", progress=QUIET).path)
    old = open_pack(packed)
    assert [made.read(row) for row in range(8)] == [old.read(row + 8) for row in range(8)], "train comes before unlab."
    assert [made.read(row) for row in range(8, 16)] == [old.read(row) for row in range(8)]
    assert (made.size == [32, 16]).all()
    small = build_reader(merged, size=(16, 8))("old/train/1.jpg")
    assert (small.height, small.width) == (16, 8), "another size is encoded again"
    assert plan_pack(MergedSource([PackedSource(packed)], dataset="new"), out=tmp_path / "new.h5").state == "current"


def test_a_damaged_image_of_a_pack_is_left_out(packed: Path, tmp_path: Path) -> None:
    shard = open_pack(packed).shards[0]
    content = bytearray(shard.path.read_bytes())
    content[shard.base + 50] ^= 1
    shard.path.write_bytes(content)
    with pytest.raises(CorruptImageError):
        PackedSource(packed).read("unlabelled/0.jpg")
    merged = MergedSource([PackedSource(packed)], dataset="new")
    result = pack(merged, out=tmp_path / "new.h5", progress=QUIET, settings=PackSettings(max_bad=0.1))
    assert result.images == 15
    assert [entry["name"] for entry in result.quarantined] == ["old/unlabelled/0.jpg"]
    assert "wrong checksum" in result.quarantined[0]["reason"]


def test_raw_images_of_a_merge_are_decoded(tmp_path: Path, packed: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.bmp").write_bytes(encode_tiny(5, ".bmp"))
    (tmp_path / "raw" / "b.jpg").write_bytes(b"text")
    merged = MergedSource([ImagesSource(tmp_path / "raw", dataset="raw"), PackedSource(packed)], dataset="new")
    result = pack(merged, out=tmp_path / "new.h5", progress=QUIET, settings=PackSettings(max_bad=0.1))
    assert (result.images, [entry["name"] for entry in result.quarantined]) == (17, ["raw/b.jpg"])
    assert open_pack(result.path).read(16).startswith(b"\x89PNG")


def test_packing_keeps_no_object_per_image(tmp_path: Path) -> None:
    """The slope of peak memory between two numbers of images, in what Python and NumPy allocate.

    A name of 22 letters takes 22 + 8 bytes in the list and again in the shard, labels 11 and again 11, offsets,
    checksums and sizes 16; growing arrays are there twice for a moment. With lists of Python objects it was 320.
    """

    class Many(Named):
        count = 0

        def read(self, name: str) -> bytes:
            return image

        def list_images(self) -> Samples:
            count = self.count
            names = (f"folder/{row:011d}.jpg" for row in range(count))
            return Samples(
                person=np.zeros(count, np.int64),
                camera=np.zeros(count, np.int16),
                role=np.zeros(count, np.uint8),
                name=build_column(names),
            )

    image, peaks = encode_tiny(0), []
    for count in (10_000, 20_000):  # beyond the blocks in which names are strings
        source = Many("many", [])
        source.count = count
        tracemalloc.start()
        pack(source, out=tmp_path / f"{count}.h5", progress=QUIET, workers=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 10_000 < 200
