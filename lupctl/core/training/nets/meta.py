"""Networks without memory, for weights that will be read from a file."""

from collections.abc import Callable
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from lupctl.core.choices import Pooling
from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.training.nets.build import Network, build_network
from lupctl.core.training.nets.pooled import map_trunk, pool_as

DRAWS: Final = (Tensor.normal_, Tensor.uniform_)


class _Undrawn(TorchFunctionMode):
    """Leaves tensors as they are where random numbers would be drawn into them.

    On the meta device there is nothing to draw into, and asking torch to do so makes it import its compiler, which
    takes seconds.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        if func in DRAWS:
            return args[0]
        # torch.nn.init's functions arrive here as a whole, and would draw where this mode does not see it.
        if getattr(func, "__module__", "") == nn.init.__name__:
            return given["tensor"]
        return func(*args, **given)


def build_empty(plan: NetworkPlan) -> Network:
    """The network a plan describes on the meta device: shapes without memory, and nothing drawn."""
    with torch.device("meta"), _Undrawn():
        return build_network(plan)


def embed_nothing(network: Network, *, height: int, width: int, pooling: Pooling | None = None) -> Tensor:
    """The feature (1, D) of one image on the meta device, where only shapes are computed.

    Args:
        network: on the meta device; in training mode it would draw.
        height, width: of the image.
        pooling: gives the feature of the trunk alone; None gives the feature of retrieval.
    """
    images = torch.empty(1, 3, height, width, device="meta")
    cameras = torch.empty(1, dtype=torch.int64, device="meta") if network.needs_cameras else None
    if pooling is None:
        return network.embed(images, cameras)
    with torch.device("meta"):
        return pool_as(network, pooling)(map_trunk(network, images, cameras))  # type: ignore[no-any-return]
