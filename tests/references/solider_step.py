"""SOLIDER's second stage as its definition says, image by image and token by token.

Chen et al. 2023 (arXiv 2303.17602, sections 3.2 and 3.3) as its published code trains it, on top of the step of DINO.
One process, one part, no stochastic depth; numbers of the type of the tensors. The order of a step is

    teacher, weight 1 - pseudo labels - teacher, drawn weights - masked copies - student - both losses - centre -
    backward - DINO's update

What the published code draws is passed in: each image's weight, the part to mask, and what clusters vectors.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from tests.references.dino import (
    GLOBAL_VIEWS,
    DinoReference,
    ReferenceHead,
    ReferenceNetwork,
    ReferenceRules,
    reference_dino_loss,
)

# From vectors (n, D) and k to labels (n), 0 to k - 1.
Cluster = Callable[[Tensor, int], Tensor]


class SemanticTrunk(Protocol):
    """Whatever turns images (B, 3, H, W) and their semantic weights (B) into last maps (B, C, h, w)."""

    def __call__(self, images: Tensor, weights: Tensor, /) -> Tensor: ...


class SoliderNetwork(ReferenceNetwork):
    """A trunk, DINO's head over the mean of its map, and the part head over its tokens.

    Args:
        trunk: a module that is called as a `SemanticTrunk`.
        head: of DINO.
        part_head: from a token to its background and its parts; DINO's averaging of it into the teacher does nothing.
        trains_part_head: published code does not.
    """

    def __init__(
        self, trunk: nn.Module, head: ReferenceHead, part_head: ReferenceHead, *, trains_part_head: bool
    ) -> None:
        super().__init__(trunk, head)
        self.part_head = part_head
        if not trains_part_head:
            part_head.requires_grad_(False)

    def maps(self, crops: Sequence[Tensor], weights: Tensor) -> list[Tensor]:
        """A map (C, h, w) of every crop by itself.

        Args:
            crops: each (3, H, W), in any size.
            weights: a semantic weight for each.
        """
        return [self.trunk(crop[None], weight[None])[0] for crop, weight in zip(crops, weights, strict=True)]

    def outputs(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, K) of DINO's head."""
        out: Tensor = self.head(torch.stack([one.mean(dim=(1, 2)) for one in maps]))
        return out


def scikit_learn(vectors: Tensor, k: int) -> Tensor:
    """What the published code clusters with, with the ten starts of its time."""
    from sklearn.cluster import KMeans

    found = KMeans(k, n_init=10, random_state=0).fit(vectors.detach().double().numpy())
    return torch.from_numpy(found.labels_).long()


def reference_parts(
    map_: Tensor, cluster: Cluster = scikit_learn, *, parts: int = 3, foreground: float = 0.5
) -> Tensor | None:
    """Pseudo labels (h, w) of a map (C, h, w), 0 for background, 1 to R from the top; None where it is skipped."""
    height, width = map_.shape[1:]
    tokens = [map_[:, row, column] for row in range(height) for column in range(width)]
    lengths = torch.stack([token.norm() for token in tokens])
    sides = cluster(lengths[:, None], 2)
    means = [lengths[sides == side].mean() for side in (0, 1)]
    person = [number for number, side in enumerate(sides.tolist()) if side == (1 if means[1] > means[0] else 0)]
    if not len(person) > foreground * len(tokens):
        return None
    found = cluster(torch.stack([tokens[number] for number in person]), parts).tolist()
    mean_row = []
    for part in range(parts):
        rows = [number // width for number, label in zip(person, found, strict=True) if label == part]
        mean_row.append(sum(rows) / len(rows))
    from_the_top = sorted(range(parts), key=mean_row.__getitem__)
    labels = torch.zeros(height * width, dtype=torch.int64)
    for number, label in zip(person, found, strict=True):
        labels[number] = 1 + from_the_top.index(label)
    return labels.view(height, width)


def mask_part(image: Tensor, labels: Tensor, part: int) -> Tensor:
    """A copy of an image (3, H, W) with 0, the mean colour, wherever the token above a pixel (h, w) has a part."""
    _, height, width = image.shape
    masked = image.clone()
    for y in range(height):
        for x in range(width):
            if labels[y * labels.shape[0] // height, x * labels.shape[1] // width] == part:
                masked[:, y, x] = 0
    return masked


def reference_semantic_loss(
    part_head: Callable[[Tensor], Tensor], maps: Sequence[Tensor], labels: Sequence[Tensor], weights: Sequence[float]
) -> Tensor:
    """Mean over all tokens of all maps of the image's weight times the cross entropy of the token's part.

    Args:
        part_head: from tokens (n, C) to logits (n, R + 1).
        maps: (C, h, w) each.
        labels: (h, w) of each.
        weights: of the image of each; tokens with 0 count in the mean.
    """
    terms = []
    for one, its_labels, weight in zip(maps, labels, weights, strict=True):
        for row in range(one.shape[1]):
            for column in range(one.shape[2]):
                logits = part_head(one[None, :, row, column])[0]
                entropy = torch.logsumexp(logits, dim=0) - logits[its_labels[row, column]]
                terms.append(weight * entropy)
    return torch.stack(terms).sum() / len(terms)


class SoliderLosses(NamedTuple):
    """Of a step, without gradient.

    Args:
        whole: what is minimised.
        dino: its first term.
        semantic: its second one before its factor; None where no map was kept.
        labels: (h, w) of each global view, or None: first those of all images' first views.
    """

    whole: Tensor
    dino: Tensor
    semantic: Tensor | None
    labels: list[Tensor | None]


class SoliderReference:
    """A run: student and teacher, and DINO's centre, optimizer and update.

    Args:
        student: trained from here on; the teacher starts as its copy.
        rules: constants of DINO.
        weight: of the semantic loss.
        parts: R.
        foreground: least share of tokens of a person.
        cluster: k-means.
    """

    def __init__(
        self, student: SoliderNetwork, rules: ReferenceRules, *, weight: float = 1.0, parts: int = 3,
        foreground: float = 0.5, cluster: Cluster = scikit_learn,
    ) -> None:  # fmt: skip
        self.dino = DinoReference(student, rules)
        self.weight, self.parts, self.foreground, self.cluster = weight, parts, foreground, cluster

    @property
    def student(self) -> SoliderNetwork:
        assert isinstance(self.dino.student, SoliderNetwork)
        return self.dino.student

    @property
    def teacher(self) -> SoliderNetwork:
        assert isinstance(self.dino.teacher, SoliderNetwork)
        return self.dino.teacher

    def step(self, views: Sequence[Tensor], lambdas: Sequence[float], part: int, step: int) -> SoliderLosses:
        """One whole step, counted from 0 over the run.

        Args:
            views: each (b, 3, H, W), the two global ones first.
            lambdas: b semantic weights, of the images.
            part: 1 to R, the one that is masked.
            step: decides every scheduled number.
        """
        losses = self.learn(views, lambdas, part)
        self.dino.update(step)
        return losses

    def learn(self, views: Sequence[Tensor], lambdas: Sequence[float], part: int) -> SoliderLosses:
        """Losses; the centre moves, and the gradients of the student are what backward left."""
        dino, rules = self.dino, self.dino.rules
        crops = [image for view in views for image in view]  # all images' first views, then all images' second ones, …
        images = len(views[0])
        weights = torch.tensor([lambdas[number % images] for number in range(len(crops))], dtype=views[0].dtype)
        in_global = range(GLOBAL_VIEWS * images)
        with torch.no_grad():
            for_parts = self.teacher.maps([crops[number] for number in in_global], torch.ones_like(weights[in_global]))
            of_teacher = self.teacher.outputs(
                self.teacher.maps([crops[number] for number in in_global], weights[in_global])
            )
        labels = [reference_parts(one, self.cluster, parts=self.parts, foreground=self.foreground) for one in for_parts]
        of_student = self.student.maps(crops, weights)
        loss_of_dino = reference_dino_loss(
            self.student.outputs(of_student), of_teacher, dino.centre, views=len(views),
            student_temperature=rules.student_temperature, temperature=rules.teacher_temperature,
        )  # fmt: skip
        semantic = self._semantic(crops, weights, of_student, labels, part)
        whole = loss_of_dino if semantic is None else loss_of_dino + self.weight * semantic
        dino.centre = dino.centre * rules.centre_momentum + of_teacher.mean(dim=0) * (1 - rules.centre_momentum)
        dino.optimizer.zero_grad()
        whole.backward()  # type: ignore[no-untyped-call]
        return SoliderLosses(
            whole.detach(), loss_of_dino.detach(), None if semantic is None else semantic.detach(), labels
        )

    def _semantic(
        self,
        crops: Sequence[Tensor],
        weights: Tensor,
        maps: Sequence[Tensor],
        labels: Sequence[Tensor | None],
        part: int,
    ) -> Tensor | None:
        kept = [(number, its_labels) for number, its_labels in enumerate(labels) if its_labels is not None]
        if not kept:
            return None
        copies = [mask_part(crops[number], its_labels, part) for number, its_labels in kept]
        own = [float(weights[number]) for number, _ in kept]
        of_copies = self.student.maps(copies, weights[[number for number, _ in kept]])
        of_originals = [maps[number] for number, _ in kept]
        twice = [its_labels for _, its_labels in kept] * 2
        return reference_semantic_loss(self.student.part_head, [*of_copies, *of_originals], twice, own * 2)
