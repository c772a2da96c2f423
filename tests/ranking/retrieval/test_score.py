"""From features to scores: the whole path against slow references, and data that cannot be scored."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from lupctl.core.errors import DataError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.retrieval.answerable import check_answerable
from lupctl.core.ranking.retrieval.score import DetailSettings, estimate_bytes, score
from lupctl.core.system.jobs.messages import rank
from lupctl.core.system.strings import build_column
from lupctl.core.system.threads.round_robin import run_round_robin
from tests.tools.tiny.training import run_forked

CPU = torch.device("cpu")
TRAIN, QUERY, GALLERY = 1, 2, 3


def make_samples(rows: list[tuple[int, int, int]]) -> Samples:
    """Samples from (person, camera, role)."""
    person, camera, role = zip(*rows, strict=True) if rows else ((), (), ())
    return Samples(
        person=np.array(person, np.int64),
        camera=np.array(camera, np.int16),
        role=np.array(role, np.uint8),
        name=build_column([f"{row:03d}.jpg" for row in range(len(rows))]),
    )


def draw_set(seed: int = 0, *, count: int = 200, noise: float = 1.0) -> tuple[np.ndarray, Samples]:
    """Clustered features of persons 1 to 14 with training images, junk and distractors, roles mixed up."""
    rng = np.random.default_rng(seed)
    person = rng.integers(-1, 15, count)
    role = np.where(person <= 0, GALLERY, rng.choice([TRAIN, QUERY, GALLERY, GALLERY], count))
    camera = rng.integers(1, 4, count)
    features = (rng.standard_normal((15, 24))[person] + noise * rng.standard_normal((count, 24))).astype(np.float32)
    return features, make_samples(list(zip(person.tolist(), camera.tolist(), role.tolist(), strict=True)))


def slow_scores(distance: np.ndarray, queries: Samples, gallery: Samples) -> tuple[float, float, float, float]:
    """Step mAP, official mAP, mINP and rank-1 of (Q, G) distances."""
    step, trapezoid, inp, first = [], [], [], []
    for row in range(len(queries)):
        removed = (gallery.person == queries.person[row]) & (gallery.camera == queries.camera[row])
        order = [column for column in np.argsort(distance[row], kind="stable") if not removed[column]]
        hits = np.flatnonzero(gallery.person[order] == queries.person[row]) + 1
        if not len(hits):
            trapezoid.append(0.0)
            continue
        number = np.arange(1, len(hits) + 1)
        before = [1.0 if rank == 1 else (i - 1) / (rank - 1) for i, rank in zip(number, hits, strict=True)]
        step.append((number / hits).mean())
        trapezoid.append(((number / hits + before) / 2).mean())
        inp.append(len(hits) / hits[-1])
        first.append(hits[0] == 1)
    return float(np.mean(step)), float(np.mean(trapezoid)), float(np.mean(inp)), float(np.mean(first))


@pytest.mark.parametrize("chunk", [None, 1, 9])
def test_scores_of_a_mixed_file(chunk: int | None) -> None:
    features, samples = draw_set()
    scored = score(features, samples, device=CPU, chunk=chunk)
    asked, ranked = samples.role == QUERY, (samples.role == GALLERY) & (samples.person != -1)
    unit = features.astype(np.float64) / np.linalg.norm(features.astype(np.float64), axis=1, keepdims=True)
    expected = slow_scores(-unit[asked] @ unit[ranked].T, samples.select(asked), samples.select(ranked))
    found = scored.scores
    assert (found.map, found.map_official, found.minp, found.cmc[1]) == pytest.approx(expected)
    assert 0.2 < found.map < 0.95, "a case with something to tell apart"
    assert scored.rerank_scores is None
    assert scored.map_interval.lower < found.map < scored.map_interval.upper
    assert scored.rank1_interval.lower <= found.cmc[1] <= scored.rank1_interval.upper
    assert scored.counts.queries == asked.sum()
    assert scored.counts.gallery == ranked.sum()
    assert scored.counts.junk == ((samples.role == GALLERY) & (samples.person == -1)).sum() > 0
    assert scored.counts.distractors == (samples.person == 0).sum() > 0


def score_half(folder: Path) -> None:
    """One of two processes: every second query against the whole gallery."""
    features, samples = draw_set(count=400)
    queries = np.flatnonzero(samples.role == QUERY)
    keep = np.sort(np.concatenate([np.flatnonzero(samples.role != QUERY), queries[rank() :: 2]]))
    ranking = score(features[keep], samples.select(keep), device=CPU).ranking
    np.savez(folder / f"{rank()}.npz", first=ranking.first_rank, ap=ranking.ap_step)


def test_two_processes_give_the_bits_of_one(tmp_path: Path) -> None:
    features, samples = draw_set(count=400)
    whole = score(features, samples, device=CPU).ranking
    assert run_forked(score_half, tmp_path, processes=2) == [0, 0]
    for number in range(2):
        half = np.load(tmp_path / f"{number}.npz")
        np.testing.assert_array_equal(half["first"], whole.first_rank[number::2])
        np.testing.assert_array_equal(half["ap"], whole.ap_step[number::2])


@pytest.mark.parametrize("count", [2, 3])
def test_several_devices_give_the_same_bits(count: int) -> None:
    features, samples = draw_set(count=400)
    rerank, details = RerankSettings(k1=10, k2=3), DetailSettings(shots=3)
    one = score(features, samples, device=CPU, rerank=rerank, details=details)
    before = torch.get_float32_matmul_precision()
    for chunk in (None, 5, 11):
        many = score(features, samples, device=[CPU] * count, chunk=chunk, rerank=rerank, details=details)
        assert (many.scores, many.rerank_scores) == (one.scores, one.rerank_scores)
        assert (many.map_interval, many.rank1_interval) == (one.map_interval, one.rank1_interval)
        for mine, theirs in ((one.ranking, many.ranking), (one.reranking, many.reranking)):
            assert mine is not None
            assert theirs is not None
            np.testing.assert_array_equal(mine.ap_step, theirs.ap_step)
            np.testing.assert_array_equal(mine.first_rank, theirs.first_rank)
        assert one.details is not None
        assert many.details is not None
        np.testing.assert_array_equal(one.details.pairs.same, many.details.pairs.same)
        np.testing.assert_array_equal(one.details.pairs.different, many.details.pairs.different)
        # Sums over chunks: another chunk adds up in another order.
        np.testing.assert_allclose(one.details.cameras.map, many.details.cameras.map, rtol=1e-12)
        assert one.details.shots == many.details.shots
    assert torch.get_float32_matmul_precision() == before


def test_devices_take_turns_and_rest_until_their_result_was_taken() -> None:
    seen: list[tuple[str, int]] = []
    running = dict.fromkeys("ab", 0)

    def worker(name: str) -> Callable[[int, int], tuple[str, int]]:
        def work(start: int, stop: int) -> tuple[str, int]:
            running[name] += 1
            assert running[name] == 1, "begun before the last result was dealt with"
            if start == 6:
                raise ValueError("range 6")
            return name, stop - start

        return work

    def deal() -> None:
        for name, count in run_round_robin([worker("a"), worker("b")], [(0, 2), (2, 3), (3, 6), (6, 7), (7, 9)]):
            time.sleep(0.02)
            running[name] -= 1
            seen.append((name, count))

    with pytest.raises(ValueError, match="range 6"):
        deal()
    assert seen == [("a", 2), ("b", 1), ("a", 3)]
    assert list(run_round_robin([worker("a")], [])) == []


def test_a_tensor_gives_what_the_array_gives() -> None:
    features, samples = draw_set()
    assert score(torch.from_numpy(features), samples, device=CPU).scores == score(features, samples, device=CPU).scores


def test_reranking_helps_on_clusters_and_leaves_junk_out_of_the_pool() -> None:
    features, samples = draw_set(noise=1.1)
    scored = score(features, samples, device=CPU, rerank=RerankSettings(k1=10, k2=3))
    assert scored.rerank_scores is not None
    assert scored.rerank_scores.map > scored.scores.map + 0.03
    junk = samples.person == -1
    assert junk.any()
    without = score(features[~junk], samples.select(~junk), device=CPU, rerank=RerankSettings(k1=10, k2=3))
    assert without.rerank_scores == scored.rerank_scores


def test_lambda_one_ranks_as_without_reranking() -> None:
    features, samples = draw_set()
    scored = score(features, samples, device=CPU, rerank=RerankSettings(weight=1.0))
    assert scored.rerank_scores is not None
    assert scored.rerank_scores.map == pytest.approx(scored.scores.map, abs=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_what_the_cpu_gives() -> None:
    features, samples = draw_set()
    settings = RerankSettings(k1=10, k2=3)
    ours = score(features, samples, device=torch.device("cuda", 0), rerank=settings, chunk=9)
    expected = score(features, samples, device=CPU, rerank=settings)
    assert ours.scores.map == pytest.approx(expected.scores.map, abs=1e-3)
    assert ours.scores.cmc == pytest.approx(expected.scores.cmc, abs=0.03)
    assert ours.rerank_scores is not None
    assert expected.rerank_scores is not None
    assert ours.rerank_scores.map == pytest.approx(expected.rerank_scores.map, abs=5e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_features_that_are_not_finite_are_named(value: float) -> None:
    features, samples = draw_set()
    bad = [5, 11, 12, 40, 41, 42, 100]
    features[bad, 3] = value
    with pytest.raises(DataError) as caught:
        score(features, samples, device=CPU)
    assert caught.value.message == (
        "7 of 200 features are NaN, infinite or beyond float32: row 5 (005.jpg), row 11 (011.jpg), row 12 (012.jpg), "
        "row 40 (040.jpg), row 41 (041.jpg), ..."
    )
    assert "lupctl dump" in caught.value.hint


def test_features_whose_norm_has_no_inverse_are_named() -> None:
    features, samples = draw_set()
    features[7] *= np.float32(1e-39)
    with pytest.raises(DataError, match=r"1 of 200 features are too small for float32: row 7 \(007.jpg\)"):
        score(features, samples, device=CPU)


def test_one_camera_is_said_with_what_to_do() -> None:
    rows = [(1, 0, QUERY), (2, 0, QUERY), (1, 0, GALLERY), (2, 0, GALLERY)]
    with pytest.raises(DataError) as caught:
        check_answerable(make_samples(rows))
    assert caught.value.message.startswith("0 of 2 queries have a right answer: every image has camera 0")
    assert "--same-camera keep" in caught.value.hint
    counts = check_answerable(make_samples(rows), same_camera="keep")
    assert (counts.valid, counts.absent) == (2, 0)
    features = np.array([[1, 0], [0, 1], [1, 0.1], [0.1, 1]], np.float32)
    assert score(features, make_samples(rows), device=CPU, same_camera="keep").scores.map == 1


def test_each_cause_of_no_right_answer_has_its_own_words() -> None:
    own_camera = [(1, 1, QUERY), (2, 2, QUERY), (1, 1, GALLERY), (2, 2, GALLERY)]
    with pytest.raises(DataError, match="only from the query's own camera"):
        check_answerable(make_samples(own_camera))
    strangers = [(1, 1, QUERY), (1, 2, QUERY), (2, 2, QUERY), (3, 3, GALLERY)]
    with pytest.raises(
        DataError, match="0 of 3 queries have a right answer: the gallery shows none of their 2 persons"
    ):
        check_answerable(make_samples(strangers))
    distractors = [(0, 1, QUERY), (0, 2, GALLERY)]
    with pytest.raises(DataError, match="every query is person 0, which marks distractors"):
        check_answerable(make_samples(distractors))


def test_missing_roles_are_said() -> None:
    with pytest.raises(DataError, match=r"there is no query among 2 images \(1 train, 1 gallery\)"):
        check_answerable(make_samples([(1, 1, TRAIN), (1, 1, GALLERY)]))
    with pytest.raises(DataError, match=r"there is no query among 0 images \(none at all\)"):
        check_answerable(make_samples([]))
    with pytest.raises(DataError, match="the gallery of 1 query is empty: no image has the role gallery"):
        check_answerable(make_samples([(1, 1, QUERY)]))
    with pytest.raises(DataError, match=r"is empty: all its 2 images are junk \(person -1\)"):
        check_answerable(make_samples([(1, 1, QUERY), (-1, 1, GALLERY), (-1, 2, GALLERY)]))


def test_junk_queries_are_named() -> None:
    rows = [(1, 1, QUERY), (-1, 2, QUERY), (-1, 3, QUERY), (1, 2, GALLERY)]
    with pytest.raises(DataError, match=r"2 of 3 queries are junk \(person -1\).*: 001\.jpg, 002\.jpg"):
        check_answerable(make_samples(rows))


def test_persons_absent_from_the_gallery_are_counted() -> None:
    rows = [(1, 1, QUERY), (2, 1, QUERY), (3, 1, QUERY), (1, 2, GALLERY), (3, 1, GALLERY), (0, 1, GALLERY)]
    counts = check_answerable(make_samples(rows))
    assert (counts.queries, counts.valid, counts.absent, counts.persons) == (3, 1, 1, 3)
    scored = score(np.eye(6, dtype=np.float32)[[0, 1, 2, 0, 2, 5]], make_samples(rows), device=CPU)
    assert scored.scores.map == 1
    assert scored.scores.map_official == pytest.approx(1 / 3)


def test_counts_agree_with_counting() -> None:
    for seed in range(20):
        _, samples = draw_set(seed, count=40)
        right = {"drop": 0, "keep": 0}
        ranked = [row for row in range(40) if samples.role[row] == GALLERY]
        for query in np.flatnonzero(samples.role == QUERY):
            same = [row for row in ranked if samples.person[row] == samples.person[query]]
            right["keep"] += bool(same)
            right["drop"] += any(samples.camera[row] != samples.camera[query] for row in same)
        assert check_answerable(samples).valid == right["drop"]
        assert check_answerable(samples, same_camera="keep").valid == right["keep"]


def test_the_estimate_grows_with_the_pool_not_with_its_square() -> None:
    counts = check_answerable(draw_set()[1])
    large = [
        type(counts)(queries=q, valid=q, absent=0, persons=9, gallery=g, junk=0, distractors=0)
        for q, g in ((3_368, 15_913), (33_680, 159_130))
    ]
    small, ten_times = (estimate_bytes(one, 2048, chunk=None, rerank=RerankSettings()) for one in large)
    assert 350 * 2**20 < small < 600 * 2**20
    assert ten_times < 10.5 * small
