"""Features files: what is written comes back, and damage is named."""

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.features import Features, read_features, read_features_head, write_features
from lupctl.core.formats.record import build_record
from lupctl.core.formats.samples import Samples


def draw_features(kind: str = "float32", *, count: int = 7) -> Features:
    rng = np.random.default_rng(0)
    return Features(
        features=rng.standard_normal((count, 5)).astype(kind),
        samples=Samples(
            person=rng.integers(-1, 4, count).astype(np.int64),
            camera=rng.integers(-1, 3, count).astype(np.int16),
            role=rng.integers(0, 4, count).astype(np.uint8),
            names=[f"kamera ü/{row}.jpg" for row in range(count)],
        ),
        record=build_record("features", 1, command=["lupctl", "dump"], facts={"dataset": "toy"}),
    )


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
    assert back.samples.names == features.samples.names
    assert back.record == features.record
    head = read_features_head(path)
    assert (head.shape, head.type_name, head.samples.names) == ((count, 5), kind, features.samples.names)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


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

    monkeypatch.setattr("lupctl.core.formats.features.write_samples", interrupt)
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
    with pytest.raises(FormatError, match="no HDF5 file; a features file was expected"):
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
    with pytest.raises(FormatError, match="holds pack; a features was expected"):
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
