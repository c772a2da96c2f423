"""Labels as a tracker makes them: how many are split and merged, and where the truth stays."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lupctl.core.data.sources.label_noise import LabelNoise, NoisySource, draw_labels, parse_label_noise
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.read import open_pack
from tests.tools.shell import Shell

EXPECTED = "split or merge with a share from 0 to 1 was expected"
PERSONS = np.repeat(np.arange(1, 401), 6)


def pairs_of(label: np.ndarray) -> list[tuple[int, int]]:  # type: ignore[type-arg]
    return sorted(set(zip(PERSONS.tolist(), label.tolist(), strict=True)))


def test_without_noise_labels_are_the_persons_numbered() -> None:
    assert draw_labels(PERSONS * 10, LabelNoise()).tolist() == PERSONS.tolist()


def test_a_split_person_has_two_labels_of_its_own_one_after_the_other() -> None:
    label = draw_labels(PERSONS, LabelNoise(split=0.3))
    counts = np.bincount([person for person, _ in pairs_of(label)])[1:]
    assert set(counts.tolist()) == {1, 2}
    # 400 persons, each with probability 0.3: five standard deviations are 46.
    assert 120 - 46 < (counts == 2).sum() < 120 + 46
    assert len(set(label.tolist())) == counts.sum(), "no label has two persons"
    for person in range(1, 401):
        assert (np.diff(label[person == PERSONS]) != 0).sum() <= 1, "one cut"


def test_a_merged_tracklet_has_the_label_of_another_person() -> None:
    label = draw_labels(PERSONS, LabelNoise(merge=0.2))
    assert len(pairs_of(label)) == 400, "nobody has two labels"
    lost = 400 - len(set(label.tolist()))
    assert 80 - 40 < lost < 80 + 40
    assert sorted(set(label.tolist())) == list(range(1, 401 - lost)), "no gaps"


def test_noise_depends_on_its_seed_alone() -> None:
    noise = LabelNoise(split=0.3, merge=0.2)
    assert draw_labels(PERSONS, noise).tolist() == draw_labels(PERSONS, noise).tolist()
    assert draw_labels(PERSONS, noise).tolist() != draw_labels(PERSONS, LabelNoise(0.3, 0.2, seed=1)).tolist()
    assert draw_labels(np.array([-1, 3, -1, 3]), LabelNoise(split=1.0)).tolist() == [-1, 1, -1, 2]
    assert draw_labels(np.array([5, 5, 5]), LabelNoise(merge=1.0)).tolist() == [1, 1, 1], "nobody to be mistaken for"


def test_only_training_images_change_and_the_record_keeps_the_truth() -> None:
    source = SyntheticSource(SyntheticPlan(unlabelled_persons=3, train_persons=9, test_persons=3, cameras=3, shots=2))
    noisy, clean = NoisySource(source, LabelNoise(0.5, 0.3)), source.list_images()
    found, train = noisy.list_images(), clean.role == 1
    assert np.array_equal(found.person[~train], clean.person[~train])
    assert not np.array_equal(found.person[train], clean.person[train])
    assert list(found.name) == list(clean.name)
    assert noisy.read(clean.name[0]) == source.read(clean.name[0])
    kept = noisy.facts["label_noise"]
    assert isinstance(kept, dict)
    runs = kept.pop("true_persons")
    assert kept == {"split": 0.5, "merge": 0.3, "seed": 0}
    assert np.repeat(*np.array(runs).T).tolist() == clean.person[train].tolist()


def test_a_source_without_labels_is_refused() -> None:
    source = NoisySource(SyntheticSource(SyntheticPlan(unlabelled_persons=3)), LabelNoise(0.5))
    with pytest.raises(DataError, match="no training image has a person"):
        source.list_images()


def test_a_noisy_pack_stays_comparable_with_its_raw_data(lupctl: Shell, market_folder: Path, tmp_path: Path) -> None:
    """The same command without the option reads the labels as for the pack, and says so; split:0 cleans them."""
    ran = lupctl(f"data pack {market_folder} --name mine --layout market1501 --label-noise split:1,merge:0.5")
    assert ran.code == 0, ran.err
    made = open_pack(tmp_path / "lup/packs/mine.h5")
    assert made.record["source"]["label_noise"]["true_persons"] == [[2, 4], [7, 4]]
    noisy = made.samples.person[made.samples.role == 1]
    assert len(set(noisy.tolist())) > 1
    ran = lupctl(f"data pack {market_folder} --name mine --dry-run --json")
    assert "mine: --label-noise split:1.0,merge:0.5 (as in its pack)" in ran.err
    assert ran.json["packs"][0]["state"] == "up to date"
    ran = lupctl(f"data pack {market_folder} --name mine --label-noise split:0 --force")
    assert ran.code == 0, ran.err
    clean = open_pack(tmp_path / "lup/packs/mine.h5").samples
    assert clean.person[clean.role == 1].tolist() == [1] * 4 + [2] * 4


def test_noise_and_a_pack_without_labels_exclude_each_other(lupctl: Shell, market_folder: Path) -> None:
    ran = lupctl(f"data pack {market_folder} --merge everybody --label-noise split:0.1")
    assert ran.code == 2
    assert "--label-noise split:0.1: --merge everybody makes a pack without labels" in ran.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((text, f"--label-noise {text}: {text!r}; {EXPECTED}") for text in ("split", "split:", "split:1.5", "swap:0")),
        *((text, f"--label-noise {text}: {text!r}; {EXPECTED}") for text in ("split:-0.1", "merge:nan", "merge:inf")),
        ("", f"--label-noise '': nothing; {EXPECTED}"),
        ("split:0.1,,merge:0", f"--label-noise split:0.1,,merge:0: nothing; {EXPECTED}"),
        ("split:0.1,split:0.2", "--label-noise split:0.1,split:0.2: split is given twice"),
        ("merge:1", "--label-noise merge:1: no label is left for another person to get; a share of merge below 1 was"),
    ],
)
def test_noise_that_is_none(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_label_noise(text, seed=0)
    assert caught.value.message.startswith(message)
    assert caught.value.hint == "--label-noise split:0.3,merge:0.1"


def test_noise_needs_roles_that_are_known(lupctl: Shell, market_folder: Path) -> None:
    ran = lupctl(f"data pack {market_folder} --name mine --split persons:0.5 --label-noise split:0.1")
    assert ran.code == 2
    assert "--label-noise and --split: only images that are for training already can get wrong labels" in ran.err


def test_noise_and_split_exclude_each_other_also_where_the_pack_has_one(
    lupctl: Shell, market_folder: Path, tmp_path: Path
) -> None:
    """Queries and galleries with wrong labels would spoil every score."""
    folder = tmp_path / "staff"
    for path in sorted((market_folder / "bounding_box_train").iterdir()):
        own = folder / path.name[:4]
        own.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, own)
    base, out = f"data pack {folder} --name mine --layout persons --cameras market", tmp_path / "lup/packs/mine.h5"
    ran = lupctl(f"{base} --label-noise split:1")
    assert ran.code == 0, ran.err
    assert "--split" not in ran.err, "no split is offered that would be refused"
    noisy = open_pack(out).samples.person
    ran = lupctl(f"{base} --split images:0.5 --force")
    assert ran.code == 2
    assert f"can get wrong labels (the noise of {Path('lup/packs/mine.h5')})\nhint: add --label-noise none" in ran.err
    ran = lupctl(f"{base} --label-noise '' --force")
    assert ran.code == 2
    assert "an empty word after --label-noise" in ran.err
    assert open_pack(out).samples.person.tolist() == noisy.tolist()
    ran = lupctl(f"{base} --label-noise none --split images:0.5 --force")
    assert ran.code == 0, ran.err
    made = open_pack(out)
    assert "label_noise" not in made.record["source"]
    assert (made.samples.role == 2).any()
    ran = lupctl(f"{base} --label-noise split:1 --force")
    assert ran.code == 2
    assert f"(the split of {Path('lup/packs/mine.h5')})\nhint: add --split none" in ran.err
    ran = lupctl(f"{base} --label-noise split:1 --split none --force")
    assert ran.code == 0, ran.err
    assert open_pack(out).samples.person.tolist() == noisy.tolist()
