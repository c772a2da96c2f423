"""Few-shot and small-scale subsets: the published counts, the published files, and a run on one."""

import hashlib
import tomllib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lupctl.core.choices import ROLE_CODES, SubsetKind
from lupctl.core.errors import DataError, StoppedError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.weights.header import read_header
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.job import build_order
from lupctl.core.stages.finetune.persons import pick_rows, repeat_rows
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.finetune.subsets import draw_subset, read_split
from lupctl.core.system.drawn_order import share
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import build_column
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, as_options, finetune_job, signal_at

QUIET = Progress(quiet=True)

RATIOS = [f"0.{tenth}" for tenth in range(1, 10)] + ["1.0"]
# Training persons and images of each dataset, and the lengths of the split files that come with LUPerson.
FEW_IDS = {
    751: [75, 150, 225, 300, 375, 450, 525, 600, 675, 751],
    1041: [104, 208, 312, 416, 520, 624, 728, 832, 936, 1041],
}
FEW_IMS = {
    (751, 12_936): [1293, 2587, 3880, 5174, 6468, 7761, 9055, 10348, 11642, 12936],
    (702, 16_522): [1652, 3304, 4956, 6608, 8261, 9913, 11565, 13217, 14869, 16522],
    (1041, 32_621): [3262, 6524, 9786, 13048, 16310, 19572, 22834, 26096, 29358, 32621],
    (767, 7_368): [767, 1473, 2210, 2947, 3684, 4420, 5157, 5894, 6631, 7368],
    (767, 7_365): [767, 1473, 2209, 2946, 3682, 4419, 5155, 5892, 6628, 7365],
}


def build_images(persons: int, images: int, *, offset: int = 0) -> Samples:
    """Images spread over persons, unevenly; names as Market-1501's."""
    person = np.sort(np.concatenate([np.arange(persons), np.arange(images - persons) ** 2 % persons])) + offset
    camera = (np.arange(images) % 6 + 1).astype(np.int16)
    names = [f"bounding_box_train/{person[row]:04d}_c{camera[row]}s1_{row:06d}_01.jpg" for row in range(images)]
    return Samples(
        person=person.astype(np.int64),
        camera=camera,
        role=np.full(images, ROLE_CODES["train"], np.uint8),
        name=build_column(names),
    )


@pytest.mark.parametrize(("counts", "lengths"), FEW_IMS.items())
def test_few_images_have_the_published_counts(counts: tuple[int, int], lengths: list[int]) -> None:
    persons, images = counts
    assert [max(share(images, ratio), persons) for ratio in RATIOS] == lengths


def test_drawn_counts_are_the_published_ones() -> None:
    images = build_images(751, 12_936)
    for place, ratio in enumerate(RATIOS):
        kept = draw_subset(images, "images", ratio, seed=0)
        assert len(kept) == FEW_IMS[751, 12_936][place]
        assert len(np.unique(images.person[kept])) == 751
        rows = draw_subset(images, "ids", ratio, seed=0)
        assert len(np.unique(images.person[rows])) == FEW_IDS[751][place]
    assert [share(1041, ratio) for ratio in RATIOS] == FEW_IDS[1041]


@given(
    persons=st.integers(2, 12),
    more=st.integers(0, 40),
    seed=st.integers(0, 5),
    ratios=st.lists(st.sampled_from(["0.2", "0.25", "0.5", "0.77", "1"]), min_size=2, max_size=2),
    split=st.sampled_from(["ids", "images"]),
)
def test_subsets_are_nested_and_whole(persons: int, more: int, seed: int, ratios: list[str], split: SubsetKind) -> None:
    images = build_images(persons, persons + more)
    small, large = sorted(ratios, key=float)
    if split == "ids" and share(persons, small) == 0:
        return
    inner, outer = (draw_subset(images, split, ratio, seed=seed) for ratio in (small, large))
    assert set(inner.tolist()) <= set(outer.tolist())
    assert np.all(np.diff(inner) > 0)
    if split == "ids":
        kept = images.person[inner]
        assert len(np.unique(kept)) == share(persons, small)
        assert np.isin(images.person, kept).sum() == len(inner), "all images of a person, or none"
    else:
        assert set(images.person[inner].tolist()) == set(range(persons))
        assert len(inner) == max(share(len(images), small), persons)


def test_a_subset_hangs_on_its_seed_and_on_nothing_else() -> None:
    images = build_images(100, 1000)
    first = draw_subset(images, "ids", "0.1", seed=0)
    assert np.array_equal(first, draw_subset(images, "ids", "0.1", seed=0))
    assert not np.array_equal(first, draw_subset(images, "ids", "0.1", seed=1))
    ranked = sorted(
        range(100), key=lambda person: hashlib.blake2b(f"0 person {person}".encode(), digest_size=16).digest()
    )
    assert set(images.person[first].tolist()) == set(ranked[:10]), "the same on every machine, with every version"
    shuffled = np.random.default_rng(1).permutation(1000)
    turned = images.select(shuffled)
    for split in ("ids", "images"):
        kept = {images.name[row] for row in draw_subset(images, split, "0.3", seed=7)}
        assert {turned.name[row] for row in draw_subset(turned, split, "0.3", seed=7)} == kept
    rows = draw_subset(images, "ids", "0.29", seed=0)
    assert len(np.unique(images.person[rows])) == 29, "0.29 * 100 is 28.999999999999996"


def test_a_ratio_that_keeps_nobody() -> None:
    with pytest.raises(DataError, match=r"ids:0.1 of 9 persons keeps none"):
        draw_subset(build_images(9, 20), "ids", "0.1", seed=0)


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def few_ims_text(images: Samples, rows: list[int]) -> str:
    """As published: name, label and camera from 0, a blank at the end, CRLF."""
    labels = {person: label for label, person in enumerate(np.unique(images.person).tolist())}
    return "".join(
        f"{images.name[row].rpartition('/')[2]}; {labels[int(images.person[row])]}; {images.camera[row] - 1} \r\n"
        for row in rows
    )


def test_the_published_files_are_read(tmp_path: Path) -> None:
    images = build_images(20, 60)
    ids = write(tmp_path / "used_ids_0.10.txt", "7 \n13 \n")
    rows = sorted({*np.unique(images.person, return_index=True)[1].tolist(), 59, 58})[:20]
    ims = write(tmp_path / "used_ims_0.10.txt", few_ims_text(images, rows[::-1]))
    before = (ids.read_bytes(), ims.read_bytes())
    assert before[1].endswith(b" \r\n")
    assert np.array_equal(read_split(ids, images), np.flatnonzero(np.isin(images.person, [7, 13])))
    assert read_split(ims, images).tolist() == rows
    assert (ids.read_bytes(), ims.read_bytes()) == before, "files are never written"


def test_the_numbers_of_msmt17_are_moved(tmp_path: Path) -> None:
    images = build_images(20, 60, offset=1)
    rows = read_split(write(tmp_path / "used_ids_0.10.txt", "0 \n19 \n"), images, offset=1)
    assert set(images.person[rows].tolist()) == {1, 20}


def test_lists_of_ones_own(tmp_path: Path) -> None:
    images = build_images(20, 60)
    names = "\ufeff" + "\n".join([images.name[4], images.name[2].rpartition("/")[2], ""])
    assert read_split(write(tmp_path / "mine.txt", names), images).tolist() == [2, 4]
    assert len(read_split(write(tmp_path / "ids.txt", "3\n4\n5\n"), images)) == np.isin(images.person, [3, 4, 5]).sum()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("used_ids_0.10.txt", "7 \n99 \n98 \n", r"2 persons are not in the training set: 99 \(line 2\), 98 \(line 3\)"),
        ("used_ids_0.10.txt", "7 \n8 \n9 \n", "names 3 persons; 0.10 of the pack's 20 are 2"),
        ("used_ids_0.10.txt", "7 \n7 \n", "1 persons come twice: 7"),
        ("few.txt", "gone.jpg; 0; 0 \r\n", r"1 names are not in the training set: gone.jpg \(line 1\)"),
        ("used_ims_0.50.txt", "0000_c1s1_000000_01.jpg; 0; 0 \r\n", "names 1 images; 0.50 of the pack's 60 are 30"),
        ("few.txt", "0000_c1s1_000000_01.jpg; 0; 4 \r\n", r"line 1: camera 4, but the pack has 1 \(counted from 1\)"),
        ("few.txt", "0000_c1s1_000000_01.jpg; 0 \r\n", "line 1: .* is not 'name; label; camera'"),
        ("few.txt", "0000_c1s1_000000_01.jpg\n0000_c1s1_000000_01.jpg\n", "1 names come twice"),
        ("few.txt", " \r\n", "is empty"),
    ],
)
def test_a_file_that_does_not_fit(name: str, text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{name}: .*{message}"):
        read_split(write(tmp_path / name, text), build_images(20, 60))


def test_labels_that_are_other_persons(tmp_path: Path) -> None:
    images = build_images(20, 60)
    text = few_ims_text(images, [0, 59]).replace("; 19; ", "; 0; ")
    with pytest.raises(DataError, match="line 2: label 0 belongs to another person"):
        read_split(write(tmp_path / "few.txt", text), images)
    with pytest.raises(DataError, match="not a readable split file"):
        read_split(tmp_path / "none.txt", images)


# A run on a subset


def command(pack: Path, *more: str) -> str:
    words = ["finetune", str(pack), "--recipe", "bot", "--from", "scratch", "--gpus", "0", "--workers", "0"]
    words += [*as_options(FINETUNE), *more]
    return " ".join(words)


def test_a_run_trains_on_a_part(lupctl: Shell, labelled: Path) -> None:
    line = command(labelled, "--set", "schedule.epochs=1", "--subset", "ids:0.7", "--json")
    plan = lupctl(f"{line} --dry-run").json
    assert (plan["persons"], plan["images"]) == (4, plan["images"])
    ran = lupctl(line)
    assert ran.code == 0, ran.err
    made = open_pack(labelled)
    train = made.samples.role == 1
    header = read_header(Path(ran.json["run"]) / "checkpoint.safetensors")
    kept = np.isin(made.samples.person, header.classes) & train
    assert len(header.classes) == 4 < len(np.unique(made.samples.person[train])) == 6
    assert (ran.json["images"], ran.json["subset"]) == (int(kept.sum()), "ids:0.7")
    assert f"subset ids:0.7: {kept.sum()} images of 4 persons" in ran.err
    assert header.to_json()["recipe"]["data"]["subset"] == "ids:0.7"
    assert Path(ran.json["run"]).name == "finetune-labelled-r18-from-scratch-ids-0.7", "beside the run on all images"
    shown = tomllib.loads(lupctl(f"recipe show {ran.json['run']}").out)
    assert (shown["data"]["subset"], shown["data"]["subset_seed"]) == ("ids:0.7", 0)
    other = lupctl(f"{line} --out {ran.json['run']} --set data.subset_seed=1")
    assert other.code == 2
    assert "data.subset_seed" in other.err


def test_a_run_on_a_part_goes_on_to_the_bit(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("data.subset=images:0.5", "data.subset_seed=3", "schedule.epochs=3")
    whole, stopped = (finetune_job(labelled, tmp_path / name, *settings) for name in ("whole", "stopped"))
    total = finetune(whole, QUIET)["steps"]
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 2)
        with pytest.raises(StoppedError, match=f"stopped on request after step 2 of {total}"):
            finetune(stopped, QUIET)
    assert finetune(stopped, QUIET)["images"] == 18
    one, other = ((job.run / "checkpoint.safetensors").read_bytes() for job in (whole, stopped))
    assert one == other


def test_a_run_on_a_split_file_notices_that_it_changed(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    persons = np.unique(open_pack(labelled).samples.person[open_pack(labelled).samples.role == 1]).tolist()
    split = write(tmp_path / "few.txt", "".join(f"{person} \n" for person in persons[:4]))
    line = command(labelled, "--set", "schedule.epochs=1", "--subset", "few.txt", "--json")
    ran = lupctl(line)
    assert ran.code == 0, ran.err
    header = read_header(Path(ran.json["run"]) / "checkpoint.safetensors")
    assert header.classes == tuple(persons[:4])
    assert header.parents["subset"].startswith("sha256:")
    split.write_text("".join(f"{person} \n" for person in persons[1:5]))
    changed = lupctl(line)
    assert changed.code == 0, changed.err
    assert changed.json["run"] == f"{ran.json['run']}-2"
    assert f"{ran.json['run']} is finished, with inputs.subset = 'sha256:" in changed.err
    refused = lupctl(f"{line} --out {ran.json['run']}")
    assert refused.code == 2
    assert "contains a run with inputs.subset = 'sha256:" in refused.err


@pytest.mark.parametrize(
    ("subset", "code", "message"),
    [
        ("ids:1.5", 2, "data.subset: ids:R takes a share R above 0 and up to 1, as in ids:0.1, got 'ids:1.5'"),
        ("images:0", 2, "images:R takes a share R above 0"),
        ("ids:tenth", 2, "ids:R takes a share R"),
        ("id:0.5", 3, "id:0.5: not a readable split file (No such file or directory)"),
        ("ids:0.2", 3, "labelled training images of 1 person; expected two or more"),
        ("ids:0.4", 2, "data.persons = 4 persons per batch, but the training set has 2"),
    ],
)
def test_subsets_that_cannot_be(lupctl: Shell, labelled: Path, subset: str, code: int, message: str) -> None:
    ran = lupctl(command(labelled, "--subset", subset, "--dry-run"))
    assert ran.code == code
    assert message in ran.err


@given(st.integers(1, 40), st.integers(100, 999), st.integers(0, 60))
def test_repeating_is_the_list_over_and_over_and_its_beginning(number: int, hundredths: int, more: int) -> None:
    """Against the definition, one entry after the other: int(r) times, then the first int(frac(r) n)."""
    rows = np.arange(number) * 3 + 7
    slow = [row for _ in range(hundredths // 100) for row in rows.tolist()]
    slow += rows.tolist()[: hundredths % 100 * number // 100]
    assert repeat_rows(rows, hundredths / 100, whole=0).tolist() == slow
    full = repeat_rows(rows, "full", whole=number + more)
    assert full.tolist() == [rows.tolist()[place % number] for place in range(number + more)]


def test_an_epoch_keeps_its_length(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    """Half of the images, gone through twice: as many steps as with all, and each image as often in the long run."""
    line = command(labelled, "--subset", "images:0.5", "--set", "data.order=stream", "--json")
    plan = lupctl(f"{line} --dry-run").json
    assert (plan["images"], plan["steps_per_epoch"]) == (18, 1)
    for repeat, name in (("full", "repeat-full"), ("2", "repeat-2")):
        plan = lupctl(f"{line} --repeat {repeat} --dry-run").json
        assert (plan["images"], plan["steps_per_epoch"], plan["steps"]) == (18, 3, 6)
        assert Path(plan["run"]).name == f"finetune-labelled-r18-from-scratch-images-0.5-{name}"
    ran = lupctl(f"{line} --repeat full")
    assert ran.code == 0, ran.err
    assert (ran.json["steps"], ran.json["images"], ran.json["repeat"]) == (6, 18, "full")
    assert "repeat full: 3 steps an epoch" in ran.err
    recipe = finetune_job(
        labelled, tmp_path / "run", "data.subset=images:0.5", "data.repeat=full", "data.order=stream"
    ).recipe
    train = pick_rows(recipe, [open_pack(labelled)])
    rows, counts = np.unique(train.rows, return_counts=True)
    assert (len(rows), set(counts.tolist())) == (18, {2})
    order = build_order(recipe, train.label, train.camera)
    keys = np.concatenate([order.draw_keys(step) for step in range(3)])
    assert len(set(keys.tolist())) == len(keys), "an image that comes twice is augmented anew"


@pytest.mark.parametrize("repeat", ["0.5", "often", "nan", "-1", "inf"])
def test_repeats_that_cannot_be(lupctl: Shell, labelled: Path, repeat: str) -> None:
    ran = lupctl(command(labelled, "--repeat", repeat, "--dry-run"))
    assert ran.code == 2
    assert "data.repeat: a number from 1 to 10,000, or full, is expected, got" in ran.err
