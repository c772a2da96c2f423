"""Blocks with attention inside windows (Liu et al. 2021, arXiv 2103.14030) in the dialect and the keys of mmdetection.

Unlike Microsoft's and timm's code: a map is padded after the first norm and before the shift, windows never shrink and
shifts never end on small maps, padded tokens are seen, and neighbours are merged channel by channel.
"""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lupctl.core.training.nets.swin.windows import cut_windows, join_windows, pad_map, position_index

NORM_EPS: Final = 1e-5
MLP_WIDENING: Final = 4


class BiasedAttention(nn.Module):
    """Softmax attention in one kernel, with biases; a module of its own, so that its input can be looked at."""

    def forward(self, queries: Tensor, keys: Tensor, values: Tensor, biases: Tensor) -> Tensor:
        """Three of (B, windows, heads, T, D / heads), and biases (windows, heads, T, T) on their products.

        Returns:
            (B, windows, heads, T, D / heads).
        """
        if biases.requires_grad and biases.device.type == "cpu":
            # No kernel of torch gives gradients to biases there; what it does instead takes a third longer than this.
            products = queries * queries.shape[-1] ** -0.5 @ keys.contiguous().transpose(-2, -1)
            products += biases
            mixed: Tensor = products.softmax(dim=-1) @ values
            return mixed
        count, windows = queries.shape[:2]
        mask = biases if windows == 1 else biases.expand(count, *biases.shape).flatten(0, 1)
        joined = [one.flatten(0, 1) for one in (queries, keys, values)]
        mixed = F.scaled_dot_product_attention(joined[0], joined[1], joined[2], attn_mask=mask)
        return mixed.view(count, windows, *mixed.shape[1:])


class PositionBiases(nn.Module):
    """The biases of a table for each pair of tokens; a module of its own, because what it gives is kept for training.

    Args:
        side: of a window.
    """

    index: Tensor

    def __init__(self, side: int) -> None:
        super().__init__()
        # Not stored, and on the CPU even in a network without memory, whose tensors are replaced by a file's.
        self.register_buffer("index", position_index(side), persistent=False)

    def forward(self, table: Tensor, mask: Tensor | None) -> Tensor:
        """Biases of a window, (1, heads, T, T), or with a mask, of all windows of an image, (windows, heads, T, T).

        Args:
            table: of all ways from one token to another, ((2 * side - 1) ** 2, heads).
            mask: (windows, T, T), added; None for nothing.
        """
        pairs = table.index_select(0, self.index.flatten())  # (T * T, heads)
        # In memory by heads: kernels read the biases of a head in a row.
        biases = pairs.T.contiguous().view(1, -1, *self.index.shape)
        return biases if mask is None else biases + mask[:, None]


class WindowAttention(nn.Module):
    """Multi-head self-attention of the tokens of a window, with a learned bias for each way from one to another.

    Args:
        dim: C.
        heads: divide C.
        side: of a window.
    """

    def __init__(self, dim: int, *, heads: int, side: int) -> None:
        super().__init__()
        self.heads = heads
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * side - 1) ** 2, heads))
        self.biases = PositionBiases(side)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.core = BiasedAttention()
        self.proj = nn.Linear(dim, dim)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """(B * windows, T, C) to the same shape.

        Args:
            windows: of images one after the other.
            mask: (windows, T, T), added for each window of an image; None for nothing.
        """
        count, tokens, dim = windows.shape
        biases = self.biases(self.relative_position_bias_table, mask)
        qkv = self.qkv(windows).view(-1, len(biases), tokens, 3, self.heads, dim // self.heads)
        queries, keys, values = (one.transpose(2, 3) for one in qkv.unbind(3))
        mixed = self.core(queries, keys, values, biases)  # (B, windows, heads, T, C / heads)
        return self.proj(mixed.transpose(2, 3).reshape(count, tokens, dim))  # type: ignore[no-any-return]


class ShiftedAttention(nn.Module):
    """Attention inside windows of a map, which is rolled before and rolled back after if there is a shift.

    Args:
        dim, heads, side: see `WindowAttention`.
        shift: rows and columns to roll by; 0 for none.
    """

    def __init__(self, dim: int, *, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.w_msa = WindowAttention(dim, heads=heads, side=side)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        """(B, h, w, C) to the same shape.

        Args:
            tokens: of a map.
            mask: of the padded and shifted map, see `shift_mask`; not used without a shift.
        """
        _, rows, columns, _ = tokens.shape
        padded = pad_map(tokens, self.side)
        size = {"rows": padded.shape[1], "columns": padded.shape[2]}
        if self.shift:
            padded = padded.roll((-self.shift, -self.shift), (1, 2))
        mixed = self.w_msa(cut_windows(padded, self.side), mask if self.shift else None)
        joined = join_windows(mixed, self.side, **size)
        if self.shift:
            joined = joined.roll((self.shift, self.shift), (1, 2))
        return joined[:, :rows, :columns]


class FeedForward(nn.Module):
    """Two linear layers with the exact GELU between them, under mmdetection's keys.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        hidden = MLP_WIDENING * dim
        self.layers = nn.Sequential(nn.Sequential(nn.Linear(dim, hidden), nn.GELU()), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(..., C) to the same shape."""
        return self.layers(tokens)  # type: ignore[no-any-return]


class SwinBlock(nn.Module):
    """Windowed attention and MLP, each after a layer norm and added to what it took.

    Args:
        dim, heads, side, shift: see `ShiftedAttention`.
    """

    def __init__(self, dim: int, *, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.attn = ShiftedAttention(dim, heads=heads, side=side, shift=shift)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.ffn = FeedForward(dim)

    def forward(self, tokens: Tensor, mask: Tensor, kept: Tensor | None = None) -> Tensor:
        """(B, h, w, C) to the same shape.

        Args:
            tokens: of the block before.
            mask: see `ShiftedAttention`.
            kept: (2, B), factors on what attention and MLP add to each image: stochastic depth; None for 1.
        """
        if kept is None:
            tokens = tokens + self.attn(self.norm1(tokens), mask)
            return tokens + self.ffn(self.norm2(tokens))  # type: ignore[no-any-return]
        of_attention, of_mlp = kept.to(tokens.dtype)[:, :, None, None, None].unbind(0)
        tokens = tokens + of_attention * self.attn(self.norm1(tokens), mask)
        return tokens + of_mlp * self.ffn(self.norm2(tokens))  # type: ignore[no-any-return]


class PatchMerging(nn.Module):
    """Four neighbours become one token of twice the channels.

    Args:
        dim: C.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim, eps=NORM_EPS)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, h, w, C) to (B, h / 2, w / 2, 2 C), odd sides padded with zeros; each channel's four are side by side."""
        tokens = pad_map(tokens, 2)
        batch, rows, columns, channels = tokens.shape
        cut = tokens.view(batch, rows // 2, 2, columns // 2, 2, channels)
        joined = cut.permute(0, 1, 3, 5, 2, 4).reshape(batch, rows // 2, columns // 2, 4 * channels)
        return self.reduction(self.norm(joined))  # type: ignore[no-any-return]
