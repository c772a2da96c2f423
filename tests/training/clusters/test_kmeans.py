"""k-means of many sets against a slow loop and scikit-learn, and sets that have no k clusters."""

from itertools import product

import pytest
import torch
from torch import Tensor

from lupctl.core.training.clusters.kmeans import Clusters, k_means


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)


def inertia_of(points: Tensor, labels: Tensor) -> float:
    return sum(float((some - some.mean(dim=0)).square().sum()) for some in map(points.__getitem__, masks(labels)))


def masks(labels: Tensor) -> list[Tensor]:
    return [labels == label for label in labels.unique() if label >= 0]


def same_clusters(one: Tensor, other: Tensor) -> bool:
    """Whether labels (n) are the same but for their numbers."""
    return torch.equal(one[:, None] == one, other[:, None] == other)


def test_small_sets_get_their_best_clusters() -> None:
    """All labellings of six points, looked at one by one."""
    points = draw(3, 6, 2)
    found = k_means(points, 3)
    every = [labels for labels in map(torch.tensor, product((0, 1, 2), repeat=6)) if len(labels.unique()) == 3]
    for number, some in enumerate(points):
        best = min(inertia_of(some, labels) for labels in every)
        assert float(found.inertia[number]) == pytest.approx(best, rel=1e-9)


def test_labels_centres_and_inertia_are_of_one_clustering() -> None:
    points, present = draw(8, 20, 5), draw(8, 20, seed=1) < 0.7
    found = k_means(points, 4, present=present, restarts=3)
    assert torch.equal(found.labels == -1, ~present)
    for some, labels, centres, inertia in zip(points, *found, strict=True):
        assert float(inertia) == pytest.approx(inertia_of(some, labels), rel=1e-9)
        for number in range(4):
            torch.testing.assert_close(centres[number], some[labels == number].mean(dim=0))
        nearest = torch.cdist(some, centres).argmin(dim=1)
        assert torch.equal(nearest[labels >= 0], labels[labels >= 0])


def test_absent_points_do_not_matter() -> None:
    points, present = draw(4, 12, 3), torch.arange(12) < 9
    whole = k_means(points, 3, present=present.expand(4, -1))
    alone = k_means(points[:, :9], 3)
    torch.testing.assert_close(whole.inertia, alone.inertia)
    assert all(map(same_clusters, whole.labels[:, :9], alone.labels))


def test_a_share_of_a_batch_and_another_number_of_threads_give_the_same() -> None:
    points, seeds = draw(16, 24, 64).float(), torch.arange(16) * 7919
    whole = k_means(points, 3, seeds=seeds)
    for share in (slice(0, None, 2), slice(1, None, 2), slice(5, 6)):
        assert_same(k_means(points[share], 3, seeds=seeds[share]), Clusters(*(part[share] for part in whole)))
    threads = torch.get_num_threads()
    torch.set_num_threads(3 if threads == 1 else 1)
    try:
        assert_same(k_means(points, 3, seeds=seeds), whole)
    finally:
        torch.set_num_threads(threads)


def assert_same(one: Clusters, other: Clusters) -> None:
    assert torch.equal(one.labels, other.labels)
    torch.testing.assert_close(one.centres, other.centres)


def test_seeds_decide() -> None:
    points = draw(1, 40, 64).expand(20, -1, -1)
    for seeds in (torch.arange(20), torch.arange(20) << 40):
        found = k_means(points, 5, restarts=1, seeds=seeds).inertia
        assert len(found.round(decimals=6).unique()) > 1
    assert len(k_means(points, 5, restarts=1, seeds=7).labels.unique(dim=0)) == 1


def test_more_restarts_find_more() -> None:
    points = draw(12, 40, 64)
    few, many = (k_means(points, 5, restarts=restarts).inertia for restarts in (1, 10))
    assert (many < few * (1 - 1e-6)).any()


def test_fewer_different_points_than_clusters() -> None:
    """As many clusters as there are different points, the others empty."""
    twice = torch.tensor([[1.0, 0.0], [0.0, 3.0]])[torch.tensor([0, 1, 0, 1, 1])]
    same = torch.full((5, 2), 0.1)
    found = k_means(torch.stack([twice, same]), 3)
    assert same_clusters(found.labels[0], torch.tensor([0, 1, 0, 1, 1]))
    assert len(found.labels[1].unique()) == 1
    assert found.inertia.abs().max() < 1e-20
    assert found.centres.isnan().any(dim=2).sum(dim=1).tolist() == [1, 2]


def test_sets_that_are_too_small() -> None:
    nobody, one, three = torch.tensor([[False] * 4, [True] + [False] * 3, [True] * 3 + [False]]).unbind()
    found = k_means(draw(3, 4, 2), 3, present=torch.stack([nobody, one, three]))
    assert found.labels[0].tolist() == [-1] * 4
    assert found.labels[1, 1:].tolist() == [-1] * 3
    assert sorted(found.labels[2].tolist()) == [-1, 0, 1, 2]
    assert found.inertia.tolist() == pytest.approx([0, 0, 0], abs=1e-20)


def test_one_cluster_is_the_mean() -> None:
    points = draw(3, 9, 4)
    found = k_means(points, 1)
    torch.testing.assert_close(found.centres[:, 0], points.mean(dim=1))


def test_numbers_that_are_not_finite_spoil_no_other_set() -> None:
    points = draw(3, 9, 4)
    alone = k_means(points[2:], 3)
    points[0, 3, 1], points[1, 2, 0] = torch.nan, torch.inf
    found = k_means(points, 3)
    assert found.inertia.isfinite().tolist() == [False, False, True]
    assert_same(Clusters(*(part[2:] for part in found)), alone)
