"""TransReID's sampler: one pass is one epoch."""

import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lupctl.core.errors import UsageError
from lupctl.core.training.loading.streams import PersonPasses, PersonStream

COUNTS = [4, 9, 1, 2, 17, 8, 4, 5, 30, 4, 3, 6]


def labels(counts: list[int], *, seed: int = 0) -> NDArray[np.int64]:
    """Classes 0, 1, … with that many images each, in mixed order."""
    return np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts)).astype(np.int64)


def epoch_batches(order: PersonPasses, epoch: int) -> list[list[int]]:
    begins = order.epochs(epoch + 1).begins
    return [order.rows(step).tolist() for step in range(begins[epoch], begins[epoch + 1])]


def slow_epoch(counts: list[int], persons: int, images: int, chance: random.Random) -> list[list[int]]:
    """The published loop: the persons of each batch of an epoch."""
    groups = {person: max(count // images, 1) for person, count in enumerate(counts)}
    batches = []
    while len(groups) >= persons:
        chosen = chance.sample(sorted(groups), persons)
        for person in chosen:
            groups[person] -= 1
            if groups[person] == 0:
                del groups[person]
        batches.append(chosen)
    return batches


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 20), min_size=2, max_size=14), st.integers(2, 6), st.integers(2, 5), st.integers(0, 2**40)
)
def test_an_epoch_follows_the_published_rule(counts: list[int], persons: int, images: int, seed: int) -> None:
    label = labels(counts, seed=seed)
    if len(counts) < persons:
        with pytest.raises(UsageError, match=f"the training set has {len(counts)}"):
            PersonPasses(label, persons=persons, images=images, seed=seed)
        return
    order = PersonPasses(label, persons=persons, images=images, seed=seed)
    for epoch in range(2):
        left = {person: max(count // images, 1) for person, count in enumerate(counts)}
        seen: list[int] = []
        for batch in epoch_batches(order, epoch):
            assert sum(number > 0 for number in left.values()) >= persons
            groups = np.array(batch).reshape(persons, images)
            own = label[groups]
            assert (own == own[:, :1]).all()
            assert len(set(own[:, 0].tolist())) == persons
            for person, group in zip(own[:, 0].tolist(), groups.tolist(), strict=True):
                left[person] -= 1
                assert left[person] >= 0
                if counts[person] >= images:
                    seen += group
        assert sum(number > 0 for number in left.values()) < persons, "it ends when too few persons remain"
        assert len(seen) == len(set(seen)), "an image comes at most once"


def test_lengths_are_distributed_like_those_of_the_published_loop() -> None:
    """Two thousand epochs each; the number of steps varies with the choice."""
    number, chance = 2000, random.Random(1)
    begins = PersonPasses(labels(COUNTS), persons=4, images=4, seed=3).epochs(number).begins
    ours = np.bincount(np.diff(begins), minlength=9)
    theirs = np.bincount([len(slow_epoch(COUNTS, 4, 4, chance)) for _ in range(number)], minlength=9)
    assert len(ours) == len(theirs) == 9
    assert (ours > 0).sum() >= 3
    # Five deviations of the difference of two shares.
    assert (np.abs(ours - theirs) < 5 * np.sqrt(2 * (ours + theirs) / 2 + 1)).all()


def test_the_rest_of_a_person_is_left_out_anew_in_each_epoch() -> None:
    label = labels([4, 4, 7])
    order = PersonPasses(label, persons=3, images=4, seed=2)
    assert order.epochs(40).begins == tuple(range(41)), "a single batch of all three"
    missing = {frozenset(np.flatnonzero(label == 2).tolist()) - set(order.rows(epoch).tolist()) for epoch in range(40)}
    assert all(len(some) == 3 for some in missing)
    assert len(missing) > 20


def test_a_person_with_few_images_repeats_them_and_each_is_augmented_on_its_own() -> None:
    order = PersonPasses(labels([1, 2, 9]), persons=3, images=4, seed=1)
    keys = order.draw_keys(5)
    assert keys.tolist() == list(range(12)), "one step an epoch: the positions start over"
    assert {len(set(order.rows(epoch)[labels([1, 2, 9])[order.rows(epoch)] == 1].tolist())) for epoch in range(60)} == {
        1,
        2,
    }


def test_any_step_is_a_function_of_the_seed_alone() -> None:
    def fresh(seed: int = 7) -> PersonPasses:
        return PersonPasses(labels(COUNTS), persons=4, images=4, seed=seed)

    order = fresh()
    total = order.epochs(30).total
    walked = [
        (order.rows(step).tolist(), order.draw_keys(step).tolist(), order.epoch_of(step)) for step in range(total)
    ]
    copy = pickle.loads(pickle.dumps(order))
    for step in (total - 1, 0, total // 2, 1):
        for other in (fresh(), copy, order):
            assert (other.rows(step).tolist(), other.draw_keys(step).tolist(), other.epoch_of(step)) == walked[step]
    assert fresh().epochs(30) == order.epochs(30)
    assert fresh(8).rows(0).tolist() != walked[0][0]
    epochs = order.epochs(30)
    assert len({end - begin for begin, end in zip(epochs.begins, epochs.begins[1:], strict=False)}) > 1
    assert [epoch for _, _, epoch in walked] == [epochs.of(step) for step in range(total)]


def test_the_keys_of_an_epoch_are_all_different() -> None:
    order = PersonPasses(labels(COUNTS), persons=4, images=4, seed=7)
    first, second, third = order.epochs(2).begins
    for begin, end in ((first, second), (second, third)):
        keys = np.concatenate([order.draw_keys(step) for step in range(begin, end)])
        assert keys.tolist() == list(range(len(keys)))


def test_a_pass_has_the_length_of_the_streams_passes() -> None:
    """The stream draws by the same rule, but cuts epochs by the number of images."""
    label = labels([8] * 9)
    assert PersonPasses(label, persons=3, images=4, seed=1).epochs(1).total in (5, 6)
    assert PersonStream(label, persons=3, images=4, seed=1).epochs(2).total == 12
