"""Swin transformers (Liu et al. 2021, arXiv 2103.14030) as SOLIDER trains them, with its controller and its keys."""

from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.training.nets.swin.blocks import NORM_EPS, PatchMerging, SwinBlock
from lupctl.core.training.nets.swin.semantic import condition, modulate
from lupctl.core.training.nets.swin.windows import shift_mask
from lupctl.core.training.nets.trunk import Maps, Trunk
from lupctl.core.training.nets.vit.blocks import StochasticDepth

# Standard deviation of the controller's fresh weights. Published code draws a normal truncated at 2, which is a hundred
# times as far out. Other layers are drawn as torch draws them, and tables of biases begin at 0, as published.
STD: Final = 0.02


class PatchEmbedding(nn.Module):
    """Patches side by side, each a token, and a norm.

    Args:
        dim: C.
        patch: side in pixels.
    """

    def __init__(self, dim: int, *, patch: int) -> None:
        super().__init__()
        self.projection = nn.Conv2d(3, dim, patch, stride=patch)
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.patch = patch

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, h, w, C); an image that is no multiple of a patch gets zeros below and to the right."""
        below, right = -images.shape[2] % self.patch, -images.shape[3] % self.patch
        if below or right:
            images = F.pad(images, (0, right, 0, below))
        return self.norm(self.projection(images).permute(0, 2, 3, 1))  # type: ignore[no-any-return]


class SwinStage(nn.Module):
    """Blocks on maps of one size, every second one with shifted windows.

    Args:
        dim: C.
        depth: number of blocks.
        heads: of their attention.
        side: of a window.
        merges: whether neighbours are merged after the last block.
    """

    def __init__(self, dim: int, *, depth: int, heads: int, side: int, merges: bool) -> None:
        super().__init__()
        self.side = side
        self.blocks = nn.ModuleList(
            SwinBlock(dim, heads=heads, side=side, shift=side // 2 if number % 2 else 0) for number in range(depth)
        )
        self.downsample = PatchMerging(dim) if merges else None

    def mask(self, tokens: Tensor) -> Tensor:
        """What shifted windows of a padded map (B, h, w, C) add to their attention, see `shift_mask`."""
        rows, columns = (-(-length // self.side) * self.side for length in tokens.shape[1:3])
        return shift_mask(rows, columns, side=self.side, shift=self.side // 2, device=tokens.device)


def as_sum(tokens: Tensor) -> Tensor:
    """What blocks add to, in float32 at least: under autocast a layer gives bfloat16, which would round every sum."""
    return tokens.to(torch.promote_types(tokens.dtype, torch.float32))


class SwinTrunk(Trunk):
    """A Swin transformer without its classifier, with SOLIDER's semantic controller where the plan has one.

    Published files also have norms of the first three maps and a controller after the last stage. Neither changes the
    last map, and so they are not here.

    Args:
        plan: sizes and kinds of all parts.
    """

    def __init__(self, plan: SwinPlan) -> None:
        super().__init__()
        self.plan = plan
        self.semantic_weight = plan.semantic_weight
        self.num_features = plan.dims[-1]
        self.patch_embed = PatchEmbedding(plan.dim, patch=plan.patch)
        last = len(plan.depths) - 1
        self.stages = nn.ModuleList(
            SwinStage(dim, depth=depth, heads=heads, side=plan.window, merges=number < last)
            for number, (dim, depth, heads) in enumerate(zip(plan.dims, plan.depths, plan.heads, strict=True))
        )
        self.norm3 = nn.LayerNorm(self.num_features, eps=NORM_EPS)
        if plan.semantic_weight is not None:
            self.semantic_embed_w = nn.ModuleList(nn.Linear(2, dim) for dim in plan.dims[1:])
            self.semantic_embed_b = nn.ModuleList(nn.Linear(2, dim) for dim in plan.dims[1:])
        self.drop = StochasticDepth(sum(plan.depths))
        self._initialise()

    def forward(self, images: Tensor, cameras: Tensor | None = None, *, semantic_weight: Tensor | None = None) -> Maps:
        """(B, 3, H, W) to the last map after its norm, (B, C, h, w).

        Args:
            images: normalised.
            cameras: not used.
            semantic_weight: (B) in [0, 1], of the controller for each image; None for the trunk's own for all.
        """
        last = self.stage_maps(images, semantic_weight=semantic_weight)[-1]
        return Maps(last.permute(0, 3, 1, 2), None)

    def stage_maps(self, images: Tensor, *, semantic_weight: Tensor | None = None) -> list[Tensor]:
        """The maps of all stages, (B, h, w, C), before their merging and controller, the last one after its norm."""
        given = self._condition(images, semantic_weight)
        maps: list[Tensor] = []
        tokens, block = as_sum(self.patch_embed(images)), 0
        for number, stage in enumerate(self.stages):
            assert isinstance(stage, SwinStage)
            mask = stage.mask(tokens)
            for one in stage.blocks:
                tokens = one(tokens, mask, self.drop.kept(block, images.shape[0]))
                block += 1
            maps.append(tokens)
            if stage.downsample is not None:
                tokens = as_sum(stage.downsample(tokens))
                if given is not None:
                    scale, shift = self.semantic_embed_w[number], self.semantic_embed_b[number]
                    assert isinstance(scale, nn.Linear)
                    assert isinstance(shift, nn.Linear)
                    tokens = modulate(tokens, scale, shift, given)
        maps[-1] = self.norm3(tokens)
        return maps

    def all_blocks(self) -> list[nn.Module]:
        """The transformer blocks of all stages."""
        return [block for stage in self.stages if isinstance(stage, SwinStage) for block in stage.blocks]

    def controller(self) -> list[nn.Module]:
        """The modules of the semantic controller; none without one."""
        return [] if self.plan.semantic_weight is None else [self.semantic_embed_w, self.semantic_embed_b]

    def _condition(self, images: Tensor, weight: Tensor | None) -> Tensor | None:
        """What the controller is given for each image, (B, 2) or (1, 2) for all alike; None without a controller."""
        if self.semantic_weight is None:
            assert weight is None, "a semantic weight for a trunk without a controller"
            return None
        if weight is None:
            weight = torch.full((1,), self.semantic_weight, device=images.device)
        return condition(weight.to(self.norm3.weight.dtype))

    def _initialise(self) -> None:
        for block in self.all_blocks():
            assert isinstance(block, SwinBlock)
            nn.init.zeros_(block.attn.w_msa.relative_position_bias_table)
        for layers in self.controller():
            for layer in layers.children():
                assert isinstance(layer, nn.Linear)
                nn.init.normal_(layer.weight, std=STD)
                nn.init.zeros_(layer.bias)


def set_semantic_weight(network: nn.Module, weight: float) -> None:
    """Sets the semantic weight that images without one of their own get; networks without a controller stay.

    Args:
        network: changed.
        weight: in [0, 1].
    """
    assert 0 <= weight <= 1
    for module in network.modules():
        if isinstance(module, SwinTrunk) and module.semantic_weight is not None:
            module.semantic_weight = weight
