"""Split files: which image has which role."""

from pathlib import Path

import numpy as np
import pytest

from lupctl.core.choices import ROLE_NAMES
from lupctl.core.data.sources.splits.divide import divide
from lupctl.core.data.sources.splits.file import read_roles
from lupctl.core.data.sources.splits.rule import parse_split
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import PackSplit, describe_split
from lupctl.core.system.strings import build_column

NAMES = ["1/a.jpg", "1/b.jpg", "2/c.jpg", "2/same.jpg", "3/same.jpg", "3/Zoë, left.jpg"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "split.csv"


def read(file: Path, text: str | bytes) -> list[str]:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [ROLE_NAMES[code] for code in read_roles(file, NAMES)[0].tolist()]


@pytest.mark.parametrize(
    "text",
    [
        "1/a.jpg,train\n2/c.jpg,query\n2/same.jpg,gallery\n",
        "path,role\n1/a.jpg,train\n2/c.jpg,query\n2/same.jpg,gallery",
        "\ufeffrole,person,path\r\ntrain,7,1/a.jpg\r\nquery,8,2/c.jpg\r\ngallery,8,2/same.jpg\r\n",
        "1/a.jpg; train\n\n2/c.jpg; query\n2/same.jpg;gallery\n",
        "./1/a.jpg\ttrain\n2/c.jpg\tquery\n2/same.jpg\tgallery\n",
        "a.jpg,train\nc.jpg,query\n2/same.jpg,gallery\n",
        '"2/same.jpg","gallery"\n"a.jpg",train\n2/c.jpg,query',
    ],
    ids=["plain", "header", "table", "semicolons", "tabs", "file names", "quotes"],
)
def test_a_role_for_each_path(file: Path, text: str) -> None:
    assert read(file, text) == ["train", "unlabelled", "query", "gallery", "unlabelled", "unlabelled"]


def test_a_name_with_a_comma_is_quoted(file: Path) -> None:
    assert read(file, '"3/Zoë, left.jpg",train\n')[5] == "train"
    with pytest.raises(DataError, match=r"line 1: .*Zoë,left.jpg,train.; a path and a role were expected"):
        read(file, "3/Zoë, left.jpg,train\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no image"),
        ("\n \n", "names no image"),
        ("path,role\n", "names no image"),
        ("1/a.jpg\n", "line 1: '1/a.jpg'; a path and a role were expected"),
        ("1/a.jpg,train\n1/b.jpg,train,2\n", "line 2: '1/b.jpg,train,2'; a path and a role were expected"),
        ("path,role,camera\n1/a.jpg,train\n", "line 2: '1/a.jpg,train'; 3 cells were expected"),
        ("1/a.jpg,train\n1/x.jpg,query\nsame.jpg,train\n",
         r"2 names not among the images: 1/x.jpg \(line 2\), same.jpg \(line 3\)$"),
        ("".join(f"{n}.jpg,train\n" for n in range(7)),
         r": 7 names not among the images: 0.jpg \(line 1\), .*4.jpg \(line 5\), \.\.\.$"),
        ("1/a.jpg,train\n1/b.jpg,test\n", r"unknown roles: 1 \('test' \(line 2\)\)"),
        ("1/a.jpg,Train\n", r"unknown roles: 1 \('Train' \(line 1\)\)"),
        ("1/a.jpg,unlabelled\n", r"unknown roles: 1 \('unlabelled'"),
        ("1/a.jpg,train\na.jpg,query\n", r"1 name given more than once: 1/a.jpg$"),
        ('1/a.jpg,"train\n', "not a valid table"),
        (b"\xff\xd8\xff\xe0 a picture", "not UTF-8 text"),
        (b"PK\x03\x04\0\0\0\0", "not a text, but binary data"),
    ],
)  # fmt: skip
def test_bad_files(file: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=f"(?m){message}") as caught:
        read(file, text)
    assert caught.value.message.startswith(str(file))
    assert caught.value.exit_code == 3


def test_roles_that_were_meant(file: Path) -> None:
    for wrong, meant in (("Train", "did you mean train?"), ("querry", "did you mean query?"), ("x", "the roles are")):
        with pytest.raises(DataError) as caught:
            read(file, f"1/a.jpg,{wrong}\n")
        assert caught.value.hint.startswith(meant)


def divide_by(file: Path, roles: str, persons: list[int], cameras: list[int]) -> PackSplit:
    """One letter for each image: t, q, g, or a dash for none."""
    names = [f"{row}.jpg" for row in range(len(roles))]
    word = {"t": "train", "q": "query", "g": "gallery"}
    file.write_text("".join(f"{name},{word[role]}\n" for name, role in zip(names, roles, strict=True) if role in word))
    samples = Samples(
        person=np.array(persons, np.int64), camera=np.array(cameras, np.int16), role=np.ones(len(names), np.uint8),
        name=build_column(names),
    )  # fmt: skip
    return divide(samples, parse_split(str(file)), dataset="crowd")[1]


def test_the_protocol_of_a_file_is_that_which_has_answers(file: Path) -> None:
    split = divide_by(file, "ttqg-", [1, 2, 3, 3, 4], [1, 1, 1, 2, 1])
    assert (split.protocol, split.left_out, split.seed, split.shared) == ("market1501", 1, None, 0)
    assert f"left out, as {file} does not name them: 1 image" in describe_split(split)
    assert divide_by(file, "ttqg", [1, 2, 3, 3], [1, 1, 1, 1]).protocol == "same-camera-allowed"
    assert divide_by(file, "ttqqg", [1, 2, 3, 3, 3], [1, 1, 1, 2, 1]).protocol == "market1501"
    assert divide_by(file, "tt", [1, 2], [1, 1]).protocol == "market1501", "nothing to ask, nothing to answer"


def test_persons_in_train_and_test_are_pointed_out(file: Path) -> None:
    split = divide_by(file, "ttqg", [1, 2, 2, 2], [1, 1, 1, 2])
    assert not split.closed_set, "a file may be wrong, a rule is meant"
    assert "1 person in train and in the test: scores will be too high" in describe_split(split)


@pytest.mark.parametrize(
    ("roles", "persons", "message"),
    [
        ("tqg", [1, 0, 2], r"queries without a known person: 1 \(1.jpg\)"),
        ("tqg", [1, 2, 3], "no image of the gallery shows the person of a query"),
        ("tq", [1, 2], "no image of the gallery shows the person of a query"),
    ],
)
def test_queries_without_answers(file: Path, roles: str, persons: list[int], message: str) -> None:
    with pytest.raises(DataError, match=message):
        divide_by(file, roles, persons, [1] * len(persons))
