"""Pre-norm transformer blocks (Dosovitskiy et al. 2020, arXiv 2010.11929) with timm's and DINO's keys."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lupctl.core.training.hashing import WORD, mix

# Of every layer norm; torch's default of 1e-5 shows in small inputs.
NORM_EPS: Final = 1e-6


class FusedAttention(nn.Module):
    """Softmax attention in one kernel; a module of its own, so that its input can be looked at from outside.

    Args:
        scale: factor on the products of queries and keys; None for the inverse root of a head's length.
    """

    def __init__(self, scale: float | None) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Three of (B, heads, T, D / heads) to the same shape."""
        if queries.device.type == "cpu" and queries.dtype == torch.bfloat16 and queries.requires_grad:
            # The backward pass of torch's kernel (2.14) takes three times as long in bfloat16 as in float32; this way,
            # less. Softmax computes in float32 and rounds what it gives, and products add up in float32.
            scale = queries.shape[-1] ** -0.5 if self.scale is None else self.scale
            return (queries * scale @ keys.transpose(2, 3)).softmax(dim=-1) @ values
        return F.scaled_dot_product_attention(queries, keys, values, scale=self.scale)


class Attention(nn.Module):
    """Multi-head self-attention.

    Args:
        dim: D.
        heads: divide D.
        qkv_bias: whether queries, keys and values have a bias.
        qk_scale: see `FusedAttention`.
    """

    def __init__(self, dim: int, *, heads: int, qkv_bias: bool, qk_scale: float | None) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, dim * 3, bias=qkv_bias)
        self.core = FusedAttention(qk_scale)
        self.proj = nn.Linear(dim, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to the same shape."""
        return self._attend(*self._split(tokens))

    def first(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, 1, D), what `forward` gives for the first token."""
        queries, keys, values = self._split(tokens)
        return self._attend(queries[:, :, :1], keys, values)

    def _split(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """(B, T, D) to queries, keys and values, each (B, heads, T, D / heads)."""
        batch, count, dim = tokens.shape
        qkv = self.qkv(tokens).view(batch, count, 3, self.heads, dim // self.heads)
        return qkv.permute(2, 0, 3, 1, 4).unbind(0)  # type: ignore[no-any-return]

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        mixed = self.core(queries, keys, values)  # like the queries
        return self.proj(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]


class Mlp(nn.Module):
    """Two linear layers with the exact GELU between them.

    Args:
        dim: D.
        hidden: width of the middle.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to the same shape."""
        return self.fc2(self.act(self.fc1(tokens)))  # type: ignore[no-any-return]


class Block(nn.Module):
    """Attention and MLP, each after a layer norm and added to what it took.

    Args:
        dim, heads, hidden, qkv_bias, qk_scale: see `lupctl.core.formats.weights.plan.ViTPlan`.
    """

    def __init__(self, dim: int, *, heads: int, hidden: int, qkv_bias: bool, qk_scale: float | None) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = Attention(dim, heads=heads, qkv_bias=qkv_bias, qk_scale=qk_scale)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.mlp = Mlp(dim, hidden)

    def forward(self, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, T, D) to the same shape.

        Args:
            tokens: of the block before.
            kept: (2, B), factors on what attention and MLP add to each image: stochastic depth; None for 1.
        """
        if kept is None:
            tokens = tokens + self.attn(self.norm1(tokens))
            return tokens + self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]
        of_attention, of_mlp = kept.to(tokens.dtype)[:, :, None, None].unbind(0)
        tokens = tokens + of_attention * self.attn(self.norm1(tokens))
        return tokens + of_mlp * self.mlp(self.norm2(tokens))  # type: ignore[no-any-return]

    def first(self, tokens: Tensor) -> Tensor:
        """(B, T, D) to (B, 1, D), what `forward` gives for the first token: a fifth of its work."""
        token = tokens[:, :1] + self.attn.first(self.norm1(tokens))
        return token + self.mlp(self.norm2(token))  # type: ignore[no-any-return]


def first_token(block: nn.Module, tokens: Tensor, kept: Tensor | None = None) -> Tensor:
    """What a last block gives for the first token; where nothing is learned, no other token is computed.

    Args:
        block: the last one, a `Block`.
        tokens: (B, T, D).
        kept: as `Block.forward` takes it.

    Returns:
        (B, D), the same by both ways to rounding.
    """
    if torch.is_grad_enabled() or kept is not None:
        return block(tokens, kept)[:, 0]  # type: ignore[no-any-return]
    assert isinstance(block, Block)
    return block.first(tokens)[:, 0]


class StochasticDepth(nn.Module):
    """Which images of a batch skip which branches of which blocks (Huang et al. 2016, arXiv 1603.09382).

    Rates grow linearly from 0 at the first block to `rate` at the last; each image draws for itself, once for every
    branch, and what is kept is divided by the share that is kept. The draws are a function of each image's key, so that
    processes that share a batch, a run that is continued and a block that is computed twice draw alike.

    Args:
        depth: number of blocks.
    """

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.depth = depth
        self.rate = 0.0
        self.keys: Tensor | None = None

    @property
    def is_on(self) -> bool:
        """Whether the next pass draws."""
        return self.training and self.rate > 0

    def kept(self, block: int, images: int, *, runs: range = range(1)) -> Tensor | None:
        """(2, B * R) factors for both branches of a block: 0, or 1 over the share that is kept; None for 1 everywhere.

        Args:
            block: counted from 0.
            images: B.
            runs: R numbers of passes of the same images through this block, in one batch, those of an image together.
        """
        return self._draw(range(block, block + 1), images, runs)[0]

    def kept_all(self, images: int) -> list[Tensor | None]:
        """For each block what `kept` gives, drawn together: many small operations once instead of once a block."""
        return self._draw(range(self.depth), images, range(1))

    def _draw(self, blocks: range, images: int, runs: range) -> list[Tensor | None]:
        if not self.is_on:
            return [None] * len(blocks)
        assert self.keys is not None, "set_drop_keys before a training step with stochastic depth"
        assert len(self.keys) == images, f"{len(self.keys)} keys for {images} images"
        device = self.keys.device
        block = torch.arange(blocks.start, blocks.stop, device=device)[:, None, None, None]
        run = torch.arange(runs.start, runs.stop, device=device)
        branch = torch.arange(2, device=device)[:, None, None]
        streams = mix(1 + branch + 2 * (block + self.depth * run))  # (blocks, 2, 1, R)
        words = mix(mix(self.keys)[:, None] ^ streams).flatten(2)
        rate = (self.rate * block[..., 0].double()).div_(max(self.depth - 1, 1))
        factors = (words >= (rate * 2**32).round_()).float() / (1 - rate).float()
        return [each if self.rate * number else None for number, each in zip(blocks, factors.unbind(0), strict=True)]


def set_drop_path(network: nn.Module, rate: float) -> None:
    """Sets the rate of stochastic depth at the last block of a network; 0 turns it off, networks without blocks stay.

    While it is not 0, every training step needs `set_drop_keys`.
    """
    assert 0 <= rate < 1
    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.rate = rate


def set_drop_keys(network: nn.Module, keys: Tensor) -> None:
    """Sets what the next training step draws its stochastic depth from: see `drop_keys`."""
    for module in network.modules():
        if isinstance(module, StochasticDepth):
            module.keys = keys


def drop_keys(samples: Tensor, *, seed: int, step: int) -> Tensor:
    """Keys of the images of one step, (B) int64 below 2**32, on the samples' device.

    Args:
        samples: (B) int64 that identify the images within the step, as `Batch.keys`.
        seed: of the recipe.
        step: counted from 0.
    """
    found = 0
    for word in (seed, seed >> 32, step):
        found = mix(found ^ (word & WORD))
    return mix(mix(found ^ (samples & WORD)) + 1)


def view_keys(keys: Tensor, views: int) -> Tensor:
    """Keys of several views of the same images, (V * B), those of the first view first.

    Args:
        keys: (B) of the images, as from `drop_keys`.
        views: V.
    """
    view = torch.arange(1, 1 + views, device=keys.device)[:, None]
    return mix(mix(view) ^ keys).flatten()
