"""Random numbers keyed by what they are for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.training.views.draws import SampleDraws, epoch_generator, philox

# Known answers of the Random123 distribution (Salmon et al. 2011), file kat_vectors, philox 4x32 10.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def slow_philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in Python's whole numbers, from section 4 of the paper."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(10):
        first, second = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (
            (second >> 32) ^ c1 ^ k0,
            second % 2**32,
            (first >> 32) ^ c3 ^ k1,
            first % 2**32,
        )
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return [c0, c1, c2, c3]


def draws(samples: list[int], *, seed: int = 1, epoch: int = 0, view: int = 0) -> SampleDraws:
    return SampleDraws(np.array(samples, dtype=np.int64), seed=seed, epoch=epoch, view=view)


@pytest.mark.parametrize(("counter", "key", "answer"), KNOWN_ANSWERS)
def test_philox_gives_the_known_answers(counter: str, key: str, answer: str) -> None:
    k0, k1 = words(key)
    given_words = philox(np.array([words(counter)], dtype=np.uint32), (k0, k1))
    assert given_words.dtype == np.uint32
    assert given_words.tolist() == [words(answer)]


def test_philox_computes_many_counters_at_once() -> None:
    counters = np.array([words(counter) for counter, _, _ in KNOWN_ANSWERS] * 2, dtype=np.uint32)
    together = philox(counters, (7, 9))
    assert together.tolist() == [slow_philox(row, [7, 9]) for row in counters.tolist()]


@given(
    st.lists(st.integers(0, 2**32 - 1), min_size=4, max_size=4),
    st.tuples(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)),
)
def test_philox_equals_whole_numbers(counter: list[int], key: tuple[int, int]) -> None:
    assert philox(np.array([counter], dtype=np.uint32), key).tolist() == [slow_philox(counter, list(key))]


def test_a_stream_is_the_generator_on_block_sample_view_and_epoch() -> None:
    stream = draws([5], seed=(3 << 32) + 11, epoch=7, view=1)
    first, second = stream.uniform(6), stream.uniform(3)  # two blocks, then a third
    blocks = [slow_philox([block, 5, 1, 7], [11, 3]) for block in range(3)]
    expected = (np.array(blocks, dtype=np.float64) + 0.5) / 2**32
    np.testing.assert_array_equal(first, expected[:2].reshape(1, -1)[:, :6])
    np.testing.assert_array_equal(second, expected[2:, :3])


@settings(max_examples=50)
@given(st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=12, unique=True), st.randoms(use_true_random=False))
def test_company_and_order_do_not_matter(samples: list[int], random: object) -> None:
    shuffled = list(samples)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    together = draws(shuffled)
    values = np.concatenate([together.uniform(5), together.uniform(2)], axis=1)
    for sample in samples:
        alone = draws([sample])
        expected = np.concatenate([alone.uniform(5), alone.uniform(2)], axis=1)
        np.testing.assert_array_equal(values[shuffled.index(sample)], expected[0])


def test_numbers_are_uniform_and_uncorrelated() -> None:
    values = draws(list(range(4000))).uniform(8)  # 32,000 numbers
    assert values.dtype == np.float64
    assert 0 < values.min() < 2e-4
    assert 1 - 2e-4 < values.max() < 1
    counts, _ = np.histogram(values, bins=64, range=(0, 1))
    # Chi-square with 63 degrees of freedom: mean 63, standard deviation 11.2; 5 deviations on either side.
    assert 63 - 56 < float(((counts - 500) ** 2 / 500).sum()) < 63 + 56
    # Neighbouring samples, and neighbouring numbers of one sample: |r| < 5 / sqrt(n).
    assert abs(np.corrcoef(values[:-1].ravel(), values[1:].ravel())[0, 1]) < 5 / np.sqrt(31992)
    assert np.abs(np.corrcoef(values.T) - np.eye(8)).max() < 5 / np.sqrt(4000)


def test_ends_of_the_interval_are_never_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    """A word of only ones must not round to 1: floor(u * n) would then lie outside."""
    for word in (0, 0xFFFFFFFF):
        monkeypatch.setattr(
            "lupctl.core.training.views.draws.philox",
            lambda counter, key, word=word: np.full((len(counter), 4), word, dtype=np.uint32),
        )
        values = draws([0]).uniform(4)
        assert (values > 0).all()
        assert (values < 1).all()


def test_streams_of_other_views_epochs_seeds_and_samples_share_nothing() -> None:
    streams = [
        draws([sample], seed=seed, epoch=epoch, view=view).uniform(64)
        for sample in (0, 1, 2)
        for seed in (1, 2, 1 + (1 << 32))
        for epoch in (0, 1, 2)
        for view in (0, 1, 2)
    ]
    values = np.concatenate(streams).ravel()
    # 5,184 numbers of 32 bits meet by chance with probability 0.3 %; a shared stream would repeat 64 of them.
    assert len(np.unique(values)) == len(values)


def test_epoch_generators_differ_by_seed_epoch_and_purpose_and_repeat_themselves() -> None:
    keys = [(1, 0, 1), (1, 1, 1), (1, 0, 2), (2, 0, 1), (2**63 - 1, 199, 2), (2**64 - 1, 0, 1), (-2, 0, 1)]
    numbers = [epoch_generator(*key).integers(0, 2**63) for key in keys]
    assert len(set(numbers)) == len(keys)
    assert numbers == [epoch_generator(*key).integers(0, 2**63) for key in keys]
