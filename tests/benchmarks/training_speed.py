"""What the training loop costs beyond its necessary work; run by hand on a quiet machine.

    python tests/benchmarks/training_speed.py loader    images/s of the training loader beside a bare decode loop
    python tests/benchmarks/training_speed.py loader --recipe dino-vit-s                 the same with ten views drawn
    python tests/benchmarks/training_speed.py step      a pre-training step beside forward, backward and optimizer alone
    python tests/benchmarks/training_speed.py step --recipe luperson-moco --arch r50 --height 256 --batch 16

Both sides of a ratio are measured in turns in one process, on the same drawn images; the median of the rounds counts.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.setup import build_trained, open_batches, set_up
from lupctl.core.stages.pretrain.step import take_step
from lupctl.core.stages.pretrain.views import view_plans
from lupctl.core.stages.pretrain.watch import Watch
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.log import LoopLog
from lupctl.core.training.engine.parts import each_part
from lupctl.core.training.engine.runs import RunFolder, read_metrics
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import StepDataset, open_loader
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.losses.contrastive import info_nce
from lupctl.core.training.methods.moco import MoCo
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import ViewPlan

CPU = Placement("cpu", 1, "")
BATCH = 128


def draw_pack(folder: Path, persons: int, height: int) -> Path:
    """A pack of drawn persons, half as wide as high."""
    source = SyntheticSource(SyntheticPlan(unlabelled_persons=persons, height=height, width=height // 2))
    return pack(source, out=folder / "drawn.h5", progress=Progress(quiet=True)).path


def sized_recipe(name: str, arch: str, width: int, batch: int, groups: int) -> PretrainRecipe:
    """A shipped recipe at a chosen size of network, batch and batch-norm groups."""
    flags = {"net.arch": arch, "net.width": width, "data.batch": batch, "bn_groups": groups}
    recipe = resolve_recipe("pretrain", name, flags=flags)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def processor_seconds(work: Callable[[], object]) -> float:
    """Processor time that one call takes of this process."""
    started_at = time.process_time()
    work()
    return time.process_time() - started_at


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def measure_loader(path: Path, rounds: int, steps: int, plans: tuple[ViewPlan, ...]) -> None:
    """One worker of the training loader (all views drawn per image) against one process that only decodes."""
    made = open_pack(path)
    order = ShuffledOrder(len(made), batch=BATCH, seed=1)
    dataset = StepDataset(PackImages([made]), order, plans, seed=1)
    rows = [int(row) for step in range(order.steps_per_epoch) for row in order.rows(step)]

    def decode() -> None:
        for row in rows:
            decode_rgb(made.read(row))

    def load() -> float:
        batches = open_loader(dataset, range(10**6), workers=1, pin=False)
        for _ in range(16):  # the worker's start is not the loop's cost; neither is the prefetch it begins with
            next(batches)
        spent = seconds(lambda: [next(batches) is None for _ in range(steps)])
        batches.close()
        return spent

    ratios = []
    for _ in range(rounds):
        bare = seconds(decode) / len(rows)
        loaded = load() / (steps * BATCH)
        ratios.append(bare / loaded)
        print(f"bare decode {1 / bare:,.0f} images/s, loader with one worker {1 / loaded:,.0f}, ratio {ratios[-1]:.3f}")
    print(f"median ratio {statistics.median(ratios):.3f} (to reach: 0.85)")


def measure_step(path: Path, rounds: int, recipe: PretrainRecipe) -> None:
    """Whole steps as the loop takes them against forward, backward and optimizer on ready tensors of the same shapes.

    Both take one batch-norm group after the other; sums of gradients in double precision are the loop's alone.

    Processor time of this process counts, which a busy machine does not stretch; the worker's is not the loop's. The
    share of waiting is in wall time, and wants a core for the worker.
    """
    job = PretrainJob(recipe=recipe, packs=(path,), run=path.parent / "run", placement=CPU, workers=1, command=())
    setup = set_up(job, torch.float32)
    trained = build_trained(recipe, setup)
    method, optimizer = trained.method, trained.optimizer
    assert isinstance(method, MoCo)
    parts, temperature = trained.gradients.parts, recipe.settings.temperature
    batches = open_batches(setup, range(10**6), seed=recipe.seed)
    quiet, watch = Progress(quiet=True), Watch(recipe, setup.order.epochs(1), rows=(), start=0)
    job.run.mkdir()
    log = LoopLog(
        RunFolder(job.run), start=0, total=10**6, batch=recipe.data.batch, epochs=setup.order.epochs(1),
        is_writer=True, progress=quiet,
    )  # fmt: skip

    def plain(first: torch.Tensor, second: torch.Tensor, step: int) -> None:
        keys = method.encode_keys(second, step, parts=parts)
        for some in each_part(method.student, parts):
            loss, _ = info_nce(method.student(first[some]), keys.own[some], method.queue.features, temperature)
            (loss / parts).backward()
        method.queue.push(keys.every)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.follow(trained.curves.now(step))

    def whole(step: int) -> None:
        log.meter.wait()
        batch = next(batches)
        log.meter.work()
        log.note_damage(batch.damaged)
        log.add(**watch.keep(take_step(recipe, setup, trained, batch, trained.curves.now(step))))
        with quiet.task("", total=1, unit="steps") as bar:
            # Every step, where the loop does so every tenth.
            log.write_step(10, rate=0.01, is_due=False, bar=bar, more=watch.read)

    batch = next(batches)
    first, second = (make_view(plan, batch.pixels, draws) for plan, draws in zip(setup.views, batch.views, strict=True))
    bare, full, waits = list[float](), list[float](), list[float]()
    for number in range(rounds + 1):
        spent = [processor_seconds(partial(plain, first, second, number)), processor_seconds(partial(whole, number))]
        if number:  # the first round warms up
            bare.append(spent[0])
            full.append(spent[1])
            waits.append(read_metrics(job.run)[-1]["data_wait"])
    batches.close()
    ratio = statistics.median(each / alone for each, alone in zip(full, bare, strict=True))
    print(
        f"{recipe.net.arch} width {recipe.net.width}, batch {recipe.data.batch} at "
        f"{recipe.pixels.height}x{recipe.pixels.width}: network alone {1000 * statistics.median(bare):.0f} ms, "
        f"whole step {1000 * statistics.median(full):.0f} ms, ratio {ratio:.3f} (to reach: 1.03); "
        f"waiting for data {statistics.median(waits):.1%} (to reach: 2 %)"
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
    parser.add_argument("--recipe", default="small-moco")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--groups", type=int, default=1)
    parser.add_argument("--steps", type=int, default=64, help="of the loader in each round")
    options = parser.parse_args()
    print(f"{torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        path = draw_pack(Path(folder), options.persons, options.height)
        if options.what == "loader":
            recipe = resolve_recipe("pretrain", options.recipe)
            assert isinstance(recipe, PretrainRecipe)
            measure_loader(path, options.rounds, options.steps, view_plans(recipe))
        else:
            size = options.arch, options.width, options.batch, options.groups
            measure_step(path, options.rounds, sized_recipe(options.recipe, *size))


if __name__ == "__main__":
    main()
