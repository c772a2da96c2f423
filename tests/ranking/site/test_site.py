"""Pairs of a site, their scores and their thresholds, against plain loops; and sites that say little."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.pairs import EDGES
from lupctl.core.ranking.retrieval.tracklets import Tracklet
from lupctl.core.ranking.site import pairs as site_pairs
from lupctl.core.ranking.site.across import match_across
from lupctl.core.ranking.site.distances import SiteDistances, draw_weights, measure_distances
from lupctl.core.ranking.site.pairs import SitePairs, pick_pairs, seen_together
from lupctl.core.ranking.site.points import site_points
from lupctl.core.ranking.site.scores import NAMES, compare_site, score_site, site_scores
from tests.references.site import SlowPair, SlowTracklet, slow_distance, slow_found, slow_pairs, slow_scores

CPU = torch.device("cpu")


def draw_site(seed: int, *, count: int = 12) -> tuple[list[Tracklet], NDArray[np.int64], list[SlowTracklet]]:
    """Tracklets of 1 to 40 images in three videos, with gaps, and their frames."""
    random = np.random.default_rng(seed)
    found, plain, frames = [], list[SlowTracklet](), list[int]()
    for person in range(count):
        video, length = "abc"[int(random.integers(3))], int(random.integers(1, 41))
        own = (int(random.integers(40)) + np.sort(random.permutation(2 * length)[:length])).tolist()
        rows = np.arange(len(frames), len(frames) + length)
        frames += own
        found.append(Tracklet(video, person, rows))
        plain.append((video, list(zip(own, rows.tolist(), strict=True))))
    return found, np.array(frames), plain


def draw_features(found: SitePairs, images: int, seed: int) -> NDArray[np.float32]:
    """(images, 8) features that tell tracklets apart, but not always."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(images, 8))
    features[found.rows] += random.normal(size=(found.num_tracklets, 8))[found.tracklet]
    return features.astype(np.float32)


def plain_pairs(found: SitePairs) -> list[SlowPair]:
    sides = (
        zip(found.tracklet[side].tolist(), found.rows[side].tolist(), strict=True)
        for side in (found.query, found.gallery)
    )
    return list(zip(*sides, strict=True))


def no_cameras(frames: NDArray[np.int64]) -> NDArray[np.int16]:
    return np.full(len(frames), -1, np.int16)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_and_scores_are_those_of_the_definitions(seed: int) -> None:
    tracklets, frames, plain = draw_site(seed)
    found = pick_pairs(tracklets, frames, no_cameras(frames))
    pairs = plain_pairs(found)
    assert len(pairs) == len(set(pairs)) > 0
    assert set(pairs) == slow_pairs(plain)
    assert found.short == sum(len(seen) < 3 for _, seen in plain)
    features = draw_features(found, len(frames), seed)
    measured = measure_distances(features, found, device=CPU)
    slow = [slow_distance(features[query], features[gallery]) for (_, query), (_, gallery) in pairs]
    np.testing.assert_allclose(measured.distance, slow, atol=1e-6)
    random = np.random.default_rng(seed)
    for weight in (np.ones(found.num_tracklets), random.integers(1, 4, found.num_tracklets).astype(np.float64)):
        expected = slow_scores(pairs, measured.distance.tolist(), weight.tolist())
        given = dict(zip(NAMES, site_scores(measured, weight), strict=True))
        assert given == pytest.approx(expected, abs=1e-9)
    whole = site_scores(measured)
    enough = int((~found.is_same).sum()) >= 100
    assert np.isnan(whole[2]) == (not enough), "a rate of 1 in 100 needs a hundred pairs"
    same = [(bin_, 1.0) for bin_ in measured.bins[found.is_same].tolist()]
    other = [(bin_, 1.0) for bin_ in measured.bins[~found.is_same].tolist()]
    point = site_points(measured, [0.1], draws=20)[0]
    step, share = slow_found(same, other, 0.1)
    assert point is not None
    assert point.point.threshold == pytest.approx(step * 0.001)
    assert point.point.tpr == pytest.approx(share)


def test_intervals_hold_what_draws_of_tracklets_give() -> None:
    tracklets, frames, _ = draw_site(1, count=20)
    found = pick_pairs(tracklets, frames, no_cameras(frames))
    measured = measure_distances(draw_features(found, len(frames), 1), found, device=CPU)
    drawn = np.stack([site_scores(measured, weight) for weight in draw_weights(found.num_tracklets, draws=200, seed=5)])
    scores = score_site(measured, draws=200, seed=5)
    lower, upper = np.nanquantile(drawn[:, 0], [0.025, 0.975])
    np.testing.assert_allclose(scores.ci95["auc"], (lower, upper))
    assert lower < scores.scores["auc"] < upper
    weights = list(draw_weights(found.num_tracklets, draws=50, seed=5))
    assert all(weight.sum() == found.num_tracklets for weight in weights)
    assert len({tuple(weight) for weight in weights}) == 50


def test_a_rise_has_both_scores_of_every_draw() -> None:
    tracklets, frames, _ = draw_site(2, count=20)
    found = pick_pairs(tracklets, frames, no_cameras(frames))
    before = measure_distances(draw_features(found, len(frames), 1), found, device=CPU)
    nothing = compare_site(before, before, draws=50)
    assert set(nothing.scores.values()) == {0.0}
    assert set(nothing.ci95.values()) == {(0.0, 0.0)}
    nearer = SiteDistances(found, np.where(found.is_same, 0.0, before.distance).astype(np.float32))
    rise = compare_site(before, nearer, draws=50)
    assert rise.scores["auc"] == pytest.approx(1 - score_site(before, draws=2).scores["auc"])
    assert rise.ci95["auc"][0] > 0


def test_equal_features_are_chance_and_never_first() -> None:
    tracklets, frames, _ = draw_site(3)
    found = pick_pairs(tracklets, frames, no_cameras(frames))
    scores = score_site(measure_distances(np.ones((len(frames), 4), np.float32), found, device=CPU), draws=10)
    assert (scores.scores["auc"], scores.scores["rank1"]) == (0.5, 0.0)
    assert scores.scores.get("found_at_0.01", 0.0) == 0.0


def test_sites_of_which_little_is_known() -> None:
    frames = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9])
    one = [Tracklet("a", 1, np.arange(9))]
    alone = pick_pairs(one, frames, no_cameras(frames))
    assert (alone.num_tracklets, alone.together) == (1, 0)
    assert alone.is_same.all()
    scores = score_site(SiteDistances(alone, np.zeros(len(alone.query), np.float32)), draws=10)
    assert (scores.scores, scores.ci95) == ({}, {})
    assert (
        site_points(SiteDistances(alone, np.zeros(len(alone.query), np.float32)), [None, 0.01], draws=10) == [None] * 2
    )
    after_each_other = [Tracklet("a", person, np.arange(3 * person, 3 * person + 3)) for person in range(3)]
    assert pick_pairs(after_each_other, frames, no_cameras(frames)).together == 0
    elsewhere = [replace(tracklet, video=str(tracklet.person)) for tracklet in after_each_other]
    assert pick_pairs(elsewhere, np.tile([1, 2, 3], 3), no_cameras(frames)).together == 0
    short = [Tracklet("a", person, np.array([person])) for person in range(3)]
    none = pick_pairs(short, np.ones(3, np.int64), no_cameras(frames[:3]))
    assert (none.num_tracklets, none.short, len(none.query)) == (0, 3, 0)
    assert seen_together([], frames).shape == (0, 2)


def test_an_image_that_cannot_be_read_takes_its_pairs_with_it() -> None:
    tracklets, frames, _ = draw_site(1)
    found = pick_pairs(tracklets, frames, no_cameras(frames))
    measured = measure_distances(draw_features(found, len(frames), 1), found, device=CPU)
    bad = int(found.rows[found.query[0]])
    left = measured.without([bad])
    kept = [bad not in (query, gallery) for (_, query), (_, gallery) in plain_pairs(found)]
    assert plain_pairs(left.pairs) == [pair for pair, is_kept in zip(plain_pairs(found), kept, strict=True) if is_kept]
    np.testing.assert_array_equal(left.distance, measured.distance[kept])
    assert left.pairs.num_tracklets == found.num_tracklets


def test_of_many_tracklets_whole_videos_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [np.arange(3 * at, 3 * at + 3) for at in range(12)]
    tracklets = [Tracklet("abcd"[at // 3], at, own) for at, own in enumerate(rows)]
    frames = np.tile([1, 2, 3], 12)
    monkeypatch.setattr(site_pairs, "MOST_TRACKLETS", 6)
    found = pick_pairs(tracklets, frames, no_cameras(frames))
    videos = {int(row) // 9 for row in found.rows}
    assert (found.num_tracklets, found.together, len(videos)) == (6, 6, 2)
    monkeypatch.setattr(site_pairs, "MOST_TOGETHER", 4)
    assert pick_pairs(tracklets, frames, no_cameras(frames)).together == 4


def test_tracklets_of_two_cameras_are_assumed_to_be_one_person_where_each_is_the_nearest_of_the_other() -> None:
    tracklets = [Tracklet(f"{at // 3}", at, np.arange(6 * at, 6 * at + 6)) for at in range(6)]
    frames = np.tile(np.arange(6), 6)
    camera = np.repeat([1, 2], 18).astype(np.int16)
    found = pick_pairs(tracklets, frames, camera)
    # Persons 0, 1 and 2 by direction; the second camera sees 1, 0 and somebody new, who is nearest to 2.
    directions = np.eye(4)[[0, 1, 2, 1, 0, 3]] + 0.1
    features = np.repeat(directions, 6, axis=0).astype(np.float32)
    across = match_across(features, found, device=CPU)
    assert across is not None
    assert across.pairs.tolist()[:2] == [[0, 4], [1, 3]]
    assert across.found_again == 1.0
    np.testing.assert_allclose(across.distance[:2], 0, atol=1e-6)
    mixed = features.copy()
    mixed[found.rows[found.is_late]] = np.roll(features, 6, axis=0)[found.rows[found.is_late]]
    moved = match_across(mixed, found, device=CPU)
    assert moved is not None
    assert moved.pairs.tolist() == across.pairs.tolist()
    assert moved.found_again < 1
    assert match_across(features, replace(found, camera=np.full(6, 2, np.int16)), device=CPU) is None
    assert match_across(features, replace(found, camera=np.full(6, -1, np.int16)), device=CPU) is None


def test_steps_of_distances_are_those_of_labelled_pairs() -> None:
    found = pick_pairs([Tracklet("a", 1, np.arange(3))], np.arange(3), no_cameras(np.arange(3)))
    for value, step in ((0.0, 0), (0.0005, 1), (0.0011, 2), (2.0, 2000), (1.5, 1500)):
        distances = SiteDistances(found, np.array([value], np.float32))
        assert distances.bins.tolist() == [step]
        assert distances.counts()[0].tolist() == (np.arange(len(EDGES)) >= step).astype(int).tolist()
