"""k-means and pseudo labels beside scikit-learn's with ten restarts."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.training.clusters.body_parts import find_parts
from lupctl.core.training.clusters.kmeans import k_means
from lupctl.core.training.clusters.two_means import split_in_two
from lupctl.core.training.nets.swin.trunk import SwinTrunk
from tests.references.solider_step import reference_parts, scikit_learn

cluster = pytest.importorskip("sklearn.cluster")


def draw_maps(kind: str, count: int) -> Tensor:
    """(count, 32, D) tokens of maps of 8 x 4."""
    generator = torch.Generator().manual_seed(4)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    match kind:
        case "no structure":
            return normal(count, 32, 96)
        case "three dimensions":
            return normal(count, 32, 3)
        case "smooth":
            coarse = F.interpolate(normal(count, 96, 3, 2), size=(8, 4), mode="bicubic").flatten(2).mT
            return coarse + 0.3 * normal(count, 32, 96)
        case _:  # of a fresh network
            torch.manual_seed(4)
            pixels = F.interpolate(normal(count, 3, 16, 8), size=(128, 64), mode="bicubic")
            with torch.no_grad():
                return SwinTrunk(plan_swin("swin-u")).eval()(pixels).map.flatten(2).mT


def inertia_of(vectors: Tensor, k: int) -> float:
    return float(cluster.KMeans(k, n_init=10, random_state=0).fit(vectors.double().numpy()).inertia_)


@pytest.mark.parametrize(
    ("kind", "count"),
    [("smooth", 10)]
    + [
        pytest.param(kind, 50, marks=pytest.mark.slow)
        for kind in ("no structure", "three dimensions", "smooth", "a fresh network")
    ],
)
def test_inertia_is_scikit_learns_or_smaller(kind: str, count: int) -> None:
    maps = draw_maps(kind, count)
    present = torch.rand(maps.shape[:2], generator=torch.Generator().manual_seed(5)) < 0.7
    ours = k_means(maps, 3, present=present, seeds=torch.arange(count)).inertia
    theirs = torch.tensor(
        [inertia_of(some[its], 3) for some, its in zip(maps, present, strict=True)], dtype=torch.double
    )
    assert (ours <= theirs * (1 + 1e-6)).all()


def test_lengths_are_split_as_scikit_learn_does_or_better() -> None:
    values = draw_maps("smooth", 20).norm(dim=2)
    is_large = split_in_two(values)
    for some, its in zip(values.double(), is_large, strict=True):
        ours = sum(float((side - side.mean()).square().sum()) for side in (some[its], some[~its]))
        assert ours <= inertia_of(some[:, None], 2) * (1 + 1e-6)


# Rows of parts from the top, each of another mean row; the last has too little of a person.
CLEAR = ("01112230", "01221330", "00123310", "02111330", "11122330", "01233310", "01200300")


@pytest.mark.parametrize("rows", CLEAR)
def test_clear_maps_get_the_published_labels(rows: str) -> None:
    generator = torch.Generator().manual_seed(int(rows))
    directions = torch.cat([torch.zeros(1, 24), 2 * F.normalize(torch.randn(3, 24, generator=generator), dim=1)])
    noise = 0.15 * torch.randn(8, 4, 24, generator=generator)
    tokens = directions[[int(row) for row in rows]][:, None] + noise
    found, expected = find_parts(tokens.permute(2, 0, 1)[None]), reference_parts(tokens.permute(2, 0, 1), scikit_learn)
    assert bool(found.kept) == (expected is not None) == (rows != CLEAR[-1])
    if expected is not None:
        assert torch.equal(found.labels[0], expected)
