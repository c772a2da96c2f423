"""Single gallery shots, multi-query, query expansion: each against a closed form or a slow loop."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lupctl.core.errors import DataError
from lupctl.core.formats.features.file import Features, write_features
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.record import build_record
from lupctl.core.ranking.metrics.stacked import StackedRows
from lupctl.core.ranking.retrieval.expansion import ExpansionSettings, expand_features
from lupctl.core.ranking.retrieval.inputs import JoinedFeatures
from lupctl.core.ranking.retrieval.pooling import pool_queries
from lupctl.core.ranking.retrieval.score import DetailSettings, score
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import build_column
from tests.tools.shell import Shell

CPU = torch.device("cpu")
QUIET = Progress(quiet=True)
QUERY, GALLERY = 2, 3


def draw(seed: int = 0, *, count: int = 120, least: int = 0) -> Features:
    """Features of persons from `least` to 8 from 3 cameras; roles mixed up."""
    rng = np.random.default_rng(seed)
    person = rng.integers(least, 9, count)
    samples = Samples(
        person=person,
        camera=rng.integers(1, 4, count).astype(np.int16),
        role=np.where(person <= 0, GALLERY, rng.choice([QUERY, GALLERY, GALLERY], count)).astype(np.uint8),
        name=build_column([f"{row:03d}.jpg" for row in range(count)]),
    )
    vectors = rng.standard_normal((10, 12))[person] + 1.5 * rng.standard_normal((count, 12))
    record = build_record("features", 1, command=["lupctl", "dump"], facts={"dataset": "toy"})
    return Features(vectors.astype(np.float32), samples, record)


def joined(features: Features) -> JoinedFeatures:
    """The same in two parts."""
    return JoinedFeatures(
        StackedRows([features.features[:50], features.features[50:]]), features.samples, features.record
    )


def rows_of(features: JoinedFeatures) -> np.ndarray:
    return features.vectors.take(np.arange(len(features))).numpy()


def unit_rows(vectors: np.ndarray) -> np.ndarray:
    rows = vectors.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def expected_rank1(features: Features) -> float:
    """Chance that a drawn right answer is nearer than one drawn image of every other person; no draws needed."""
    samples, unit = features.samples, unit_rows(features.features)
    gallery = [row for row in range(len(samples)) if samples.role[row] == GALLERY and samples.person[row] != -1]
    chances = []
    for query in np.flatnonzero(samples.role == QUERY):
        apart = {row: -unit[query] @ unit[row] for row in gallery}
        same = [row for row in gallery if samples.person[row] == samples.person[query]]
        right = [row for row in same if samples.camera[row] != samples.camera[query]]
        others: dict[Any, list[float]] = {}
        for row in set(gallery) - set(same):
            # Every distractor is a person of its own.
            key = f"nobody {row}" if samples.person[row] == 0 else samples.person[row]
            others.setdefault(key, []).append(apart[row])
        if right:
            chances.append(
                np.mean([np.prod([np.mean(np.array(o) > apart[r]) for o in others.values()]) for r in right])
            )
    return float(np.mean(chances))


def shots_of(features: Features, *, draws: int, seed: int = 0, chunk: int | None = None) -> Any:
    settings = DetailSettings(shots=draws, seed=seed)
    details = score(features.features, features.samples, device=CPU, chunk=chunk, details=settings).details
    assert details is not None
    return details.shots


@pytest.mark.parametrize("least", [-1, 1])
def test_single_shots_average_to_their_expectation(least: int) -> None:
    features = draw(least=least)
    expected = expected_rank1(features)
    assert 0.05 < expected < 0.95
    many = shots_of(features, draws=1500)
    assert many.cmc[1] == pytest.approx(expected, abs=0.012)
    assert many.cmc[1] < many.cmc[5]
    assert many.rank1_range[0] < many.cmc[1] < many.rank1_range[1]


def test_single_shots_depend_on_the_seed_alone() -> None:
    features = draw()
    first = shots_of(features, draws=5)
    assert shots_of(features, draws=5, chunk=1) == shots_of(features, draws=5, chunk=7) == first
    assert shots_of(features, draws=5, seed=1) != first


def viper_like(persons: int = 40) -> tuple[np.ndarray, Samples]:
    """One image of each person from each of two cameras."""
    rng = np.random.default_rng(1)
    samples = Samples(
        person=np.tile(np.arange(1, persons + 1), 2).astype(np.int64),
        camera=np.repeat([1, 2], persons).astype(np.int16),
        role=np.repeat([QUERY, GALLERY], persons).astype(np.uint8),
        name=build_column([str(row) for row in range(2 * persons)]),
    )
    vectors = np.tile(rng.standard_normal((persons, 6)), (2, 1)) + 0.9 * rng.standard_normal((2 * persons, 6))
    return vectors.astype(np.float32), samples


@pytest.mark.parametrize(("tested", "count"), [("half", 20), (5, 5), (40, 40)])
def test_each_draw_tests_its_own_persons(tested: Any, count: int) -> None:
    """Without a choice of images: the mean over subsets of persons of how often the right one is first."""
    vectors, samples = viper_like()
    settings = DetailSettings(shots=2000, seed=3, persons=tested)
    details = score(vectors, samples, device=CPU, chunk=7, details=settings).details
    assert details is not None
    assert details.shots is not None
    unit = unit_rows(vectors)
    cosines = unit[:40] @ unit[40:].T
    nearer = (cosines > np.diag(cosines)[:, None]).sum(axis=1)
    # None of the `nearer` persons is among the count - 1 others that are drawn from 39.
    chance = [math.comb(39 - before, count - 1) / math.comb(39, count - 1) for before in nearer.tolist()]
    assert 0.1 < np.mean(chance) < 0.95
    assert details.shots.cmc[1] == pytest.approx(np.mean(chance), abs=0.01)
    assert list(details.shots.cmc) == [rank for rank in (1, 5, 10, 20) if rank <= count]
    assert details.shots.persons == count
    assert (details.shots.rank1_range[0] < details.shots.rank1_range[1]) == (count < 40)


def test_more_persons_than_there_are_cannot_be_tested() -> None:
    vectors, samples = viper_like()
    with pytest.raises(DataError, match="41 persons were requested for each draw, but 40 have a query"):
        score(vectors, samples, device=CPU, details=DetailSettings(shots=2, persons=41))


def test_one_image_a_person_needs_no_draw() -> None:
    rng = np.random.default_rng(1)
    samples = Samples(
        person=np.tile(np.arange(1, 31), 2).astype(np.int64),
        camera=np.repeat([1, 2], 30).astype(np.int16),
        role=np.repeat([QUERY, GALLERY], 30).astype(np.uint8),
        name=build_column([str(row) for row in range(60)]),
    )
    vectors = np.tile(rng.standard_normal((30, 6)), (2, 1)) + 0.7 * rng.standard_normal((60, 6))
    scored = score(vectors.astype(np.float32), samples, device=CPU, details=DetailSettings(shots=3))
    assert scored.details is not None
    assert scored.details.shots is not None
    assert scored.details.shots.cmc == pytest.approx(scored.scores.cmc)
    assert 0.2 < scored.scores.cmc[1] < 1
    assert set(scored.details.shots.rank1_range) == {scored.scores.cmc[1]}


def test_multi_query_averages_unit_vectors() -> None:
    features = draw(least=1)
    pooled = pool_queries(joined(features))
    vectors = rows_of(pooled)
    samples, unit = features.samples, unit_rows(features.features)
    queries = np.flatnonzero(samples.role == QUERY)
    groups: dict[tuple[int, int], list[int]] = {}
    for row in queries.tolist():
        groups.setdefault((int(samples.person[row]), int(samples.camera[row])), []).append(row)
    assert 10 < len(groups) < len(queries)
    found = np.flatnonzero(pooled.samples.role == QUERY).tolist()
    assert [pooled.samples.name[row] for row in found] == [samples.name[rows[0]] for rows in groups.values()]
    for row, (key, rows) in zip(found, groups.items(), strict=True):
        assert (pooled.samples.person[row], pooled.samples.camera[row]) == key
        np.testing.assert_allclose(vectors[row], unit[rows].mean(axis=0), rtol=1e-5)
    np.testing.assert_array_equal(vectors[len(groups) :], features.features)
    assert pooled.samples.role[len(groups) :].tolist() == [0 if role == QUERY else role for role in samples.role]
    assert score(pooled.vectors, pooled.samples, device=CPU).counts.queries == len(groups)
    with pytest.raises(DataError, match=f"multi-query: each of {len(groups)} queries is the only one"):
        pool_queries(pooled)


@pytest.mark.parametrize(("queries", "gallery", "alpha"), [(4, 0, 3.0), (0, 5, 1.0), (3, 3, 0.0)])
def test_expansion_is_a_mean_over_the_nearest(queries: int, gallery: int, alpha: float) -> None:
    features = draw(least=-1)
    settings = ExpansionSettings(queries=queries, gallery=gallery, alpha=alpha)
    expanded = rows_of(expand_features(joined(features), settings, device=CPU, progress=QUIET))
    samples, unit = features.samples, unit_rows(features.features)
    pool = [row for row in range(120) if samples.role[row] == QUERY] + [
        row for row in range(120) if samples.role[row] == GALLERY and samples.person[row] != -1
    ]
    for row in range(120):
        k = queries if samples.role[row] == QUERY else gallery
        if row not in pool or k == 0:
            np.testing.assert_array_equal(expanded[row], features.features[row])
            continue
        nearest = sorted(pool, key=lambda other: -(unit[row] @ unit[other]))[:k]
        assert nearest[0] == row
        weight = [max(0.0, unit[row] @ unit[other]) ** alpha for other in nearest]
        mean = (
            sum(w * features.features[other].astype(np.float64) for w, other in zip(weight, nearest, strict=True)) / k
        )
        np.testing.assert_allclose(expanded[row], mean, rtol=2e-4, atol=1e-5)


def test_the_command_says_which_protocol(lupctl: Shell, tmp_path: Path) -> None:
    write_features(tmp_path / "a.features.h5", draw(count=300))
    base = "eval a.features.h5 --no-page --force --device cpu"
    plain = lupctl(f"{base} --json").json
    assert plain["protocol"]["name"] == "market1501"
    assert plain["single_shot"] is None
    ran = lupctl(f"{base} --protocol single-shot --draws 4 --seed 2")
    assert "single gallery shot: 4 draws, seed 2" in ran.out
    assert "protocol: single-shot" in ran.out
    shot = lupctl(f"{base} --protocol single-shot --draws 4 --seed 2 --json").json
    assert (shot["protocol"]["shot_draws"], shot["protocol"]["shot_seed"]) == (4, 2)
    assert shot["scores"] == plain["scores"]
    low, high = shot["single_shot"]["rank1_range"]
    assert 0 < low <= shot["single_shot"]["cmc"]["1"] <= high < plain["scores"]["cmc"]["1"]
    assert lupctl(f"{base} --protocol single-shot --min-rank1 {shot['single_shot']['cmc']['1'] + 0.01}").code == 4
    half = lupctl(f"{base} --protocol single-shot --draws 4 --seed 2 --persons half --json").json
    assert (half["protocol"]["shot_persons"], half["single_shot"]["persons"]) == ("half", 4)
    assert half["single_shot"]["cmc"] != shot["single_shot"]["cmc"]
    assert "10 draws, seed 0, 3 drawn persons each" in lupctl(f"{base} --protocol single-shot --persons 3").out
    multi = lupctl(f"{base} --protocol multi-query --json").json
    assert multi["protocol"]["query"] == "mean of a person's images from one camera"
    assert multi["counts"]["queries"] < plain["counts"]["queries"]
    plan = lupctl(f"{base} --protocol multi-query --dry-run --json").json
    assert plan["queries"] == multi["counts"]["queries"]
    keep = lupctl(f"{base} --protocol same-camera-allowed --json").json
    assert (keep["protocol"]["name"], keep["protocol"]["same_camera"]) == ("same-camera-allowed", "keep")
    assert lupctl(f"{base} --same-camera keep --json").json["scores"] == keep["scores"] != plain["scores"]
    wide = lupctl(f"{base} --aqe 3 --dba 2 --alpha 2 --json").json
    assert wide["protocol"]["expansion"] == {"queries": 3, "gallery": 2, "alpha": 2}
    assert wide["scores"] != plain["scores"]
    assert "expanded: aqe=3 dba=0 alpha=3" in lupctl(f"{base} --aqe 3").out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--draws 3", "--draws has no meaning with --protocol market1501"),
        ("--seed 3 --protocol multi-query", "--seed has no meaning with --protocol multi-query"),
        ("--persons half", "--persons has no meaning with --protocol market1501"),
        ("--protocol single-shot --persons few", "--persons few: half, or a number of persons"),
        ("--protocol single-shot --persons 0", "--persons 0: half, or a number of persons"),
        ("--alpha 3", "--alpha has no meaning without --aqe or --dba"),
        ("--protocol same-camera-allowed --same-camera drop", "--same-camera drop contradicts --protocol"),
        ("--protocol single-shot --same-camera keep", "--same-camera keep contradicts --protocol single-shot"),
        ("--threshold often", "--threshold often: eer, or a false match rate"),
        ("--threshold 0", "--threshold 0: eer, or a false match rate"),
    ],
)
def test_options_that_contradict_each_other_are_two(lupctl: Shell, tmp_path: Path, words: str, message: str) -> None:
    write_features(tmp_path / "a.features.h5", draw())
    ran = lupctl(f"eval a.features.h5 {words} --device cpu")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err


def test_gpus_that_are_not_there_are_said(lupctl: Shell, tmp_path: Path) -> None:
    write_features(tmp_path / "a.features.h5", draw())
    ran = lupctl("eval a.features.h5 --gpus 99 --no-page")
    assert (ran.code, ran.out) == (5, "")
    assert "--gpus 99: this machine has" in ran.err
    ran = lupctl("eval a.features.h5 --gpus 0 --device cpu --no-page")
    assert (ran.code, "--device cpu and --gpus 0 both name devices" in ran.err) == (2, True)
    assert lupctl("eval a.features.h5 --gpus 0 --no-page --json").json["counts"]["queries"] > 0
