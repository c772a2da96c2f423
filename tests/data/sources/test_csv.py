"""A CSV for anything else: what its cells mean, and which ones are refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lupctl.core.data.sources.guess import guess_layout
from lupctl.core.data.sources.layouts.csv_table import CsvSource, number_texts
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.read import open_pack
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny

HEADER = "path,person,camera,role\n"


def write(folder: Path, text: str | bytes, name: str = "my.csv") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode("utf-8"))
    return folder / name


def table(source: CsvSource) -> list[tuple[str, int, int, int]]:
    found = source.list_images()
    columns = (found.name, found.person.tolist(), found.camera.tolist(), found.role.tolist())
    return list(zip(*columns, strict=True))


def read(folder: Path, text: str | bytes) -> list[tuple[str, int, int, int]]:
    return table(CsvSource(write(folder, text), dataset="mine"))


def test_cells_become_columns(tmp_path: Path) -> None:
    rows = ["b/2.jpg,7,1,train", "q.jpg,9,2,query", "b/1.jpg,7,3,train", "g.jpg,0,,gallery", "j.jpg,-1,1,gallery"]
    text = HEADER + "\n".join([*rows, "u.png,,,unlabelled"])
    assert read(tmp_path, text) == [
        ("u.png", -1, -1, 0),
        ("b/1.jpg", 7, 3, 1),
        ("b/2.jpg", 7, 1, 1),
        ("q.jpg", 9, 2, 2),
        ("g.jpg", 0, -1, 3),
        ("j.jpg", -1, 1, 3),
    ]


@pytest.mark.parametrize("head", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_texts_are_numbered_in_sorted_order(head: str, end: str, tmp_path: Path) -> None:
    rows = ["camera, path ,person", "T\u00fcr,\u4eba/1.jpg,Zo\u00eb", 'Hof,"a,b.jpg",Ada', "Hof,c.jpg,", ""]
    assert read(tmp_path, head + end.join(rows)) == [
        ("a,b.jpg", 1, 1, 1),
        ("c.jpg", -1, 1, 1),
        ("\u4eba/1.jpg", 2, 2, 1),
    ]


def test_only_a_path_is_needed(tmp_path: Path) -> None:
    assert read(tmp_path, "path\nx.jpg\n./sub/../a.jpg\n\n") == [("a.jpg", -1, -1, 0), ("x.jpg", -1, -1, 0)]


def test_paths_from_another_folder(tmp_path: Path) -> None:
    far = tmp_path / "far"
    file = write(tmp_path / "lists", f"path\n{far}/a.jpg\nb.jpg\n")
    assert [row[0] for row in table(CsvSource(file, dataset="m", root=far))] == ["a.jpg", "b.jpg"]
    with pytest.raises(DataError, match=r"line 2: .*/far/a.jpg is outside .*/lists") as caught:
        CsvSource(file, dataset="m").list_images()
    assert "--root" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("person,camera\n1,2\n", r"no path column in its header \(person, camera\)"),
        ("", r"no path column in its header \(the file is empty\)"),
        ("path,persn\na.jpg,1\n", "unknown column 'persn'; did you mean person"),
        ("path,Person\na.jpg,1\n", "unknown column 'Person'; did you mean person"),
        ("path;person\na.jpg;1\n", "its header is 'path;person'; columns separated by commas were expected"),
        ("path,path\na.jpg,b.jpg\n", "a column occurs twice in path, path"),
        ("path,role\na.jpg,tain\n", "line 2: role 'tain'; expected one of unlabelled, train, query, gallery"),
        ("path,role\na.jpg,\n", "line 2: role ''"),
        ("path,person\na.jpg,1\nb.jpg\n", "line 3: 1 cells for 2 columns"),
        ("path\na.jpg\n../b.jpg\n", r"line 3: \.\./b.jpg is outside"),
        ("path,person\n,1\n", "line 2: has no path"),
        ("path\na.jpg\n./a.jpg\nb.jpg\n", r"1 path given more than once: a.jpg \(line 3\)"),
        ("path,person\na.jpg,7\nb.jpg,007\n", "column person: the same number in different spellings: 007, 7"),
        ("path,camera\na.jpg,40000\n", "camera 40000; numbers up to 32,767"),
        (b"path\n\xe4.jpg\n", "not UTF-8 text"),
        ('path\n"a.jpg\n', "not a valid CSV"),
    ],
)
def test_what_is_refused(text: str | bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"my.csv: {message}"):
        read(tmp_path, text)


def test_which_table(tmp_path: Path) -> None:
    write(tmp_path, "path\na.jpg\n", "one.csv")
    assert CsvSource(tmp_path, dataset="m").path == tmp_path / "one.csv"
    assert guess_layout(tmp_path, dataset="m").layout == "csv"
    write(tmp_path, "epoch,loss\n1,2\n", "one.csv")
    assert guess_layout(tmp_path, dataset="m").layout == "images", "not every CSV lists images"
    write(tmp_path, "path\n", "two.csv")
    with pytest.raises(DataError, match=r"2 tables: one.csv, two.csv; one was expected"):
        CsvSource(tmp_path, dataset="m")


def test_packing_needs_no_python(lupctl: Shell, tmp_path: Path) -> None:
    for seed, name in enumerate(("a \u00fc.jpg", "b.jpg", "c.jpg")):
        (tmp_path / name).write_bytes(encode_tiny(seed))
    write(tmp_path, HEADER + "a \u00fc.jpg,Ada,Hof,train\nb.jpg,Zo\u00eb,Hof,query\nc.jpg,Zo\u00eb,Tor,gallery\n")
    ran = lupctl("data pack my.csv --name mine")
    assert ran.code == 0, ran.err
    made = open_pack(tmp_path / "lup" / "packs" / "mine.h5")
    assert list(made.samples.name) == ["a \u00fc.jpg", "b.jpg", "c.jpg"]
    assert made.samples.person.tolist() == [1, 2, 2]
    assert made.read(0) == (tmp_path / "a \u00fc.jpg").read_bytes()
    assert lupctl("data verify my.csv").code == 0
    assert lupctl("data pack my.csv").code == 0
    assert (tmp_path / "lup" / "packs" / "my.h5").is_file(), "the file's name, when none is given"


def test_rows_without_a_file_are_named(lupctl: Shell, tmp_path: Path) -> None:
    write(tmp_path, "path\ngone.jpg\n")
    ran = lupctl("data pack my.csv")
    assert ran.code == 3
    assert "gone.jpg: cannot be read (No such file or directory)" in ran.err


def test_another_root_is_remembered(lupctl: Shell, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "a.jpg").write_bytes(encode_tiny(1))
    write(tmp_path, "path\na.jpg\n")
    assert lupctl("data pack my.csv --root far").code == 0
    assert "is up to date" in lupctl("data pack my.csv").err


@given(st.lists(st.text(max_size=3)))
def test_equal_texts_and_only_they_share_a_number(texts: list[str]) -> None:
    try:
        numbers = number_texts(texts, unknown=-1, what="column")
    except DataError:
        return
    known = {text: number for text, number in zip(texts, numbers, strict=True) if text}
    assert len(set(known.values())) == len(known)
    assert [known.get(text, -1) for text in texts] == numbers
