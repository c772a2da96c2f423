"""Pseudo labels of feature maps: the published steps, and maps that have no parts."""

import pytest
import torch
from torch import Tensor

from lupctl.core.training.clusters.body_parts import find_parts
from lupctl.core.training.clusters.two_means import split_in_two


def clear_map(rows: list[int], *, width: int = 4, channels: int = 6, seed: int = 0) -> Tensor:
    """(C, h, w): rows of 0 are short vectors, those of 1, 2, … are long ones in directions of their own."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.cat([torch.zeros(1, channels), 5 * torch.eye(channels)])
    tokens = directions[torch.tensor(rows)][:, None].expand(-1, width, -1)
    return (tokens + 0.1 * torch.randn(tokens.shape, generator=generator)).permute(2, 0, 1)


def test_clear_parts_are_numbered_from_the_top_down() -> None:
    rows = [0, 3, 3, 1, 1, 2, 2, 0]
    found = find_parts(clear_map(rows)[None])
    assert found.kept.tolist() == [True]
    assert found.labels[0, :, 0].tolist() == [0, 1, 1, 2, 2, 3, 3, 0]
    assert (found.labels == found.labels[..., :1]).all()


def test_a_map_needs_more_than_half_of_its_tokens_on_the_person() -> None:
    half, more = clear_map([0, 0, 1, 2, 3, 1, 0, 0]), clear_map([0, 0, 1, 2, 3, 1, 1, 0])
    assert find_parts(torch.stack([half, more])).kept.tolist() == [False, True]
    assert find_parts(half[None], foreground=0.49).kept.item()
    half[:, 0, 0] = torch.tensor([0, 0, 5.0, 0, 0, 0])  # the 17th of 32
    assert find_parts(half[None]).kept.item()


def test_maps_without_parts_are_not_kept() -> None:
    all_equal = torch.ones(6, 8, 4)
    nothing = torch.zeros(6, 8, 4)
    one_length = torch.eye(6)[torch.arange(32) % 6].T.reshape(6, 8, 4)
    not_a_number = clear_map([0, 3, 3, 1, 1, 2, 2, 0])
    infinite = not_a_number.clone()
    not_a_number[2, 3, 1], infinite[2, 3, 1] = torch.nan, torch.inf
    maps = torch.stack([all_equal, nothing, one_length, not_a_number, infinite, clear_map([0, 3, 3, 1, 1, 2, 2, 0])])
    found = find_parts(maps)
    assert found.kept.tolist() == [False] * 5 + [True]
    assert not found.labels[:5].any()


def test_fewer_vectors_than_parts_leave_the_last_parts_empty() -> None:
    rows = torch.tensor([0, 2, 2, 2, 1, 1, 1, 0])
    vectors = torch.tensor([[0.1, 0.0], [0.0, 5.0], [5.0, 0.0]])
    found = find_parts(vectors[rows].T[None, :, :, None].expand(-1, -1, -1, 4))
    assert found.kept.item()
    assert found.labels[0, :, 0].tolist() == [0, 1, 1, 1, 2, 2, 2, 0]


def test_parts_of_one_mean_row_come_in_the_order_of_reading() -> None:
    columns = torch.tensor([3, 1, 2, 1])
    vectors = torch.cat([torch.zeros(1, 4), 5 * torch.eye(4)])
    tokens = vectors[columns].repeat(8, 1)
    tokens[0] = 0  # what there is of background
    found = find_parts(tokens.T.view(1, 4, 8, 4))
    # The first token is gone, so that part 3 has the lowest mean row; 1 and 2 have the same.
    assert found.labels[0, 1].tolist() == [3, 1, 2, 1]


def test_a_share_of_a_batch_gets_what_the_whole_batch_gets() -> None:
    maps, seeds = torch.randn(12, 16, 8, 4, generator=torch.Generator().manual_seed(1)), torch.arange(12) * 977
    whole = find_parts(maps, foreground=0.3, seeds=seeds)
    assert whole.kept.sum() > 6
    for share in (torch.arange(0, 12, 2), torch.arange(1, 12, 2), torch.tensor([7])):
        part = find_parts(maps[share], foreground=0.3, seeds=seeds[share])
        assert torch.equal(part.labels, whole.labels[share])
        assert torch.equal(part.kept, whole.kept[share])


@pytest.mark.parametrize("seed", range(20))
def test_numbers_are_split_where_the_squares_are_smallest(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = (
        torch.randint(0, 6, (9,), generator=generator).double() if seed % 2 else torch.randn(9, generator=generator)
    )
    is_large = split_in_two(values[None])[0]
    best = min(
        _squares(values[values <= limit]) + _squares(values[values > limit]) for limit in values if limit < values.max()
    )
    assert _squares(values[is_large]) + _squares(values[~is_large]) == pytest.approx(best, abs=1e-9)
    assert values[is_large].min() > values[~is_large].max()


def _squares(values: Tensor) -> float:
    return float((values - values.mean()).square().sum())


def test_equal_numbers_have_no_larger_cluster() -> None:
    assert not split_in_two(torch.full((2, 5), 0.1)).any()
    assert split_in_two(torch.tensor([[1.0, 1.0, 2.0]])).tolist() == [[False, False, True]]
    assert not split_in_two(torch.tensor([[3.0]])).any()
