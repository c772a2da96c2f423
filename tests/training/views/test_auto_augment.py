"""AutoAugment in the loader: of each image's own numbers, fading with the step, and on nothing else."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import Batch, StepDataset, open_loader
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.views.auto_augment import apply_policy, draw_policy
from lupctl.core.training.views.plan import ViewPlan

PLAN = ViewPlan(32, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2), flip=0.5, erase=0.5)


def batches(path: Path, *, workers: int = 0, **more: float) -> list[Batch]:
    """Six batches of six images."""
    pack = open_pack(path)
    order = ShuffledOrder(36, batch=6, seed=3)
    dataset = StepDataset(PackImages([pack]), order, (PLAN,), seed=3, **more)  # type: ignore[arg-type]
    return list(open_loader(dataset, range(6), workers=workers, pin=False))


def changed(found: Batch, plain: Batch) -> NDArray[np.bool_]:
    assert torch.equal(found.rows, plain.rows)
    for name, value in vars(plain.views[0]).items():
        assert torch.equal(getattr(found.views[0], name), value), (
            f"{name}: crops, mirrors and erasing are drawn as without"
        )
    return (found.pixels != plain.pixels).flatten(1).any(dim=1).numpy()


def test_it_fades_with_the_step(crowd: Path) -> None:
    plain = batches(crowd)
    faded = [changed(found, bare) for found, bare in zip(batches(crowd, policy_steps=4), plain, strict=True)]
    assert faded[0].sum() >= 4, "probability 1; some operations change nothing"
    assert not any(batch.any() for batch in faded[4:])
    assert sum(batch.sum() for batch in faded[:2]) > sum(batch.sum() for batch in faded[2:4])
    off = batches(crowd, policy_steps=0)
    assert all(torch.equal(found.pixels, bare.pixels) for found, bare in zip(off, plain, strict=True))


def test_workers_and_processes_change_nothing(crowd: Path) -> None:
    torch.manual_seed(5)
    alone = batches(crowd, policy_steps=12)
    torch.manual_seed(6)
    for found, wanted in zip(batches(crowd, policy_steps=12, workers=2), alone, strict=True):
        assert torch.equal(found.pixels, wanted.pixels)
    for rank in range(2):
        for found, wanted in zip(batches(crowd, policy_steps=12, rank=rank, processes=2), alone, strict=True):
            assert torch.equal(found.pixels, wanted.pixels[rank::2])


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_the_probability_is_the_share_of_images(probability: float) -> None:
    drawn = draw_policy(np.arange(4000), seed=1, epoch=2, probability=probability)
    assert abs((drawn >= 0).mean() - probability) < 0.03
    assert not np.array_equal(drawn, draw_policy(np.arange(4000), seed=1, epoch=3, probability=probability)) or (
        probability == 0
    )
    assert len(np.unique(drawn[drawn >= 0])) == (drawn >= 0).sum()


def test_an_image_keeps_its_shape_and_type() -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 20, 3), dtype=np.uint8)
    assert apply_policy(image, -1) is image
    before = torch.random.get_rng_state()
    made = [apply_policy(image, drawn) for drawn in range(60)]
    assert torch.equal(torch.random.get_rng_state(), before), "torch's own numbers are left as they were"
    assert {(one.shape, one.dtype.name) for one in made} == {((40, 20, 3), "uint8")}
    assert len({one.tobytes() for one in made}) > 20, "many policies; noise looks alike after some of them"
    assert np.array_equal(apply_policy(image, 7), made[7])
