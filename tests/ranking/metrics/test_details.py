"""What a report holds beside its headline: pairs and thresholds, cameras, persons, queries; all against slow loops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.choices import SameCamera
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.metrics.operating import calibrate, equal_error_point, point_at_fpr, roc_curve
from lupctl.core.ranking.metrics.pairs import EDGES, PairCounts, split_persons
from lupctl.core.ranking.reports.build.single import build_report
from lupctl.core.ranking.reports.model.details import ReportDetails
from lupctl.core.ranking.reports.model.single import ReportProtocol
from lupctl.core.ranking.retrieval.score import DetailSettings, score
from lupctl.core.system.strings import build_column

CPU = torch.device("cpu")
QUERY, GALLERY = 2, 3


def draw(seed: int = 0, *, count: int = 160) -> tuple[np.ndarray, Samples]:
    """Features of persons 1 to 9 from 3 cameras, with junk and distractors."""
    rng = np.random.default_rng(seed)
    person = rng.integers(-1, 10, count)
    samples = Samples(
        person=person,
        camera=rng.integers(1, 4, count).astype(np.int16),
        role=np.where(person <= 0, GALLERY, rng.choice([QUERY, GALLERY, GALLERY], count)).astype(np.uint8),
        name=build_column([f"{row:03d}.jpg" for row in range(count)]),
    )
    return (rng.standard_normal((11, 12))[person] + rng.standard_normal((count, 12))).astype(np.float32), samples


def slow_pairs(features: np.ndarray, samples: Samples, same_camera: SameCamera) -> list[tuple[int, int, float]]:
    """(query row, gallery row, 1 - cos) of all pairs that count."""
    unit = features.astype(np.float64) / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    found = []
    for query in np.flatnonzero(samples.role == QUERY):
        for shown in np.flatnonzero((samples.role == GALLERY) & (samples.person != -1)):
            is_same = samples.person[query] == samples.person[shown]
            if same_camera == "drop" and is_same and samples.camera[query] == samples.camera[shown]:
                continue
            found.append((int(query), int(shown), float(1 - unit[query] @ unit[shown])))
    return found


def details_of(
    features: np.ndarray, samples: Samples, *, chunk: int | None = None, same_camera: SameCamera = "drop",
    wanted_fpr: float | None = None,
) -> ReportDetails:  # fmt: skip
    scored = score(features, samples, device=CPU, chunk=chunk, same_camera=same_camera, details=DetailSettings())
    report = build_report(
        scored, samples, {}, protocol=ReportProtocol(name="market1501", same_camera=same_camera), rerank=None,
        wanted_fpr=wanted_fpr, fingerprints={}, command=[],
    )  # fmt: skip
    assert report.details is not None
    return report.details


@pytest.mark.parametrize("same_camera", ["drop", "keep"])
@pytest.mark.parametrize("chunk", [None, 1, 7])
def test_pairs_are_those_of_a_slow_loop(chunk: int | None, same_camera: SameCamera) -> None:
    features, samples = draw()
    pairs = details_of(features, samples, chunk=chunk, same_camera=same_camera).pairs
    slow = slow_pairs(features, samples, same_camera)
    is_same = np.array([samples.person[query] == samples.person[shown] for query, shown, _ in slow])
    distance = np.array([distance for *_, distance in slow])
    assert (pairs.same, pairs.different) == (is_same.sum(), (~is_same).sum())
    bins = np.clip(np.ceil(distance / 0.01 - 1e-5).astype(int) - 1, 0, 199)
    np.testing.assert_array_equal(pairs.same_counts, np.bincount(bins[is_same], minlength=200))
    np.testing.assert_array_equal(pairs.different_counts, np.bincount(bins[~is_same], minlength=200))
    point = pairs.at_fpr["0.01"]
    assert point is not None
    assert point.fpr == pytest.approx((distance[~is_same] <= point.threshold).mean())
    assert point.tpr == pytest.approx((distance[is_same] <= point.threshold).mean())
    assert point.fpr <= 0.01 < (distance[~is_same] <= point.threshold + 0.001).mean()
    assert pairs.at_fpr["0.0001"] is None, "too few pairs to tell one in ten thousand"
    assert np.all(np.diff(pairs.roc_fpr) > 0)
    assert np.all(np.diff(pairs.roc_tpr) >= 0)


def test_the_threshold_is_chosen_on_some_persons_and_measured_on_the_others() -> None:
    features, samples = draw()
    found = details_of(features, samples).pairs.threshold
    assert found is not None
    assert (found.rule, found.wanted_fpr, sum(found.persons)) == ("equal error", None, 9)
    queries = np.flatnonzero(samples.role == QUERY)
    half = dict(zip(queries.tolist(), split_persons(samples.person[queries], seed=found.seed).tolist(), strict=True))
    slow = slow_pairs(features, samples, "drop")
    rates = []
    for which in (0, 1):
        mine = [(samples.person[q] == samples.person[g], d) for q, g, d in slow if half[q] == which]
        same, different = (np.array([d for is_same, d in mine if is_same == wanted]) for wanted in (True, False))
        rates.append((np.mean(different <= found.chosen.threshold), np.mean(same <= found.chosen.threshold)))
        if which == 0:
            gaps = [abs(np.mean(different <= edge) - np.mean(same > edge)) for edge in EDGES]
            assert abs(rates[0][0] - (1 - rates[0][1])) == pytest.approx(min(gaps))
        else:
            assert (found.held_out_same, found.held_out_different) == (len(same), len(different))
    assert (found.chosen.fpr, found.chosen.tpr) == pytest.approx(rates[0])
    assert (found.held_out.fpr, found.held_out.tpr) == pytest.approx(rates[1])
    assert rates[0] != rates[1]
    strict = details_of(features, samples, wanted_fpr=0.02).pairs.threshold
    assert strict is not None
    assert strict.rule == "false positive rate"
    assert strict.chosen.fpr <= 0.02 < found.chosen.fpr
    assert strict.chosen.threshold < found.chosen.threshold


def test_cameras_are_ranked_by_themselves() -> None:
    features, samples = draw()
    for same_camera in ("drop", "keep"):
        cameras = details_of(features, samples, chunk=11, same_camera=same_camera).cameras
        assert cameras.query == cameras.gallery == [1, 2, 3]
        for row, query_camera in enumerate(cameras.query):
            for column, gallery_camera in enumerate(cameras.gallery):
                keep = np.where(samples.role == QUERY, samples.camera == query_camera, samples.camera == gallery_camera)
                if same_camera == "drop" and query_camera == gallery_camera:
                    assert cameras.map[row][column] is None
                    assert cameras.queries[row][column] == 0
                    continue
                alone = score(features[keep], samples.select(keep), device=CPU, same_camera=same_camera)
                assert cameras.queries[row][column] == alone.counts.valid
                assert cameras.map[row][column] == pytest.approx(alone.scores.map)
                assert cameras.rank1[row][column] == pytest.approx(alone.scores.cmc[1])


def test_cameras_with_ties_keep_gallery_order() -> None:
    features, samples = draw()
    # Entries of -1 and 1 in 6 dimensions: there are at most 7 different cosines.
    features = np.where(features[:, :6] < 0, -1, 1).astype(np.float32)
    cameras = details_of(features, samples).cameras
    keep = np.where(samples.role == QUERY, samples.camera == 1, samples.camera == 2)
    alone = score(features[keep], samples.select(keep), device=CPU)
    assert cameras.map[0][1] == pytest.approx(alone.scores.map)
    turned = np.flatnonzero(keep)[::-1]
    assert score(features[turned], samples.select(turned), device=CPU).scores.map != alone.scores.map, "order decides"


def test_persons_and_queries_add_up_to_the_headline() -> None:
    features, samples = draw()
    samples.person[np.flatnonzero(samples.role == QUERY)[:2]] = 77  # absent from the gallery
    scored = score(features, samples, device=CPU)
    details = details_of(features, samples)
    queries, persons = details.queries, details.persons
    assert queries.name == [samples.name[row] for row in np.flatnonzero(samples.role == QUERY)]
    assert queries.ap[:2] == queries.first_rank[:2] == queries.inp[:2] == [None, None]
    assert queries.right[:2] == [0, 0]
    assert np.mean([ap for ap in queries.ap if ap is not None]) == pytest.approx(scored.scores.map)
    assert np.sum([ap or 0 for ap in queries.ap_official]) / len(queries.ap) == pytest.approx(
        scored.scores.map_official
    )
    assert np.average(persons.map, weights=persons.queries) == pytest.approx(scored.scores.map)
    assert np.average(persons.rank1, weights=persons.queries) == pytest.approx(scored.scores.cmc[1])
    assert persons.map == sorted(persons.map)
    assert 77 not in persons.person
    curve = details.curve.plain
    assert len(curve) == 50
    assert [curve[rank - 1] for rank in (1, 5, 10, 20)] == pytest.approx(list(scored.scores.cmc.values()))


def test_points_of_a_closed_form() -> None:
    """Same pairs at 0.1 … 0.4, different ones at 0.3 … 1.2, evenly."""

    def below(values: np.ndarray) -> np.ndarray:
        return (values[None] <= EDGES[:, None] + 1e-9).sum(axis=1)

    same, different = below(np.linspace(0.1, 0.4, 4)), below(np.linspace(0.3, 1.2, 10))
    point = point_at_fpr(same, different, 0.1)
    assert point is not None
    assert (point.threshold, point.fpr, point.tpr) == pytest.approx((0.399, 0.1, 0.75))
    assert point_at_fpr(same, different, 0.09) is None
    equal = equal_error_point(same, different)
    assert equal is not None
    assert (equal.threshold, equal.fpr, equal.tpr) == pytest.approx((0.3, 0.1, 0.75))
    assert equal_error_point(same * 0, different) is None
    counts = PairCounts(same=np.stack([same, same]), different=np.stack([different, different]))
    found = calibrate(counts)
    assert found is not None
    assert found.held_out == found.chosen
    assert calibrate(PairCounts(same=np.stack([same, same * 0]), different=counts.different)) is None
    fpr, tpr = roc_curve(counts)
    assert (fpr[-1], tpr[-1]) == (1, 1)


@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_a_person_is_in_one_half(persons: list[int], seed: int) -> None:
    half = split_persons(np.array(persons), seed=seed)
    sides = {person: {int(h) for p, h in zip(persons, half, strict=True) if p == person} for person in persons}
    assert all(len(side) == 1 for side in sides.values())
    sizes = [sum(side == {which} for side in sides.values()) for which in (0, 1)]
    assert sizes[0] - sizes[1] in (0, 1)
