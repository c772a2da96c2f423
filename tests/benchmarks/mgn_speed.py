"""What dumping and fine-tuning an MGN at 384 x 128 cost beyond the network's own work; run on a quiet machine.

    python tests/benchmarks/mgn_speed.py dump     chunks of a dump (decoded, resized, written) beside forward passes
    python tests/benchmarks/mgn_speed.py step     a fine-tuning step beside forward, backward and Adam
    python tests/benchmarks/mgn_speed.py start    `lupctl dump` of one image beside `import torch`

Both sides of a ratio are measured in turns in one process; the median of the rounds counts.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import cv2
import torch

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.formats.features.chunks import open_chunks
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.ranking.retrieval.extract import Encoder, embed_steadily
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune.criterion import measure
from lupctl.core.stages.finetune.job import build_order, network_plan
from lupctl.core.stages.finetune.persons import pick_rows
from lupctl.core.stages.pack import pack
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import ChunkDataset, StepDataset, open_loader
from lupctl.core.training.nets.build import build_mgn
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import build_view_plan

PERSONS = 751
# Of one dump; more of them hide more of its worker's start.
CHUNKS = 6


def draw_pack(folder: Path) -> Pack:
    """A pack of drawn persons in the size of Market-1501's images."""
    plan = SyntheticPlan(train_persons=16, test_persons=16, cameras=4, shots=2, height=128, width=64)
    return open_pack(pack(SyntheticSource(plan), out=folder / "drawn.h5", progress=Progress(quiet=True)).path)


def find_recipe(images: int, height: int = 384) -> FinetuneRecipe:
    """LUPerson's MGN with a batch of four persons with so many images each, in one group."""
    flags = {"start": "scratch", "data.images": images, "bn_groups": 1}
    flags |= {"pixels.height": height, "pixels.width": height // 3}
    recipe = resolve_recipe("finetune", "mgn-luperson", flags=flags)
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def compare(name: str, bare: Callable[[], object], whole: Callable[[], object], rounds: int) -> None:
    """Times both in turns and prints the ratio of the medians."""
    for work in (bare, whole):
        work()
    pairs = [(seconds(bare), seconds(whole)) for _ in range(rounds)]
    one, other = (statistics.median(times) for times in zip(*pairs, strict=True))
    ratios = ", ".join(f"{full / alone:.3f}" for alone, full in pairs)
    print(f"{name}: network alone {one:.2f} s, whole {other:.2f} s, ratio {other / one:.3f} (to reach: 1.05; {ratios})")


def measure_dump(folder: Path, rounds: int, chunk: int, height: int) -> None:
    """Chunks through loader, transform, network and file, against the network on a ready tensor as many times.

    A CPU computes several chunks at once and ahead, so whole dumps are timed, the start of their worker included.
    """
    made, recipe = draw_pack(folder), find_recipe(2, height)
    network = build_mgn(network_plan(recipe, PERSONS)).eval()
    encoder = Encoder(network, build_view_plan(recipe.pixels.model_dump()), torch.device("cpu"), torch.float32)
    dataset = ChunkDataset(PackImages([made]), encoder.view, chunk=chunk)
    ready = torch.randn(chunk, 3, encoder.view.height, encoder.view.width)
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

        compare(f"dump, R50, {len(numbers)} chunks of {chunk}", bare, whole, rounds)


def measure_step(folder: Path, rounds: int, images: int, height: int) -> None:
    """A whole fine-tuning step against forward, backward and Adam on a ready tensor."""
    made, recipe = draw_pack(folder), find_recipe(images, height)
    train = pick_rows(recipe, [made])
    order = build_order(recipe, train.label, train.camera)
    view = build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump())
    dataset = StepDataset(PackImages([made], train.rows), order, (view,), seed=1)
    network = build_mgn(network_plan(recipe, PERSONS)).train()
    optimizer = build_optimizer([network], **recipe.optim.model_dump(exclude={"clip", "clip_scope"}))
    label_of = torch.from_numpy(train.label)
    ready = torch.randn(4 * images, 3, view.height, view.width)
    batches = open_loader(dataset, range(10**6), workers=1, pin=False)

    def update(loss: torch.Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def bare() -> None:
        update(network(ready).square().mean())

    def whole() -> None:
        batch = next(batches)
        pixels = make_view(view, batch.pixels, batch.views[0])
        update(measure(recipe, network, pixels, label_of[batch.rows], torch.float32)["loss"])

    compare(f"fine-tuning step, R50, batch {4 * images}", bare, whole, rounds)


def measure_start(folder: Path, rounds: int) -> None:
    """`lupctl dump` of one image with the network of Market-1501, from the shell and back."""
    recipe = find_recipe(2)
    plan = network_plan(recipe, PERSONS)
    header = CheckpointHeader(
        stage="finetune",
        command=(),
        recipe=None,
        network=plan,
        preprocessing=describe_pixels(recipe.pixels),
        classes=(),
        parents={},
        data=(),
    )
    write_checkpoint(folder / "mgn.safetensors", build_mgn(plan).state_dict(), header)
    (folder / "one").mkdir()
    image = decode_rgb(draw_pack(folder).read(0))
    cv2.imwrite(str(folder / "one" / "image.jpg"), image[:, :, ::-1])
    code = "from lupctl.cli.app import main; main()"
    words = ["dump", str(folder / "mgn.safetensors"), str(folder / "one"), "--out", str(folder / "f.h5"), "--force"]
    wall, spent = [], []
    for _ in range(rounds):
        times = []
        for arguments in (["import torch"], [code, *words, "--device", "cpu", "--quiet"]):
            before = os.times()
            took = seconds(partial(subprocess.run, [sys.executable, "-c", *arguments], check=True))
            after = os.times()
            used = after.children_user + after.children_system - before.children_user - before.children_system
            times.append((took, used))
        wall.append(times[1][0] - times[0][0])
        spent.append(times[1][1] - times[0][1])
    print(
        f"dump of one image beyond import torch: {statistics.median(wall):.2f} s on the clock, "
        f"{statistics.median(spent):.2f} s of processor (to reach: 3)"
    )


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["dump", "step", "start"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--chunk", type=int, default=8, help="images of a chunk of a dump")
    parser.add_argument("--images", type=int, default=4, help="images of each of the four persons of a step")
    parser.add_argument("--height", type=int, default=384, help="of the network's images, three times their width")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        match options.what:
            case "dump":
                measure_dump(Path(folder), options.rounds, options.chunk, options.height)
            case "step":
                measure_step(Path(folder), options.rounds, options.images, options.height)
            case "start":
                measure_start(Path(folder), options.rounds)


if __name__ == "__main__":
    main()
