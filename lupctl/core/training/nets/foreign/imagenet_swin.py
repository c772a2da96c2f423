"""torchvision's ImageNet weights for a Swin transformer."""

from typing import assert_never
from urllib.error import URLError

from torch import Tensor

from lupctl.core.choices import SwinArch
from lupctl.core.errors import DataError
from lupctl.core.training.nets.foreign.swin import recognise_swin


def imagenet_swin(arch: SwinArch, *, progress: bool) -> dict[str, Tensor]:
    """torchvision's ImageNet-1k weights of a Swin, without the classifier, by our keys.

    Args:
        arch: of one that torchvision has.
        progress: shows a bar.

    Raises:
        DataError: they are not in torch's cache and cannot be fetched.
    """
    from torchvision.models import Swin_B_Weights, Swin_S_Weights, Swin_T_Weights

    match arch:
        case "swin-t":
            weights = Swin_T_Weights.IMAGENET1K_V1
        case "swin-s":
            weights = Swin_S_Weights.IMAGENET1K_V1
        case "swin-b":
            weights = Swin_B_Weights.IMAGENET1K_V1
        case "swin-u":
            raise AssertionError("refused by `check_imagenet`")
        case _:
            assert_never(arch)
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=progress, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise DataError(
            f"{weights.url}: the ImageNet weights of {arch} could not be fetched ({error})",
            hint="put the file into $TORCH_HOME/hub/checkpoints, or choose --from scratch",
        ) from error
    found = recognise_swin(state, "", "torchvision", origin=weights.url)
    return {key.removeprefix("backbone."): value for key, value in found.tensors.items()}
