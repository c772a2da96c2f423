"""From a folder per person without queries to scores, with one option."""

import json
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.ranking.reports.model.single import read_report
from tests.tools.shell import Ran, Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options

PACK = "data pack staff --layout persons"
TRAIN = f"finetune staff --recipe bot --from scratch --gpus 0 --workers 0 {' '.join(as_options(FINETUNE))}"


@pytest.fixture
def staff(tmp_path: Path) -> Path:
    """Eight persons, three images from each of two cameras."""
    for person in range(8):
        for camera in (1, 2):
            for shot in range(3):
                path = tmp_path / "staff" / f"{chr(97 + person)}" / f"c{camera}_{shot}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(encode_tiny(100 * person + 10 * camera + shot))
    return tmp_path / "staff"


def roles(pack: str = "lup/packs/staff.h5") -> list[int]:
    """Images in train, query and gallery."""
    return np.bincount(open_pack(Path(pack)).samples.role, minlength=4)[1:].tolist()


def offered(ran: Ran) -> str:
    """The command that a line offers."""
    (line,) = (line for line in ran.err.splitlines() if "would train on" in line)
    command = line.partition("; ")[2].partition(" would train on")[0]
    assert command.startswith("lupctl ")
    return command.removeprefix("lupctl ")


def test_a_split_is_packed_shown_adopted_and_undone(lupctl: Shell, staff: Path) -> None:
    ran = lupctl(f"{PACK} --cameras prefix --split persons:0.5")
    assert ran.code == 0, ran.err
    counts = "train 24 images of 4 persons, 8 queries of 4 persons, gallery 16 images of 4 persons"
    line = f"split persons:0.5, seed 0: {counts}"
    assert ran.err.splitlines()[1:] == [f"staff: {line}"]
    assert roles() == [24, 8, 16]
    first = open_pack(Path("lup/packs/staff.h5")).fingerprint
    assert "persons:0.5, seed 0" in lupctl("data info staff").out
    split = lupctl("data info staff --json").json["source"]["split"]
    assert (split["rule"], split["seed"], split["protocol"]) == ("persons:0.5", 0, "market1501")
    assert lupctl("data verify lup/packs/staff.h5").code == 0

    again = lupctl("data pack staff")
    assert again.code == 0
    assert f"staff: {line} (as in its pack; --split none undoes it)" in again.err
    assert "up to date" in again.err
    other = lupctl("data pack staff --split persons:0.5 --split-seed 1")
    assert other.code == 2
    assert "would be overwritten: its split is persons:0.5, seed 0" in other.err
    assert other.err.endswith("hint: lupctl data pack staff --split persons:0.5 --split-seed 1 --force\n")
    assert lupctl("data pack staff --split persons:0.5 --split-seed 1 --force").code == 0
    assert open_pack(Path("lup/packs/staff.h5")).fingerprint != first
    assert "seed 1" in lupctl("data pack staff --force").err, "the seed is adopted, too"
    undone = lupctl("data pack staff --split none --force")
    assert undone.code == 0
    assert roles() == [48, 0, 0]
    assert "split" not in lupctl("data pack staff").err
    assert "would be overwritten: it has no split" in lupctl("data pack staff --split images:0.5").err


def test_the_offer_works_as_typed(lupctl: Shell, staff: Path) -> None:
    ran = lupctl(f"{PACK} --cameras prefix")
    command = "lupctl data pack staff --split persons:0.5 --force"
    outcome = "would train on 4 persons and test with 8 queries of 4 persons"
    expected = f"staff: no queries and no gallery, so nothing can be tested; {command} {outcome}"
    assert ran.err.splitlines()[1:] == [expected]
    trained = lupctl(f"{TRAIN} --out run --dry-run")
    assert trained.code == 0
    assert "staff: no queries, so the run will not be evaluated; lupctl data pack staff --split" in trained.err
    assert offered(trained) == offered(ran)
    assert lupctl(offered(ran)).code == 0
    assert roles() == [24, 8, 16]
    assert "no queries" not in lupctl("data pack staff").err


@pytest.mark.parametrize("where", ["elsewhere", "other name", "other file", "other workspace"])
def test_the_offer_names_what_it_has_to(lupctl: Shell, staff: Path, tmp_path: Path, where: str) -> None:
    folder = tmp_path / "some where" / "staff"
    folder.parent.mkdir()
    staff.rename(folder)
    more, pack = {
        "elsewhere": ("", "lup/packs/staff.h5"),
        "other name": ("--name crew", "lup/packs/crew.h5"),
        "other file": ("--out mine.h5", "mine.h5"),
        "other workspace": ("--home there", "there/packs/staff.h5"),
    }[where]
    ran = lupctl(f"data pack {shlex.quote(str(folder))} --layout persons --cameras prefix {more}")
    assert ran.code == 0, ran.err
    home = "--home there" if where == "other workspace" else ""
    finetuned = lupctl(f"{TRAIN.replace('staff', pack, 1)} --dry-run {home}")
    assert offered(finetuned) == offered(ran)
    assert lupctl(offered(ran)).code == 0
    assert roles(pack) == [24, 8, 16]


def test_few_persons_are_offered_a_closed_set_and_one_person_nothing(lupctl: Shell, staff: Path) -> None:
    for folder in sorted(staff.iterdir())[2:]:
        folder.rename(staff.parent / folder.name)
    ran = lupctl(f"{PACK} --cameras prefix")
    assert "data pack staff --split images:0.5 --force would train on 2 persons and test with" in ran.err
    assert lupctl(offered(ran)).code == 0
    assert (
        "a closed set by its split images:0.5: 2 persons in train and in the test"
        in lupctl("data verify lup/packs/staff.h5").out
    )
    (staff / "b").rename(staff.parent / "b2")
    assert "would train" not in lupctl(f"{PACK} --cameras prefix --split none --force").err


def test_a_closed_set_is_no_leak_but_the_same_roles_without_a_split_are(lupctl: Shell, staff: Path) -> None:
    assert lupctl(f"{PACK} --cameras prefix --split images:0.5").code == 0
    ran = lupctl("data verify lup/packs/staff.h5")
    assert ran.code == 0
    assert "note: a closed set by its split images:0.5: 8 persons in train and in the test" in ran.out
    samples = open_pack(Path("lup/packs/staff.h5")).samples
    names = {1: "train", 2: "query", 3: "gallery"}
    rows = [
        f"staff/{name},{person},{camera},{names[role]}"
        for name, person, camera, role in zip(
            samples.name, samples.person.tolist(), samples.camera.tolist(), samples.role.tolist(), strict=True
        )
    ]
    Path("own.csv").write_text("\n".join(["path,person,camera,role", *rows]))
    assert lupctl("data pack own.csv --name own").code == 0
    ran = lupctl("data verify lup/packs/own.h5")
    assert ran.code == 3
    assert "in train and also in query or gallery; scores would be too high" in ran.out
    refused = lupctl("data pack own.csv --name own --split persons:0.5 --force")
    assert refused.code == 2
    assert "own: has roles already (train 24, query " in refused.err


def test_one_camera_is_trained_and_scored_without_an_option(lupctl: Shell, staff: Path) -> None:
    ran = lupctl(f"{PACK} --cameras none --split persons:0.5")
    same = "nobody is seen by two cameras: matches from the query's own are right (protocol same-camera-allowed)"
    assert same in ran.err
    assert roles() == [24, 4, 20]
    assert lupctl("data verify lup/packs/staff.h5").code == 0
    trained = lupctl(f"{TRAIN} --out run")
    assert trained.code == 0, trained.err
    assert same in trained.err
    scores = json.loads(Path("run/run.json").read_text())["scores"]
    ran = lupctl("eval run")
    assert ran.code == 0, ran.err
    assert "protocol: same-camera-allowed (as the data's split says" in ran.err
    assert "protocol: same-camera-allowed, same camera: keep" in ran.out
    assert same in " ".join(ran.out.split())
    report = read_report(Path("run/report.json"))
    assert (report.protocol.name, report.counts.queries_valid) == ("same-camera-allowed", 4)
    assert report.scores.map == pytest.approx(scores["map"], abs=1e-6)
    assert same in Path("run/report.html").read_text().replace("&#39;", "'")
    assert lupctl("eval run --dry-run").code == 0
    assert lupctl("eval run").code == 0, "the same report again"

    named = lupctl("eval run --protocol market1501 --force")
    assert named.code == 3, "what is named wins, and nothing can be answered then"
    assert "0 of 4 queries have a right answer: no image has a known camera" in named.err
    assert lupctl("eval run --same-camera drop --force").code == 3
    options = " ".join(as_options(PRETRAIN))
    probed = lupctl(f"pretrain --data lup/packs/staff.h5 --probe lup/packs/staff.h5 --gpus 0 --workers 0 {options}")
    assert probed.code == 0, probed.err
    assert '"probe_map"' in next(Path("lup/runs").glob("*/metrics.jsonl")).read_text()


def test_several_protocols_in_one_table(lupctl: Shell, staff: Path, labelled: Path) -> None:
    assert lupctl(f"{PACK} --cameras none --split persons:0.5").code == 0
    Path("lup/packs/labelled.h5").symlink_to(labelled)
    assert lupctl(f"{TRAIN} --out lup/runs/mine").code == 0
    ran = lupctl("eval --all mine")
    assert ran.code == 0, ran.err
    assert "staff: protocol same-camera-allowed, the others market1501" in ran.out
    (written,) = Path("lup/comparisons").glob("*.json")
    protocols = {one["name"]: one["protocol"] for one in json.loads(written.read_text())["datasets"]}
    assert protocols == {"labelled": "market1501", "staff": "same-camera-allowed"}
    assert "Protocol market1501, same-camera-allowed." in written.with_suffix(".html").read_text()
    assert "left out" in lupctl("eval --all mine --protocol market1501 --force").err


def test_a_split_file_and_what_becomes_of_it(lupctl: Shell, staff: Path) -> None:
    lines = [f"{person}/c{camera}_0.jpg,{role}" for person in "abcd" for camera, role in ((1, "train"), (2, "train"))]
    lines += [
        f"{person}/c{camera}_0.jpg,{role}" for person in "efgh" for camera, role in ((1, "query"), (2, "gallery"))
    ]
    Path("split.txt").write_text("\n".join(lines))
    ran = lupctl(f"{PACK} --cameras prefix --split split.txt")
    assert ran.code == 0, ran.err
    assert "staff: left out, as split.txt does not name them: 32 images" in ran.err
    assert roles() == [8, 4, 4]
    assert "split split.txt: train 8 images" in lupctl("data pack staff").err
    Path("split.txt").write_text("\n".join(lines[:-1]))
    assert "would be overwritten" in lupctl("data pack staff").err, "the file has changed"
    Path("split.txt").unlink()
    gone = lupctl("data pack staff")
    assert gone.code == 3
    assert (
        "--split split.txt: there is no such file, and not a rule either (the split of lup/packs/staff.h5)" in gone.err
    )
    assert "hint: add --split none" in gone.err
    assert lupctl("data pack staff --split none --force").code == 0
    missing = lupctl(f"{PACK} --split split.txt")
    assert missing.code == 3


def test_a_table_without_roles(lupctl: Shell, staff: Path) -> None:
    """Persons and cameras are words, and the table is packed under another name."""
    images = sorted(staff.rglob("*.jpg"))
    rows = [
        f"{path.relative_to(staff.parent)},{path.parent.name},{'hall' if path.name < 'c2' else 'door'}"
        for path in images
    ]
    Path("table.csv").write_text("\n".join(["path,person,camera", *rows]))
    ran = lupctl("data pack table.csv --name staff")
    assert "lupctl data pack table.csv --name staff --split persons:0.5 --force would train on 4 persons" in ran.err
    assert offered(lupctl(f"{TRAIN} --dry-run")) == offered(ran)
    assert lupctl(offered(ran)).code == 0
    assert roles() == [24, 8, 16]
    Path("bare.csv").write_text("\n".join(["path", *(row.partition(",")[0] for row in rows)]))
    bare = lupctl("data pack bare.csv --split persons:0.5")
    assert bare.code == 3
    assert "bare: 48 images without persons" in bare.err
    assert "a CSV with a column person" in bare.err


def test_a_built_pack_is_split_into_another_one(lupctl: Shell, staff: Path) -> None:
    """Persons of tracks have labels, and there are only videos to pack them from again."""
    assert lupctl(f"{PACK} --cameras prefix --name hall").code == 0
    with h5py.File("lup/packs/hall.h5", "r+") as file:
        record = json.loads(file.attrs["lupctl"])
        record["source"] = {"layout": "videos", "root": "videos"}
        file.attrs["lupctl"] = json.dumps(record)
    ran = lupctl(f"{TRAIN.replace('staff', 'hall', 1)} --dry-run")
    assert (
        "lupctl data pack lup/packs/hall.h5 --name hall-split --split persons:0.5 would train on 4 persons" in ran.err
    )
    assert lupctl(offered(ran)).code == 0
    assert roles("lup/packs/hall-split.h5") == [24, 8, 16]
    assert roles("lup/packs/hall.h5") == [48, 0, 0]
    whole, split = open_pack(Path("lup/packs/hall.h5")), open_pack(Path("lup/packs/hall-split.h5"))
    encoded = {name: whole.read(row) for row, name in enumerate(whole.samples.name)}
    assert {name: split.read(row) for row, name in enumerate(split.samples.name)} == encoded
    assert split.dataset == "hall-split"
    assert "up to date" in lupctl(offered(ran)).err
    refused = lupctl("data pack lup/packs/hall.h5 --split persons:0.5")
    assert refused.code == 2
    assert refused.err.endswith("hint: lupctl data pack lup/packs/hall.h5 --split persons:0.5 --name hall-split\n")
    again = lupctl("data pack lup/packs/hall-split.h5 --split persons:0.5 --name third")
    assert "third: has roles already" in again.err


def test_merging_leaves_the_test_of_a_split_out(lupctl: Shell, staff: Path) -> None:
    assert lupctl(f"{PACK} --cameras prefix --split persons:0.5").code == 0
    ran = lupctl("data pack staff --merge everybody")
    assert ran.code == 0, ran.err
    assert "staff: 24 queries and gallery images are left out" in ran.err
    assert len(open_pack(Path("lup/packs/everybody.h5"))) == 24
    assert "has no meaning with --merge" in lupctl("data pack staff --split persons:0.5 --merge x").err


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ("--layout images --split persons:0.5", 3, "staff: 48 images without persons"),
        ("--layout persons --split-seed 3", 2, "--split-seed 3 has no meaning without --split"),
        ("--layout persons --split none --split-seed 3", 2, "--split-seed 3 has no meaning without --split"),
        ("--layout persons --split persons", 2, "--split persons: persons:R takes the share"),
        ("--layout persons --split person:0.5", 2, "did you mean persons:0.5?"),
        ("--layout persons --cameras none --split cameras:1", 3, "no image has a camera"),
    ],
)
def test_a_split_that_cannot_be_leaves_nothing(
    lupctl: Shell, staff: Path, options: str, code: int, message: str
) -> None:
    ran = lupctl(f"data pack staff {options}")
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert not Path("lup").exists()
