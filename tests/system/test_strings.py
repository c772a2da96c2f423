"""Columns of names: a sequence of strings in two arrays."""

import hashlib
import pickle
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.errors import DataError
from lupctl.core.system import strings as names_module
from lupctl.core.system.strings import (
    StringColumn,
    StringColumnBuilder,
    build_column,
    find_falls,
    find_repeated,
    sort_rows,
)

TEXT = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=6)
LISTS = st.lists(TEXT, max_size=40)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of four names, so that a few names fill several."""
    monkeypatch.setattr(names_module, "BLOCK_NAMES", 4)
    defaults = StringColumn.encoded_blocks.__defaults__
    assert defaults == (1 << 12,)
    monkeypatch.setattr(StringColumn.encoded_blocks, "__defaults__", (4,))


@settings(max_examples=150, deadline=None)
@given(LISTS, st.integers(-45, 45), st.integers(-45, 45), st.integers(1, 3), st.randoms())
def test_a_column_behaves_as_a_list(words: list[str], start: int, stop: int, step: int, chance: object) -> None:
    column = build_column(words)
    assert len(column) == len(words)
    assert list(column) == words
    assert [column[row] for row in range(-len(words), len(words))] == words + words
    assert column == words
    assert words == column
    assert column[start:stop] == words[start:stop]
    assert column[start:stop:step] == words[start:stop:step]
    assert column[::-1] == words[::-1]
    part = column[start:stop]
    assert part[:2] == words[start:stop][:2]
    assert b"".join(part.joined()) == "\0".join(words[start:stop]).encode()
    assert part.num_bytes == len("".join(words[start:stop]).encode())
    assert pickle.loads(pickle.dumps(part)) == words[start:stop]
    builder = StringColumnBuilder()
    builder.append("first")
    builder.extend(part)
    builder.extend(words)
    assert builder.build() == ["first", *words[start:stop], *words]
    assert (column == [*words, "one more"]) is False
    assert (column == "".join(words)) is False
    assert words == [] or column != [*words[:-1], words[-1] + "x"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "ä", "a/b", "a.b", "a b", "", "b\U0001f600", "b\uffff"]), max_size=30))
def test_order_and_repetitions(words: list[str]) -> None:
    column = build_column(words)
    rows = sort_rows(column).tolist()
    assert rows == sorted(range(len(words)), key=lambda row: (words[row], row))
    assert column.take(rows) == sorted(words)
    assert find_falls(column).tolist() == [row for row in range(1, len(words)) if words[row] <= words[row - 1]]
    assert find_repeated(column).tolist() == [row for row in range(len(words)) if words[:row].count(words[row]) == 1]


def test_different_names_with_one_hash_are_no_repetition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names_module, "hash", len, raising=False)
    assert find_repeated(build_column(["aa", "bb", "c", "bb", "aa", "bb", "dd"])).tolist() == [3, 4]


@settings(max_examples=50, deadline=None)
@given(LISTS, st.data())
def test_chosen_rows(words: list[str], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, max(len(words) - 1, 0)), max_size=20)) if words else []
    column = build_column(["before", *words])[1:]
    assert column.take(rows) == [words[row] for row in rows]


def test_rows_that_are_not_there_and_numpy_integers() -> None:
    column = build_column(["a", "b"])
    assert column[np.int64(1)] == "b"
    for row in (2, -3):
        with pytest.raises(IndexError, match="of 2 names"):
            column[row]
    with pytest.raises(TypeError):
        hash(column)
    assert repr(build_column("abcdefg")) == "StringColumn('a', 'b', 'c', 'd', 'e', ...; 7)"


@pytest.mark.parametrize(("name", "message"), [("a\udcff.jpg", r"'a\\udcff.jpg' is not UTF-8"), ("a\0b", "zero byte")])
def test_names_that_cannot_be(name: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        build_column(["fine", name])


def test_names_take_their_letters_and_eight_bytes() -> None:
    count = 50_000
    builder = StringColumnBuilder()
    tracemalloc.start()
    for row in range(count):
        builder.append(f"country/city/video/{row:08d}.jpg")
    column = builder.build()
    held, _ = tracemalloc.get_traced_memory()
    order = sort_rows(column)
    digest = hashlib.sha256()
    for part in column.joined():
        digest.update(part)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert order[-1] == count - 1
    # 31 letters and 8 bytes, an eighth more because both grow; as strings they would take 88 bytes each.
    assert held < count * (31 + 8) * 1.2
    assert after - held < count * 9
