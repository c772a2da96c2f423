"""fast-reid's two identity samplers against their definitions."""

import pickle
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lupctl.core.errors import UsageError
from lupctl.core.training.loading.streams import CameraStream, PersonStream


def labels(counts: list[int], *, seed: int = 0) -> NDArray[np.int64]:
    """Classes 0, 1, … with that many images each, in mixed order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


def check_passes(batches: list[list[int]], counts: list[int], label: NDArray[np.int64], persons: int, k: int) -> int:
    """Walks a stream with the rule of the naive sampler; returns how many passes it saw end.

    A pass may not take an image twice from a person that has K, and it ends only where fewer than P persons have K
    images left, which is exactly where the next one must begin.
    """
    passes = 0
    left = {person: max(count, k) for person, count in enumerate(counts)}
    taken: set[int] = set()
    for batch in batches:
        if sum(number >= k for number in left.values()) < persons:
            passes += 1
            left = {person: max(count, k) for person, count in enumerate(counts)}
            taken = set()
        chosen = [label[row] for row in batch[::k]]
        assert len(set(chosen)) == persons
        for place, person in enumerate(chosen):
            own = batch[place * k : (place + 1) * k]
            assert {label[row] for row in own} == {person}
            if counts[person] >= k:
                assert len(set(own)) == k
                assert not taken & set(own), "an image comes once in a pass"
            assert left[person] >= k, "who has fewer than K images left is not chosen"
            left[person] -= k
            taken |= set(own)
    return passes


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=14), st.integers(2, 6), st.integers(2, 5), st.integers(0, 2**40)
)
def test_the_stream_follows_the_naive_rule(counts: list[int], persons: int, images: int, seed: int) -> None:
    label = labels(counts, seed=seed)
    if len(counts) < persons:
        with pytest.raises(UsageError, match=f"the training set has {len(counts)}"):
            PersonStream(label, persons=persons, images=images, seed=seed)
        return
    order = PersonStream(label, persons=persons, images=images, seed=seed)
    assert order.steps_per_epoch == max(sum(counts) // (persons * images), 1)
    # A pass has at most 14 * 20 / (2 * 2) batches.
    batches = [order.rows(step).tolist() for step in range(2 * 70 + 1)]
    assert check_passes(batches, counts, label, persons, images) >= 2


def test_epochs_are_counted_by_images_and_passes_go_on_across_them() -> None:
    """Market-1501 has 12,936 images: 202 steps of 64."""
    label = labels([17] * 760 + [16])
    assert len(label) == 12_936
    order = PersonStream(label, persons=4, images=16, seed=1)
    assert order.steps_per_epoch == 202
    first_pass = [order.rows(step) for step in range(190)]
    assert len({int(label[row]) for row in np.concatenate(first_pass)}) == 760, "one batch of each but the left one"
    assert [order.epoch_of(step) for step in (0, 201, 202, 12_119)] == [0, 0, 1, 59]


@pytest.mark.parametrize("kind", ["naive", "cameras"])
def test_any_step_can_be_asked_for_first(kind: str) -> None:
    label = labels([4, 9, 1, 2, 17, 8, 4, 5, 30, 4, 3, 6])
    camera = np.random.default_rng(0).integers(0, 3, len(label)).astype(np.int16)

    def build(seed: int) -> PersonStream | CameraStream:
        if kind == "naive":
            return PersonStream(label, persons=4, images=4, seed=seed)
        return CameraStream(label, camera, persons=4, images=4, seed=seed)

    order = build(7)
    walked = [order.rows(step).tolist() for step in range(40)]
    for step in (39, 0, 20, 1, 38):
        assert build(7).rows(step).tolist() == walked[step]
        assert order.rows(step).tolist() == walked[step]
        assert pickle.loads(pickle.dumps(order)).rows(step).tolist() == walked[step]
    assert [build(8).rows(step).tolist() for step in range(40)] != walked
    assert len({tuple(batch) for batch in walked}) == 40


def test_an_image_that_comes_again_is_augmented_anew() -> None:
    """Of a person with one image a batch holds K copies; each has a key of its own."""
    label = labels([1] * 4 + [2] * 4)
    order = PersonStream(label, persons=4, images=3, seed=1)
    assert order.steps_per_epoch == 1
    longer = PersonStream(labels([9] * 8), persons=4, images=3, seed=1)
    assert longer.steps_per_epoch == 6
    keys = list(chain.from_iterable(longer.draw_keys(step).tolist() for step in range(6)))
    assert sorted(keys) == list(range(72)), "no key comes twice in an epoch"
    assert longer.draw_keys(6).tolist() == longer.draw_keys(0).tolist(), "the epoch is part of the key elsewhere"


# Cameras


def slow_choice(rows: list[int], camera: NDArray[np.int16], first: int) -> set[int]:
    """Where the other images of a person may come from."""
    elsewhere = {row for row in rows if camera[row] != camera[first]}
    return elsewhere or {row for row in rows if row != first} or {first}


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=9), st.integers(2, 4), st.integers(2, 5), st.integers(0, 2**40)
)
def test_other_images_come_from_other_cameras(counts: list[int], persons: int, images: int, seed: int) -> None:
    label = labels(counts, seed=seed)
    camera = np.random.default_rng(seed).integers(0, 3, len(label)).astype(np.int16)
    if len(counts) < persons:
        with pytest.raises(UsageError, match=f"the training set has {len(counts)}"):
            CameraStream(label, camera, persons=persons, images=images, seed=seed)
        return
    order = CameraStream(label, camera, persons=persons, images=images, seed=seed)
    per_pass = len(counts) // persons
    seen: list[int] = []
    for step in range(2 * per_pass):
        batch = order.rows(step).tolist()
        assert len(batch) == persons * images
        for place in range(persons):
            first, *others = batch[place * images : (place + 1) * images]
            own = np.flatnonzero(label == label[first]).tolist()
            allowed = slow_choice(own, camera, first)
            assert set(others) <= allowed
            if len(allowed) >= images - 1:
                assert len(set(others)) == images - 1
            seen.append(int(label[first]))
    for half in (seen[: len(seen) // 2], seen[len(seen) // 2 :]):
        assert len(set(half)) == per_pass * persons, "every person at most once in a pass"
