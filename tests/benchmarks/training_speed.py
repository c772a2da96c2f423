"""What the training loop costs beyond its necessary work; run by hand on a quiet machine.

    python tests/benchmarks/training_speed.py loader    images/s of the training loader beside a bare decode loop
    python tests/benchmarks/training_speed.py step      a pre-training step beside forward, backward and optimizer alone

Both sides of a ratio are measured in turns in one process, on the same drawn images; the median of the rounds counts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from lupctl.core.formats.images import decode_rgb
from lupctl.core.formats.pack import open_pack
from lupctl.core.loading.images import PackImages
from lupctl.core.loading.loaders import StepDataset, open_loader
from lupctl.core.loading.samplers import ShuffledOrder
from lupctl.core.loading.transform import make_view
from lupctl.core.loading.views import build_view_plan
from lupctl.core.progress import Progress
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain.loop import build_method
from lupctl.core.train.optim import build_optimizer

BATCH = 128
MEASURED_STEPS = 64


def draw_pack(folder: Path, persons: int, height: int) -> Path:
    """A pack of drawn persons, half as wide as high."""
    source = SyntheticSource(SyntheticPlan(unlabelled_persons=persons, height=height, width=height // 2))
    return pack(source, out=folder / "drawn.h5", progress=Progress(quiet=True)).path


def small_recipe(arch: str, width: int) -> PretrainRecipe:
    """The recipe for small data, at a chosen size of network."""
    flags = {"net.arch": arch, "net.width": width, "data.batch": BATCH}
    recipe = resolve_recipe("pretrain", "small-moco", flags=flags)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def measure_loader(path: Path, rounds: int) -> None:
    """One worker of the training loader (two views drawn per image) against one process that only decodes."""
    recipe = small_recipe("r18", 16)
    made = open_pack(path)
    order = ShuffledOrder(len(made), batch=BATCH, seed=1)
    plan = build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump())
    dataset = StepDataset(PackImages([made]), order, (plan, plan), seed=1)
    steps = order.steps_per_epoch
    rows = [int(row) for step in range(steps) for row in order.rows(step)]

    def decode() -> None:
        for row in rows:
            decode_rgb(made.read(row))

    def load() -> float:
        batches = open_loader(dataset, range(10**6), workers=1, pin=False)
        for _ in range(16):  # the worker's start is not the loop's cost; neither is the prefetch it begins with
            next(batches)
        return seconds(lambda: [next(batches) is None for _ in range(MEASURED_STEPS)])

    ratios = []
    for _ in range(rounds):
        bare = seconds(decode) / len(rows)
        loaded = load() / (MEASURED_STEPS * BATCH)
        ratios.append(bare / loaded)
        print(f"bare decode {1 / bare:,.0f} images/s, loader with one worker {1 / loaded:,.0f}, ratio {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f} (to reach: 0.85)")


def measure_step(path: Path, rounds: int, arch: str, width: int) -> None:
    """A whole step, data and transforms included, against the network's work on ready tensors of the same shapes."""
    recipe = small_recipe(arch, width)
    device = torch.device("cpu")
    made = open_pack(path)
    order = ShuffledOrder(len(made), batch=BATCH, seed=1)
    view = build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump())
    dataset = StepDataset(PackImages([made]), order, (view, view), seed=1)
    torch.manual_seed(1)
    method = build_method(recipe, device)
    optimizer = build_optimizer(method.encoder_q.parameters(), name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4)

    def update(first: torch.Tensor, second: torch.Tensor) -> None:
        loss, _ = method(first, second, 0)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    batches = open_loader(dataset, range(10**6), workers=1, pin=False)
    ready = [make_view(view, next(batches).pixels, draws) for draws in next(batches).views]
    for _ in range(3):
        update(*ready)

    def whole() -> None:
        batch = next(batches)
        update(*(make_view(view, batch.pixels, draws) for draws in batch.views))

    bare, full = [], []
    for _ in range(rounds):
        bare.append(seconds(lambda: update(*ready)))
        full.append(seconds(whole))
    ratio = statistics.median(full) / statistics.median(bare)
    print(
        f"{arch} width {width}, batch {BATCH} at {view.height}x{view.width}: network alone "
        f"{1000 * statistics.median(bare):.0f} ms, whole step {1000 * statistics.median(full):.0f} ms, "
        f"ratio {ratio:.3f} (to reach: 1.05)"
    )


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["loader", "step"])
    parser.add_argument("--persons", type=int, default=1500)
    parser.add_argument("--height", type=int, default=128, help="of the drawn images")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--arch", default="r18")
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        path = draw_pack(Path(folder), options.persons, options.height)
        if options.what == "loader":
            measure_loader(path, options.rounds)
        else:
            measure_step(path, options.rounds, options.arch, options.width)


if __name__ == "__main__":
    main()
