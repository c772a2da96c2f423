"""Labels as a tracker makes them: how many are split and merged, and where the truth stays."""

from pathlib import Path

import numpy as np
import pytest

from lupctl.core.data.sources.label_noise import LabelNoise, NoisySource, draw_labels, parse_label_noise
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.read import open_pack
from tests.tools.shell import Shell

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
    "text", ["", "split", "split:", "split:1.5", "split:-0.1", "merge:nan", "swap:0.1", "split:0.1,split:0.2"]
)
def test_noise_that_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="split or merge with a share from 0 to 1 was expected") as caught:
        parse_label_noise(text, seed=0)
    assert caught.value.hint == "--label-noise split:0.3,merge:0.1"


def test_noise_needs_roles_that_are_known(lupctl: Shell, market_folder: Path) -> None:
    ran = lupctl(f"data pack {market_folder} --name mine --split persons:0.5 --label-noise split:0.1")
    assert ran.code == 2
    assert "--label-noise and --split: only images that are for training already can get wrong labels" in ran.err
