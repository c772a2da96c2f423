"""Classes from person numbers."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lupctl.core.training.loading.labels import label_persons, number_apart

PACKS = st.lists(st.lists(st.integers(-1, 9), max_size=12), max_size=4)


@given(PACKS)
def test_classes_are_those_of_a_slow_loop(packs: list[list[int]]) -> None:
    class_of: dict[tuple[int, int], int] = {}
    for number, persons in enumerate(packs):
        for person in sorted(set(persons) - {-1}):
            class_of[number, person] = len(class_of)
    expected = [class_of.get((number, person), -1) for number, persons in enumerate(packs) for person in persons]
    found = label_persons([np.array(persons, np.int64) for persons in packs])
    assert found.label.dtype == np.int64
    assert found.label.tolist() == expected
    assert found.num_classes == len(class_of)
    assert [(number, person) for number, persons in enumerate(found.persons) for person in persons] == list(class_of)


@given(PACKS)
def test_classes_do_not_depend_on_the_order_of_images(packs: list[list[int]]) -> None:
    orders = [np.random.default_rng(len(persons)).permutation(len(persons)) for persons in packs]
    columns = [np.array(persons, np.int64) for persons in packs]
    plain = label_persons(columns)
    turned = label_persons([column[order] for column, order in zip(columns, orders, strict=True)])
    begins = np.cumsum([0, *map(len, packs)])[:-1]
    rows = np.concatenate([np.empty(0, np.int64), *(o + b for o, b in zip(orders, begins, strict=True))])
    assert turned.label.tolist() == plain.label[rows].tolist()


def test_numbers_beyond_a_class_index_and_every_gap() -> None:
    found = label_persons([np.array([2**62, 0, 2**62, 500])])
    assert found.label.tolist() == [2, 0, 2, 1]
    assert [pack.tolist() for pack in found.persons] == [[0, 500, 2**62]]


def test_an_unknown_camera_is_a_camera() -> None:
    numbers, values = number_apart([np.array([3, -1], np.int16), np.array([3], np.int16)])
    assert numbers.tolist() == [1, 0, 2]
    assert [pack.tolist() for pack in values] == [[-1, 3], [3]]
