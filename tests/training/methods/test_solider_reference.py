"""The transcription of SOLIDER's published step, on numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn

from tests.references.dino import ReferenceHead, ReferenceRules
from tests.references.solider_step import (
    SoliderNetwork,
    SoliderReference,
    mask_part,
    reference_parts,
    reference_semantic_loss,
)

ROWS = torch.tensor([0, 2, 2, 1, 1, 3, 3, 0])  # an image's colours, from the top: 0 is black


class Colours(nn.Module):
    """Mean colours of squares of two pixels, times 1 plus the semantic weight, and a fourth channel that is learned."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Parameter(torch.ones(3, dtype=torch.double))
        self.weights: list[float] = []

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 4, H / 2, W / 2)."""
        self.weights += weights.tolist()
        means = nn.functional.avg_pool2d(images, 2) * (1 + weights)[:, None, None, None]
        return torch.cat([means, (means * self.last[:, None, None]).sum(dim=1, keepdim=True)], dim=1)


def build_head(outputs: int, seed: int) -> ReferenceHead:
    torch.manual_seed(seed)
    sizes = [(5, 4), (5, 5), (2, 5)]
    layers = [(torch.randn(size, dtype=torch.double), torch.randn(size[0], dtype=torch.double)) for size in sizes]
    return ReferenceHead(layers, torch.randn(outputs, 2, dtype=torch.double))


def build(*, trains_part_head: bool = False) -> SoliderNetwork:
    return SoliderNetwork(Colours(), build_head(6, 0), build_head(4, 1), trains_part_head=trains_part_head)


def trunk_of(network: SoliderNetwork) -> Colours:
    assert isinstance(network.trunk, Colours)
    return network.trunk


def person(scale: float = 1.0) -> Tensor:
    """(3, 16, 8), a person of three colours; the number of rows of squares with one is 6 of 8."""
    colours = scale * torch.cat([torch.zeros(1, 3), torch.eye(3)]).double()
    return colours[ROWS.repeat_interleave(2)].T[:, :, None].expand(-1, -1, 8)


def draw_views() -> list[Tensor]:
    """Two images: a person in both global views, and one in the second only; two local views."""
    torch.manual_seed(3)
    blank = torch.zeros(3, 16, 8, dtype=torch.double)
    noise = [0.02 * torch.randn(2, 3, 16, 8, dtype=torch.double) for _ in range(2)]
    first, second = torch.stack([person(), blank]), torch.stack([person(1.3), person(0.8)])
    return [first + noise[0], second + noise[1], *(torch.randn(2, 3, 8, 4, dtype=torch.double) for _ in range(2))]


def from_the_largest(vectors: Tensor, k: int) -> Tensor:
    """Clusters of clear colours: by the largest of the first three channels; of lengths, at the middle."""
    if vectors.shape[1] == 1:
        middle = (vectors.min() + vectors.max()) / 2
        return (vectors[:, 0] > middle).long()
    return vectors[:, :3].argmax(dim=1) % k


def test_parts_are_numbered_from_the_top() -> None:
    labels = reference_parts(trunk_of(build())(person()[None], torch.ones(1))[0].detach(), from_the_largest)
    assert labels is not None
    assert labels.tolist() == [[row] * 4 for row in (0, 1, 1, 2, 2, 3, 3, 0)]


def test_half_of_the_tokens_is_not_enough() -> None:
    half = torch.zeros(3, 8, 4, dtype=torch.double)
    half[0, 2:6] = 1
    assert reference_parts(half, from_the_largest) is None
    assert reference_parts(half, from_the_largest, parts=1, foreground=0.49) is not None
    half[0, 0, 0] = 1
    assert reference_parts(half, from_the_largest, parts=1) is not None


def test_scikit_learn_finds_clear_parts() -> None:
    pytest.importorskip("sklearn")
    torch.manual_seed(0)
    labels = reference_parts(nn.functional.avg_pool2d(person() + 0.02 * torch.randn(3, 16, 8), 2))
    assert labels is not None
    assert labels[:, 0].tolist() == [0, 1, 1, 2, 2, 3, 3, 0]


def test_masking_takes_the_pixels_under_the_tokens_of_a_part() -> None:
    image = torch.arange(1, 49).view(3, 4, 4).double()
    masked = mask_part(image, torch.tensor([[1, 2], [0, 1]]), 1)
    is_gone = torch.tensor([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).bool()
    assert torch.equal(masked[:, is_gone], torch.zeros(3, 8, dtype=torch.double))
    assert torch.equal(masked[:, ~is_gone], image[:, ~is_gone])


def test_the_semantic_loss_is_a_mean_over_all_tokens_those_of_weight_0_too() -> None:
    # Logits (1, 0) and (0, 1): the cross entropy of the first is log(1 + 1 / e) or log(1 + e).
    maps = [torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])] * 2
    labels = [torch.tensor([[0, 0]]), torch.tensor([[1, 1]])]
    loss = reference_semantic_loss(nn.Identity(), maps, labels, [1.0, 0.0])
    assert loss.item() == pytest.approx((math.log(1 + math.exp(-1)) + math.log(1 + math.exp(1))) / 4)


def test_a_step_keeps_maps_apart_and_conditions_every_crop() -> None:
    run = SoliderReference(build(), ReferenceRules(steps=1), cluster=from_the_largest)
    losses = run.learn(draw_views(), [0.0, 1.0], 2)
    assert [labels is None for labels in losses.labels] == [False, True, False, False]
    assert trunk_of(run.teacher).weights == [1.0] * 4 + [0.0, 1.0] * 2
    assert trunk_of(run.student).weights == [0.0, 1.0] * 4 + [0.0, 0.0, 1.0]
    assert losses.semantic is not None
    torch.testing.assert_close(losses.whole, losses.dino + losses.semantic)


def test_without_weights_the_semantic_term_is_nothing() -> None:
    run = SoliderReference(build(), ReferenceRules(steps=1), cluster=from_the_largest)
    losses = run.learn(draw_views(), [0.0, 0.0], 1)
    assert losses.semantic == 0
    assert losses.whole == losses.dino


def test_a_step_in_which_no_map_is_kept_goes_on() -> None:
    run = SoliderReference(build(), ReferenceRules(steps=1), cluster=from_the_largest, foreground=0.9)
    losses = run.learn(draw_views(), [1.0, 1.0], 1)
    assert losses.semantic is None
    assert losses.whole == losses.dino
    assert trunk_of(run.student).last.grad is not None


@pytest.mark.parametrize("trains_part_head", [False, True])
def test_a_part_head_stays_or_is_trained(trains_part_head: bool) -> None:
    run = SoliderReference(
        build(trains_part_head=trains_part_head), ReferenceRules(steps=1, warmup_epochs=1, frozen_epochs=0),
        cluster=from_the_largest,
    )  # fmt: skip
    start = [parameter.detach().clone() for parameter in run.student.part_head.mlp.parameters()]
    last = trunk_of(run.student).last.detach().clone()
    run.step(draw_views(), [1.0, 1.0], 3, 5)
    assert (trunk_of(run.student).last != last).all()
    moved = [
        not torch.equal(before, after)
        for before, after in zip(start, run.student.part_head.mlp.parameters(), strict=True)
    ]
    assert all(moved) if trains_part_head else not any(moved)
