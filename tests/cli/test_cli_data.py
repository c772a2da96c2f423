"""`lupctl data` as a user types it: exit codes, messages, JSON."""

from pathlib import Path
from typing import get_args

import pytest
import typer
from typer.testing import CliRunner

from lupctl.cli.app import app
from lupctl.cli.complete import complete_dataset
from lupctl.core.choices import Dataset
from lupctl.core.formats.pack.read import open_pack
from tests.tools.shell import Shell
from tests.tools.tiny.images import TinyImages, encode_tiny


@pytest.fixture
def home(tmp_path: Path, market_folder: Path, tiny_images: TinyImages) -> Path:
    """A workspace with Market-1501 and a tree of images."""
    raw = tmp_path / "lup" / "raw"
    (raw / "crops" / "a").mkdir(parents=True)
    for row, image in enumerate(tiny_images(4, seed=50)):
        (raw / "crops" / "a" / f"{row}.jpg").write_bytes(image)
    market_folder.rename(raw / "market1501")
    return tmp_path / "lup"


def test_pack_without_arguments(lupctl: Shell, home: Path) -> None:
    ran = lupctl("data pack")
    assert ran.code == 0
    assert "crops: layout images (images without labels, all in the folder a; persons have a folder each)" in ran.err
    assert "market1501: layout market1501 (market1501 is Market-1501)" in ran.err
    assert len(open_pack(home / "packs" / "crops.h5")) == 4
    assert open_pack(home / "packs" / "market1501.h5").record["command"] == ["lupctl", "data", "pack"]
    assert "train 8, query 2, gallery 6" in ran.out

    before = (home / "packs" / "crops.h5").stat().st_mtime_ns
    again = lupctl("data pack --json")
    assert [entry["state"] for entry in again.json["packs"]] == ["up to date", "up to date"]
    assert "lup/packs/crops.h5 is up to date" in again.err
    assert (home / "packs" / "crops.h5").stat().st_mtime_ns == before


def test_the_same_pack_has_the_same_bytes_anywhere(lupctl: Shell, home: Path) -> None:
    assert lupctl("data pack crops --workers 1").code == 0
    assert lupctl("data pack crops --out elsewhere/crops.h5 --workers=2 --quiet --json").code == 0
    assert Path("elsewhere/crops.h5").read_bytes() == (home / "packs" / "crops.h5").read_bytes()


def test_only_what_is_missing_is_packed(lupctl: Shell, home: Path) -> None:
    assert lupctl("data pack crops").code == 0
    ran = lupctl("data pack --json")
    assert ran.json["schema"] == "lupctl.pack/1"
    assert {entry["dataset"]: entry["state"] for entry in ran.json["packs"]} == {
        "crops": "up to date",
        "market1501": "packed",
    }


def test_a_changed_source_is_refused_and_forced(lupctl: Shell, home: Path) -> None:
    lupctl("data pack")
    (home / "raw" / "crops" / "a" / "new.jpg").write_bytes(encode_tiny(77))
    ran = lupctl("data pack")
    assert ran.code == 2
    assert (
        "error: lup/packs/crops.h5: is not up to date and would be overwritten: it was made from other files" in ran.err
    )
    assert "hint: lupctl data pack crops --force" in ran.err
    assert len(open_pack(home / "packs" / "crops.h5")) == 4
    assert lupctl("data pack crops --force").code == 0
    assert len(open_pack(home / "packs" / "crops.h5")) == 5


def test_a_pack_remembers_how_it_was_read(lupctl: Shell, home: Path) -> None:
    (home / "raw" / "crops" / "a").rename(home / "raw" / "crops" / "7")
    for path in list((home / "raw" / "crops" / "7").iterdir()):
        path.rename(path.with_name(f"c{1 + int(path.stem) % 2}_{path.name}"))
    assert lupctl("data pack crops --layout persons --cameras prefix").code == 0
    ran = lupctl("data pack crops --json")
    assert ran.json["packs"][0]["state"] == "up to date"
    assert "layout persons (as in its pack)" in ran.err
    made = open_pack(home / "packs" / "crops.h5")
    assert (made.samples.person.tolist(), made.samples.camera.tolist()) == ([7] * 4, [1, 1, 2, 2])


def test_one_bad_dataset_does_not_keep_the_others(lupctl: Shell, home: Path) -> None:
    (home / "raw" / "crops" / "a" / "0.jpg").write_text("text")
    ran = lupctl("data pack")
    assert ran.code == 3
    assert "1 of the 4 images cannot be read" in ran.err
    assert not (home / "packs" / "crops.h5").exists()
    assert (home / "packs" / "market1501.h5").exists()
    (home / "raw" / "empty").mkdir()
    ran = lupctl("data pack")
    assert "error: 2 failures:" in ran.err
    assert "lup/raw/empty: contains no image" in ran.err
    allowed = lupctl("data pack crops --max-bad 0.3")
    assert allowed.code == 0
    assert "1 of 4 images cannot be read and is left out: a/0.jpg" in allowed.err


def test_a_folder_anywhere(lupctl: Shell, home: Path, tmp_path: Path) -> None:
    (home / "raw" / "crops").rename(tmp_path / "photos")
    ran = lupctl("data pack photos --layout images --name mine --json")
    assert ran.code == 0
    assert ran.json["packs"][0]["path"] == "lup/packs/mine.h5"
    assert open_pack(home / "packs" / "mine.h5").dataset == "mine"
    assert lupctl("data pack photos --out other/place.h5 --quiet").code == 0
    assert open_pack(tmp_path / "other" / "place.h5").dataset == "photos"
    assert lupctl("data pack photos --out place").code == 2
    assert lupctl("data pack photos --out other/place.h5 --size 64x32").code == 2, "it is there"
    assert lupctl("data pack photos --out other/place.h5 --size 64x32 --force").code == 0
    assert open_pack(tmp_path / "other" / "place.h5").size.tolist() == [[64, 32]] * 4


def test_shards(lupctl: Shell, home: Path) -> None:
    assert lupctl("data pack market1501 --shard-bytes 3000").code == 0
    assert len(list((home / "packs" / "market1501").glob("*.h5"))) > 2
    assert lupctl("data pack market1501 --json").json["packs"][0]["state"] == "up to date"
    assert lupctl("data info market1501 --json").json["images"] == 16
    found = lupctl("data verify lup/packs/market1501 --json").json["verdicts"][0]["findings"]
    assert [finding["what"] for finding in found] == ["published"], (
        "sixteen images are not Market-1501, else all is well"
    )


def test_dry_run_touches_nothing(lupctl: Shell, home: Path) -> None:
    ran = lupctl("data pack --dry-run --json")
    sizes = {
        name: sum(path.stat().st_size for path in (home / "raw" / name).rglob("*.jpg"))
        for name in ("crops", "market1501")
    }
    assert ran.json["dry_run"] is True
    assert {entry["dataset"]: entry["num_bytes"] for entry in ran.json["packs"]} == sizes
    assert {entry["state"] for entry in ran.json["packs"]} == {"would be packed"}
    assert not (home / "packs").exists()
    assert "would be packed" in lupctl("data pack synthetic --dry-run").out
    assert not (home / "packs").exists()


@pytest.mark.parametrize(
    ("line", "code", "message", "hint"),
    [
        ("data pack --home nowhere", 3, "no raw data: nowhere/raw does not exist", "put images under nowhere/raw/NAME"),
        ("data pack makret1501", 3, "no raw data of 'makret1501'", "did you mean market1501?"),
        ("data pack msmt17", 3, "no raw data of 'msmt17'", "lupctl data download msmt17 gets it or says how"),
        ("data pack crops --layout market1501", 3, "Market-1501's layout has the folders", "put the three folders"),
        ("data pack crops --layout persons --cameras market", 3, "4 names contain no camera", "use another --cameras"),
        ("data pack crops market1501 --out x.h5", 2, "--out goes with one dataset, got 2", "name one"),
        ("data pack --name x", 2, "--name goes with one dataset, got everything under raw/", "name one"),
        ("data pack crops --size 64", 2, "--size 64: height and width were expected", "--size 256x128"),
        ("data pack crops --name a/b", 2, "'a/b' is not a valid dataset name", "lupctl data pack crops --name a-b"),
        ("data info crops", 3, "no pack of 'crops'", "lupctl data pack crops"),
        ("data info nothing", 3, "no pack of 'nothing'", "put the images under lup/raw/nothing"),
        ("data verify nothing", 3, "no pack of 'nothing'", "put the images under lup/raw/nothing"),
    ],
)
def test_mistakes_are_one_line_and_a_hint(
    lupctl: Shell, home: Path, line: str, code: int, message: str, hint: str
) -> None:
    ran = lupctl(line)
    assert ran.code == code
    error, _, hinted = ran.err.partition("\nhint: ")
    assert message in error
    assert hint in hinted
    assert "Traceback" not in ran.err
    assert ran.out == ""
    assert not (home / "packs").exists()


def test_names_that_do_not_parse(lupctl: Shell, home: Path) -> None:
    (home / "raw" / "market1501" / "query" / "holiday.jpg").write_bytes(encode_tiny(1))
    ran = lupctl("data pack market1501")
    assert ran.code == 3
    assert "1 of 17 file names contain no person and camera" in ran.err
    assert "query/holiday.jpg" in ran.err


def test_info(lupctl: Shell, home: Path, tmp_path: Path) -> None:
    lupctl("data pack")
    ran = lupctl("data info market1501 --sheet sheet.png")
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "sheet.png"
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert "8 images of 2 persons" in ran.out
    assert "persons are shown" not in ran.out, "all four are"
    again = lupctl("data info market1501 --sheet sheet.png")
    assert (again.code, again.err.splitlines()[-1]) == (2, "hint: add --force, or name another --sheet")
    drawn = lupctl("data info market1501 --sheet sheet.png --force --json").json
    assert (drawn["sheet"], drawn["sheet_shows"]) == (
        "sheet.png",
        {"images_shown": 14, "persons_shown": 4, "persons": 4},
    )
    found = lupctl("data info lup/packs/market1501.h5 --json").json
    assert (found["schema"], found["images"], found["distractors"], found["sheet"]) == ("lupctl.info/1", 16, 1, None)


def test_verify(lupctl: Shell, home: Path, tmp_path: Path) -> None:
    lupctl("data pack")
    ran = lupctl("data verify market1501 --deep")
    assert ran.code == 3
    hint = "hint: if it is a part, or another version: lupctl data pack lup/raw/market1501 --name market1501-cut"
    assert ran.err.splitlines()[-1] == hint
    assert lupctl(hint.partition("lupctl ")[2]).code == 0
    assert lupctl("data verify market1501-cut").code == 0, "its counts are compared with no published ones"
    (tmp_path / "lup/packs/market1501-cut.h5").unlink()
    assert lupctl("data verify lup/packs/market1501.h5").err.splitlines()[-1] == hint
    assert ran.out.count("counts differ from the published ones of Market-1501") == 1, "of the raw data and of its pack"
    assert "lup/packs/market1501.h5: 1 error (pack; 16 images" in ran.out
    assert "  counts and findings as in lup/raw/market1501\n" in ran.out
    assert ran.out.count(" of 12,936") == 1
    assert "error: lup/raw/market1501 and lup/packs/market1501.h5: counts differ" in ran.err
    assert "instead of" not in ran.err
    assert "8 of 12,936" in ran.out
    ran = lupctl("data verify crops --deep --json")
    assert (ran.code, ran.json["schema"], ran.json["sound"]) == (0, "lupctl.verify/1", True)
    found = lupctl("data verify market1501 crops lup/packs/crops.h5 --json").json
    assert found["sound"] is False
    assert [(verdict["kind"], verdict["dataset"]) for verdict in found["verdicts"]] == [
        ("raw", "market1501"),
        ("pack", "market1501"),
        ("raw", "crops"),
        ("pack", "crops"),
        ("pack", "crops"),
    ]


def test_verify_tells_counts_per_split(lupctl: Shell, home: Path) -> None:
    ran = lupctl("data verify market1501 --json")
    assert (ran.code, ran.json["schema"]) == (3, "lupctl.verify/1")
    verdict = ran.json["verdicts"][0]
    assert verdict["counts"]["train"]["images"] == {"expected": 12_936, "found": 8}
    assert verdict["counts"]["query"]["persons"] == {"expected": 750, "found": 2}
    assert verdict["counts"]["all"]["cameras"] == {"expected": 6, "found": 2}
    assert (verdict["depth"], verdict["cameras"]) == ("decoded", {"1": 9, "2": 7})
    assert verdict["sizes"] == {"smallest": [32, 16], "median": [32, 16], "largest": [32, 16]}
    table = lupctl("data verify market1501").out
    assert "8 of 12,936" in table
    assert "images per camera: 1: 9, 2: 7" in table
    assert "height x width: median 32 x 16" in table
    fast = lupctl("data verify market1501 --fast --json")
    assert (fast.code, fast.json["verdicts"][0]["depth"], fast.json["verdicts"][0]["sizes"]) == (3, "counts", None)
    both = lupctl("data verify market1501 --fast --deep")
    assert (both.code, "--deep decodes every image, --fast reads none" in both.err) == (2, True)


def test_a_pack_is_verified_without_its_raw_data(lupctl: Shell, home: Path) -> None:
    lupctl("data pack crops")
    (home / "raw" / "crops").rename(home / "elsewhere")
    for line in ("data verify crops --json", "data verify lup/packs/crops.h5 --deep --json"):
        ran = lupctl(line)
        assert (ran.code, [verdict["kind"] for verdict in ran.json["verdicts"]]) == (0, ["pack"])


def test_merge(lupctl: Shell, home: Path) -> None:
    """A dataset with labels, a tree of images, and what a pack holds: one pack without labels."""
    lupctl("data pack crops --name old")
    ran = lupctl("data pack market1501 crops lup/packs/old.h5 --merge all --json")
    assert ran.code == 0
    assert "old: the images of lup/packs/old.h5" not in ran.err
    assert "lup/packs/old.h5: the images of lup/packs/old.h5" in ran.err
    assert "market1501: 8 queries and gallery images are left out; they must not be trained on" in ran.err
    made = open_pack(home / "packs" / "all.h5")
    crops = [f"a/{row}.jpg" for row in range(4)]
    assert made.samples.name[:4] == [f"crops/{name}" for name in crops]
    assert made.samples.name[12:] == [f"old/{name}" for name in crops]
    assert all(name.startswith("market1501/bounding_box_train/") for name in made.samples.name[4:12])
    assert (made.samples.role == 0).all()
    assert (made.samples.person == -1).all()
    assert (made.samples.camera == -1).all()
    for row, name in enumerate(made.samples.name):
        dataset, _, inside = name.partition("/")
        original = home / "raw" / ("crops" if dataset == "old" else dataset) / inside
        assert made.read(row) == original.read_bytes()
    parts = {part["dataset"]: part for part in made.record["source"]["parts"]}
    assert {name: (part["layout"], part["images"], part["left_out"]) for name, part in parts.items()} == {
        "crops": ("images", 4, 0),
        "market1501": ("market1501", 8, 8),
        "old": ("pack", 4, 0),
    }
    assert parts["old"]["fingerprint"] == open_pack(home / "packs" / "old.h5").fingerprint
    assert set(made.record["parents"]) == {"source:crops", "source:market1501", "source:old"}
    assert "market1501: academic research only" in made.record["terms"]
    assert "merged: crops (4 images), market1501 (8 images), old (4 images)" in lupctl("data info all").out
    again = "data pack market1501 crops lup/packs/old.h5 --merge all"
    assert "all: lup/packs/all.h5 is up to date" in lupctl(again).err
    (home / "raw" / "crops" / "a" / "new.jpg").write_bytes(encode_tiny(78))
    changed = lupctl(again)
    assert (changed.code, f"hint: lupctl {again} --force" in changed.err) == (2, True)
    assert lupctl(f"{again} --force").code == 0
    assert len(open_pack(home / "packs" / "all.h5")) == 17
    assert [finding["what"] for finding in lupctl("data verify all --json").json["verdicts"][0]["findings"]] == [
        "copies"
    ]


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("data pack crops --merge market1501", 2, "that is the name of a dataset, lup/raw/market1501"),
        ("data pack crops --merge a/b", 2, "'a/b' is not a valid dataset name"),
        ("data pack crops --merge all --name x", 2, "--name and --merge both name the pack"),
        ("data pack crops crops --merge all", 2, "two of the merged datasets are named crops"),
        ("data pack crops nothing --merge all", 3, "no raw data of 'nothing'"),
        ("data pack crops gone.h5 --merge all", 3, "no pack of 'gone.h5'"),
        ("data pack --merge all --home nowhere", 3, "nothing to merge: nowhere/raw holds no dataset"),
    ],
)
def test_merges_that_cannot_be(lupctl: Shell, home: Path, line: str, code: int, message: str) -> None:
    ran = lupctl(line)
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert "\nhint: " in ran.err
    assert not (home / "packs").exists()


def test_verify_of_damage_exits_with_3(lupctl: Shell, home: Path) -> None:
    lupctl("data pack")
    path = home / "packs" / "crops.h5"
    made = open_pack(path)
    content = bytearray(path.read_bytes())
    content[made.shards[0].base + 50] ^= 1
    path.write_bytes(content)
    ran = lupctl("data verify lup/packs/crops.h5 --json")
    assert ran.code == 3
    assert ran.json["sound"] is False
    assert ran.json["verdicts"][0]["findings"][0]["what"] == "unreadable"
    assert "error: lup/packs/crops.h5: 1 image cannot be read: a/0.jpg" in ran.err
    path.write_bytes(content[: len(content) // 2])
    ran = lupctl("data verify lup/packs/crops.h5")
    assert ran.code == 3
    assert "lup/packs/crops.h5: cut short" in ran.err
    assert "hint: make it again: lupctl data pack --force" in ran.err


def test_quiet_says_nothing_on_stderr(lupctl: Shell, home: Path) -> None:
    assert lupctl("data pack --quiet").err == ""
    assert lupctl("data verify crops --quiet").err == ""


@pytest.mark.parametrize("command", ["pack", "info", "verify"])
def test_every_help_shows_an_example(command: str) -> None:
    ran = CliRunner().invoke(app, ["data", command, "--help"], env={"COLUMNS": "200"})
    assert ran.exit_code == 0
    assert f"lupctl data {command} " in ran.output.partition("Options")[0].partition("Usage:")[2].partition("\n")[2]


def test_the_shell_completes_names(lupctl: Shell, home: Path) -> None:
    context = typer.Context(typer.main.get_command(app))
    assert complete_dataset(context, "") == sorted({"crops", *get_args(Dataset)})
    assert complete_dataset(context, "m") == ["market1501", "msmt17"]
    context.params["home"] = "nowhere"
    assert complete_dataset(context, "cr") == []
