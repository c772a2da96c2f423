"""The pooled feature of a network's trunk, before any head: what two networks of one trunk have in common."""

from typing import assert_never

from torch import Tensor

from lupctl.core.choices import Pooling
from lupctl.core.training.nets.build import Network, build_pooling
from lupctl.core.training.nets.jpm import JpmNetwork
from lupctl.core.training.nets.mgn import MgnNetwork
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.parts import PartsNetwork
from lupctl.core.training.nets.pooling import Pool
from lupctl.core.training.nets.trunk import Maps


def map_trunk(network: Network, images: Tensor, cameras: Tensor | None = None) -> Maps:
    """(B, 3, H, W) and rows of cameras (B), where needed, to the maps of the trunk.

    The trunk of an mgn is its stem with the first branch, and that of a jpm ends with the first of the two copies of
    its last block. In training both are the trunk they started from, and the other branches are further copies.
    """
    match network:
        case Embedding() | PartsNetwork():
            return network.backbone(images, cameras)  # type: ignore[no-any-return]
        case MgnNetwork():
            return Maps(network.b1(network.backbone(images)), None)
        case JpmNetwork():
            token = network.features(images, cameras)[:, 0]
            return Maps(token[:, :, None, None], token)
        case _:
            assert_never(network)


def pool_as(network: Network, pooling: Pooling) -> Pool:
    """The network's own pooling where it is of that kind, with what it learned, else a new one."""
    fresh = build_pooling(pooling)
    if isinstance(network, Embedding) and type(network.pool) is type(fresh):
        return network.pool
    return fresh
