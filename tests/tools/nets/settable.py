"""A workspace with networks of which something can be set: a Swin with a controller, a transformer, an mgn."""

import json
import shutil
from pathlib import Path
from typing import Final

import torch

from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import describe_pixels
from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.recipes.sections import Pixels
from lupctl.core.training.nets.build import build_network
from tests.tools.networks import jpm_head, make_header, mgn_heads, neck, no_head, plan_network, tiny_vit
from tests.tools.transformers import fill

OWN_WEIGHT: Final = 0.2
PIXELS: Final = Pixels(height=32, width=16)


def swin_network(*, weight: float | None = OWN_WEIGHT) -> NetworkPlan:
    """A Swin of one block in each stage, with BNNeck; without a controller where there is no weight."""
    trunk = plan_swin("swin-u", depths=(1, 1, 1, 1), patch=2, window=4, semantic_weight=weight)
    return NetworkPlan(trunk=trunk, pooling="avg", head=neck(6))


def networks() -> dict[str, NetworkPlan]:
    """One of each kind, by the name of its run."""
    vit = tiny_vit(patch=8, stride=8, rows=4, columns=2)
    return {
        "resnet": plan_network(neck(6)),
        "mgn": plan_network(mgn_heads(6), pooling="gem"),
        "bare": swin_network(weight=None),
        "vit": NetworkPlan(trunk=vit, pooling="token", head=neck(6)),
        "jpm": NetworkPlan(trunk=vit, pooling="token", head=jpm_head(6)),
        "pre": NetworkPlan(trunk=swin_network().trunk, pooling="avg", head=no_head()),
        "swin": swin_network(),
    }


def write_run(home: Path, name: str) -> Path:
    """A finished run of the network of this name, trained on the workspace's pack; returns its checkpoint."""
    plan, run = networks()[name], home / "runs" / name
    run.mkdir(parents=True)
    torch.manual_seed(1)
    network = build_network(plan).eval()
    fill(network)
    path = run / "checkpoint.safetensors"
    write_checkpoint(path, network.state_dict(), make_header(plan, preprocessing=describe_pixels(PIXELS)))
    facts = {"command": "finetune", "dataset": "labelled", "pack": str(home / "packs" / "labelled.h5")}
    (run / "run.json").write_text(json.dumps(facts))
    return path


def make_space(home: Path, labelled: Path, *names: str) -> Path:
    """A workspace with the pack and runs of these networks."""
    (home / "packs").mkdir(parents=True)
    shutil.copy(labelled, home / "packs" / "labelled.h5")
    for name in names:
        write_run(home, name)
    return home
