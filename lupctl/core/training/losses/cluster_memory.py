"""Cross entropy between features and a memory of one mean per cluster (Dai et al. 2021, arXiv 2103.11568)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lupctl.core.choices import MemoryUpdate


class ClusterMemory(nn.Module):
    """One direction for each cluster, which moves towards the features that are trained on.

    Args:
        memory: (C, D) of unit length, at first the directions of the clusters' means.
        momentum: m, the share that stays in an update.
        temperature: by which products are divided.
        update: mean moves a cluster by each of its images in turn, hard by the least similar one alone.
        images: of one cluster in a batch. If there are more, as where one replaces a damaged image, mean leaves the
            last out: to count them, the host would wait for the device in each step.
    """

    memory: Tensor

    def __init__(
        self, memory: Tensor, *, momentum: float, temperature: float, update: MemoryUpdate, images: int
    ) -> None:
        super().__init__()
        self.register_buffer("memory", memory)
        self.momentum = momentum
        self.temperature = temperature
        self.update_kind = update
        self.images = images

    def forward(self, features: Tensor, label: Tensor) -> Tensor:
        """The mean loss of (B, D) features of unit length, whose clusters are (B).

        The memory gets no gradient. It is as it was before the batch: `follow` comes after the backward pass.
        """
        return F.cross_entropy(features @ self.memory.T / self.temperature, label)

    def nearest(self, features: Tensor) -> Tensor:
        """The nearest cluster (B) of each of (B, D) features."""
        return (features @ self.memory.T).argmax(dim=1)

    @torch.no_grad()
    def follow(self, features: Tensor, label: Tensor) -> None:
        """Moves the clusters of a batch: c <- m c + (1 - m) f, and unit length after each f.

        Args:
            features: (B, D) of unit length, of the global batch in its order.
            label: (B) clusters.
        """
        # All images of a cluster move it to the same place: which clusters there are need not be known on the host.
        if self.update_kind == "hard":
            self._move(label, features[self._least_similar(features, label)])
            return
        position = torch.arange(len(label), device=label.device)
        order = label.argsort(stable=True)
        first = position.new_full((len(self.memory),), len(label)).scatter_reduce(0, label[order], position, "amin")
        count = position.new_zeros(len(self.memory)).scatter_add(0, label, torch.ones_like(position))
        # One image of every cluster at a time: clusters do not wait for each other, images of one do.
        for turn in range(self.images):
            chosen = order[(first[label] + turn).clamp(max=len(label) - 1)]
            self._move(label, features[chosen], where=count[label] > turn)

    def _move(self, clusters: Tensor, towards: Tensor, *, where: Tensor | None = None) -> None:
        """Moves (K) clusters towards (K, D); one that comes several times, always towards the same.

        Args:
            clusters: of the memory.
            towards: unit features.
            where: (K) those that move; None for all.
        """
        kept = self.memory[clusters]
        moved = kept.double() * self.momentum + (1 - self.momentum) * towards.double()
        unit = F.normalize(moved, dim=1).to(kept.dtype)
        self.memory[clusters] = unit if where is None else torch.where(where[:, None], unit, kept)

    def _least_similar(self, features: Tensor, label: Tensor) -> Tensor:
        """(B) for each image the position in the batch of its cluster's least similar image, the first of equals."""
        similarity = torch.linalg.vecdot(features.double(), self.memory[label].double())
        least = similarity.new_full((len(self.memory),), torch.inf).scatter_reduce(0, label, similarity, "amin")
        position = torch.arange(len(label), device=label.device)
        candidate = torch.where(similarity == least[label], position, len(label))
        found = position.new_full((len(self.memory),), len(label)).scatter_reduce(0, label, candidate, "amin")
        return found[label]


def cluster_directions(features: Tensor, label: Tensor, *, count: int) -> Tensor:
    """The mean of each cluster's unit features, made unit length, (C, D); images with a negative label are in none.

    In double precision, in the order of the images: the same bits every time.

    Args:
        features: (N, D).
        label: (N) clusters from 0, each with at least one image.
        count: C.
    """
    inside = label >= 0
    order = label[inside].argsort(stable=True)
    lengths = torch.bincount(label[inside], minlength=count)
    chosen = features[inside][order].double()
    return F.normalize(torch.segment_reduce(chosen, "mean", lengths=lengths), dim=1).to(features.dtype)
