"""The trunk of a vision transformer beside others of the same shape and weights; run on a quiet machine.

    python tests/benchmarks/vit_speed.py timm      stride 16: beside timm's, with fused attention too (to reach: 1.00)
    python tests/benchmarks/vit_speed.py plain     stride 12: beside the same network written out, with a softmax
    python tests/benchmarks/vit_speed.py jpm       stride 12, with cameras and the jigsaw patch module, beside the trunk
    python tests/benchmarks/vit_speed.py dump      chunks of a dump beside forward passes (to reach: at most 1.05)

The first three compare a forward pass without gradients, and a training step (forward, backward, SGD). `dump` compares
six chunks that are decoded, resized, normalised, embedded and written with as many passes over a ready tensor. Both
sides of a ratio are measured in turns in one process, and who begins a round alternates; the median of the rounds
counts. `--processor` counts processor time instead of time on the clock, of this process alone and not of one that
decodes: for one thread (OMP_NUM_THREADS=1) where the machine is not quiet.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import timm.models.vision_transformer as timm_vit
import torch
from mgn_speed import CHUNKS, draw_pack
from torch import Tensor, nn

from lupctl.core.choices import ViTArch
from lupctl.core.formats.features.chunks import open_chunks
from lupctl.core.formats.weights.plan import JpmHead, NeckHead, NetworkPlan
from lupctl.core.formats.weights.trunk_plan import plan_trunk
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.ranking.retrieval.extract import Encoder, embed_steadily
from lupctl.core.recipes.sections import Net, Pixels
from lupctl.core.recipes.vit_sections import VitNet
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import ChunkDataset
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.vit.trunk import ViTTrunk
from lupctl.core.training.views.plan import build_view_plan

HEIGHT, WIDTH = 256, 128


class Plain(nn.Module):
    """The class token of a trunk, written out from the definitions, with the trunk's own parameters.

    Args:
        trunk: its parameters are used, its code is not.
    """

    def __init__(self, trunk: ViTTrunk) -> None:
        super().__init__()
        self.trunk: Any = trunk

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D)."""
        trunk, (batch, dim) = self.trunk, (len(images), self.trunk.num_features)
        patches = trunk.patch_embed.proj(images).flatten(2).transpose(1, 2)
        x = torch.cat([trunk.cls_token.expand(batch, -1, -1), patches], dim=1) + trunk.pos_embed
        for block in trunk.blocks:
            heads = block.attn.heads
            qkv = block.attn.qkv(block.norm1(x)).reshape(batch, -1, 3, heads, dim // heads).permute(2, 0, 3, 1, 4)
            attention = (qkv[0] @ qkv[1].transpose(2, 3) * (dim // heads) ** -0.5).softmax(dim=-1)
            x = x + block.attn.proj((attention @ qkv[2]).transpose(1, 2).reshape(batch, -1, dim))
            x = x + block.mlp.fc2(nn.functional.gelu(block.mlp.fc1(block.norm2(x))))
        token: Tensor = trunk.norm(x)[:, 0]
        return token


def build_timm(plan: ViTPlan, trunk: ViTTrunk) -> nn.Module:
    """timm's network with the same weights; its output is the class token after the last norm."""
    theirs = timm_vit.VisionTransformer(
        img_size=(HEIGHT, WIDTH), embed_dim=plan.dim, depth=plan.depth, num_heads=plan.heads, num_classes=0
    )
    assert all(block.attn.fused_attn for block in theirs.blocks)
    theirs.load_state_dict(trunk.state_dict())
    return theirs


def compare(
    name: str, ours: Callable[[], object], other: Callable[[], object], rounds: int, *, clock: Callable[[], float]
) -> None:
    """Times both in turns and prints the ratio of the medians, and smallest, median and largest ratio of the rounds."""

    def seconds(work: Callable[[], object]) -> float:
        started_at = clock()
        work()
        return clock() - started_at

    for work in (ours, other):
        work()
    pairs = []
    for round_ in range(rounds):
        if round_ % 2:
            pairs.append((seconds(ours), seconds(other)))
        else:
            later, earlier = seconds(other), seconds(ours)
            pairs.append((earlier, later))
    mine, theirs = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = sorted(own / its for own, its in pairs)
    middle = statistics.median(ratios)
    print(
        f"{name}: ours {mine:.3f} s, other {theirs:.3f} s, ratio {mine / theirs:.3f}; "
        f"by rounds {ratios[0]:.3f} {middle:.3f} {ratios[-1]:.3f}"
    )


def forward(network: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], object]:
    """A forward pass without gradients."""

    def work() -> None:
        with torch.no_grad():
            network(images)

    return work


def step(module: nn.Module, network: Callable[[Tensor], Tensor], images: Tensor) -> Callable[[], object]:
    """Forward pass, backward pass and an update that changes nothing to speak of."""
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-9, momentum=0.9)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        network(images).square().mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return work


def measure(what: str, arch: ViTArch, batch: int, rounds: int, *, clock: Callable[[], float]) -> None:
    """One of the first three comparisons."""
    stride = 16 if what == "timm" else 12
    plan = plan_trunk(Net(arch=arch), Pixels(height=HEIGHT, width=WIDTH), vit=VitNet(stride=stride))
    assert isinstance(plan, ViTPlan)
    images = torch.randn(batch, 3, HEIGHT, WIDTH)
    trunk = ViTTrunk(plan)

    def token(images: Tensor) -> Tensor:
        found = trunk(images).token
        assert found is not None
        return found

    name = f"{arch}, stride {plan.stride}, batch {batch}"
    sides: tuple[nn.Module, Callable[[Tensor], Tensor], nn.Module, Callable[[Tensor], Tensor]]
    match what:
        case "timm":
            theirs = build_timm(plan, trunk)
            sides = (trunk, token, theirs, theirs)
        case "plain":
            plain = Plain(trunk)
            sides = (trunk, token, plain, plain)
        case _:
            head = JpmHead(kind="jpm", classes=751, feature="before", shift=5, groups=2, parts=4)
            with_cameras = plan.model_copy(update={"cameras": 6})
            network: Any = build_network(NetworkPlan(trunk=with_cameras, pooling="token", head=head))
            cameras = torch.arange(batch) % 6
            sides = (network, lambda images: network(images, cameras)[0], trunk, token)
    ours, run_ours, other, run_other = sides
    compare(f"step, {name}", step(ours, run_ours, images), step(other, run_other, images), rounds, clock=clock)
    ours.eval()
    other.eval()
    compare(f"forward, {name}", forward(run_ours, images), forward(run_other, images), rounds, clock=clock)


def plan_network(arch: ViTArch) -> NetworkPlan:
    """The network of a dump."""
    trunk = plan_trunk(Net(arch=arch), Pixels(height=HEIGHT, width=WIDTH), vit=VitNet())
    return NetworkPlan(trunk=trunk, pooling="token", head=NeckHead(kind="bnneck", classes=751, feature="before"))


def measure_dump(
    folder: Path, name: str, plan: NetworkPlan, chunk: int, rounds: int, *, clock: Callable[[], float]
) -> None:
    """Chunks through loader, transform, network and file, against the network on a ready tensor as many times."""
    pixels = Pixels(height=HEIGHT, width=WIDTH)
    network = build_network(plan).eval()
    encoder = Encoder(network, build_view_plan(pixels.model_dump()), torch.device("cpu"), torch.float32)
    dataset = ChunkDataset(PackImages([draw_pack(folder)]), encoder.view, chunk=chunk)
    ready = torch.randn(chunk, 3, HEIGHT, WIDTH)
    numbers = range(min(CHUNKS, len(dataset)))
    with open_chunks(folder / "f.h5", {}, "float32", count=len(dataset)) as chunks:

        def bare() -> None:
            with torch.no_grad():
                for _ in numbers:
                    network.embed(ready)

        def whole() -> None:
            with closing(embed_steadily(encoder, dataset, numbers, workers=1, flip=False)) as found:
                for number, (damaged, vectors) in zip(numbers, found, strict=True):
                    chunks.append(number, vectors, list(damaged))

        compare(f"dump, {name}, {len(numbers)} chunks of {chunk}", whole, bare, rounds, clock=clock)


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["timm", "plain", "jpm", "dump"])
    parser.add_argument("--arch", choices=["vit-t", "vit-s", "vit-b"], default="vit-s")
    parser.add_argument("--batch", type=int, default=8, help="images of a pass, or of a chunk of a dump")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--processor", action="store_true", help="count processor time")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    clock = time.process_time if options.processor else time.perf_counter
    if options.what == "dump":
        with tempfile.TemporaryDirectory() as folder:
            name, plan = options.arch, plan_network(options.arch)
            measure_dump(Path(folder), name, plan, options.batch, options.rounds, clock=clock)
    else:
        measure(options.what, options.arch, options.batch, options.rounds, clock=clock)


if __name__ == "__main__":
    main()
