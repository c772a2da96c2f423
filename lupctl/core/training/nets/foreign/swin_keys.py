"""The keys of Swin transformers as four projects write them, beside ours, which are SOLIDER's.

| ours | Microsoft | timm | torchvision |
|---|---|---|---|
| `patch_embed.projection` | `patch_embed.proj` | `patch_embed.proj` | `features.0.0` |
| `patch_embed.norm` | `patch_embed.norm` | `patch_embed.norm` | `features.0.2` |
| `stages.1.blocks.0` | `layers.1.blocks.0` | `layers.1.blocks.0` | `features.3.0` |
| … `attn.w_msa.qkv` | `attn.qkv` | `attn.qkv` | `attn.qkv` |
| … `ffn.layers.0.0`, `ffn.layers.1` | `mlp.fc1`, `mlp.fc2` | `mlp.fc1`, `mlp.fc2` | `mlp.0`, `mlp.3` |
| `stages.1.downsample` | `layers.1.downsample` | `layers.2.downsample` | `features.4` |
| `norm3` | `norm` | `norm` | `norm` |

The other three also merge neighbours in another order: all channels of one after all channels of another, by columns.
"""

import re
from collections.abc import Mapping
from typing import Final, Literal

from torch import Tensor

Dialect = Literal["solider", "microsoft", "timm", "torchvision"]

BLOCK: Final = re.compile(r"stages\.(?P<stage>\d+)\.blocks\.(?P<block>\d+)\.(?P<rest>.+)")
MERGING: Final = re.compile(r"stages\.(?P<stage>\d+)\.downsample\.(?P<rest>.+)")
IN_BLOCK: Final = {"ffn.layers.0.0.": "mlp.fc1.", "ffn.layers.1.": "mlp.fc2.", "attn.w_msa.": "attn."}
OUTSIDE: Final = {"patch_embed.projection.": "patch_embed.proj.", "norm3.": "norm."}
IN_TORCHVISION: Final = {
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.3.",
    "patch_embed.proj.": "features.0.0.",
    "patch_embed.norm.": "features.0.2.",
}
# Neighbours of a merging as Microsoft counts them, in our order: above left, above right, below left, below right.
BY_ROWS: Final = [0, 2, 1, 3]


def key_in(dialect: Dialect, key: str) -> str:
    """The key that one of ours has in a dialect.

    >>> key_in("timm", "stages.0.downsample.norm.weight"), key_in("torchvision", "stages.1.blocks.0.ffn.layers.1.bias")
    ('layers.1.downsample.norm.weight', 'features.3.0.mlp.3.bias')
    """
    if dialect == "solider":
        return key
    is_torchvision = dialect == "torchvision"
    if found := BLOCK.fullmatch(key):
        stage, rest = int(found["stage"]), _rename(found["rest"], IN_BLOCK)
        if is_torchvision:
            return f"features.{2 * stage + 1}.{found['block']}.{_rename(rest, IN_TORCHVISION)}"
        return f"layers.{stage}.blocks.{found['block']}.{rest}"
    if found := MERGING.fullmatch(key):
        stage = int(found["stage"])
        if is_torchvision:
            return f"features.{2 * stage + 2}.{found['rest']}"
        return f"layers.{stage + (dialect == 'timm')}.downsample.{found['rest']}"
    key = _rename(key, OUTSIDE)
    return _rename(key, IN_TORCHVISION) if is_torchvision else key


def find_dialect(state: Mapping[str, Tensor], prefix: str) -> Dialect | None:
    """Which of the dialects keys under a prefix are in; None for no Swin."""
    if f"{prefix}patch_embed.projection.weight" in state:
        return "solider" if f"{prefix}stages.0.blocks.0.attn.w_msa.qkv.weight" in state else None
    if {f"{prefix}features.0.0.weight", f"{prefix}features.1.0.attn.qkv.weight"} <= state.keys():
        return "torchvision"
    if {f"{prefix}patch_embed.proj.weight", f"{prefix}layers.0.blocks.0.attn.qkv.weight"} <= state.keys():
        return "timm" if f"{prefix}layers.3.downsample.reduction.weight" in state else "microsoft"
    return None


def reorder_merging(key: str, value: Tensor) -> Tensor:
    """A tensor of another dialect as ours: channels of four merged neighbours side by side, counted by rows.

    Args:
        key: ours; only a merging's are changed.
        value: (4 C) of its norm, or (2 C, 4 C) of its reduction.
    """
    if not MERGING.fullmatch(key):
        return value
    *outer, length = value.shape
    four = value.reshape(*outer, 4, length // 4)[..., BY_ROWS, :]
    return four.transpose(-1, -2).reshape(value.shape)


def _rename(key: str, names: Mapping[str, str]) -> str:
    for ours, theirs in names.items():
        if key.startswith(ours):
            return theirs + key.removeprefix(ours)
    return key
