"""Published ImageNet weights for our networks."""

from urllib.error import URLError

from torch import Tensor

from lupctl.core.choices import ResNetArch
from lupctl.core.errors import DataError


def imagenet_trunk(arch: ResNetArch, *, progress: bool) -> dict[str, Tensor]:
    """torchvision's ImageNet weights of a trunk, without the classifier.

    The first generation of weights (IMAGENET1K_V1) is what published re-id baselines start from.

    Raises:
        DataError: they are not in torch's cache and cannot be fetched.
    """
    from torchvision.models import ResNet18_Weights, ResNet50_Weights, ResNet101_Weights, ResNet152_Weights

    weights = {
        "r18": ResNet18_Weights.IMAGENET1K_V1,
        "r50": ResNet50_Weights.IMAGENET1K_V1,
        "r101": ResNet101_Weights.IMAGENET1K_V1,
        "r152": ResNet152_Weights.IMAGENET1K_V1,
    }[arch]
    try:
        state: dict[str, Tensor] = weights.get_state_dict(progress=progress, check_hash=True)
    except (URLError, OSError, RuntimeError) as error:
        raise DataError(
            f"{weights.url}: the ImageNet weights of {arch} could not be fetched ({error})",
            hint="put the file into $TORCH_HOME/hub/checkpoints, or choose --from scratch",
        ) from error
    return {key: value for key, value in state.items() if not key.startswith("fc.")}
