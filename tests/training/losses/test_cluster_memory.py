"""The memory of clusters against a loop over images, written from the definition."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lupctl.core.choices import MemoryUpdate
from lupctl.core.training.losses.cluster_memory import ClusterMemory, cluster_directions

CLUSTERS, DIM, TEMPERATURE, MOMENTUM = 5, 6, 0.05, 0.2


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def slow_step(
    memory: NDArray[np.float64], raw: NDArray[np.float64], label: NDArray[np.int64], update: MemoryUpdate
) -> tuple[float, NDArray[np.float64]]:
    """The loss, and the gradient of the features before they have unit length; the memory is changed."""
    loss, gradient = 0.0, np.zeros_like(raw)
    for i, row in enumerate(raw):
        length = np.linalg.norm(row)
        feature = row / length
        logits = memory @ feature / TEMPERATURE
        share = np.exp(logits - logits.max())
        share /= share.sum()
        loss -= np.log(share[label[i]]) / len(raw)
        share[label[i]] -= 1
        of_unit = memory.T @ share / TEMPERATURE / len(raw)
        gradient[i] = (of_unit - feature * (feature @ of_unit)) / length
    features = unit(raw)
    for cluster in sorted(set(label.tolist())):
        own = [features[i] for i in range(len(raw)) if label[i] == cluster]
        if update == "hard":
            own = [min(own, key=lambda one: float(one @ memory[cluster]))]
        for one in own:
            memory[cluster] = unit(MOMENTUM * memory[cluster] + (1 - MOMENTUM) * one)
    return loss, gradient


@pytest.mark.parametrize("update", ["mean", "hard"])
def test_five_steps_equal_the_loop(update: MemoryUpdate) -> None:
    rng = np.random.default_rng(0)
    means = rng.standard_normal((CLUSTERS, DIM))
    memory = unit(means)
    fast = ClusterMemory(
        torch.tensor(unit(means)), momentum=MOMENTUM, temperature=TEMPERATURE, update=update, images=12
    )
    for _ in range(5):
        raw = rng.standard_normal((12, DIM))
        label = rng.choice([0, 1, 3, 4], 12)  # no image of cluster 2
        given = torch.tensor(raw, requires_grad=True)
        features = torch.nn.functional.normalize(given, dim=1)
        loss = fast(features, torch.from_numpy(label))
        loss.backward()
        fast.follow(features, torch.from_numpy(label))
        expected, gradient = slow_step(memory, raw, label, update)
        assert loss.item() == pytest.approx(expected, abs=1e-6)
        np.testing.assert_allclose(given.grad, gradient, atol=1e-6)
        np.testing.assert_allclose(fast.memory, memory, atol=1e-6)
    np.testing.assert_allclose(fast.memory[2], unit(means)[2], atol=1e-12)


def test_the_first_of_equally_distant_images_is_the_hard_one() -> None:
    memory = ClusterMemory(torch.tensor([[1.0, 0.0]]), momentum=0.0, temperature=1.0, update="hard", images=3)
    memory.follow(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.6, -0.8]]), torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(memory.memory, torch.tensor([[0.6, 0.8]]))


def test_more_images_of_a_cluster_than_a_batch_has_do_not_move_it() -> None:
    start = torch.tensor([[1.0, 0.0]])
    memory = ClusterMemory(start.clone(), momentum=0.0, temperature=1.0, update="mean", images=2)
    memory.follow(torch.tensor([[0.6, 0.8], [0.0, 1.0], [-1.0, 0.0]]), torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(memory.memory, torch.tensor([[0.0, 1.0]]))


def test_directions_leave_images_without_a_cluster_out() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, -1.0], [1.0, 0.0]])
    found = cluster_directions(features, torch.tensor([1, 0, -1, 0]), count=2)
    torch.testing.assert_close(found, torch.tensor([[0.5**0.5, 0.5**0.5], [1.0, 0.0]]))
