"""Features that other programs made, several files in one evaluation, and files that do not belong together."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lupctl.core.errors import FormatError
from lupctl.core.formats.features.file import Features, read_features, write_features
from lupctl.core.formats.features.foreign import ARRAYS, read_any_features, read_any_head, read_any_record
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.record import build_record
from lupctl.core.system.strings import build_column
from tests.tools.shell import Shell

QUERY, GALLERY = 2, 3


@pytest.mark.parametrize(("damaged", "at"), [("features", 0), ("samples", 0), ("/", 0), ("/", 16)])
def test_a_damaged_object_of_a_bare_file_is_no_mistake_of_ours(tmp_path: Path, damaged: str, at: int) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        file["features"] = np.zeros((2, 3), np.float32)
        for name in ("person", "camera", "role"):
            file[f"samples/{name}"] = np.zeros(2, np.int64)
        begin = h5py.h5o.get_info(file[damaged].id).addr + at
    content = bytearray(path.read_bytes())
    content[begin : begin + 2] = b"\0\0"  # its version, or what its first message is
    path.write_bytes(content)
    for read in (read_any_features, read_any_head):
        with pytest.raises(FormatError):
            read(path)
    with suppress(FormatError):  # which looks at the names of objects alone
        assert read_any_record(path)["made_elsewhere"]


def draw(checkpoint: str = "a", *, seed: int = 0, dimension: int = 8) -> Features:
    """60 features of 6 persons from 3 cameras, every fifth a query."""
    rng = np.random.default_rng(seed)
    person = np.tile(np.arange(1, 7), 10)
    vectors = rng.standard_normal((7, dimension))[person] + 0.8 * rng.standard_normal((60, dimension))
    samples = Samples(
        person=person.astype(np.int64),
        camera=np.repeat(np.arange(3), 20).astype(np.int16),
        role=np.where(np.arange(60) % 5 == 0, QUERY, GALLERY).astype(np.uint8),
        name=build_column([f"{seed}/{row:02d}.jpg" for row in range(60)]),
    )
    parents = {"checkpoint": f"sha256:{checkpoint * 64}", "pack:toy": "sha256:" + "b" * 64}
    record = build_record("features", 1, command=["lupctl", "dump"], parents=parents, facts={"dataset": "toy"})
    return Features(vectors.astype(np.float32), samples, record)


def write_bare(path: Path, made: Features, changes: dict[str, Any] | None = None) -> Path:
    """The HDF5 of another program: no record, no names."""
    samples = made.samples
    arrays = {
        "features": made.features.astype(np.float64),
        "samples/person": samples.person.astype(np.int32),
        "samples/camera": samples.camera,
        "samples/role": samples.role,
        **(changes or {}),
    }
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if values is not None:
                file[name] = values
    return path


def archive_arrays(features: Features) -> dict[str, Any]:
    arrays: dict[str, Any] = {}
    for role, code in (("query", QUERY), ("gallery", GALLERY)):
        rows = features.samples.role == code
        arrays |= {
            f"{role}_features": features.features[rows],
            f"{role}_persons": features.samples.person[rows],
            f"{role}_cameras": features.samples.camera[rows],
        }
    return arrays


def test_a_file_made_elsewhere_scores_as_ours(lupctl: Shell, tmp_path: Path) -> None:
    features = draw()
    write_features(tmp_path / "ours.features.h5", features)
    write_bare(tmp_path / "bare.h5", features)
    np.savez(tmp_path / "arrays.npz", **archive_arrays(features))
    ours = lupctl("eval ours.features.h5 --rerank --k1 5 --json --out a.json --device cpu").json
    assert 0.3 < ours["scores"]["map"] < 0.99
    for name in ("bare.h5", "arrays.npz"):
        ran = lupctl(f"eval {name} --rerank --k1 5 --json --out {name}.json --device cpu")
        assert ran.code == 0, ran.err
        assert "made elsewhere; its network and images are not recorded" in ran.err
        assert ran.json["scores"] == ours["scores"]
        assert ran.json["rerank"] == ours["rerank"]
        assert ran.json["provenance"]["features"] == {"made_elsewhere": True, "dataset": ran.json["dataset"]}
        assert set(ran.json["fingerprints"]) == {"features"}
        assert "features: made elsewhere" in lupctl(f"eval {name} --out {name}.2.json --device cpu").out
        plan = lupctl(f"eval {name} --dry-run --json --device cpu").json
        assert (plan["queries"], plan["gallery"], plan["dimension"]) == (12, 48, 8)


def test_rows_without_names_are_called_by_number(tmp_path: Path) -> None:
    features = draw()
    bare = read_any_features(write_bare(tmp_path / "bare.h5", features))
    assert list(bare.samples.name[:2]) == ["row 0", "row 1"]
    assert bare.features.dtype == np.float32
    np.testing.assert_array_equal(bare.features, features.features)
    np.savez(tmp_path / "arrays.npz", **archive_arrays(features))
    assert list(read_any_head(tmp_path / "arrays.npz").samples.name[11:13]) == ["query 11", "gallery 0"]
    write_features(tmp_path / "ours.features.h5", features)
    assert read_any_features(tmp_path / "ours.features.h5").record == features.record


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"samples/role": None}, "has no samples/role"),
        ({"samples/person": np.ones(59, int)}, r"samples/person is int64 of shape \(59,\); 60 whole numbers"),
        ({"samples/camera": np.ones(60)}, "samples/camera is float64 of shape"),
        ({"samples/camera": np.full(60, 70_000)}, "samples/camera ranges from 70000 to 70000; -32768 to 32767"),
        ({"features": np.ones((60, 8), int)}, "features is int64 of shape"),
        ({"features": np.ones(60)}, r"features is float64 of shape \(60,\); a floating-point matrix"),
        ({"samples/name": np.array([b"a"] * 3)}, "3 names for 60 features"),
    ],
)
def test_an_hdf5_whose_parts_do_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FormatError, match=message) as caught:
        read_any_features(write_bare(tmp_path / "bare.h5", draw(), changes))
    assert "query_features" in caught.value.hint


def test_archives_that_cannot_be_scored_are_refused(tmp_path: Path) -> None:
    path, arrays = tmp_path / "arrays.npz", archive_arrays(draw())
    for name in ARRAYS:
        np.savez(path, **{key: value for key, value in arrays.items() if key != name})
        with pytest.raises(FormatError, match=f"has no {name} "):
            read_any_features(path)
    np.savez(path, **{**arrays, "gallery_features": np.ones((48, 5), np.float32)})
    with pytest.raises(FormatError, match="query_features has 8 values per row and gallery_features 5"):
        read_any_features(path)
    np.savez(path, **{**arrays, "query_persons": np.array([object()] * 12)})
    with pytest.raises(FormatError, match=r"not readable as a NumPy archive .*allow_pickle"):
        read_any_features(path)
    path.write_bytes(b"no archive")
    with pytest.raises(FormatError, match="not a NumPy archive, or cut short"):
        read_any_features(path)


def test_junk_and_distractors_keep_their_meaning_in_arrays(lupctl: Shell, tmp_path: Path) -> None:
    """One query, its right answer third: junk before it is skipped, a distractor before it is not."""
    arrays: dict[str, Any] = {
        "query_features": np.array([[1.0, 0.0]]),
        "query_persons": np.array([7]),
        "query_cameras": np.array([1]),
        "gallery_features": np.array([[1.0, 0.1], [1.0, 0.2], [1.0, 0.3], [1.0, 0.4]]),
        "gallery_persons": np.array([-1, 0, 7, 7]),
        "gallery_cameras": np.array([2, 2, 2, 1]),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    report = lupctl("eval a.npz --json --device cpu").json
    assert (report["scores"]["map"], report["scores"]["map_official"]) == (1 / 2, 1 / 4)
    assert (report["counts"]["gallery"], report["counts"]["junk"], report["counts"]["distractors"]) == (3, 1, 1)
    assert report["details"]["pairs"]["threshold"] is None, "one person has no other half"
    np.savez(tmp_path / "a.npz", **{**arrays, "query_persons": np.array([-1])})
    ran = lupctl("eval a.npz --json --device cpu --force")
    assert (ran.code, "1 of 1 query is junk (person -1)" in ran.err) == (3, True)


def test_an_hdf5_of_something_else_is_still_named(lupctl: Shell, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["weights"] = np.ones(3)
    ran = lupctl("eval other.h5 --device cpu")
    assert (ran.code, ran.out) == (3, "")
    assert "other.h5: an HDF5 file without lupctl's record" in ran.err


def test_files_of_one_network_are_one_set(lupctl: Shell, tmp_path: Path) -> None:
    whole = draw()
    query = whole.samples.role == QUERY
    for name, rows in (("query", query), ("gallery", ~query)):
        part = Features(whole.features[rows], whole.samples.select(rows), {**whole.record, "dataset": name})
        write_features(tmp_path / f"{name}.features.h5", part)
    write_features(tmp_path / "whole.features.h5", whole)
    expected = lupctl("eval whole.features.h5 --json --out a.json --device cpu").json
    ran = lupctl("eval query.features.h5 gallery.features.h5 --json --device cpu")
    assert ran.code == 0, ran.err
    assert ran.json["scores"] == expected["scores"]
    assert ran.json["dataset"] == "query + gallery"
    assert set(ran.json["fingerprints"]) == {"checkpoint", "pack:toy", "features", "features:1"}
    assert lupctl("eval query.features.h5 gallery.features.h5 --dry-run --json").json["gallery"] == 48
    # The report beside the first file holds the same set: it may be replaced. One of the first file alone may not.
    assert lupctl("eval query.features.h5 gallery.features.h5 --device cpu").code == 0
    assert lupctl("eval whole.features.h5 --device cpu").code == 2


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"checkpoint": "c"}, "made by checkpoint sha256:cccccccccccc, but a.features.h5 by sha256:aaaaaaaaaaaa"),
        ({"dimension": 9}, "b.features.h5: 9 values per image, but a.features.h5 has 8"),
    ],
)
def test_features_of_two_networks_are_not_mixed(
    lupctl: Shell, tmp_path: Path, second: dict[str, Any], message: str
) -> None:
    write_features(tmp_path / "a.features.h5", draw())
    write_features(tmp_path / "b.features.h5", draw(seed=1, **second))
    ran = lupctl("eval a.features.h5 b.features.h5 --device cpu")
    assert (ran.code, ran.out) == (3, "")
    assert message in ran.err
    assert not (tmp_path / "report.json").exists()


def test_ours_and_others_are_not_mixed_and_nothing_is_taken_twice(lupctl: Shell, tmp_path: Path) -> None:
    write_features(tmp_path / "a.features.h5", draw())
    write_bare(tmp_path / "b.h5", draw(seed=1))
    write_bare(tmp_path / "c.h5", draw(seed=2))
    assert "b.h5: made by checkpoint no network at all" in lupctl("eval a.features.h5 b.h5 --device cpu").err
    ran = lupctl("eval b.h5 c.h5 --device cpu")
    assert ran.code == 0
    assert "warning: features made elsewhere name no network" in ran.err
    ran = lupctl("eval a.features.h5 a.features.h5 --out twice.json")
    assert (ran.code, "the same features are given twice" in ran.err) == (2, True)
    ran = lupctl("eval a.features.h5 nowhere")
    assert (ran.code, "nowhere: not a file" in ran.err) == (2, True)


def test_a_report_that_cannot_be_written_is_said_first(lupctl: Shell, tmp_path: Path) -> None:
    write_features(tmp_path / "a.features.h5", draw())
    (tmp_path / "plain").write_text("a file")
    ran = lupctl("eval a.features.h5 --out plain/report.json --device cpu")
    assert (ran.code, ran.out) == (3, "")
    assert "plain/report.json: cannot be written (" in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.features.h5", "plain"]
    if Path("/proc/self").exists():
        ran = lupctl("eval a.features.h5 --out /proc/report.json --device cpu")
        assert (ran.code, ran.out) == (3, "")
        assert "/proc/report.json: cannot be written (" in ran.err


def test_a_gallery_smaller_than_k1_is_said(lupctl: Shell, tmp_path: Path) -> None:
    write_features(tmp_path / "a.features.h5", draw())
    ran = lupctl("eval a.features.h5 --rerank --k1 49 --json --device cpu")
    assert ran.code == 0
    assert "warning: the gallery has 48 images, fewer than k1 = 49" in ran.err
    assert json.loads(ran.out)["rerank"]["k1"] == 49
    assert "warning" not in lupctl("eval a.features.h5 --rerank --k1 48 --force --device cpu").err


def test_zero_vectors_are_named_by_row(lupctl: Shell, tmp_path: Path) -> None:
    features = draw()
    features.features[[3, 20]] = 0
    write_features(tmp_path / "a.features.h5", features)
    ran = lupctl("eval a.features.h5 --device cpu")
    assert ran.code == 3
    assert "2 of 60 features are zero in every value: row 3 (0/03.jpg), row 20 (0/20.jpg)" in ran.err
    assert read_features(tmp_path / "a.features.h5").features[3].sum() == 0
