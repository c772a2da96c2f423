"""Plans of small vision transformers of every kind, and their checkpoints."""

from pathlib import Path
from typing import Any, Final

import torch
from torch import nn

from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import describe_pixels
from lupctl.core.formats.weights.plan import HeadPlan, NeckHead, NetworkPlan, NoHead, PartsHead
from lupctl.core.recipes.sections import Pixels
from lupctl.core.training.nets.build import Network, build_network
from tests.tools.networks import jpm_head, make_header, tiny_vit

HEIGHT, WIDTH = 64, 32
JPM: Final = jpm_head(5)


def plan_transformer(head: HeadPlan, *, pooling: Any = "token", **more: Any) -> NetworkPlan:
    """Two blocks with tokens of length 24 for images of 64 x 32, with fields of one's own."""
    small = {"dim": 24, "heads": 3, "hidden": 48, "patch": 8, "stride": 8, "rows": 8, "columns": 4, **more}
    return NetworkPlan(trunk=tiny_vit(**small), pooling=pooling, head=head)


def transformer_plans() -> dict[str, NetworkPlan]:
    """One plan of each kind, by name; `resized` has positions of another grid than its images, jpm one of odd size."""
    ics = {"stem": "ics", "patch": 16, "stride": 16, "rows": 4, "columns": 2}
    odd = {"stride": 7, "rows": 9, "columns": 4, "cameras": 3}
    after = NeckHead(kind="bnneck", classes=5, feature="after")
    return {
        "none": plan_transformer(NoHead(kind="none"), qk_scale=0.3, qkv_bias=False),
        "before": plan_transformer(NeckHead(kind="bnneck", classes=5, feature="before")),
        "resized": plan_transformer(after, rows=6, columns=3, position="dino"),
        "bilinear": plan_transformer(after, rows=6, columns=3),
        "ics": plan_transformer(after, **ics),
        "sie": plan_transformer(after, cameras=3, unknown_camera=True),
        "jpm": plan_transformer(JPM, **odd),
        "parts": plan_transformer(PartsHead(kind="parts", classes=5, feature="after"), pooling="parts", parts=3),
    }


def fill(network: nn.Module) -> None:
    """Gives every tensor of a network numbers that matter: attention that is not even, norms with statistics."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var") or (value.dim() == 1 and name.endswith("weight")):
                value.uniform_(0.5, 1.5)
            elif value.is_floating_point():
                value.normal_(std=0.3)


def write_transformer(path: Path, plan: NetworkPlan, **more: Any) -> Network:
    """A checkpoint of such a network, filled; returns the network in evaluation mode.

    Args:
        path: of the checkpoint.
        plan: of the network.
        more: fields of its header.
    """
    torch.manual_seed(0)
    network = build_network(plan).eval()
    fill(network)
    pixels = Pixels(height=HEIGHT, width=WIDTH, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bilinear")
    write_checkpoint(path, network.state_dict(), make_header(plan, preprocessing=describe_pixels(pixels), **more))
    return network
