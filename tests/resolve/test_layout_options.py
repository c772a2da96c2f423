"""Options that only one layout knows imply it or are refused, and a toss-up is answered with commands that work."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from lupctl.core.errors import UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.resolve.data.datasets import Target
from lupctl.core.resolve.data.layouts import KNOWN_BY, Reading, pick_layout, refuse_for_drawn
from tests.tools.shell import Ran, Shell
from tests.tools.tiny.images import encode_tiny


def fill(root: Path, names: Sequence[str]) -> None:
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_tiny(seed))


@pytest.fixture
def trees(tmp_path: Path) -> Path:
    """One of each kind: persons, images, a toss-up of three folders, and a table."""
    fill(tmp_path / "staff", [f"{name}/000{shot}_c{1 + shot % 2}.jpg" for name in ("ana", "ben") for shot in range(4)])
    fill(tmp_path / "photos", [f"{row}.jpg" for row in range(4)])
    fill(tmp_path / "three", [f"{name}/{row}.jpg" for name in "abc" for row in range(2)])
    (tmp_path / "mine.csv").write_text("path,person\nphotos/0.jpg,7\nphotos/1.jpg,8\n")
    return tmp_path


def hint_of(ran: Ran) -> str:
    return ran.err.rpartition("\nhint: ")[2].strip()


@pytest.mark.parametrize("tree", ["three", "staff"])
def test_cameras_are_those_of_persons(lupctl: Shell, trees: Path, tree: str) -> None:
    """`--cameras` implies persons where the folders leave it open, and is read where they do not."""
    ran = lupctl(f"data pack {tree} --cameras {'none' if tree == 'three' else 'market'}")
    assert ran.code == 0
    found = open_pack(Path(f"lup/packs/{tree}.h5"))
    assert found.record["source"]["layout"] == "persons"
    if tree == "three":
        said = "three: layout persons (--cameras none belongs to it): 3 persons, 6 images, cameras unknown"
        assert said in ran.err
    else:
        assert "2 persons, 8 images, 2 cameras (--cameras market, as in ana/0000_c1.jpg)" in ran.err
        assert found.samples.camera.tolist() == [1, 2, 1, 2] * 2


def test_cameras_replace_the_layout_of_an_unlabelled_pack(lupctl: Shell, trees: Path) -> None:
    assert lupctl("data pack staff --layout images").code == 0
    ran = lupctl("data pack staff --cameras market")
    assert (ran.code, hint_of(ran)) == (2, "lupctl data pack staff --cameras market --force")
    assert lupctl(hint_of(ran).removeprefix("lupctl ")).code == 0
    assert open_pack(Path("lup/packs/staff.h5")).samples.person.tolist() == [1] * 4 + [2] * 4


def test_the_hint_keeps_where_the_pack_goes(lupctl: Shell, trees: Path) -> None:
    line = "data pack staff --layout images --home 'my lup' --out 'other/my staff.h5'"
    assert lupctl("data pack staff --home 'my lup' --out 'other/my staff.h5'").code == 0
    hint = hint_of(lupctl(line))
    assert hint == "lupctl data pack staff --layout images --out 'other/my staff.h5' --home 'my lup' --force"
    assert lupctl(hint.removeprefix("lupctl ")).code == 0
    assert open_pack(Path("other/my staff.h5")).record["source"]["layout"] == "images"


def test_the_hint_for_one_of_several(lupctl: Shell, trees: Path) -> None:
    assert lupctl("data pack staff photos").code == 0
    ran = lupctl("data pack photos staff --layout images")
    assert (ran.code, hint_of(ran)) == (2, "lupctl data pack staff --layout images --force")


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("photos --keys none", "--keys none: belongs to layout lmdb, but photos has layout images", "leave --keys out"),
        ("photos --version v1", "--version v1: belongs to layout msmt17 or market1501, but photos", "--version out"),
        ("photos --no-val", "--no-val: belongs to layout msmt17, but photos has layout images", "leave --no-val out"),
        ("photos --root x", "--root x: belongs to layout csv or cuhk03-index, but photos", "leave --root out"),
        ("staff --root x", "but staff has layout persons (2 folders with a median of 4", "or name its layout: --la"),
        ("three --keys k.pkl", "--keys k.pkl: belongs to layout lmdb, but that of three is unclear", "--layout lmdb"),
        ("mine.csv --cameras none", "--cameras none: belongs to layout persons, but mine.csv has layout csv", "leave"),
        ("staff --layout images --cameras prefix", "--cameras prefix: belongs to layout persons, but it has --layout",
         "--layout persons"),
        ("staff --layout persons --keys none", "belongs to layout lmdb, but it has --layout persons", "leave --keys"),
        ("photos --seed 3", "--seed draws other persons of synthetic; photos is not drawn", "leave --seed out"),
        ("synthetic --layout images", "--layout images: has no meaning for synthetic", "leave --layout out"),
        ("synthetic --cameras prefix", "--cameras prefix: has no meaning for synthetic", "leave --cameras out"),
        ("--cameras prefix", "--cameras prefix: belongs to layout persons, but lup/raw/market1501 has layout m",
         "leave --cameras out"),
        ("market1501 --version v1", "belongs to layout msmt17 or market1501 of msmt17, but lup/raw/market1501 has",
         "leave --version out"),
    ],
)  # fmt: skip
def test_an_option_of_another_layout_is_refused(
    lupctl: Shell, trees: Path, market_folder: Path, line: str, message: str, hint: str
) -> None:
    (trees / "lup" / "raw").mkdir(parents=True)
    market_folder.rename(trees / "lup" / "raw" / "market1501")
    ran = lupctl(f"data pack {line}")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert hint in hint_of(ran)
    assert not (trees / "lup" / "packs").exists()


def test_a_pack_takes_no_options_of_raw_data(lupctl: Shell, trees: Path) -> None:
    assert lupctl("data pack photos").code == 0
    for line in ("data verify photos --cameras none", "data pack photos --merge all --layout images"):
        ran = lupctl(line)
        assert ran.code == 2
        assert "has no meaning for photos: it is a pack, and its labels are known" in ran.err
    assert lupctl("data verify ./photos --layout images").code == 0


@pytest.mark.parametrize("way", [0, 1])
def test_a_toss_up_is_answered_with_commands_that_work(lupctl: Shell, trees: Path, way: int) -> None:
    ran = lupctl("data pack three")
    assert (ran.code, ran.out) == (2, "")
    assert "three: unclear whether its folders are persons: 3 folders with a median of 2 images" in ran.err
    ways = hint_of(ran).split("; or without labels: ")
    assert ways == ["lupctl data pack three --layout persons", "lupctl data pack three --layout images"]
    assert lupctl(ways[way].removeprefix("lupctl ")).code == 0
    assert open_pack(Path("lup/packs/three.h5")).record["source"]["layout"] == ("persons", "images")[way]
    assert lupctl("data pack three").code == 0, "and it is remembered"


def test_a_toss_up_among_others_does_not_keep_them(lupctl: Shell, trees: Path) -> None:
    (trees / "lup" / "raw").mkdir(parents=True)
    for name in ("three", "photos"):
        (trees / name).rename(trees / "lup" / "raw" / name)
    ran = lupctl("data pack")
    assert ran.code == 2
    assert hint_of(ran).startswith("lupctl data pack three --layout persons; or ")
    assert Path("lup/packs/photos.h5").exists()
    named = lupctl("data pack ./lup/raw/three --name other")
    assert hint_of(named).startswith("lupctl data pack ./lup/raw/three --name other --layout persons; or ")
    several = lupctl("data pack photos three --size 32x16 --max-bad 0.1 --force")
    assert hint_of(several).startswith("lupctl data pack three --size 32x16 --max-bad 0.1 --layout persons; or ")
    checked = lupctl("data verify ./lup/raw/three")
    assert hint_of(checked).startswith("lupctl data pack ./lup/raw/three --layout persons; or ")


def test_every_option_of_a_layout_is_judged() -> None:
    """All but the layout itself and the seed; a new one that is not in the table is not silently dropped."""
    every = Reading(cameras="none", version="v1", with_val=True, keys="none", root=Path("x"))
    assert set(every.options) | {"--no-val"} == set(KNOWN_BY)
    target = Target("mine", Path("x"), Path("x.h5"))
    for layout in ("images", "luperson-nl"):
        for reading in (Reading(version="v1"), Reading(with_val=False), Reading(keys="k"), Reading(root=Path("r"))):
            with pytest.raises(UsageError, match="belongs to layout"):
                pick_layout(target, reading, {"layout": layout})
    assert pick_layout(target, Reading(cameras="prefix"), {"layout": "images"}) == (
        Reading(layout="persons", cameras="prefix"), "--cameras prefix belongs to it"
    )  # fmt: skip
    refuse_for_drawn(Reading(seed=3))
