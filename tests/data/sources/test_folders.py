"""Which trees of folders are persons: by the names and the number of the files, and never by their pixels."""

import os
from pathlib import Path

import pytest

from lupctl.core.data.sources import folders as module
from lupctl.core.data.sources.guess import Guess, guess_layout
from lupctl.core.data.sources.layouts.csv_table import CsvSource
from lupctl.core.data.sources.layouts.persons import PersonsSource, detect_cameras
from lupctl.core.errors import DataError


def fill(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def tree(root: Path, folders: list[str], files: list[str]) -> Path:
    """Every folder with the same files."""
    return fill(root, *(f"{folder}/{file}" for folder in folders for file in files))


def guess(root: Path) -> Guess:
    return guess_layout(root, dataset="mine")


NAMES = ["ana", "ben", "cem", "dora", "emil", "finn"]
NUMBERS = ["0002", "0007", "0010", "0011", "0012"]
PLAIN = ["a.jpg", "b.jpg", "IMG_3.png"]


@pytest.mark.parametrize(
    ("folders", "files"),
    [
        (NAMES, PLAIN),
        (NUMBERS, PLAIN),
        (["person_1", "person_2", "person_3", "person_4", "person_5"], PLAIN),
        # A camera in every name is evidence for two folders already.
        (NAMES[:2], ["c1_001.jpg", "c2_001.jpg"]),
        (NUMBERS[:2], ["0002_c3s1_000841_01.jpg", "0002_c1s1_000051_01.jpg"]),
        (NUMBERS[:2], ["cam3/1.jpg", "cam4/1.jpg"]),
        (NAMES[:2], [f"c1_{number:03d}.jpg" for number in range(150)]),
    ],
)
def test_folders_that_are_persons(tmp_path: Path, folders: list[str], files: list[str]) -> None:
    root = tree(tmp_path, folders, files)
    (root / "empty").mkdir()
    found = guess(root)
    assert (found.layout, found.choices) == ("persons", ())
    assert f"{len(folders)} folders with a median of {len(files)} images" in found.reason
    assert found.reason.endswith("if they are not persons: --layout images")


@pytest.mark.parametrize(
    ("folders", "files", "reason"),
    [
        (NAMES[:4], PLAIN, "4 folders with a median of 3 images"),
        (NAMES[:3], [f"{number}.jpg" for number in range(module.MANY_IMAGES + 1)], "3 folders with a median of 101"),
        (NAMES, [f"{number}.jpg" for number in range(module.MANY_IMAGES + 1)], "6 folders with a median of 101 images"),
        (NAMES[:2], [f"c1_{number}.jpg" for number in range(1_200)], "a median of more than 1,000 images"),
        ([f"2024-05-{day:02d}" for day in range(1, 9)], PLAIN, "named like dates (2024-05-01, 2024-05-02)"),
        ([f"202405{day:02d}" for day in range(1, 9)], ["c1_1.jpg"], "named like dates"),
        ([f"2024-{month:02d}" for month in range(1, 9)], PLAIN, "named like dates"),
        ([str(year) for year in range(2017, 2024)], PLAIN, "named like dates (2017, 2018)"),
        (["train", "train_all", "val", "query", "gallery"], ["0002/0002_c1s1_1.jpg"], "named like splits (gallery, q"),
        (["dQw4w9WgXcQ", "9bZkp7q19f0", "kJQP7kiw5Fk", "a1B2c3D4e5F", "Zz9Yy8Xx7W-"], PLAIN, "like ids of videos"),
        (["night", "day"], ["0002_c1s1_000051_01.jpg", "0007_c1s1_000051_01.jpg"], "names of several persons"),
        (["nyc", "rome"], ["street/ana/1.jpg", "street/ben/1.jpg"], "folders within folders (nyc/street)"),
        (["train", "test"], ["ana/1.jpg", "ben/1.jpg"], "folders named like splits (test, train)"),
    ],
)  # fmt: skip
def test_trees_that_are_a_toss_up(tmp_path: Path, folders: list[str], files: list[str], reason: str) -> None:
    found = guess(tree(tmp_path, folders, files))
    assert found.layout is None
    assert reason in found.reason
    assert found.choices[-1] == "--layout images"
    assert "--layout persons" in found.choices or found.remedy


def test_folders_of_few_numbers_may_be_cameras(tmp_path: Path) -> None:
    found = guess(tree(tmp_path, NAMES, ["1/a.jpg", "2/a.jpg"]))
    assert found.layout is None
    assert found.choices == ("--layout persons --cameras folder", "--layout persons", "--layout images")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (PLAIN, "all in one folder"),
        ([f"c1_{number}.jpg" for number in range(40)], "all in one folder"),
        (["0002_c3s1_000841_01.jpg"], "all in one folder; a CSV can label them, as 0002_c3s1_000841_01.jpg is named"),
        (["ana/c1_001.jpg", "ana/c2_001.jpg"], "all in the folder ana"),
        ([f"images/{number:04d}_c1.jpg" for number in range(40)], "all in the folder images"),
        ([f"scene{scene:02d}/{shot}.jpg" for scene in range(8) for shot in range(3)], "recordings, not persons"),
        ([f"cam_{camera}/c{camera}_{shot}.jpg" for camera in range(8) for shot in range(3)], "recordings"),
        ([f"us/{city}/00000{shot}00_0001.jpg" for city in NAMES for shot in range(3)], "named like LUPerson's crops"),
    ],
)
def test_trees_without_labels_stay_so(tmp_path: Path, names: list[str], reason: str) -> None:
    """A flat folder, one huge folder, recordings, and LUPerson's own names: never persons, and no question either."""
    found = guess(fill(tmp_path, *names))
    assert found.layout == "images"
    assert reason in found.reason


def test_images_next_to_persons_are_named(tmp_path: Path) -> None:
    found = guess(fill(tree(tmp_path, NAMES, PLAIN), "sheet.png", ".hidden.png", "notes.txt"))
    assert found.layout is None
    assert "and images next to them (sheet.png)" in found.reason
    assert (found.choices, found.remedy) == (("--layout images",), "move these images out of the folder")
    (tmp_path / "sheet.png").unlink()
    assert guess(tmp_path).layout == "persons", "the remedy helps; hidden files and texts count for nothing"


def test_persons_in_a_folder_of_their_own_are_found(tmp_path: Path) -> None:
    """As an archive unpacks: staff/staff/ana/c1_001.jpg."""
    root = tree(tmp_path / "my staff", ["staff/ana", "staff/ben"], ["c1_1.jpg", "c2_1.jpg"]).resolve()
    found = guess_layout(root, dataset="mine")
    assert (found.layout, found.choices) == (None, ("--layout images",))
    assert found.remedy == f"lupctl data pack '{root}/staff' --name mine"
    assert "everything is in its folder staff (2 folders with a median of 2 images" in found.reason
    assert guess_layout(root / "staff", dataset="mine").layout == "persons"
    assert guess(tree(tmp_path / "videos", ["all/cam1", "all/cam2"], PLAIN)).layout == "images"


def test_the_roles_need_no_train(tmp_path: Path) -> None:
    assert guess(tree(tmp_path, ["query", "gallery"], ["ana/1.jpg"])).layout == "persons"


def test_roles_with_the_names_of_market(tmp_path: Path) -> None:
    """Without folders per person the names say who is in an image: the layout is Market-1501's but for its folders."""
    root = tree(tmp_path, ["train", "query", "gallery"], ["0002_c1s1_000051_01.jpg"])
    found = guess(root)
    assert (found.layout, found.remedy) == (None, "name the folders bounding_box_train, query, bounding_box_test")
    for name, renamed in (("train", "bounding_box_train"), ("gallery", "bounding_box_test")):
        (root / name).rename(root / renamed)
    assert guess(root).layout == "market1501"


def test_empty_and_hidden_folders_are_no_persons(tmp_path: Path) -> None:
    fill(tree(tmp_path, ["ana", ".git", ".thumbs"], ["c1_1.jpg"]), "docs/readme.txt")
    assert guess(tmp_path).layout == "images", "one folder has images"


@pytest.mark.parametrize(
    ("paths", "rule"),
    [
        (["c1_a.jpg", "C2_b.jpg", "cam3_c.jpg", "camera4_d.jpg"], "prefix"),
        (["0001_c1s1_000051.jpg", "x_cam2.jpg"], "market"),
        (["cam1/a.jpg", "c_2/a.jpg", "Camera-3/a.jpg"], "folder"),
        (["c1_a.jpg", "b.jpg"], "none"),
        (["c1_a.jpg", "x_c1.jpg"], "none"),
        (["1_a.jpg", "2_a.jpg"], "none"),
        (["1/a.jpg", "2/a.jpg"], "none"),
        (["cam1/c1_x_c1.jpg"], "folder"),
        ([], "none"),
    ],
)
def test_the_rule_of_the_cameras_is_found(paths: list[str], rule: str) -> None:
    assert detect_cameras(paths) == rule


def test_found_cameras_are_read(tmp_path: Path) -> None:
    source = PersonsSource(tree(tmp_path, ["ana", "Ben"], ["c1_1.jpg", "cam12_1.jpg"]), dataset="mine")
    assert source.list_images().camera.tolist() == [1, 12, 1, 12]
    assert source.facts["cameras"] == "prefix"
    assert source.description == "2 persons, 4 images, 2 cameras (--cameras prefix, as in Ben/c1_1.jpg)"
    assert source.facts["person_names"] == {"Ben": 1, "ana": 2}
    numbered = PersonsSource(tree(tmp_path / "n", ["007", "12"], ["x.jpg", "y.jpg"]), dataset="mine")
    assert "person_names" not in numbered.facts
    assert numbered.description == "2 persons, 4 images, cameras unknown"


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["ana/c1_1.jpg", "ana/c2_1.jpg"], "a single person; training and scores need two or more"),
        (["ana/c1_1.jpg", "ben/c2_1.jpg"], "every person has a single image; training and scores need two or more"),
        (["ana/c1_1.jpg", "ana/c2_1.jpg", "ben/c2_1.jpg"], "1 of 2 persons have a single image: ben"),
        (["ana/c3_1.jpg", "ana/c3_2.jpg", "ben/c3_1.jpg", "ben/c3_2.jpg"], "every image is of camera 3; right answers"),
        (["ana/c1_1.jpg", "ana/c2_1.jpg", "ben/x.jpg"], "2 of 3 images name a camera, as in c3_000841.jpg or 3_0"),
        (["Ana/1.jpg", "ana/1.jpg"], "names that differ in case only are different persons: Ana and ana"),
    ],
)
def test_what_a_user_has_to_know_is_noted(tmp_path: Path, names: list[str], note: str) -> None:
    source = PersonsSource(fill(tmp_path, *names), dataset="mine")
    if len(source.list_images()) < len(names):
        pytest.skip("this disk ignores case")
    notes = source.facts.get("notes")
    assert isinstance(notes, list)
    assert any(line.startswith(note) for line in notes), notes


def test_persons_that_differ_in_case_are_two(tmp_path: Path) -> None:
    root = fill(tmp_path, "Ana/1.jpg", "ana/1.jpg")
    if len(list(root.iterdir())) == 1:
        pytest.skip("this disk ignores case")
    assert PersonsSource(root, dataset="mine").list_images().person.tolist() == [1, 2]


def test_the_other_rule_is_named(tmp_path: Path) -> None:
    source = PersonsSource(fill(tmp_path, "ana/c1_1.jpg", "ben/c2_1.jpg"), dataset="mine", cameras="market")
    with pytest.raises(DataError, match="2 names contain no camera") as caught:
        source.list_images()
    assert caught.value.hint == "--cameras prefix finds one in every name"


def test_words_of_a_table_are_recorded(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("path,person,camera\na.jpg,Zoë,lobby\nb.jpg,Ada,door\nc.jpg,,door\n")
    source = CsvSource(tmp_path / "m.csv", dataset="mine")
    assert source.facts["person_names"] == {"Ada": 1, "Zoë": 2}
    assert source.facts["camera_names"] == {"door": 1, "lobby": 2}
    assert (source.list_images().person.tolist(), source.list_images().camera.tolist()) == ([2, 1, -1], [2, 1, 1])
    (tmp_path / "m.csv").write_text("path,person\na.jpg,Ada\nb.jpg,ada\n")
    notes = CsvSource(tmp_path / "m.csv", dataset="mine").facts["notes"]
    assert notes == ["texts that differ in case only are different persons or cameras: Ada and ada"]
    (tmp_path / "m.csv").write_text("path,person,camera\na.jpg,7,1\n")
    assert not {"person_names", "camera_names"} & set(CsvSource(tmp_path / "m.csv", dataset="mine").facts)


def test_a_guess_opens_no_image_and_looks_at_a_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many folders a part, of a huge folder the beginning; a file is never opened."""
    tree(tmp_path, [f"{person:04d}" for person in range(450)], ["c1_1.jpg", "c2_1.jpg"])
    looked: list[str] = []
    scan = os.scandir

    def count(path: str) -> "os._ScandirIterator[str]":
        looked.append(os.fspath(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", count)
    monkeypatch.setattr("builtins.open", lambda *arguments: pytest.fail("a file was opened"))
    found = guess(tmp_path)
    assert found.layout == "persons"
    assert found.reason.startswith("450 folders with a median of 2 images")
    # The root, some folders for one image, and those that are judged.
    assert len(looked) <= 2 + 2 * module.MOST_FOLDERS
