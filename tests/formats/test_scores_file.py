"""Scores and lists of names: written and read back, cut short, of another kind, and lists that would run code."""

import os
import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.record import build_record, read_kind
from lupctl.core.formats.scores.file import Scores, best_first, read_scores, scores_path, write_scores
from lupctl.core.formats.scores.lists import is_scores, is_sorted, read_names

RECORD = build_record(
    "scores", 1, command=["lupctl"], parents={"pack:tiny": "sha256:ab"}, facts={"dataset": "tiny", "distance": "cosine"}
)


def test_scores_are_read_back(tmp_path: Path) -> None:
    path, score = tmp_path / "tiny.scores.h5", np.array([0.25, -1.0, 1.0 - 2.0**-52])
    write_scores(path, Scores(score, RECORD))
    first = path.read_bytes()
    found = read_scores(path)
    assert found.score.tolist() == score.tolist()
    assert (found.record, found.fingerprint, read_kind(path)) == (RECORD, "sha256:ab", "scores")
    write_scores(path, Scores(score, RECORD))
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_a_score_that_is_no_number_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not finite"):
        write_scores(tmp_path / "a.h5", Scores(np.array([np.nan]), RECORD))
    assert list(tmp_path.iterdir()) == []


def test_damaged_scores_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.scores.h5"
    write_scores(path, Scores(np.arange(5000.0), RECORD))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match="cut short"):
        read_scores(path)
    path.write_bytes(b"no HDF5 at all")
    with pytest.raises(FormatError, match="not an HDF5 file"):
        read_scores(path)
    path.write_bytes(whole)
    with h5py.File(path, "r+") as file:
        file["score"][3] = np.inf
    with pytest.raises(FormatError, match="the score of row 3 is inf"):
        read_scores(path)
    with h5py.File(path, "r+") as file:
        del file["score"]
    with pytest.raises(FormatError, match="has no column of scores"):
        read_scores(path)


@pytest.mark.parametrize("changes", [{"kind": "pack"}, {"format": 9}, {"parents": {}}])
def test_another_file_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_scores(tmp_path / "a.h5", Scores(np.ones(2), {**RECORD, **changes}))
    with pytest.raises(FormatError) as refused:
        read_scores(tmp_path / "a.h5")
    assert "lupctl data score" in refused.value.hint


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 0.5000001, 1.0]), max_size=30))
def test_the_best_come_first_and_equal_ones_in_their_order(values: list[float]) -> None:
    expected = sorted(range(len(values)), key=lambda row: (-values[row], row))
    assert best_first(np.array(values)).tolist() == expected


def test_scores_are_beside_their_pack() -> None:
    assert scores_path(Path("a/market1501.h5")) == Path("a/market1501.scores.h5")
    assert scores_path(Path("a/luperson")) == Path("a/luperson.scores.h5")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickled_list_is_read(tmp_path: Path, protocol: int) -> None:
    names = ["30_00_0292_00000238.jpg", "a/ü.jpg"]
    (tmp_path / "CFS_list.pkl").write_bytes(pickle.dumps(names, protocol))
    assert read_names(tmp_path / "CFS_list.pkl") == names


def test_a_text_list_is_read(tmp_path: Path) -> None:
    (tmp_path / "best.txt").write_bytes("\ufeffb.jpg\r\n\n  a/ü 1.jpg \n".encode())
    assert read_names(tmp_path / "best.txt") == ["b.jpg", "a/ü 1.jpg"]
    assert not is_scores(tmp_path / "best.txt")


class Program:
    """A pickle that would make a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("name", ["CFS_list.pkl", "list.bin"])
def test_a_pickle_that_asks_for_code_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(pickle.dumps(["a.jpg", Program(tmp_path / "made")]))
    with pytest.raises(DataError, match=r"asks for posix\.mkdir|asks for nt\.mkdir"):
        read_names(tmp_path / name)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps({"keys": ["a"]}), "a pickled dict"),
        (pickle.dumps(["a", 3]), "of type int"),
        (pickle.dumps(["a" * 50])[:-9], "not a whole pickle"),
        (b"\xff\xfe\x00", "neither a text nor"),
        (b"a\0b", "other binary data"),
        (b" \n\n", "names no image"),
    ],
)
def test_what_is_no_list_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_names(tmp_path / "list")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        is_scores(tmp_path / "pipe")


def test_alphabetical_order_is_no_ranking() -> None:
    names = [f"{number:03d}.jpg" for number in range(20)]
    assert is_sorted(names)
    assert is_sorted(names[::-1])
    assert not is_sorted([names[1], names[0], *names[2:]])
    assert not is_sorted(names[:7])
