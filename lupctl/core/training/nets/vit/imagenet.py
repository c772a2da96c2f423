"""Published ImageNet weights for a vision transformer."""

import re
from collections.abc import Mapping
from typing import Final
from urllib.error import URLError

from torch import Tensor

from lupctl.core.errors import DataError
from lupctl.core.training.nets.vit.position import Grid

# Of torchvision's ViT-B/16, which takes images of 224 x 224.
IMAGENET_GRID: Final[Grid] = (14, 14)
# torchvision's names, and timm's, which are ours. The published file has the older names of the MLP.
RENAMED: Final = (
    (r"class_token", "cls_token"),
    (r"conv_proj\.(weight|bias)", r"patch_embed.proj.\1"),
    (r"encoder\.pos_embedding", "pos_embed"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.ln_([12])\.(weight|bias)", r"blocks.\1.norm\2.\3"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(weight|bias)", r"blocks.\1.attn.qkv.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.(weight|bias)", r"blocks.\1.attn.proj.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:linear_1|0)\.(weight|bias)", r"blocks.\1.mlp.fc1.\2"),
    (r"encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:linear_2|3)\.(weight|bias)", r"blocks.\1.mlp.fc2.\2"),
    (r"encoder\.ln\.(weight|bias)", r"norm.\1"),
)
CLASSIFIER: Final = "heads."


def imagenet_vit(*, progress: bool) -> dict[str, Tensor]:
    """torchvision's ImageNet-1k weights of ViT-B/16, without the classifier, for a grid of `IMAGENET_GRID`.

    Raises:
        DataError: they are not in torch's cache and cannot be fetched.
    """
    from torchvision.models import ViT_B_16_Weights

    weights = ViT_B_16_Weights.IMAGENET1K_V1
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=progress, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise DataError(
            f"{weights.url}: the ImageNet weights of vit-b could not be fetched ({error})",
            hint="put the file into $TORCH_HOME/hub/checkpoints, or choose --from scratch",
        ) from error
    return rename_torchvision(state)


def has_torchvision_names(state: Mapping[str, Tensor]) -> bool:
    """Whether tensors are by the keys of torchvision's vision transformer."""
    return {"class_token", "encoder.pos_embedding"} <= state.keys()


def rename_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of torchvision's vision transformer under our keys, without its classifier.

    A key that it does not have is kept, for a strict loader to refuse.

    >>> import torch
    >>> list(rename_torchvision({"encoder.layers.encoder_layer_3.ln_2.bias": torch.ones(4), "heads.x": torch.ones(4)}))
    ['blocks.3.norm2.bias']
    """
    return {_rename(key): value for key, value in state.items() if not key.startswith(CLASSIFIER)}


def _rename(key: str) -> str:
    for pattern, ours in RENAMED:
        if re.fullmatch(pattern, key):
            return re.sub(pattern, ours, key)
    return key
