"""Ranks, both average precisions, mINP and CMC against a walk down each list, and the laws they obey."""

import doctest
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import lupctl.core.ranking.metrics.bootstrap
import lupctl.core.ranking.metrics.ranking
import lupctl.core.ranking.metrics.scores
import lupctl.core.ranking.reranking.reciprocal
import lupctl.core.ranking.reranking.sparse
from lupctl.core.ranking.metrics.bootstrap import bootstrap_interval
from lupctl.core.ranking.metrics.columns import group_columns
from lupctl.core.ranking.metrics.labels import ImageLabels
from lupctl.core.ranking.metrics.ranking import Ranking, cosine_distances, rank_queries, summarise_ranks
from lupctl.core.ranking.metrics.scores import compute_scores
from lupctl.core.ranking.metrics.stacked import StackedRows
from lupctl.core.ranking.metrics.vectors import UnitRows, exact_float32, inner_products

CPU = torch.device("cpu")
FIELDS = ("ap_step", "ap_trapezoid", "inp", "first_rank", "num_right")

# Ranks of the right answers, step AP, trapezoid AP, INP; worked by hand.
WORKED = [
    ((1,), "1", "1", "1"),
    ((2,), "1/2", "1/4", "1/2"),
    ((3,), "1/3", "1/6", "1/3"),
    ((1, 2), "1", "1", "1"),
    ((1, 3), "5/6", "19/24", "2/3"),
    ((2, 3), "7/12", "5/12", "2/3"),
    ((2, 4), "1/2", "1/3", "1/2"),
    ((1, 2, 5), "13/15", "17/20", "3/5"),
    ((1, 3, 6), "13/18", "61/90", "1/2"),
]


def slow_ranks(
    distance: NDArray[np.floating], person: int, camera: int, gallery: ImageLabels, *, keep: bool = False
) -> list[int]:
    """Ranks of the right answers by walking down the sorted list, as the official evaluation does."""
    ranks, place = [], 0
    for column in sorted(range(len(distance)), key=lambda column: (distance[column], column)):
        same_person = gallery.person[column] == person
        if gallery.person[column] == -1:
            continue
        if same_person and gallery.camera[column] == camera and not keep:
            continue
        place += 1
        if same_person and person != 0:
            ranks.append(place)
    return ranks


def slow_step(ranks: list[int]) -> float:
    total = 0.0
    for number, rank in enumerate(ranks, start=1):
        total += number / rank
    return total / len(ranks) if ranks else float("nan")


def slow_trapezoid(ranks: list[int]) -> float:
    """The loop of the official MATLAB: area under the precision-recall curve by trapezoids."""
    if not ranks:
        return float("nan")
    area, hits, recall, precision = 0.0, 0, 0.0, 1.0
    for place in range(1, max(ranks) + 1):
        hits += place in ranks
        area += (hits / len(ranks) - recall) * (precision + hits / place) / 2
        recall, precision = hits / len(ranks), hits / place
    return area


def slow_ranking(
    distance: NDArray[np.floating], queries: ImageLabels, gallery: ImageLabels, *, keep: bool = False
) -> list[list[int]]:
    return [
        slow_ranks(distance[row], queries.person[row], queries.camera[row], gallery, keep=keep)
        for row in range(len(queries))
    ]


def assert_same(ranking: Ranking, lists: list[list[int]]) -> None:
    assert ranking.num_right.tolist() == [len(ranks) for ranks in lists]
    assert ranking.first_rank.tolist() == [ranks[0] if ranks else 0 for ranks in lists]
    np.testing.assert_allclose(ranking.ap_step, [slow_step(ranks) for ranks in lists], rtol=1e-12)
    np.testing.assert_allclose(ranking.ap_trapezoid, [slow_trapezoid(ranks) for ranks in lists], rtol=1e-12)
    inp = [len(ranks) / ranks[-1] if ranks else np.nan for ranks in lists]
    np.testing.assert_allclose(ranking.inp, inp, rtol=1e-12)


def assert_equal(one: Ranking, other: Ranking) -> None:
    for field in FIELDS:
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)


def labels(person: list[int] | NDArray[np.int64], camera: list[int] | NDArray[np.integer]) -> ImageLabels:
    return ImageLabels(person=np.asarray(person, np.int64), camera=np.asarray(camera, np.int16))


def draw_labels(seed: int, count: int, *, lowest: int = -1, persons: int = 5) -> ImageLabels:
    rng = np.random.default_rng(seed)
    return labels(rng.integers(lowest, persons, count), rng.integers(1, 4, count))


def rank_matrix(
    distance: NDArray[np.float32], queries: ImageLabels, gallery: ImageLabels, **options: object
) -> Ranking:
    block = torch.from_numpy(distance)
    return rank_queries(lambda start, stop: block[start:stop].clone(), queries, gallery, **options)  # type: ignore[arg-type]


def rank_features(features: NDArray[np.floating], num_queries: int, who: ImageLabels, **options: object) -> Ranking:
    rows = np.arange(len(features))
    queries = UnitRows(features, rows[:num_queries], device=CPU)
    gallery = UnitRows(features, rows[num_queries:], device=CPU)
    asked = labels(who.person[:num_queries], who.camera[:num_queries])
    ranked = labels(who.person[num_queries:], who.camera[num_queries:])
    return rank_queries(cosine_distances(queries, gallery), asked, ranked, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ranks", "step", "trapezoid", "inp"), WORKED)
def test_worked_examples(ranks: tuple[int, ...], step: str, trapezoid: str, inp: str) -> None:
    gallery = labels([1 if rank in ranks else 2 for rank in range(1, 9)], [2] * 8)
    distance = np.arange(8, dtype=np.float32)[None]
    ranking = rank_matrix(distance, labels([1], [1]), gallery)
    assert Fraction(ranking.ap_step[0]).limit_denominator(1000) == Fraction(step)
    assert Fraction(ranking.ap_trapezoid[0]).limit_denominator(1000) == Fraction(trapezoid)
    assert Fraction(ranking.inp[0]).limit_denominator(1000) == Fraction(inp)
    assert ranking.first_rank[0] == ranks[0]


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("seed", range(8))
def test_matches_a_walk_down_the_list_with_many_ties(seed: int, keep: bool) -> None:
    queries, gallery = draw_labels(seed, 23, lowest=0), draw_labels(seed + 100, 61)
    # Nine different distances for 61 images: nearly every right answer ties with something.
    distance = np.random.default_rng(seed).integers(0, 9, (23, 61)).astype(np.float32)
    lists = slow_ranking(distance, queries, gallery, keep=keep)
    ranking = rank_matrix(distance, queries, gallery, chunk=7, same_camera="keep" if keep else "drop")
    assert_same(ranking, lists)
    assert any(lists), "the case has right answers"


@pytest.mark.parametrize("persons", [60, 5])
@pytest.mark.parametrize("by_camera", [False, True])
def test_matches_a_walk_through_a_gallery_of_several_pieces(persons: int, by_camera: bool) -> None:
    """With 24 and 280 right answers a query, which are searched for in narrow and in wide pieces."""
    queries, gallery = draw_labels(1, 40, lowest=0, persons=persons), draw_labels(2, 5_000, persons=persons)
    distance = np.random.default_rng(3).integers(0, 3_000, (40, 5_000)).astype(np.float32)
    groups = group_columns(gallery.camera.astype(np.int64) - 1) if by_camera else None
    assert_same(rank_matrix(distance, queries, gallery, groups=groups), slow_ranking(distance, queries, gallery))


def test_equal_distances_keep_gallery_order() -> None:
    gallery = labels([2, 1, 2, 1, 2], [2] * 5)
    ranking = rank_matrix(np.zeros((1, 5), np.float32), labels([1], [1]), gallery)
    assert ranking.first_rank[0] == 2
    assert ranking.ap_step[0] == pytest.approx((1 / 2 + 2 / 4) / 2)


def test_junk_and_own_camera_count_neither_way_but_distractors_do() -> None:
    gallery = labels([-1, -1, 1, 0, 1], [2, 2, 1, 2, 2])
    ranking = rank_matrix(np.arange(5, dtype=np.float32)[None], labels([1], [1]), gallery)
    # Left: the distractor, then the right answer.
    assert (ranking.first_rank[0], ranking.num_right[0], ranking.ap_step[0]) == (2, 1, 0.5)


def test_junk_is_junk_wherever_it_comes_from() -> None:
    # Two junk images nearer than the only right answer: 1 by the rule, 1/3 where -1 is taken for a person.
    gallery = labels([-1, -1, 1], [2, 3, 2])
    ranking = rank_matrix(np.arange(3, dtype=np.float32)[None], labels([1], [1]), gallery)
    assert ranking.ap_step[0] == 1


def test_a_distractor_is_never_a_right_answer() -> None:
    ranking = rank_matrix(np.zeros((1, 2), np.float32), labels([0], [1]), labels([0, 1], [2, 2]))
    assert ranking.num_right[0] == 0
    assert np.isnan(ranking.ap_step[0])


def test_valid_and_all_queries_are_different_denominators() -> None:
    gallery = labels([1, 3], [2, 2])
    ranking = rank_matrix(np.array([[0, 1], [0, 1]], np.float32), labels([1, 2], [1, 1]), gallery)
    scores = compute_scores(ranking, num_gallery=2)
    assert (scores.map, scores.map_official, scores.minp, scores.cmc) == (1.0, 0.5, 1.0, {1: 1.0})


def test_cmc_ends_at_the_gallery() -> None:
    ranking = summarise_ranks(np.array([0, 1, 2]), np.array([1, 4, 6]), 3)
    assert compute_scores(ranking, num_gallery=7).cmc == {1: 1 / 3, 5: 2 / 3}
    assert compute_scores(ranking, num_gallery=20).cmc == {1: 1 / 3, 5: 2 / 3, 10: 1.0, 20: 1.0}


def test_no_valid_query_has_no_scores() -> None:
    with pytest.raises(ValueError, match="no query has a right answer"):
        compute_scores(summarise_ranks(np.zeros(0, np.int64), np.zeros(0, np.int64), 3), num_gallery=4)


@pytest.mark.parametrize("chunk", [1, 2, 3, 17, 64, 65, 200, None])
@pytest.mark.parametrize("dimension", [7, 129])
def test_any_chunk_gives_the_dense_result(chunk: int | None, dimension: int) -> None:
    rng = np.random.default_rng(dimension)
    once = rng.standard_normal((150, dimension), dtype=np.float32)
    # Every image is there three times: a product whose rounding depends on the position would tear the ties apart.
    features = once[rng.permutation(np.tile(np.arange(150), 3))]
    who = draw_labels(3, len(features), lowest=1, persons=9)
    cosine = UnitRows(features, np.arange(len(features)), device=CPU)
    dense = -cosine.cosines(cosine.unit(0, 101))[:, 101:].numpy()
    lists = slow_ranking(dense, labels(who.person[:101], who.camera[:101]), labels(who.person[101:], who.camera[101:]))
    assert_same(rank_features(features, 101, who, chunk=chunk), lists)


def test_cosines_agree_with_float64_and_with_gathered_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    features = rng.standard_normal((400, 33), dtype=np.float32) * rng.uniform(1e-3, 1e3, (400, 1)).astype(np.float32)
    rows = rng.permutation(400)[:211]
    unit = features[rows].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    whole = UnitRows(features, rows, device=CPU)
    cosines = whole.cosines(whole.unit(10, 20))
    np.testing.assert_allclose(cosines, unit[10:20] @ unit.T, atol=3e-7)
    monkeypatch.setattr("lupctl.core.ranking.metrics.vectors.BLOCK_BYTES", 70 * 33 * 4)
    pieces = UnitRows(features, rows, device=CPU)
    assert len(list(pieces.blocks())) == 4
    assert torch.equal(pieces.cosines(pieces.unit(10, 20)), cosines)


@pytest.mark.parametrize("dimension", [16, 129, 512, 2050])
def test_products_have_the_same_bits_on_any_number_of_threads_and_in_any_place(dimension: int) -> None:
    rows = torch.from_numpy(np.random.default_rng(dimension).standard_normal((700, dimension), dtype=np.float32))
    whole = inner_products(rows.clone(), rows)
    assert torch.equal(whole, whole.T)
    # Each sum rounds at most D times, and random signs take nearly all of it away again.
    np.testing.assert_allclose(whole, rows.double() @ rows.double().T, atol=1e-6 * dimension, rtol=1e-5)
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5, 8):
            torch.set_num_threads(threads)
            for start, stop, left, right in ((0, 700, 0, 700), (3, 67, 100, 229), (1, 130, 630, 700), (9, 500, 5, 105)):
                part = inner_products(rows[start:stop].clone(), rows[left:right].clone())
                assert torch.equal(part, whole[start:stop, left:right]), (threads, start, stop, left, right)
    finally:
        torch.set_num_threads(before)


def test_stacked_rows_are_those_of_one_matrix() -> None:
    rng = np.random.default_rng(0)
    whole = rng.standard_normal((90, 6)).astype(np.float16).astype(np.float32)
    parts = StackedRows([whole[:20], whole[20:20], whole[20:50].astype(np.float16), torch.from_numpy(whole[50:])])
    assert (parts.shape, len(parts)) == ((90, 6), 90)
    for rows in (np.arange(90), np.arange(22, 48), np.array([89, 3, 3, 50, 49, 20, 19]), np.array([], np.int64)):
        np.testing.assert_array_equal(parts.take(rows).float(), whole[rows])
    assert parts.take(np.arange(3, 9)).data_ptr() == whole[3:].ctypes.data, "a run of rows is no copy"
    with pytest.raises(ValueError, match=r"\[5, 6\] columns"):
        StackedRows([whole, whole[:, :5]])


def test_half_precision_features_rank_like_their_float32_values() -> None:
    half = np.random.default_rng(1).standard_normal((90, 16)).astype(np.float16)
    who = draw_labels(2, 90, lowest=1)
    assert_equal(rank_features(half, 30, who), rank_features(half.astype(np.float32), 30, who))


def test_products_stay_float32_under_autocast_and_the_setting_comes_back() -> None:
    features = np.random.default_rng(1).standard_normal((80, 64), dtype=np.float32)
    rows = UnitRows(features, np.arange(80), device=CPU)
    exact = rows.cosines(rows.unit(0, 80))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(rows.cosines(rows.unit(0, 80)), exact)
        with exact_float32(CPU):
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e15, 1e30])
def test_norms_hold_far_beyond_where_float32_squares_do(scale: float) -> None:
    features = (np.random.default_rng(1).standard_normal((70, 8)) * scale).astype(np.float32)
    rows = UnitRows(features, np.arange(70), device=CPU)
    np.testing.assert_allclose(rows.norm, np.linalg.norm(features.astype(np.float64), axis=1), rtol=1e-6)
    np.testing.assert_allclose(rows.cosines(rows.unit(0, 70)).diagonal(), 1, atol=1e-6)


def test_read_only_features_are_read_and_left_alone() -> None:
    features = np.random.default_rng(1).standard_normal((70, 8), dtype=np.float32)
    before = features.copy()
    features.flags.writeable = False
    ranking = rank_features(features, 20, draw_labels(2, 70, lowest=1))
    assert ranking.is_valid.any()
    np.testing.assert_array_equal(features, before)


CASES = st.tuples(st.integers(0, 2**31), st.integers(1, 12), st.integers(1, 40))


def draw_case(seed: int, num_queries: int, num_gallery: int) -> tuple[NDArray[np.float32], ImageLabels, ImageLabels]:
    """Distances without ties."""
    rng = np.random.default_rng(seed)
    distance = np.stack([rng.permutation(num_gallery) for _ in range(num_queries)]).astype(np.float32)
    return distance, draw_labels(seed, num_queries, lowest=0), draw_labels(seed + 1, num_gallery)


@settings(deadline=None, max_examples=60)
@given(CASES)
def test_permuting_the_gallery_changes_nothing(case: tuple[int, int, int]) -> None:
    distance, queries, gallery = draw_case(*case)
    order = np.random.default_rng(case[0] + 2).permutation(len(gallery))
    moved = labels(gallery.person[order], gallery.camera[order])
    assert_equal(rank_matrix(distance, queries, gallery), rank_matrix(distance[:, order], queries, moved))


@settings(deadline=None, max_examples=60)
@given(CASES, st.integers(1, 15))
def test_laws_of_the_scores(case: tuple[int, int, int], chunk: int) -> None:
    distance, queries, gallery = draw_case(*case)
    ranking = rank_matrix(distance, queries, gallery, chunk=chunk)
    assert_same(ranking, slow_ranking(distance, queries, gallery))
    valid = ranking.is_valid
    if not valid.any():
        return
    assert (ranking.ap_step[valid] >= ranking.ap_trapezoid[valid] - 1e-12).all()
    scores = compute_scores(ranking, num_gallery=len(gallery))
    curve = list(scores.cmc.values())
    assert curve == sorted(curve)
    assert list(scores.cmc) == [rank for rank in (1, 5, 10, 20) if rank <= len(gallery)]
    twice = labels(np.tile(queries.person, 2), np.tile(queries.camera, 2))
    doubled = compute_scores(rank_matrix(np.tile(distance, (2, 1)), twice, gallery), num_gallery=len(gallery))
    assert doubled.map == pytest.approx(scores.map)
    assert doubled.map_official == pytest.approx(scores.map_official)
    assert doubled.minp == pytest.approx(scores.minp)
    assert doubled.cmc == pytest.approx(scores.cmc)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 2**31))
def test_scaling_features_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((60, 8), dtype=np.float32)
    # Powers of two, so that the float32 products are the same to the last bit.
    scaled = np.ldexp(features, rng.integers(-20, 20, (60, 1))).astype(np.float32)
    who = draw_labels(seed, 60, lowest=1)
    assert_equal(rank_features(features, 20, who), rank_features(scaled, 20, who))


def test_the_interval_is_that_of_the_binomial_mean() -> None:
    values = np.stack([np.arange(400) < 100, np.ones(400)], axis=1).astype(np.float64)
    interval = bootstrap_interval(values, draws=4000)
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    np.testing.assert_allclose(interval[0], [0.25 - spread, 0.25 + spread], atol=0.004)
    assert interval[1].tolist() == [1.0, 1.0]
    np.testing.assert_array_equal(interval, bootstrap_interval(values, draws=4000))
    assert not np.array_equal(interval, bootstrap_interval(values, draws=4000, seed=1))


@pytest.mark.parametrize(
    "module",
    [
        lupctl.core.ranking.metrics.bootstrap,
        lupctl.core.ranking.metrics.ranking,
        lupctl.core.ranking.reranking.reciprocal,
        lupctl.core.ranking.metrics.scores,
        lupctl.core.ranking.reranking.sparse,
    ],
    ids=lambda module: module.__name__,
)
def test_examples_in_the_docstrings(module: object) -> None:
    result = doctest.testmod(module)  # type: ignore[arg-type]
    assert result.attempted > 0
    assert result.failed == 0
