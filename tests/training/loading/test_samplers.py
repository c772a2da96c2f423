"""Which images a step sees."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lupctl.core.errors import UsageError
from lupctl.core.training.loading.samplers import PersonsImagesOrder, ShuffledOrder


def epoch_rows(order: ShuffledOrder | PersonsImagesOrder, epoch: int) -> NDArray[np.int64]:
    first = epoch * order.steps_per_epoch
    return np.concatenate([order.rows(step) for step in range(first, first + order.steps_per_epoch)])


@given(st.integers(1, 200), st.integers(1, 50), st.integers(0, 2**63 - 1))
def test_an_epoch_has_no_image_twice_and_leaves_out_less_than_a_batch(count: int, batch: int, seed: int) -> None:
    if count < batch:
        with pytest.raises(UsageError):
            ShuffledOrder(count, batch=batch, seed=seed)
        return
    order = ShuffledOrder(count, batch=batch, seed=seed)
    rows = epoch_rows(order, 1)
    assert order.steps_per_epoch == count // batch
    assert len(rows) == len(set(rows.tolist())) == count - count % batch
    assert rows.min() >= 0
    assert rows.max() < count
    assert all(len(order.rows(step)) == batch for step in range(order.steps_per_epoch))


def test_whole_batches_make_a_permutation_new_in_every_epoch_and_for_every_seed() -> None:
    orders = [epoch_rows(ShuffledOrder(120, batch=8, seed=seed), epoch).tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert all(sorted(rows) == list(range(120)) for rows in orders)
    assert len({tuple(rows) for rows in orders} | {tuple(range(120))}) == 5


def test_what_is_left_out_changes_with_the_epoch() -> None:
    order = ShuffledOrder(10, batch=8, seed=3)
    left_out = {frozenset(range(10)) - set(order.rows(epoch).tolist()) for epoch in range(12)}
    assert len(left_out) > 6


def test_every_step_can_be_asked_for_directly() -> None:
    """As a resumed run does, or a worker that takes every second step."""
    order = ShuffledOrder(50, batch=7, seed=5)
    walked = [order.rows(step).tolist() for step in range(30)]
    for step in (29, 0, 13, 7, 28, 6):
        assert ShuffledOrder(50, batch=7, seed=5).rows(step).tolist() == walked[step]
        assert order.rows(step).tolist() == walked[step]
    assert [order.epoch_of(step) for step in (0, 6, 7, 13, 14, 29)] == [0, 0, 1, 1, 2, 4]


def test_every_image_comes_first_about_as_often() -> None:
    order = ShuffledOrder(5, batch=5, seed=0)
    counts = np.bincount([int(order.rows(epoch)[0]) for epoch in range(2000)], minlength=5)
    # Chi-square with 4 degrees of freedom: 24 is passed once in 12,000 times.
    assert float(((counts - 400) ** 2 / 400).sum()) < 24


@pytest.mark.parametrize(("count", "batch"), [(2, 3), (7, 8), (100, 2560)])
def test_a_batch_larger_than_the_data_is_refused_with_one_that_fits(count: int, batch: int) -> None:
    with pytest.raises(UsageError) as caught:
        ShuffledOrder(count, batch=batch, seed=0)
    assert caught.value.message == f"data.batch = {batch} is larger than the number of images, {count}"
    ShuffledOrder(count, batch=int(caught.value.hint.rpartition("=")[2]), seed=0)


@pytest.mark.parametrize(
    ("count", "groups", "hint"), [(3, 4, (2, 1)), (20, 4, (8, 4)), (100, 5, (15, 5)), (9, 4, (8, 4))]
)
def test_the_batch_that_fits_divides_into_the_batch_norm_groups(count: int, groups: int, hint: tuple[int, int]) -> None:
    with pytest.raises(UsageError) as caught:
        ShuffledOrder(count, batch=count + 1, seed=0, groups=groups)
    batch, changed = hint
    said = f"--set data.batch={batch}" + (" --set bn_groups=1" if changed != groups else "")
    assert caught.value.hint == f"choose a batch that fits: {said}"
    assert batch <= count
    assert batch % changed == 0
    assert batch // changed >= 2


def test_shuffled_order_pickles() -> None:
    order = ShuffledOrder(50, batch=7, seed=5)
    order.rows(0)
    assert pickle.loads(pickle.dumps(order)).rows(11).tolist() == order.rows(11).tolist()


# Persons and images

COUNTS = [4, 9, 1, 2, 17, 8, 4, 5, 30, 4, 3, 6]


def labels(counts: list[int], *, seed: int = 0) -> NDArray[np.int64]:
    """Classes 0, 1, … with that many images each, in mixed order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=14), st.integers(2, 6), st.integers(2, 5), st.integers(0, 2**40)
)
def test_batches_hold_p_persons_with_k_images_each(counts: list[int], persons: int, images: int, seed: int) -> None:
    label = labels(counts, seed=seed)
    if len(counts) < persons:
        with pytest.raises(UsageError, match=f"the training set has {len(counts)}"):
            PersonsImagesOrder(label, persons=persons, images=images, seed=seed)
        return
    order = PersonsImagesOrder(label, persons=persons, images=images, seed=seed)
    seen: set[int] = set()
    for step in range(order.steps_per_epoch):
        rows = order.rows(step)
        assert rows.shape == (persons * images,)
        own = label[rows].reshape(persons, images)
        assert (own == own[:, :1]).all()
        assert len(set(own[:, 0].tolist())) == persons
        for person, group in zip(own[:, 0], rows.reshape(persons, images), strict=True):
            if counts[person] >= images:
                assert len(set(group.tolist())) == images
        seen.update(own[:, 0].tolist())
    # A pass ends where fewer than P persons have images left, so fewer than P can be left out.
    assert len(counts) - len(seen) < persons


def test_images_do_not_repeat_before_a_pass_is_over() -> None:
    """One batch takes each person once, so every image of a person with K images comes exactly once."""
    label = labels([4] * 12)
    rows = epoch_rows(PersonsImagesOrder(label, persons=4, images=4, seed=9), 3)
    assert sorted(rows.tolist()) == list(range(48))


def test_persons_with_few_images_repeat_some() -> None:
    label = labels([1, 2, 3])
    order = PersonsImagesOrder(label, persons=3, images=4, seed=1)
    assert order.steps_per_epoch == 1
    pairs = set()
    for epoch in range(250):
        rows = order.rows(epoch)
        for person in range(3):
            own = rows[label[rows] == person]
            assert len(own) == 4
            if person == 1:
                pairs.add(tuple(sorted(own.tolist())))
    # Drawn with replacement: from one image four times to the other four times, each of these once in sixteen.
    assert len(pairs) == 5


def test_orders_are_a_function_of_seed_and_step_alone() -> None:
    label = labels(COUNTS)
    order = PersonsImagesOrder(label, persons=4, images=4, seed=7)
    walked = [order.rows(step).tolist() for step in range(4 * order.steps_per_epoch)]
    copy = pickle.loads(pickle.dumps(order))
    fresh = PersonsImagesOrder(label, persons=4, images=4, seed=7)
    for step in (len(walked) - 1, 0, len(walked) // 2, 1):
        assert copy.rows(step).tolist() == walked[step]
        assert fresh.rows(step).tolist() == walked[step]
        assert order.rows(step).tolist() == walked[step]
    other = PersonsImagesOrder(label, persons=4, images=4, seed=8)
    assert [other.rows(step).tolist() for step in range(order.steps_per_epoch)] != walked[: order.steps_per_epoch]
    assert walked[: order.steps_per_epoch] != walked[order.steps_per_epoch : 2 * order.steps_per_epoch]
    assert order.epoch_of(order.steps_per_epoch) == 1


def test_classes_need_not_be_contiguous() -> None:
    label = np.array([30, -1, 30, 7, 7, -1], dtype=np.int64)
    rows = PersonsImagesOrder(label, persons=3, images=2, seed=1).rows(0)
    assert sorted(rows.tolist()) == list(range(6))


def test_too_few_persons_are_refused_with_a_number_that_fits() -> None:
    label = labels([4] * 6)
    with pytest.raises(UsageError) as caught:
        PersonsImagesOrder(label, persons=16, images=4, seed=1)
    assert "data.persons = 16 persons per batch, but the training set has 6" in caught.value.message
    PersonsImagesOrder(label, persons=int(caught.value.hint.rpartition("=")[2]), images=4, seed=1)


@pytest.mark.parametrize(
    ("count", "groups", "shares", "hint"),
    [
        (100, 4, 3, "--set data.batch=12"),
        (100, 1, 8, "--set data.batch=16"),
        (20, 8, 6, "--set data.batch=12 --set bn_groups=6"),
        (9, 8, 8, "--set data.batch=2 --set bn_groups=1 --set optim.accumulate=1 --gpus 1"),
    ],
)
def test_the_batch_that_fits_divides_among_the_devices(count: int, groups: int, shares: int, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        ShuffledOrder(count, batch=count + 1, seed=0, groups=groups, shares=shares)
    assert caught.value.hint == f"choose a batch that fits: {hint}"


def test_a_single_image_is_too_few_for_any_batch() -> None:
    with pytest.raises(UsageError) as caught:
        ShuffledOrder(1, batch=8, seed=0)
    assert caught.value.hint == "pack more images: lupctl data pack"
