"""What a name stands for when a pack, raw data and a folder share it, and that hints lead on when they are typed."""

import os
from pathlib import Path

import pytest

from lupctl.cli.complete import complete_path
from lupctl.core.errors import DataError
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.resolve.data.datasets import valid_name
from lupctl.core.workspace import DOWNLOADED, Workspace
from tests.tools.shell import Ran, Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options

TINY = " ".join([*as_options(FINETUNE), "--recipe bot --gpus 0 --workers 0 --from scratch"])
NAMES = ("ana", "ben", "cem", "dora")


@pytest.fixture
def staff(tmp_path: Path) -> Path:
    """A folder per person here, two cameras, four images each."""
    for row, name in enumerate(NAMES):
        for shot in range(4):
            path = tmp_path / "staff" / name / f"c{1 + shot % 2}_{shot}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_tiny(10 * row + shot))
    return tmp_path / "staff"


def hint_of(ran: Ran) -> str:
    return ran.err.rpartition("\nhint: ")[2].strip()


@pytest.mark.parametrize("typed", ["staff", "staff/", "./staff"])
def test_the_hint_for_a_folder_leads_on(lupctl: Shell, staff: Path, typed: str) -> None:
    """The way that was a circle: train, be told to pack, pack, train."""
    first = lupctl(f"finetune {typed} {TINY} --dry-run")
    assert (first.code, first.out) == (3, "")
    assert "error: staff: a folder of images that is not packed; a pack was expected" in first.err
    hint = hint_of(first)
    assert hint == f"lupctl data pack {typed}"
    packed = lupctl(hint.removeprefix("lupctl "))
    assert packed.code == 0
    assert (
        "staff: layout persons (4 folders with a median of 4 images and a camera in every name; if they are not "
        "persons: --layout images): 4 persons, 16 images, 2 cameras (--cameras prefix, as in ana/c1_0.jpg)\n"
    ) in packed.err
    assert open_pack(Path("lup/packs/staff.h5")).samples.camera.tolist() == [1, 1, 2, 2] * 4
    second = lupctl(f"finetune {typed} {TINY} --dry-run --json")
    assert (second.code, second.json["persons"], second.json["images"]) == (0, 4, 16), second.err
    assert ("data: lup/packs/staff.h5 (the pack of staff)" in second.err) == (typed != "staff")


def test_a_pack_comes_before_a_folder(lupctl: Shell, staff: Path) -> None:
    assert lupctl("data pack staff").code == 0
    run = "lup/runs/fine"
    assert lupctl(f"finetune staff {TINY} --out {run}").code == 0
    said = "data: lup/packs/staff.h5 and not the folder staff here, which is ./staff"
    ran = lupctl("dump fine staff --device cpu --out pack.h5 --workers 0")
    assert (ran.code, said in ran.err) == (0, True), ran.err
    assert read_features(Path("pack.h5")).samples.person.tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4
    for typed in ("./staff", "staff/"):
        ran = lupctl(f"dump fine {typed} --device cpu --out folder.h5 --workers 0 --force")
        assert ran.code == 0
        assert "data: the images in staff, without labels; its pack, with labels, is named staff" in ran.err
        assert set(read_features(Path("folder.h5")).samples.person.tolist()) == {-1}
    assert said in lupctl("search pack.h5 staff/ana/c1_0.jpg --images staff --sheet s.png --device cpu").err
    ran = lupctl("data verify staff --fast --json")
    assert ([verdict["kind"] for verdict in ran.json["verdicts"]], said in ran.err) == (["pack"], True)
    assert [verdict["kind"] for verdict in lupctl("data verify ./staff --fast --json").json["verdicts"]] == ["raw"]
    assert lupctl("data info staff --json").json["persons"] == 4
    assert lupctl("data info staff/ --json").json["path"] == "lup/packs/staff.h5"
    ran = lupctl(f"pretrain --data staff {' '.join(as_options(PRETRAIN))} --set data.batch=8 --gpus 0 --dry-run --json")
    assert ran.json["packs"] == ["lup/packs/staff.h5"], "no folder of images can be meant, and nothing is said"
    assert said not in ran.err
    ran = lupctl("data pack staff --merge all --dry-run")
    assert "staff: the images of lup/packs/staff.h5" in ran.err
    assert lupctl("data pack staff ./staff --merge all").code == 2, "one dataset twice"
    assert lupctl("data pack staff --merge all").code == 0
    (part,) = open_pack(Path("lup/packs/all.h5")).record["source"]["parts"]
    assert part["source"]["layout"] == "persons"
    assert "person_names" not in part["source"], "an unlabelled pack names no one"


def test_names_of_the_workspace_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    space = Workspace(Path("lup"))
    for path in ("lup/packs/one.h5", "lup/packs/many/many-00000.h5", "one/x.jpg", "other/x.jpg"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    assert space.find_pack("one") == Path("lup/packs/one.h5")
    assert space.find_pack("many") == Path("lup/packs/many")
    assert space.find_pack("./one") == space.find_pack("one/") == Path("one")
    assert space.find_pack("other") == Path("other")
    assert (space.named_pack("."), space.named_pack(".."), space.named_pack("")) == (None, None, None)
    assert space.find_pack(".") == Path()
    with pytest.raises(DataError, match=r"no pack of '\./gone'"):
        space.find_pack("./gone")


def test_another_folder_of_the_name_of_a_pack(lupctl: Shell, staff: Path) -> None:
    assert lupctl("data pack staff").code == 0
    Path("b").mkdir()
    staff.rename("b/staff")
    ran = lupctl(f"finetune b/staff {TINY} --dry-run")
    assert "b/staff: a folder of images; a pack was expected, and that of this name, lup/packs/staff.h5, w" in ran.err
    assert hint_of(ran) == "name the pack: staff; or pack these: lupctl data pack b/staff --name NEWNAME"
    assert lupctl("data pack b/staff --name there").code == 0
    assert lupctl(f"finetune b/staff {TINY} --dry-run").code == 0, "the pack that was made from it is found"


def test_a_table_stands_for_its_pack(lupctl: Shell, staff: Path) -> None:
    lines = [f"{path},{path.parent.name},{'door' if 'c1' in path.name else 'lobby'}" for path in sorted(
        path.relative_to(Path.cwd()) for path in staff.rglob("*.jpg"))]  # fmt: skip
    Path("people.csv").write_text("\n".join(["path,person,camera", *lines]))
    ran = lupctl(f"finetune people.csv {TINY} --dry-run")
    assert (ran.code, hint_of(ran)) == (3, "lupctl data pack people.csv")
    assert lupctl("data pack people.csv").code == 0
    assert lupctl(f"finetune people.csv {TINY} --dry-run --json").json["persons"] == 4
    shown = lupctl("data info people")
    assert "ana = 1, ben = 2, cem = 3, dora = 4" in shown.out
    assert "door = 1, lobby = 2" in shown.out
    assert lupctl("data info people --json").json["source"]["camera_names"] == {"door": 1, "lobby": 2}


def test_a_pack_of_images_says_how_it_gets_persons(lupctl: Shell, staff: Path) -> None:
    assert lupctl("data pack staff --layout images").code == 0
    ran = lupctl(f"finetune staff {TINY} --dry-run")
    assert "0 labelled training images of 0 persons" in ran.err
    hint = hint_of(ran)
    assert hint == "if its folders are persons: lupctl data pack staff --layout persons --force"
    assert lupctl(hint.partition("lupctl ")[2]).code == 0
    assert lupctl(f"finetune staff {TINY} --dry-run").code == 0


def test_a_source_that_has_changed_is_mentioned(lupctl: Shell, staff: Path) -> None:
    assert lupctl("data pack staff").code == 0
    later = Path("lup/packs/staff.h5").stat().st_mtime_ns + 10**9
    said = "data: folders of staff are newer than lup/packs/staff.h5; lupctl data pack staff says whether it changed"
    for folder in (staff, *staff.iterdir()):
        os.utime(folder, ns=(later - 2 * 10**9,) * 2)
    assert said not in lupctl("data info staff").err
    (staff / "ana" / "c1_9.jpg").write_bytes(encode_tiny(99))
    os.utime(staff / "ana", ns=(later, later))
    assert said in lupctl("data info staff").err
    assert said not in lupctl("data info staff --quiet").err
    ran = lupctl("data pack staff")
    assert (ran.code, hint_of(ran)) == (2, "lupctl data pack staff --force")


def test_raw_data_before_a_folder(lupctl: Shell, staff: Path) -> None:
    Path("lup/raw").mkdir(parents=True)
    staff.rename("lup/raw/staff")
    Path("staff").mkdir()
    Path("staff/x.jpg").write_bytes(encode_tiny(1))
    ran = lupctl("data pack staff --dry-run --json")
    assert ran.json["packs"][0]["images"] == 16
    assert "data: lup/raw/staff and not the folder staff here, which is ./staff" in ran.err
    assert lupctl("data pack ./staff --dry-run --json").json["packs"][0]["images"] == 1


@pytest.mark.parametrize("name", sorted(DOWNLOADED))
@pytest.mark.parametrize("command", ["finetune", "data info", "data verify", "data pack", "pretrain --data"])
def test_a_missing_benchmark_leads_to_its_download(lupctl: Shell, name: str, command: str) -> None:
    ran = lupctl(f"{command} {name}")
    assert (ran.code, ran.out) == (3, "")
    assert hint_of(ran).startswith(f"lupctl data download {name} ")
    assert lupctl(f"data download {name} --dry-run").code in (0, 3), "by hand: the steps are printed"


def test_what_was_withdrawn_has_no_download(lupctl: Shell) -> None:
    assert "download" not in lupctl("finetune dukemtmc").err
    assert "download" not in lupctl("data pack dukemtmc").err


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Büro West 2", "buero-west-2"), ("a/b", "a-b"), ("../x", "x"), ("Straße", "strasse"),
        ("Café  d'Or!", "cafe-d-or"),
        ("!!!", "mine"), ("", "mine"), ("über_all.v2", "ueber_all-v2"),
    ],
)  # fmt: skip
def test_a_name_that_is_valid_like_one_that_is_not(text: str, name: str) -> None:
    assert valid_name(text) == name


def test_a_bad_name_is_answered_with_a_good_one(lupctl: Shell, staff: Path) -> None:
    ran = lupctl("data pack staff --name 'Büro West 2'")
    assert (ran.code, hint_of(ran)) == (2, "lupctl data pack staff --name buero-west-2")
    assert lupctl(hint_of(ran).removeprefix("lupctl ")).code == 0
    staff.rename("Büro West 3")
    ran = lupctl("data pack 'Büro West 3'")
    assert (ran.code, hint_of(ran)) == (2, "lupctl data pack 'Büro West 3' --name buero-west-3")
    assert lupctl(hint_of(ran).removeprefix("lupctl ")).code == 0
    assert hint_of(lupctl("data build 'a b' --videos x --detections y")) == "choose another, such as a-b"


def test_paths_are_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in ("staff/x.jpg", "stuff/x.jpg", "start.csv", ".hidden/x"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).touch()
    assert complete_path("./sta") == ["./staff/", "./start.csv"]
    assert complete_path("staff/") == ["staff/x.jpg"]
    assert complete_path("nowhere/x") == []
