"""AutoAugment (Cubuk et al. 2019, arXiv 1805.09501): torchvision's ImageNet policy on decoded images.

Published fine-tuning from ImageNet at depth 101 starts with it and fades it out: its probability falls from 1 by a
fixed amount with every image a loader's worker has seen. Here it falls with the step, so that workers count nothing.
"""

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.training.views.draws import SampleDraws

_POLICY = 4
# Colour of pixels that a rotation, shear or shift brings in: the mean of ImageNet.
FILL = (124.0, 116.0, 104.0)


def draw_policy(keys: NDArray[np.int64], *, seed: int, epoch: int, probability: float) -> NDArray[np.int64]:
    """(N) the seed of each image's policy; -1 where an image is left as it is.

    Args:
        keys: (N) the images' keys, as for their other draws.
        seed, epoch: with the key, everything that a draw depends on.
        probability: that the policy is applied.
    """
    numbers = SampleDraws(keys, seed=seed, epoch=epoch, view=0).branch(_POLICY).uniform(2)
    return np.where(numbers[:, 0] < probability, np.floor(numbers[:, 1] * 2.0**32), -1).astype(np.int64)


def apply_policy(image: NDArray[np.uint8], drawn: int) -> NDArray[np.uint8]:
    """The image after one of the policy's 25 pairs of operations.

    torchvision draws from torch's global generator, which is seeded for that and restored afterwards.

    Args:
        image: (H, W, 3) RGB.
        drawn: the seed, 0 to 2^32 - 1; -1 returns the image.
    """
    if drawn < 0:
        return image
    from torchvision.transforms import AutoAugment  # slow to import, and only needed here

    before = torch.default_generator.get_state()
    try:
        torch.default_generator.manual_seed(drawn)
        pixels = AutoAugment(fill=list(FILL))(torch.from_numpy(image).permute(2, 0, 1))
    finally:
        torch.default_generator.set_state(before)
    augmented: NDArray[np.uint8] = pixels.permute(1, 2, 0).numpy()
    return augmented


def fading_probability(step: int, steps: float) -> float:
    """1 at step 0, falling by equal amounts to 0 after `steps` steps; 0 throughout if `steps` is 0.

    >>> fading_probability(0, 8), fading_probability(6, 8), fading_probability(9, 8), fading_probability(0, 0)
    (1.0, 0.25, 0.0, 0.0)
    """
    return max(0.0, 1.0 - step / steps) if steps else 0.0
