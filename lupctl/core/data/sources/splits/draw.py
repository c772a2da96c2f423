"""Which images are trained on, which ask and which are searched; drawn by a seed, the same on every machine."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import SameCamera
from lupctl.core.system.drawn_order import draw_order, share

Mask = NDArray[np.bool_]


def draw_persons(person: NDArray[np.int64], ratio: str, *, seed: int) -> Mask:
    """The images of int(n R) of the n persons; persons are ordered by the texts `SEED split person NUMBER`.

    Those for a larger R contain those for a smaller one.

    Args:
        person: (N).
        ratio: R, a decimal number as typed.
        seed: of the order.

    Returns:
        (N).
    """
    persons = np.unique(person)
    drawn = draw_order(seed, "split person", map(str, persons.tolist()))
    return np.isin(person, persons[drawn[: share(len(persons), ratio)]])


def draw_cameras(camera: NDArray[np.int16], ratio: str, *, seed: int) -> Mask:
    """The images of int(c R) of the c known cameras, ordered by the texts `SEED split camera NUMBER`.

    Args:
        camera: (N), -1 where unknown.
        ratio: R, a decimal number as typed.
        seed: of the order.

    Returns:
        (N).
    """
    cameras = np.unique(camera[camera >= 0])
    drawn = draw_order(seed, "split camera", map(str, cameras.tolist()))
    return np.isin(camera, cameras[drawn[: share(len(cameras), ratio)]])


def draw_images(name: Sequence[str], person: NDArray[np.int64], ratio: str, *, seed: int) -> Mask:
    """int(k R) of the k images of each person, but at least one; ordered by the texts `SEED split image NAME`.

    Args:
        name: (N).
        person: (N).
        ratio: R, a decimal number as typed.
        seed: of the order.

    Returns:
        (N).
    """
    order = np.array(draw_order(seed, "split image", name), np.int64)
    # Sorted by person, in drawn order for each.
    order = order[np.argsort(person[order], kind="stable")]
    _, start, count = np.unique(person[order], return_index=True, return_counts=True)
    wanted = [max(share(number, ratio), 1) for number in count.tolist()]
    place = np.arange(len(order)) - np.repeat(start, count)
    is_drawn = np.zeros(len(order), np.bool_)
    is_drawn[order] = place < np.repeat(wanted, count)
    return is_drawn


def draw_queries(
    name: Sequence[str],
    person: NDArray[np.int64],
    camera: NDArray[np.int16],
    *,
    seed: int,
    same_camera: SameCamera,
) -> Mask:
    """One image of each person and camera (Zheng et al. 2015), so that each has a right answer among the others.

    A person whom one camera sees is not asked for. With fewer than two cameras that saw somebody more than once, one
    camera's only image stays among the others, as an answer. Where matches from the same camera count (`keep`), it is
    one image of each person who has two or more. Images are ordered by the texts `SEED split query NAME`, and the first
    one is taken; of several cameras with one image, the last one's stays.

    Args:
        name: (N) names of the images of the test.
        person: (N).
        camera: (N); unknown ones count as one camera.
        seed: of the order.
        same_camera: what becomes of matches from the query's own camera.

    Returns:
        (N).
    """
    is_query = np.zeros(len(person), np.bool_)
    if not len(person):
        return is_query
    order = np.array(draw_order(seed, "split query", name), np.int64)
    _, label = np.unique(person[order], return_inverse=True)
    numbers, seen_by = np.unique(camera[order], return_inverse=True)
    group = label.astype(np.int64) if same_camera == "keep" else label.astype(np.int64) * len(numbers) + seen_by
    # One entry for each person and camera, in ascending order: its first image in drawn order, and how many it has.
    _, first, count = np.unique(group, return_index=True, return_counts=True)
    if same_camera == "keep":
        is_asked = count >= 2
    else:
        owner = label[first]
        cameras, several = np.bincount(owner), np.bincount(owner, weights=count >= 2)
        is_asked = cameras[owner] >= 2
        needed = np.flatnonzero(is_asked & (count == 1) & (several[owner] < 2))
        needed = needed[np.lexsort((first[needed], owner[needed]))]
        is_last = np.append(owner[needed][1:] != owner[needed][:-1], np.ones(min(len(needed), 1), np.bool_))
        is_asked[needed[is_last]] = False
    is_query[order[first[is_asked]]] = True
    return is_query


def is_seen_twice(person: NDArray[np.int64], camera: NDArray[np.int16]) -> bool:
    """Whether two cameras saw one and the same person.

    >>> is_seen_twice(np.array([1, 1, 2]), np.array([1, 1, 2], np.int16))
    False
    """
    seen = np.unique(np.stack([person, camera.astype(np.int64)]), axis=1)[0]
    return len(np.unique(seen)) < len(seen)
