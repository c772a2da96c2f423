"""The trunk of a Swin transformer beside timm's of the same shape and weights; run on a quiet machine.

    python tests/benchmarks/swin_speed.py            at 224 x 224, where both compute the same (to reach: 1.00)
    python tests/benchmarks/swin_speed.py --person   at 256 x 128, where timm's windows are not those of SOLIDER
    python tests/benchmarks/swin_speed.py --dump     a dump at 256 x 128 beside its passes (to reach: at most 1.05)

It compares a forward pass without gradients, and a training step (forward, backward, SGD), as `vit_speed.py` does.
`--processor` counts processor time instead of time on the clock: for one thread (OMP_NUM_THREADS=1) where the machine
is not quiet.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import timm.models.swin_transformer as timm_swin
import torch
from torch import Tensor
from vit_speed import compare, forward, measure_dump, step

from lupctl.core.choices import SwinArch
from lupctl.core.formats.weights.plan import NeckHead, NetworkPlan
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.formats.weights.trunk_plan import plan_trunk
from lupctl.core.recipes.sections import Net, Pixels
from lupctl.core.recipes.swin_sections import SwinNet
from lupctl.core.training.nets.swin.trunk import SwinTrunk

SQUARE, PERSON = (224, 224), (256, 128)


def measure(
    arch: SwinArch, size: tuple[int, int], *, fused: bool, batch: int, rounds: int, clock: Callable[[], float]
) -> None:
    """Both comparisons."""
    plan = plan_swin(arch)
    trunk = SwinTrunk(plan)
    theirs = timm_swin.SwinTransformer(
        img_size=size,
        embed_dim=plan.dim,
        depths=plan.depths,
        num_heads=plan.heads,
        num_classes=0,
        drop_path_rate=0.0,
        always_partition=size == SQUARE,
    )
    for layer in theirs.layers:
        for block in layer.blocks:
            block.attn.fused_attn = fused
    images = torch.randn(batch, 3, *size)

    def ours(images: Tensor) -> Tensor:
        return trunk(images).map  # type: ignore[no-any-return]

    name = f"{arch}, {size[0]} x {size[1]}, batch {batch}{', timm fused' if fused else ''}"
    other = theirs.forward_features
    compare(f"step, {name}", step(trunk, ours, images), step(theirs, other, images), rounds, clock=clock)
    trunk.eval()
    theirs.eval()
    compare(f"forward, {name}", forward(ours, images), forward(other, images), rounds, clock=clock)


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", choices=["swin-u", "swin-t", "swin-s", "swin-b"], default="swin-t")
    parser.add_argument("--person", action="store_true", help="images of 256 x 128")
    parser.add_argument("--dump", action="store_true", help="a dump beside forward passes, as in vit_speed.py")
    parser.add_argument("--fused", action="store_true", help="timm's attention in one kernel too; it writes it out")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processor", action="store_true", help="count processor time")
    given = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    clock = time.process_time if given.processor else time.perf_counter
    if given.dump:
        pixels = Pixels(height=PERSON[0], width=PERSON[1])
        trunk = plan_trunk(Net(arch=given.arch, pooling="avg"), pixels, vit=None, swin=SwinNet())
        head = NeckHead(kind="bnneck", classes=751, feature="before")
        plan = NetworkPlan(trunk=trunk, pooling="avg", head=head)
        with tempfile.TemporaryDirectory() as folder:
            measure_dump(Path(folder), given.arch, plan, given.batch, given.rounds, clock=clock)
        return
    size = PERSON if given.person else SQUARE
    measure(given.arch, size, fused=given.fused, batch=given.batch, rounds=given.rounds, clock=clock)


if __name__ == "__main__":
    main()
