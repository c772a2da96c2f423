"""Verdicts on packs and raw data, and the contact sheet."""

import os
import shutil
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.choices import Dataset
from lupctl.core.data.catalog.datasets import catalog_entry
from lupctl.core.data.checking.copies import check_copies
from lupctl.core.data.checking.labels import Count, check_labels, check_published, count_images
from lupctl.core.data.packing.filling import PackSettings
from lupctl.core.data.sources.layouts.market1501 import Market1501Source
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.images.sizes import Sizes
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.runs import Damage, find_damage, plan_runs
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.stages.info import draw_persons, pick_cells, summarize_pack, write_sheet
from lupctl.core.stages.pack import pack
from lupctl.core.stages.verify import Verdict, verify_pack, verify_raw
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import build_column
from tests.tools.tiny.images import TinyImages, encode_tiny

QUIET = Progress(quiet=True)


def found(verdict: Verdict) -> dict[str, tuple[str, int]]:
    return {finding.what: (finding.severity, finding.count) for finding in verdict.findings}


@pytest.fixture
def market_pack(market_folder: Path, tmp_path: Path) -> Path:
    return pack(Market1501Source(market_folder, dataset="tiny"), out=tmp_path / "m.h5", progress=QUIET).path


def verify_folder(root: Path, *, dataset: str = "tiny") -> Verdict:
    return verify_raw(Market1501Source(root, dataset=dataset), path=root, progress=QUIET)


# packs


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_pack(market_pack: Path, deep: bool) -> None:
    verdict = verify_pack(market_pack, progress=QUIET, deep=deep)
    assert (verdict.kind, verdict.images, verdict.persons, verdict.cameras) == ("pack", 16, 4, {1: 9, 2: 7})
    assert verdict.roles == {"unlabelled": 0, "train": 8, "query": 2, "gallery": 6}
    assert verdict.findings == []
    assert (verdict.num_errors, verdict.depth) == (0, "decoded" if deep else "checksums")
    assert verdict.sizes == Sizes((32, 16), (32, 16), (32, 16))
    assert verdict.counts["train"] == {"images": Count(None, 8), "persons": Count(None, 2), "cameras": Count(None, 2)}
    assert verdict.counts["all"]["distractors"] == verdict.counts["all"]["junk"] == Count(None, 1)
    assert "unlabelled" not in verdict.counts


def test_a_fast_look_reads_no_image(market_pack: Path, market_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = bytearray(market_pack.read_bytes())
    content[open_pack(market_pack).shards[0].base + 99] ^= 1
    market_pack.write_bytes(content)
    verdict = verify_pack(market_pack, progress=QUIET, fast=True)
    assert (verdict.depth, verdict.findings, verdict.sizes) == ("counts", [], Sizes((32, 16), (32, 16), (32, 16)))
    source = Market1501Source(market_folder, dataset="market1501")
    monkeypatch.setattr(source, "read", None)
    verdict = verify_raw(source, path=market_folder, progress=QUIET, fast=True)
    assert (verdict.depth, verdict.sizes, found(verdict)) == ("counts", None, {"published": ("error", 9)})
    assert verdict.counts["query"]["images"] == Count(3_368, 2)


def test_checksums_over_many_runs_and_shards(tmp_path: Path, tiny_images: TinyImages) -> None:
    """Runs of a few images, damage at their edges, a shard that is gone and one that lost its end while looked at."""
    images = tiny_images(60)
    rows = [PackedImage(image, 32, 16, f"{row:02d}.jpg") for row, image in enumerate(images)]
    path = write_pack(tmp_path / "r.h5", rows, dataset="r", shard_bytes=12_000)
    made = open_pack(path)
    assert len(made.shards) >= 3
    for num_bytes in (1, 3500, 10**9):
        runs = plan_runs(made, num_bytes=num_bytes)
        assert [row for run in runs for row in range(run.first, run.first + run.end - run.begin)] == list(range(60))
        assert all(run.end - run.begin == 1 for run in runs) == (num_bytes == 1)
        assert [damage for run in runs for damage in find_damage(run)] == []
    first, second, last = made.shards[0], made.shards[1], made.shards[-1]
    content = bytearray(first.path.read_bytes())
    for row in (0, 3, len(first) - 1):
        content[first.base + int(first.offsets[row + 1]) - 1] ^= 1
    first.path.write_bytes(content)
    bad = [0, 3, len(first) - 1]
    gone = range(len(first), len(first) + len(second))
    second.path.unlink()
    assert [damage.row for run in plan_runs(made, num_bytes=3500) for damage in find_damage(run)] == [*bad, *gone]
    os.truncate(last.path, last.base + int(last.offsets[-2]))
    assert find_damage(plan_runs(made, num_bytes=1)[-1]) == [Damage(59, "cut short")]


def test_every_flipped_image_is_found(market_pack: Path) -> None:
    made = open_pack(market_pack)
    content = bytearray(market_pack.read_bytes())
    for row in (2, 11):
        content[made.shards[0].base + int(made.shards[0].offsets[row]) + 99] ^= 1
    market_pack.write_bytes(content)
    verdict = verify_pack(market_pack, progress=QUIET)
    assert found(verdict) == {"unreadable": ("error", 2)}
    for row, example in zip((2, 11), verdict.findings[0].examples, strict=True):
        assert example.startswith(made.samples.name[row])
        assert "wrong checksum" in example


@pytest.mark.parametrize(("column", "row", "value"), [("person", 1, 77), ("camera", 0, 5), ("name", 1, "n3")])
def test_a_changed_label_is_found(
    tmp_path: Path, tiny_images: TinyImages, column: str, row: int, value: object
) -> None:
    """The images are whole, and labels and names could be any: only their own checksum tells."""
    rows = [
        PackedImage(image, 32, 16, f"n{row}", person=row, camera=1, role="train")
        for row, image in enumerate(tiny_images(6))
    ]
    path = write_pack(tmp_path / "c.h5", rows, dataset="c", shard_bytes=4000)
    assert verify_pack(path, progress=QUIET).findings == []
    with h5py.File(path / "00000.h5", "r+") as file:
        file[f"samples/{column}"][row] = value
    verdict = verify_pack(path, progress=QUIET, fast=True)
    assert "columns" in found(verdict)
    assert verdict.findings[0].examples[0].endswith("c/00000.h5")


def test_every_flipped_bit_of_a_pack_is_found_or_harmless(market_pack: Path) -> None:
    """Exit 3 whatever byte of a pack changes, save for the filling between HDF5's own parts."""
    content, made = market_pack.read_bytes(), open_pack(market_pack)
    told = {key: value for key, value in made.record.items() if key != "columns"}
    end = made.shards[0].base + made.num_bytes
    rng = np.random.default_rng(1)
    places = [*rng.integers(0, len(content), 20).tolist(), *rng.integers(end, len(content), 50).tolist()]
    num_found = 0
    for at in places:
        market_pack.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        try:
            verdict = verify_pack(market_pack, progress=QUIET)
        except DataError:
            num_found += 1
            continue
        if verdict.num_errors:
            num_found += 1
            continue
        again = open_pack(market_pack)
        assert again.fingerprint == made.fingerprint
        assert {key: value for key, value in again.record.items() if key != "columns"} == told
        assert (again.size == made.size).all()
    assert num_found > 20, "a small file is mostly filling"


def test_a_truncated_pack_cannot_be_judged(market_pack: Path) -> None:
    market_pack.write_bytes(market_pack.read_bytes()[:-100])
    with pytest.raises(FormatError, match="cut short"):
        verify_pack(market_pack, progress=QUIET)


def test_deep_sees_what_checksums_do_not(tmp_path: Path, tiny_images: TinyImages) -> None:
    """A writer that stored text and a wrong size: the checksums are right, the images are not."""
    first, second = tiny_images(2)
    rows = [
        PackedImage(first, 32, 16, "a.jpg"),
        PackedImage(b"no image at all", 32, 16, "b.jpg"),
        PackedImage(second, 30, 16, "c.jpg"),
    ]
    path = write_pack(tmp_path / "d.h5", rows, dataset="d")
    assert found(verify_pack(path, progress=QUIET)) == {}
    assert found(verify_pack(path, progress=QUIET, deep=True)) == {"unreadable": ("error", 1), "sizes": ("error", 1)}


def test_what_was_left_out_is_said(market_folder: Path, tmp_path: Path) -> None:
    (market_folder / "query" / "0005_c1s1_000101_00.jpg").write_bytes(b"")
    path = pack(
        Market1501Source(market_folder, dataset="tiny"),
        out=tmp_path / "q.h5",
        progress=QUIET,
        settings=PackSettings(max_bad=0.1),
    ).path
    verdict = verify_pack(path, progress=QUIET)
    assert found(verdict) == {"quarantine": ("note", 1)}
    assert verdict.findings[0].examples == ["query/0005_c1s1_000101_00.jpg: empty, 0 bytes"]


def test_copies_and_leaks_in_a_pack(tmp_path: Path, tiny_images: TinyImages) -> None:
    a, b, c, d = tiny_images(4)
    rows = [
        PackedImage(a, 32, 16, "t1.jpg", person=1, camera=1, role="train"),
        PackedImage(b, 32, 16, "t2.jpg", person=2, camera=1, role="train"),
        PackedImage(b, 32, 16, "t3.jpg", person=2, camera=1, role="train"),
        PackedImage(c, 32, 16, "q1.jpg", person=2, camera=1, role="query"),
        PackedImage(d, 32, 16, "g1.jpg", person=2, camera=2, role="gallery"),
        PackedImage(a, 32, 16, "g2.jpg", person=3, camera=2, role="gallery"),
    ]
    verdict = verify_pack(write_pack(tmp_path / "l.h5", rows, dataset="l"), progress=QUIET)
    assert found(verdict) == {"leaked-persons": ("error", 1), "copies-across": ("error", 1), "copies": ("warning", 1)}
    examples = {finding.what: finding.examples for finding in verdict.findings}
    assert examples == {"leaked-persons": ["2"], "copies-across": ["t1.jpg = g2.jpg"], "copies": ["t2.jpg = t3.jpg"]}
    assert [finding.severity for finding in verdict.findings] == ["error", "error", "warning"]


# raw data


def test_a_sound_folder(market_folder: Path) -> None:
    verdict = verify_folder(market_folder)
    assert (verdict.kind, verdict.findings, verdict.depth) == ("raw", [], "decoded")


def test_bad_files_of_a_folder(market_folder: Path) -> None:
    files = sorted(market_folder.rglob("*.jpg"))
    files[0].write_bytes(b"text file")
    files[1].write_bytes(b"")
    files[2].write_bytes(files[2].read_bytes()[:-30])
    verdict = verify_folder(market_folder)
    assert found(verdict)["unreadable"] == ("error", 3)
    assert verdict.num_errors == 1
    reasons = " ".join(verdict.findings[0].examples)
    assert all(part in reasons for part in ("begins with the text", "empty, 0 bytes", "cut short"))


def test_a_copied_image_across_train_and_test(market_folder: Path) -> None:
    shutil.copy(
        market_folder / "bounding_box_train" / "0002_c1s1_000051_01.jpg",
        market_folder / "bounding_box_test" / "0003_c2s1_000777_01.jpg",
    )
    assert found(verify_folder(market_folder)) == {"copies-across": ("error", 1)}


def test_counts_that_are_not_the_published_ones(market_folder: Path) -> None:
    verdict = verify_folder(market_folder, dataset="market1501")
    assert found(verdict) == {"published": ("error", 9)}
    assert "counts differ from the published ones of Market-1501" in verdict.findings[0].message
    assert verdict.findings[0].examples[0] == "train images: 8 instead of 12,936"
    assert "junk: 1 instead of 3,819" in verdict.findings[0].examples
    assert "cameras: 2 instead of 6" in verdict.findings[0].examples


def full_market() -> Samples:
    """Labels with exactly the published counts, and no more truth than that."""
    parts = [
        (1, np.arange(12_936) % 751 + 1),
        (2, np.arange(3_368) % 750 + 752),
        (3, np.concatenate([np.arange(13_115) % 750 + 752, np.zeros(2_798), np.full(3_819, -1)])),
    ]
    person = np.concatenate([persons for _, persons in parts]).astype(np.int64)
    role = np.concatenate([np.full(len(persons), code) for code, persons in parts]).astype(np.uint8)
    camera = (np.arange(len(person)) % 6 + 1).astype(np.int16)
    return Samples(person=person, camera=camera, role=role, name=build_column(str(row) for row in range(len(person))))


def test_counts_that_are_the_published_ones() -> None:
    entry = catalog_entry("market1501")
    findings = check_published(count_images(full_market(), entry), entry)
    assert [(finding.severity, finding.what) for finding in findings] == [("note", "published")]
    one_less = full_market().select(np.arange(1, 36_036))
    findings = check_published(count_images(one_less, entry), entry)
    assert findings[0].examples == ["train images: 12,935 instead of 12,936"]
    assert check_published(count_images(full_market(), catalog_entry("synthetic")), catalog_entry("synthetic")) == []


@pytest.mark.parametrize("name", ["luperson", "luperson-nl"])
def test_data_to_pre_train_on_may_have_other_counts(name: Dataset) -> None:
    """Videos vanish, so a copy that is built today has fewer images; nobody's score depends on it."""
    entry = catalog_entry(name)
    samples = labels((-1, -1, 0), (-1, -1, 0)) if name == "luperson" else labels((1, -1, 1), (2, -1, 1))
    counts = count_images(samples, entry)
    assert counts["all"]["junk"] == Count(None, 0), "an unlabelled image is no junk"
    findings = check_published(counts, entry)
    assert [(finding.severity, finding.what) for finding in findings] == [("warning", "published")]
    assert findings[0].examples[0].endswith(f"2 instead of {next(iter(entry.images.values())):,}")


@pytest.mark.real
def test_the_real_cut_is_not_the_published_set(real_data: Path) -> None:
    verdict = verify_folder(real_data / "market1501-mini", dataset="market1501")
    assert found(verdict) == {"published": ("error", 8)}
    assert "gallery persons: 40 instead of 750" in verdict.findings[0].examples


# labels


def labels(*rows: tuple[int, int, int]) -> Samples:
    person, camera, role = (np.array(column) for column in zip(*rows, strict=True))
    return Samples(
        person=person.astype(np.int64),
        camera=camera.astype(np.int16),
        role=role.astype(np.uint8),
        name=build_column(str(row) for row in range(len(rows))),
    )


@pytest.mark.parametrize(
    ("rows", "what", "severity", "count"),
    [
        ([(1, 1, 2)], "no-gallery", "error", 1),
        ([(1, 1, 3)], "no-query", "warning", 1),
        ([(1, 1, 2), (1, 1, 3)], "unanswered", "error", 1),
        ([(1, 1, 2), (2, 1, 2), (1, 2, 3)], "unanswered", "warning", 1),
        ([(-1, 1, 1), (5, 1, 1)], "unlabelled", "error", 1),
        ([(0, 1, 2), (0, 2, 3)], "unlabelled", "error", 1),
        ([(4, 1, 1), (4, 1, 3), (4, 2, 2)], "leaked-persons", "error", 1),
    ],
)
def test_labels_that_are_wrong(rows: list[tuple[int, int, int]], what: str, severity: str, count: int) -> None:
    assert {finding.what: (finding.severity, finding.count) for finding in check_labels(labels(*rows))} == {
        what: (severity, count)
    }


def test_labels_that_are_right() -> None:
    assert check_labels(labels((1, 1, 1), (2, 1, 2), (2, 2, 3), (0, 1, 3), (-1, 1, 3), (0, 1, 1))) == []
    assert check_labels(labels((-1, -1, 0), (-1, -1, 0))) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=25))
def test_copies_against_a_slow_search(images: list[tuple[int, int]]) -> None:
    """Contents 4 and 5 have the key of content 3, as two images may by chance; they are no copies of it."""
    content, role = (np.array(column) for column in zip(*images, strict=True))
    samples = labels(*((1, 1, code) for code in role.tolist()))
    keys = np.minimum(content, 3).astype(np.uint64) + np.uint64(7)
    groups = [[row for row in range(len(images)) if content[row] == value] for value in range(6)]
    groups = [group for group in groups if len(group) > 1]
    across = [group for group in groups if 1 in role[group] and (2 in role[group] or 3 in role[group])]
    findings = {
        finding.what: finding.count for finding in check_copies(samples, keys, lambda row: bytes([content[row]]))
    }
    assert findings.get("copies-across", 0) == len(across)
    assert findings.get("copies", 0) == len(groups) - len(across)


# info


def test_a_summary(market_pack: Path) -> None:
    summary = summarize_pack(market_pack)
    assert (summary.images, summary.persons, summary.cameras) == (16, 4, 2)
    assert summary.persons_by_role == {"unlabelled": 0, "train": 2, "query": 2, "gallery": 2}
    assert (summary.distractors, summary.junk, summary.shards, summary.quarantined) == (1, 1, 1, 0)
    assert (summary.smallest, summary.median, summary.largest) == ((32, 16), (32, 16), (32, 16))
    assert summary.fingerprint == open_pack(market_pack).fingerprint


def test_sizes_of_a_summary(tmp_path: Path) -> None:
    sides = [(32, 16), (64, 32), (128, 64)]
    rows = [
        PackedImage(encode_tiny(0, height=height, width=width), height, width, f"{height:03d}.jpg")
        for height, width in sides
    ]
    summary = summarize_pack(write_pack(tmp_path / "s.h5", rows, dataset="s"))
    assert (summary.smallest, summary.median, summary.largest) == tuple(sides)


def test_the_sheet_has_a_row_per_person_and_a_column_per_camera(tmp_path: Path) -> None:
    """One colour per person and camera, and one cell left empty; the picture is looked at where the cells lie."""
    colours = {(1, 1): (250, 10, 10), (1, 3): (10, 250, 10), (2, 3): (10, 10, 250)}
    rows = []
    for (person, camera), colour in colours.items():
        pixels = np.full((32, 16, 3), colour[::-1], np.uint8)
        rows.append(
            PackedImage(
                cv2.imencode(".png", pixels)[1].tobytes(),
                32,
                16,
                f"{person}_{camera}",
                person=person,
                camera=camera,
                role="train",
            )
        )
    path = write_pack(tmp_path / "c.h5", rows, dataset="c")
    pack = open_pack(path)
    sheet = draw_persons(pack, pick_cells(pack))
    centres = {(row, column): (44 + 132 * row + 64, 132 + 68 * column + 32) for row in (0, 1) for column in (0, 1)}
    seen = {place: tuple(sheet[centre].tolist()) for place, centre in centres.items()}
    assert seen == {
        (0, 0): colours[1, 1],
        (0, 1): colours[1, 3],
        (1, 0): (232, 232, 232),
        (1, 1): colours[2, 3],
    }
    dark = np.asarray((sheet[:, :130] < 128).any(axis=(1, 2)))
    assert dark[44:].reshape(2, -1).any(axis=1).all(), "each row has its label"


def test_one_camera_fills_its_row_and_persons_left_out_are_counted(tmp_path: Path) -> None:
    """Person p has p images from camera 1, the n-th of grey 10 n, and one more from camera 4 if p is 19."""
    rows = []
    for person in range(1, 20):
        for number in range(1, person + 1):
            grey = cv2.imencode(".png", np.full((32, 16, 3), 10 * number, np.uint8))[1].tobytes()
            rows.append(PackedImage(grey, 32, 16, f"{person:02d}_{number:02d}", person=person, camera=1, role="train"))
    path = write_pack(tmp_path / "many.h5", rows, dataset="many")
    drawn = write_sheet(path, tmp_path / "many.png")
    assert (drawn.persons_shown, drawn.persons) == (16, 19)
    shown = pick_cells(open_pack(path))
    assert [row.person for row in shown][:2] == [1, 2]
    assert shown[-1].person == 19
    assert drawn.images_shown == sum(min(row.person, 12) for row in shown)
    picture = cv2.imread(str(drawn.path))
    assert picture is not None
    assert picture.shape[:2] == (44 + 16 * 132, 132 + 12 * 68)

    def greys(row: int) -> list[int]:
        return [int(picture[44 + 132 * row + 64, 132 + 68 * column + 32, 0]) for column in range(12)]

    assert greys(0) == [10] + 11 * [232]
    last = greys(15)
    assert (last[0], last[-1], last) == (10, 190, sorted(set(last))), "evenly spaced from the first to the last"


def test_two_cameras_share_the_columns(tmp_path: Path) -> None:
    image = encode_tiny(1)
    rows = [
        PackedImage(image, 32, 16, f"{camera}_{number:02d}", person=1, camera=camera, role="train")
        for camera, count in ((1, 20), (2, 3))
        for number in range(count)
    ]
    (row,) = pick_cells(open_pack(write_pack(tmp_path / "two.h5", rows, dataset="two")))
    assert {camera: len(images) for camera, images in row.cells.items()} == {1: 6, 2: 3}


def test_sheets_are_written_once(tmp_path: Path, market_pack: Path) -> None:
    out = write_sheet(market_pack, tmp_path / "sheet.png").path
    picture = cv2.imread(str(out))
    assert picture is not None
    assert picture.shape[0] == 44 + 4 * 132
    with pytest.raises(UsageError, match="exists already"):
        write_sheet(market_pack, out)
    write_sheet(market_pack, out, force=True)
    with pytest.raises(UsageError, match=r"must end in one of \.png"):
        write_sheet(market_pack, tmp_path / "sheet.txt")
    with pytest.raises(DataError, match="no such pack"):
        write_sheet(tmp_path / "no.h5", tmp_path / "other.png")


def test_a_sheet_without_labels_and_with_a_corrupt_image(tmp_path: Path, tiny_images: TinyImages) -> None:
    rows = [PackedImage(image, 32, 16, f"{row:02d}.jpg") for row, image in enumerate([*tiny_images(13), b"text"])]
    drawn = write_sheet(write_pack(tmp_path / "u.h5", rows, dataset="u"), tmp_path / "u.png")
    assert (drawn.images_shown, drawn.persons_shown, drawn.persons) == (14, 0, 0)
    picture = cv2.imread(str(drawn.path))
    assert picture is not None
    assert picture.shape[:2] == (44 + 2 * 132, 132 + 12 * 68), "14 images in rows of 12"
