"""Keys of a batch from an averaged encoder, each computed among other images than its query."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lupctl.core.system.jobs.messages import exchange_rows, gather_interleaved, own_share, world_size
from lupctl.core.training.engine.parts import each_part

_SHUFFLE = 0x5348


class Keys(NamedTuple):
    """The keys of one step: of this process's images (b, D), and of the global batch in its order (B, D)."""

    own: Tensor
    every: Tensor


@torch.no_grad()
def encode_keys(teacher: nn.Module, second: Tensor, step: int, *, seed: int, parts: int = 1) -> Keys:
    """The keys of a whole batch.

    Each key is computed in a batch of other images than its query. Without the shuffle, an image and its positive
    share the statistics of one batch-norm group, which gives the answer away (He et al. 2020, section 3.3). The
    permutation of the global batch is a function of the step.

    Args:
        teacher: from images to keys.
        second: (b, 3, H, W), this process's share.
        step: keys the shuffling.
        seed: of the shuffling.
        parts: of the share, run one after the other.
    """
    generator = np.random.Generator(np.random.Philox(key=[seed, (_SHUFFLE << 40) + step]))
    order = generator.permutation(len(second) * world_size())
    images = exchange_rows(second, order)
    keys = [teacher(images[some]) for some in each_part(teacher, parts)]
    shuffled = gather_interleaved(torch.stack(keys, dim=1).flatten(0, 1))
    every = shuffled[torch.from_numpy(np.argsort(order)).to(second.device)]
    return Keys(own_share(every), every)
