"""The published benchmarks as they lie on a disk: which files belong to them, and who is on each."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.io import savemat

from lupctl.core.choices import Version
from lupctl.core.data.sources.build import build_source
from lupctl.core.data.sources.guess import guess_layout
from lupctl.core.data.sources.layouts import market1501
from lupctl.core.data.sources.layouts.cuhk03 import Cuhk03IndexSource
from lupctl.core.data.sources.layouts.images import ImagesSource
from lupctl.core.data.sources.layouts.luperson_nl import LupersonNlSource
from lupctl.core.data.sources.layouts.market1501 import Market1501Source
from lupctl.core.data.sources.layouts.msmt17 import Msmt17Source, find_edition
from lupctl.core.data.sources.records import Source
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.pack.read import open_pack
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import FINETUNE, as_options

TRAIN, QUERY, GALLERY = 1, 2, 3


def place(root: Path, *names: str) -> Path:
    """Small images, all different."""
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_tiny(seed + len(names), Path(name).suffix))
    return root


def table(source: Source) -> list[tuple[str, int, int, int]]:
    found = source.list_images()
    columns = (found.name, found.person.tolist(), found.camera.tolist(), found.role.tolist())
    return list(zip(*columns, strict=True))


# MSMT17

LINES = {
    "list_train.txt": [("0000/0000_000_01_0303morning_0008_0.jpg", 0), ("0001/0001_000_15_0303noon_0002_1.jpg", 1)],
    "list_val.txt": [("0000/0000_014_02_0303morning_0100_2.jpg", 0)],
    "list_query.txt": [("0000/0000_000_03_0303morning_0008_0.jpg", 0), ("3059/3059_000_04_0303noon_0002_1.jpg", 3059)],
    "list_gallery.txt": [("0000/0000_002_05_0303morning_0008_0.jpg", 0), ("3059/3059_001_06_0303noon_0_1.jpg", 3059)],
}


def write_msmt17(root: Path, folders: tuple[str, str] = ("train", "test")) -> Path:
    for name, rows in LINES.items():
        folder = root / folders[name in ("list_query.txt", "list_gallery.txt")]
        place(folder, *(path for path, _ in rows))
        (root / name).write_text("".join(f"{path} {person}\n" for path, person in rows))
    return root


def test_msmt17_keeps_its_two_number_spaces_apart(tmp_path: Path) -> None:
    source = Msmt17Source(write_msmt17(tmp_path / "MSMT17_V1"))
    assert table(source) == [
        ("train/0000/0000_000_01_0303morning_0008_0.jpg", 1, 1, TRAIN),
        ("train/0000/0000_014_02_0303morning_0100_2.jpg", 1, 2, TRAIN),
        ("train/0001/0001_000_15_0303noon_0002_1.jpg", 2, 15, TRAIN),
        ("test/0000/0000_000_03_0303morning_0008_0.jpg", 10_001, 3, QUERY),
        ("test/3059/3059_000_04_0303noon_0002_1.jpg", 13_060, 4, QUERY),
        ("test/0000/0000_002_05_0303morning_0008_0.jpg", 10_001, 5, GALLERY),
        ("test/3059/3059_001_06_0303noon_0_1.jpg", 13_060, 6, GALLERY),
    ]
    assert (source.facts["train_offset"], source.facts["test_offset"]) == (1, 10_001)
    first = source.list_images().name[0]
    assert source.read(first) == (source.root / first).read_bytes()


def test_msmt17_without_its_validation_list(tmp_path: Path) -> None:
    source = Msmt17Source(write_msmt17(tmp_path / "MSMT17_V1"), with_val=False)
    assert [name for name, _, _, role in table(source) if role == TRAIN] == [
        "train/0000/0000_000_01_0303morning_0008_0.jpg",
        "train/0001/0001_000_15_0303noon_0002_1.jpg",
    ]
    assert source.facts["val"] is False


@pytest.mark.parametrize(
    ("root", "folders", "asked", "version", "reason"),
    [
        ("msmt17", ("mask_train_v2", "mask_test_v2"), None, "v2", "mask_train_v2 and mask_test_v2"),
        ("MSMT17_V1", ("mask_train_v2", "mask_test_v2"), None, "v2", "mask_train_v2"),
        ("MSMT17_V1", ("train", "test"), None, "v1", "its folder is named MSMT17_V1"),
        ("MSMT17_V2/MSMT17", ("train", "test"), None, "v2", "its folder is named MSMT17_V2"),
        ("msmt17", ("train", "test"), "v1", "v1", "from --version v1"),
        ("msmt17", ("train", "test"), "v2", "v2", "from --version v2"),
    ],
)
def test_which_msmt17(
    root: str, folders: tuple[str, str], asked: Version | None, version: str, reason: str, tmp_path: Path
) -> None:
    found = find_edition(write_msmt17(tmp_path / root, folders), asked)
    assert found.version == version
    assert reason in found.reason
    assert found.folders == folders


def test_an_msmt17_that_nothing_tells(tmp_path: Path) -> None:
    root = write_msmt17(tmp_path / "msmt17")
    with pytest.raises(DataError, match=r"V1 and V2 \(blurred faces\) cannot be told apart") as caught:
        Msmt17Source(root)
    assert "--version v1" in caught.value.hint
    blurred = write_msmt17(tmp_path / "two", ("mask_train_v2", "mask_test_v2"))
    with pytest.raises(UsageError, match="--version v1, but mask_train_v2 and mask_test_v2 are V2's folders"):
        Msmt17Source(blurred, version="v1")
    write_msmt17(blurred)
    with pytest.raises(DataError, match="contains the folders of both V1 and V2"):
        Msmt17Source(blurred)
    assert Msmt17Source(blurred, version="v1").edition.folders == ("train", "test")


def test_an_msmt17_with_a_list_missing(tmp_path: Path) -> None:
    root = write_msmt17(tmp_path / "raw" / "MSMT17_V1")
    assert Msmt17Source(tmp_path / "raw").root == root, "one level below"
    (root / "list_val.txt").unlink()
    named = "list_train.txt, list_val.txt, list_query.txt, list_gallery.txt; missing: list_val.txt"
    with pytest.raises(DataError, match=named):
        Msmt17Source(root)


@pytest.mark.parametrize("line", ["0000/0000_000_01_a_0.jpg", "0000/0000_000.jpg 3", "0000/0000_000_01_a.jpg x"])
def test_an_msmt17_line_that_is_none(line: str, tmp_path: Path) -> None:
    root = write_msmt17(tmp_path / "MSMT17_V1")
    with (root / "list_query.txt").open("a", newline="") as stream:
        stream.write(f"0001/0001_000_01_0303morning_0008_0.jpg 1\r\n{line}\r\n")
    with pytest.raises(DataError, match=r"list_query.txt: 1 lines are not a path and a person.*line 4: '0000"):
        Msmt17Source(root).list_images()


def test_msmt17_as_a_user_packs_it(lupctl: Shell, tmp_path: Path) -> None:
    write_msmt17(tmp_path / "lup" / "raw" / "msmt17")
    asked = lupctl("data pack")
    assert asked.code == 3
    assert "hint: say which one it is: --version v1, or --version v2" in asked.err
    ran = lupctl("data pack msmt17 --version v1 --no-val")
    assert ran.code == 0
    assert "msmt17: MSMT17 V1 (from --version v1" in ran.err
    assert "the images of list_val.txt are left out (--no-val)" in ran.err
    source = open_pack(tmp_path / "lup" / "packs" / "msmt17.h5").record["source"]
    assert (source["version"], source["val"], source["train_offset"]) == ("v1", False, 1)
    again = lupctl("data pack --json")
    assert again.json["packs"][0]["state"] == "up to date", "the pack remembers version and list"
    assert lupctl("data pack msmt17 --version v2").code == 2, "another version is another pack"


# Market-1501's layout in other hands


def test_the_relayout_of_msmt17_has_no_distractors(tmp_path: Path) -> None:
    names = ("bounding_box_train/0000_c12_0036.jpg", "query/0000_c1_0032.jpg", "bounding_box_test/0000_c2_0001.jpg")
    source = Market1501Source(place(tmp_path, *names), dataset="msmt17")
    assert [row[1:] for row in table(source)] == [(1, 12, TRAIN), (10_001, 1, QUERY), (10_001, 2, GALLERY)]
    assert source.facts["version"] == "unknown"
    assert source.facts["train_offset"] == 1
    other = Market1501Source(tmp_path, dataset="mine")
    assert table(other) == table(source), "person 0 to train on tells, whatever the name"


def test_the_short_gallery_that_circulates_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("bounding_box_train/0000_c1_1.jpg", "query/0000_c1_2.jpg", "bounding_box_test/0000_c2_1.jpg")
    source = Market1501Source(place(tmp_path, *names), dataset="msmt17")
    assert "circulates" not in str(source.facts["notes"])
    assert market1501.SHORT_MSMT17_GALLERY == 60_910
    monkeypatch.setattr(market1501, "SHORT_MSMT17_GALLERY", 1)
    assert "its gallery of 1 images is the cut copy in circulation" in str(source.facts["notes"])


def test_a_distractor_stays_one(market_folder: Path) -> None:
    found = {name: person for name, person, _, _ in table(Market1501Source(market_folder))}
    assert found["bounding_box_test/0000_c2s1_000201_03.jpg"] == 0
    assert "train_offset" not in Market1501Source(market_folder).facts


def test_cuhk03_in_folders_makes_two_packs(lupctl: Shell, tmp_path: Path) -> None:
    raw = tmp_path / "lup" / "raw" / "cuhk03-np"
    for boxes, count in (("labeled", 2), ("detected", 1)):
        names = [f"bounding_box_train/0001_c{camera}_{shot}.png" for camera in (1, 2) for shot in range(count)]
        place(raw / boxes, *names, "query/0003_c1_1.png", "bounding_box_test/0003_c2_8.png")
    ran = lupctl("data pack --json")
    assert ran.code == 0, ran.err
    assert {row["dataset"]: row["images"] for row in ran.json["packs"]} == {"cuhk03-labeled": 6, "cuhk03-detected": 4}
    made = open_pack(tmp_path / "lup" / "packs" / "cuhk03-detected.h5")
    assert made.samples.person.tolist() == [1, 1, 3, 3]
    assert made.samples.camera.tolist() == [1, 2, 1, 2]
    assert "lup/packs/cuhk03-labeled.h5 is up to date" in lupctl("data pack cuhk03-labeled").err, "by a part's name"
    assert "protocol of Zhong et al. 2017" in made.record["terms"]
    both = lupctl("data pack cuhk03-np --name mine")
    assert both.code == 2
    assert "--name goes with one dataset, lup/raw/cuhk03-np holds cuhk03-labeled and cuhk03-detected" in both.err
    one = lupctl("data pack lup/raw/cuhk03-np/labeled --name mine --json")
    assert one.json["packs"][0]["dataset"] == "mine"
    checked = lupctl("data verify cuhk03-detected")
    assert checked.code == 3
    assert "2 of 7,365" in checked.out


# CUHK03's index files

FILES = ["1_001_1_01.png", "1_001_2_06.png", "1_002_1_01.png", "1_002_2_06.png", "1_003_1_01.png"]


def write_index(path: Path, **changes: object) -> Path:
    """As published: columns of doubles from 1, and a column of cells."""
    cells = np.empty((len(FILES), 1), object)
    cells[:, 0] = FILES
    parts: dict[str, object] = {
        "train_idx": np.array([[1.0], [2.0]]),
        "query_idx": np.array([[3.0]]),
        "gallery_idx": np.array([[4.0], [5.0]]),
        "filelist": cells,
        "labels": np.array([[1.0], [1.0], [2.0], [2.0], [3.0]]),
        "camId": np.array([[1.0], [2.0], [1.0], [2.0], [1.0]]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {key: value for key, value in {**parts, **changes}.items() if value is not None})
    return path


@pytest.fixture
def index(tmp_path: Path) -> Path:
    place(tmp_path / "cuhk03" / "images_labeled", *FILES)
    return write_index(tmp_path / "cuhk03" / "cuhk03_new_protocol_config_labeled.mat")


def test_cuhk03_from_its_index(index: Path) -> None:
    source = Cuhk03IndexSource(index, dataset="cuhk03-labeled")
    assert table(source) == [
        ("1_001_1_01.png", 1, 1, TRAIN),
        ("1_001_2_06.png", 1, 2, TRAIN),
        ("1_002_1_01.png", 2, 1, QUERY),
        ("1_002_2_06.png", 2, 2, GALLERY),
        ("1_003_1_01.png", 3, 1, GALLERY),
    ]
    assert source.root == index.parent / "images_labeled"
    assert source.read(FILES[0]) == (source.root / FILES[0]).read_bytes()
    assert guess_layout(index.parent, dataset="mine").layout == "cuhk03-index"


def test_cuhk03_from_both_indices(lupctl: Shell, index: Path) -> None:
    place(index.parent / "images_detected", *FILES)
    write_index(index.parent / "cuhk03_new_protocol_config_detected.mat", gallery_idx=np.array([[4.0]]))
    ran = lupctl(f"data pack {index.parent} --json")
    assert ran.code == 0, ran.err
    assert {row["dataset"]: row["images"] for row in ran.json["packs"]} == {"cuhk03-labeled": 5, "cuhk03-detected": 4}
    assert lupctl(f"data pack {index} --name one --json").json["packs"][0]["images"] == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"query_idx": None}, "has no query_idx"),
        ({"gallery_idx": np.array([[6.0]])}, "1 indices are outside 1 to 5: 6"),
        ({"gallery_idx": np.array([[0.0]])}, "1 indices are outside 1 to 5: 0"),
        ({"gallery_idx": np.array([[3.0]])}, "1 images are in two of its parts: 1_002_1_01.png"),
        ({"camId": np.array([[1.0]])}, "1 camId for 5 files"),
    ],
)
def test_an_index_that_does_not_fit(changes: dict[str, object], message: str, index: Path) -> None:
    with pytest.raises(FormatError, match=message):
        Cuhk03IndexSource(write_index(index, **changes), dataset="c").list_images()


def test_an_index_that_is_none(index: Path, tmp_path: Path) -> None:
    content = index.read_bytes()
    for damaged in (b"", b"text", content[: len(content) // 2]):
        index.write_bytes(damaged)
        with pytest.raises(
            FormatError, match=r"cuhk03_new_protocol_config_labeled.mat: not a MATLAB 5 file, or damaged"
        ):
            Cuhk03IndexSource(index, dataset="c")
    empty = write_index(tmp_path / "empty" / index.name)
    with pytest.raises(DataError, match=r"its first image 1_001_1_01.png is in none of .*empty/images_labeled"):
        Cuhk03IndexSource(empty, dataset="c")


def test_the_classic_cuhk03_is_refused(tmp_path: Path) -> None:
    (tmp_path / "cuhk-03.mat").write_bytes(b"\x89HDF")
    for path in (tmp_path, tmp_path / "cuhk-03.mat"):
        with pytest.raises(
            DataError, match=r"classic protocol \(1,367 and 100 persons, 20 splits\), a different benchmark"
        ):
            build_source(guess_layout(path, dataset="cuhk03-labeled").layout, path, dataset="cuhk03-labeled")


def test_scipy_is_asked_for(index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(DataError, match="needs scipy, which is not installed") as caught:
        Cuhk03IndexSource(index, dataset="c")
    assert caught.value.hint == "pip install 'lupctl[mat]'"


# DukeMTMC-reID


def test_dukemtmc_needs_a_word_and_carries_its_notice(lupctl: Shell, tmp_path: Path) -> None:
    names = [f"bounding_box_train/0001_c{camera}_f0046662.jpg" for camera in (2, 8)]
    place(
        tmp_path / "lup" / "raw" / "dukemtmc",
        *names,
        "query/0005_c1_f0000001.jpg",
        "bounding_box_test/0005_c2_f0000002.jpg",
    )
    refused = lupctl("data pack")
    assert refused.code == 3
    assert "error: dukemtmc: withdrawn by its authors in 2019 for the privacy of the people in it" in refused.err
    assert "hint: add --accept-terms" in refused.err
    assert not (tmp_path / "lup" / "packs" / "dukemtmc.h5").exists()
    ran = lupctl("data pack --accept-terms --quiet")
    assert ran.code == 0
    assert "warning: dukemtmc: withdrawn by its authors" in ran.err, "quiet or not"
    assert "withdrawn" in open_pack(tmp_path / "lup" / "packs" / "dukemtmc.h5").record["source"]["notice"]
    assert "notice" in lupctl("data info dukemtmc").out
    assert lupctl("data pack").code == 0, "what is packed is not asked for again"
    merged = lupctl("data pack lup/packs/dukemtmc.h5 --merge all")
    assert merged.code == 3, "nor does it lose its notice in a merged pack"
    assert "error: dukemtmc: withdrawn by its authors" in merged.err
    (tmp_path / "lup" / "raw" / "dukemtmc").rename(tmp_path / "lup" / "raw" / "mine")
    assert lupctl("data pack mine").code == 3, "its file names tell, whatever it is called"


def test_a_report_repeats_the_notice(lupctl: Shell, market_folder: Path) -> None:
    """Small settings: what counts is that the notice comes through run and features to the report."""
    for path in [*market_folder.rglob("*s1_*.jpg")]:
        person, camera, *_ = path.name.replace("s1", "").split("_")
        path.rename(path.with_name(f"{person}_{camera}_f{int(path.stem.split('_')[2]):07d}.jpg"))
    assert lupctl(f"data pack {market_folder} --name mine --accept-terms").code == 0
    small = [*FINETUNE, "data.persons=2", "data.images=2", "bn_groups=1", "schedule.epochs=1"]
    assert (
        lupctl(
            f"finetune mine --recipe bot --from scratch --gpus 0 --workers 0 {' '.join(as_options(tuple(small)))}"
        ).code
        == 0
    )
    ran = lupctl("eval --device cpu")
    assert ran.code == 0, ran.err
    assert "notice: mine: withdrawn by its authors" in " ".join(ran.out.split())
    assert "withdrawn" in lupctl("eval --device cpu --json").json["provenance"]["features"]["notice"]


# LUPerson and LUPerson-NL


def test_luperson_in_folders(tmp_path: Path) -> None:
    source = ImagesSource(place(tmp_path / "v", "us/boston/-5Q9cKUWgAM/00000101_0000.jpg"), dataset="luperson")
    assert table(source) == [("us/boston/-5Q9cKUWgAM/00000101_0000.jpg", -1, -1, 0)]
    assert "notes" not in source.facts
    flat = ImagesSource(place(tmp_path / "f", "us/boston/00000101_0000.jpg"), dataset="luperson")
    assert "names are country/city/frame_object without the video" in str(flat.facts["notes"])
    circulating = place(tmp_path / "i", "images/30_00_0292_00000238.jpg", "images/00_00_0000_00000001.jpg")
    names = [row[0] for row in table(ImagesSource(circulating, dataset="luperson"))]
    assert names == ["images/00_00_0000_00000001.jpg", "images/30_00_0292_00000238.jpg"]


def test_luperson_nl_in_folders(tmp_path: Path) -> None:
    names = ("us/boston/-5Q9cKUWgAM/000123_0004567_02.jpg", "us/boston/abc/000009_0000000_00.jpg")
    source = LupersonNlSource(place(tmp_path, *names))
    assert table(source) == [(names[0], 123, -1, TRAIN), (names[1], 9, -1, TRAIN)]
    assert guess_layout(tmp_path, dataset="mine").layout == "luperson-nl"
    assert guess_layout(tmp_path, dataset="luperson-nl").layout == "luperson-nl"
    place(tmp_path, "us/boston/abc/0001_c2_8.png")
    with pytest.raises(DataError, match=r"1 names contain no person.*us/boston/abc/0001_c2_8.png"):
        LupersonNlSource(tmp_path).list_images()


def test_noisy_persons_become_classes(lupctl: Shell, tmp_path: Path) -> None:
    """A gap in the numbers, as a missing video leaves it, is none in the classes."""
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.stages.finetune.persons import pick_rows

    names = [f"us/boston/abc/{person:06d}_{frame:07d}_00.jpg" for person in (7, 433_996) for frame in (0, 20)]
    place(tmp_path / "lup" / "raw" / "luperson-nl", *names)
    assert lupctl("data pack").code == 0
    train = pick_rows(FinetuneRecipe(), [open_pack(tmp_path / "lup" / "packs" / "luperson-nl.h5")])
    assert (train.rows.tolist(), train.label.tolist(), train.persons) == ([0, 1, 2, 3], [0, 0, 1, 1], (7, 433_996))


# MOTChallenge


def test_frames_with_boxes_are_no_person_images(lupctl: Shell, tmp_path: Path) -> None:
    root = place(tmp_path / "lup" / "raw" / "pets" / "PETS09-S2L1", "img1/000001.jpg")
    (root / "gt").mkdir()
    (root / "gt" / "gt.txt").write_text("1,1,2,3,4,5,1,-1,-1,-1\n")
    ran = lupctl("data pack")
    assert ran.code == 3
    assert "a MOTChallenge sequence of frames and boxes (gt/gt.txt); its persons have to be cut out first" in ran.err
    folder = "lup/raw/pets/PETS09-S2L1"
    assert f"hint: lupctl data build pets --videos {folder} --detections {folder}/gt/gt.txt --format mot" in ran.err
    assert lupctl("data pack pets --layout images").code == 0, "the user's word counts"


def test_an_image_is_read_as_it_lies(index: Path) -> None:
    pixels = cv2.imdecode(np.frombuffer(Cuhk03IndexSource(index, dataset="c").read(FILES[0]), np.uint8), 1)
    assert pixels is not None
    assert pixels.shape == (32, 16, 3)
