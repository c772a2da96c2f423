"""Vision transformers (Dosovitskiy et al. 2020, arXiv 2010.11929) with TransReID's additions and timm's keys."""

from typing import Final

import torch
from torch import Tensor, nn

from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.training.nets.trunk import Maps, Trunk
from lupctl.core.training.nets.vit.blocks import NORM_EPS, Block, StochasticDepth, first_token
from lupctl.core.training.nets.vit.position import resize_position
from lupctl.core.training.nets.vit.side import side_term
from lupctl.core.training.nets.vit.stem import build_stem

# Standard deviation of fresh tokens, positions and linear layers. Published code draws a normal truncated at 2, which
# is a hundred times as far out.
STD: Final = 0.02


class ViTTrunk(Trunk):
    """A vision transformer without its classifier.

    Tokens are in this order: class token, part tokens, then the grid of patches row by row.

    Args:
        plan: sizes and kinds of all parts.
        is_cut: leaves out the last block and the last norm, which a head has instead.
    """

    def __init__(self, plan: ViTPlan, *, is_cut: bool = False) -> None:
        super().__init__()
        self.plan = plan
        self.num_features = plan.dim
        self.num_special = 1 + plan.parts
        self.cls_token = nn.Parameter(torch.empty(1, 1, plan.dim))
        if plan.parts:
            self.part_tokens = nn.Parameter(torch.empty(1, plan.parts, plan.dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.num_special + plan.rows * plan.columns, plan.dim))
        if plan.side_rows:
            self.sie_embed = nn.Parameter(torch.empty(plan.side_rows, 1, plan.dim))
        if plan.unknown_camera:
            self.sie_unknown = nn.Parameter(torch.empty(1, 1, plan.dim))
        self.patch_embed = build_stem(plan.stem, plan.dim, patch=plan.patch, stride=plan.stride)
        self.blocks = nn.ModuleList(build_block(plan) for _ in range(plan.depth - 1 if is_cut else plan.depth))
        self.norm = nn.Identity() if is_cut else build_norm(plan)
        self.drop = StochasticDepth(plan.depth)
        self._initialise()

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Maps:
        """(B, 3, H, W) to the map (B, D, h, w) of the grid of patches, and the tokens, all after the last norm."""
        tokens = self.norm(self.tokens(images, cameras))
        rows, columns = self.plan.grid(*images.shape[2:])
        special, patches = tokens[:, : self.num_special], tokens[:, self.num_special :]
        return Maps(
            patches.transpose(1, 2).reshape(images.shape[0], -1, rows, columns),
            special[:, 0],
            special[:, 1:] if self.plan.parts else None,
        )

    def class_token(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) to (B, D), the token that `forward` gives; see `first_token`."""
        last = len(self.blocks) - 1
        tokens = self.tokens(images, cameras, stop=last)
        return self.norm(first_token(self.blocks[last], tokens, self.drop.kept(last, images.shape[0])))  # type: ignore[no-any-return]

    def tokens(self, images: Tensor, cameras: Tensor | None = None, *, stop: int | None = None) -> Tensor:
        """(B, 3, H, W) to (B, T, D), the tokens after the blocks, or the first `stop` of them, before the last norm.

        Raises:
            UsageError: no patch fits into the images.
        """
        tokens = self._embed(images, cameras)
        # A trunk without its last block has drawn for that one, too.
        for block, kept in zip(self.blocks[:stop], self.drop.kept_all(images.shape[0]), strict=False):
            tokens = block(tokens, kept)
        return tokens

    def all_blocks(self) -> list[nn.Module]:
        """The transformer blocks."""
        return list(self.blocks)

    @property
    def needs_cameras(self) -> bool:
        """Whether it has a table of cameras."""
        return self.plan.side_rows > 0

    def _embed(self, images: Tensor, cameras: Tensor | None) -> Tensor:
        """(B, 3, H, W) to (B, T, D), what the first block takes."""
        plan = self.plan
        grid = plan.grid(*images.shape[2:])
        patches = self.patch_embed(images).flatten(2).transpose(1, 2)  # (B, h * w, D)
        # Expanded one by one: the gradient of a token cut out of a joined one has strides that messages would copy.
        special = [self.cls_token, self.part_tokens] if plan.parts else [self.cls_token]
        position: Tensor = self.pos_embed
        if grid != (plan.rows, plan.columns):
            own, rest = position[:, : self.num_special], position[:, self.num_special :]
            resized = resize_position(rest, source=(plan.rows, plan.columns), target=grid, how=plan.position)
            position = torch.cat([own, resized], dim=1)
        if plan.side_rows:
            assert cameras is not None, "a network with a table of cameras needs the images' cameras"
            unknown = self.sie_unknown if plan.unknown_camera else None
            position = position + plan.side_scale * side_term(self.sie_embed, unknown, cameras)
        return torch.cat([*(one.expand(images.shape[0], -1, -1) for one in special), patches], dim=1) + position

    def _initialise(self) -> None:
        for module in self.modules():
            initialise_layer(module)
        for name, parameter in self.named_parameters(recurse=False):
            assert parameter.dim() == 3, name
            nn.init.normal_(parameter, std=STD)


def build_block(plan: ViTPlan) -> Block:
    """One of the blocks of a plan."""
    return Block(plan.dim, heads=plan.heads, hidden=plan.hidden, qkv_bias=plan.qkv_bias, qk_scale=plan.qk_scale)


def build_norm(plan: ViTPlan) -> nn.LayerNorm:
    """The norm after the last block."""
    return nn.LayerNorm(plan.dim, eps=NORM_EPS)


def initialise_layer(module: nn.Module) -> None:
    """Draws a linear layer or a convolution as TransReID does; leaves other modules as they are."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=STD)
    elif isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")  # sqrt(2 / (k * k * channels out))
    if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
        nn.init.zeros_(module.bias)
