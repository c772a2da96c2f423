"""Momentum contrast, version 2, as LUPerson trains it (Fu et al. 2021; He et al. 2020; Chen et al. 2020)."""

import copy
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lupctl.core.system.jobs.messages import exchange_rows, gather_interleaved, own_share, world_size
from lupctl.core.training.engine.parts import each_part
from lupctl.core.training.losses.contrastive import info_nce
from lupctl.core.training.nets.networks import ContrastiveNetwork

_SHUFFLE, _QUEUE = 0x5348, 0x5155


class MocoStep(NamedTuple):
    """What one step gives: the loss with gradient, and how often the own key was nearest."""

    loss: Tensor
    hits: Tensor


class Keys(NamedTuple):
    """The keys of one step: of this process's images (b, D), and of the global batch in its order (B, D)."""

    own: Tensor
    every: Tensor


class MoCo(nn.Module):
    """Two encoders, the second an average of the first, and a queue of the second's outputs.

    Only parameters are averaged; each encoder keeps the batch-norm statistics of its own forward passes.

    Args:
        encoder: the network to train; the key encoder starts as its copy.
        dim: D of the contrastive space.
        queue: K negatives kept.
        momentum: of the key encoder.
        temperature: of the loss.
        seed: of the queue's first content and of the shuffling.
    """

    queue: Tensor
    pointer: Tensor

    def __init__(
        self, encoder: ContrastiveNetwork, *, dim: int, queue: int, momentum: float, temperature: float, seed: int
    ) -> None:
        super().__init__()
        self.encoder_q = encoder
        self.encoder_k = copy.deepcopy(encoder).requires_grad_(False)
        self._momentum, self._temperature, self._seed = momentum, temperature, seed
        generator = torch.Generator().manual_seed(seed ^ _QUEUE)
        self.register_buffer("queue", nn.functional.normalize(torch.randn(dim, queue, generator=generator), dim=0))
        self.register_buffer("pointer", torch.zeros(1, dtype=torch.long))

    def forward(self, first: Tensor, second: Tensor, step: int) -> MocoStep:
        """One training step in one part, the queue's update included; the optimizer's is left to the caller.

        Args:
            first: (b, 3, H, W), the views that get a gradient; this process's share of the batch.
            second: (b, 3, H, W), other views of the same images.
            step: keys the shuffling.
        """
        keys = self.encode_keys(second, step)
        result = self.contrast(self.encoder_q(first), keys.own, self.queue.clone())
        self.enqueue(keys.every)
        return result

    @torch.no_grad()
    def encode_keys(self, second: Tensor, step: int, *, parts: int = 1) -> Keys:
        """Averages the key encoder, then gives the keys of a whole batch.

        Each key is computed among other images than its query is. Without the shuffle an image and its positive share
        the statistics of one batch-norm group, which gives the answer away (He et al. 2020, section 3.3). The
        permutation of the global batch is a function of the step.

        Args:
            second: (b, 3, H, W), this process's share.
            step: keys the shuffling.
            parts: of the share, run one after the other.
        """
        self._average_parameters()
        generator = np.random.Generator(np.random.Philox(key=[self._seed, (_SHUFFLE << 40) + step]))
        order = generator.permutation(len(second) * world_size())
        images = exchange_rows(second, order)
        keys = [self.encoder_k(images[some]) for some in each_part(self.encoder_k, parts)]
        shuffled = gather_interleaved(torch.stack(keys, dim=1).flatten(0, 1))
        every = shuffled[torch.from_numpy(np.argsort(order)).to(second.device)]
        return Keys(own_share(every), every)

    def contrast(self, query: Tensor, key: Tensor, negatives: Tensor) -> MocoStep:
        """The loss of some images of a batch, with gradient.

        Args:
            query: (b, D), what `encoder_q` makes of the images' first views.
            key: (b, D) of the same images.
            negatives: (D, K), the queue without this batch's keys; must keep its values until the backward pass.
        """
        return MocoStep(*info_nce(query, key, negatives, self._temperature))

    @torch.no_grad()
    def _average_parameters(self) -> None:
        """theta_k <- m theta_k + (1 - m) theta_q, before the keys are computed."""
        averaged: list[Tensor] = list(self.encoder_k.parameters())
        current: list[Tensor] = list(self.encoder_q.parameters())
        torch._foreach_lerp_(averaged, current, 1 - self._momentum)

    @torch.no_grad()
    def enqueue(self, keys: Tensor) -> None:
        """Writes B keys at the pointer; what does not fit before the end goes to the beginning.

        The queue's size need not be a multiple of B (65,536 and 2,560 are not), and the pointer may rest at the end.
        """
        size = self.queue.shape[1]
        keys = keys[-size:]
        start = int(self.pointer)
        tail = min(len(keys), size - start)
        self.queue[:, start : start + tail] = keys[:tail].T
        self.queue[:, : len(keys) - tail] = keys[tail:].T
        self.pointer[0] = start + len(keys) if start + len(keys) <= size else start + len(keys) - size
