"""What bfloat16 and channels-last convolutions save on this processor; run by hand on a quiet machine.

    python tests/benchmarks/precision_speed.py                        all of the table
    python tests/benchmarks/precision_speed.py --only small-moco dump-r50
    TORCHINDUCTOR_COMPILE_THREADS=1 python tests/benchmarks/precision_speed.py --only dump-r50 --compile

Training steps are those of the recipes on random pixels, with `precision` float32 and bf16. Dumps are forward passes of
groups of 16 images as `lupctl dump` takes them: in float32 with channels first, as they were once, in float32, and in
bf16; with `--compile` also as compiled code, after what compiling costs. The ways are measured in turns in one process
and one thread; medians of processor time count.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Literal

import numpy as np
import torch

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.ranking.retrieval.extract import GROUP
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune import speed as finetune_speed
from lupctl.core.stages.finetune.job import network_plan
from lupctl.core.stages.pretrain import speed as pretrain_speed
from lupctl.core.stages.pretrain.job import student_plan
from lupctl.core.system.jobs.compiling import CompiledPasses
from lupctl.core.system.jobs.precision import autocast, measure_cpu, name_precision
from lupctl.core.training.nets import mgn
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.resnet import trunk

CPU = torch.device("cpu")
Stage = Literal["pretrain", "finetune"]
Embed = Callable[[torch.Tensor, torch.Tensor | None], torch.Tensor]
R50 = ("data.batch=8", "bn_groups=1", "moco.queue=64")
MGN = ("data.persons=2", "data.images=4", "bn_groups=1")
STEPS: dict[str, tuple[Stage, tuple[str, ...], float | None]] = {
    "luperson-moco": ("pretrain", R50, 0.5),
    "mgn-luperson": ("finetune", MGN, 0.5),
    "small-moco": ("pretrain", (), 0.65),
    "small-bot": ("finetune", (), 0.65),
    "small-dino": ("pretrain", (), 0.6),
    "small-vit": ("finetune", (), None),
    "small-swin": ("finetune", (), None),
}
# Goals of a dump in float32 and in bf16.
DUMPS: dict[str, tuple[Stage, str, float | None, float]] = {
    "dump-r50": ("pretrain", "luperson-moco", 0.85, 0.5),
    "dump-mgn": ("finetune", "mgn-luperson", None, 0.4),
}


def thread_seconds(work: Callable[[], object]) -> float:
    """Processor time of one call in this thread."""
    began = time.thread_time()
    work()
    return time.thread_time() - began


def compare(name: str, ways: Mapping[str, tuple[Callable[[], float], float | None]], rounds: int) -> None:
    """Prints the seconds of each way and its share of the first."""
    spent: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way, (measure, _) in ways.items():
            spent[way].append(measure())
    first = next(iter(spent.values()))
    for way, (_, goal) in ways.items():
        share = statistics.median(own / base for own, base in zip(spent[way], first, strict=True))
        reach = "" if goal is None else f" (to reach: {goal})"
        print(f"{name:14} {way:24} {statistics.median(spent[way]):7.3f} s  {share:.2f}{reach}", flush=True)


def step_seconds(name: str, precision: str) -> float:
    """Processor time of one training step of a recipe, after one that is not counted."""
    stage, overrides, _ = STEPS[name]
    recipe = resolve_recipe(stage, name, overrides=(*overrides, f"precision={precision}"))
    match recipe:
        case PretrainRecipe():
            return pretrain_speed.time_step(recipe, CPU, budget_s=0)
        case FinetuneRecipe():
            return finetune_speed.time_step(recipe, CPU, budget_s=0)
        case _:
            raise AssertionError(recipe)


def processor_calls(step: Callable[[], object], device: torch.device, *, budget_s: float) -> float:
    """In the place of `time_calls`, which counts wall time."""
    step()
    return thread_seconds(step)


def find_network(stage: Stage, name: str) -> tuple[NetworkPlan, int, int]:
    """The network whose features a dump makes, and the pixels of its input."""
    recipe = resolve_recipe(stage, name)
    match recipe:
        case PretrainRecipe():
            plan = student_plan(recipe)
        case FinetuneRecipe():
            plan = network_plan(recipe, 0)
        case _:
            raise AssertionError(recipe)
    return plan, recipe.pixels.height, recipe.pixels.width


@contextmanager
def channels_first() -> Iterator[None]:
    """Networks take images as they come."""
    modules = (vars(trunk), vars(mgn))
    before = modules[0]["lay_out"]
    try:
        for names in modules:
            names["lay_out"] = lambda images, *, training: images
        yield
    finally:
        for names in modules:
            names["lay_out"] = before


def dump_seconds(embed: Embed, images: torch.Tensor, kind: torch.dtype) -> float:
    """Processor time of a group's features."""
    with torch.no_grad(), autocast(CPU, kind):
        return thread_seconds(lambda: embed(images, None).float())


def first_seconds(embed: Embed, images: torch.Tensor) -> float:
    """The same in float32, with channels first."""
    with channels_first():
        return dump_seconds(embed, images, torch.float32)


def compile_passes(embed: Embed, images: torch.Tensor, kind: torch.dtype) -> CompiledPasses:
    """Compiled passes over so many images; prints the processor time of the first, compilers included."""
    passes = CompiledPasses(embed, len(images))
    before = process_seconds()
    dump_seconds(passes, images, kind)
    print(f"compiling for {kind}: {process_seconds() - before:.1f} s", flush=True)
    return passes


def process_seconds() -> float:
    """Processor time of this process and of those that it has waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=[*STEPS, *DUMPS], default=[*STEPS, *DUMPS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--group", type=int, default=GROUP, help="images of a pass of a dump")
    parser.add_argument("--compile", action="store_true", help="dumps as compiled code, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"bf16: {measure_cpu().describe()}")
    for module in (pretrain_speed, finetune_speed):
        vars(module)["time_calls"] = processor_calls
    for name in options.only:
        if name in STEPS:
            goal = STEPS[name][2]
            ways = {
                kind: (partial(step_seconds, name, kind), goal if kind == "bf16" else None)
                for kind in ("float32", "bf16")
            }
            compare(name, ways, options.rounds)
            continue
        stage, recipe, *goals = DUMPS[name]
        plan, height, width = find_network(stage, recipe)
        torch.manual_seed(0)
        network = build_network(plan).eval()
        drawn = np.random.default_rng(0).standard_normal((options.group, 3, height, width), dtype=np.float32)
        images = torch.from_numpy(drawn)
        embed = network.embed
        ways = {
            "float32, channels first": (partial(first_seconds, embed, images), None),
            "float32": (partial(dump_seconds, embed, images, torch.float32), goals[0]),
            "bf16": (partial(dump_seconds, embed, images, torch.bfloat16), goals[1]),
        }
        for kind in (torch.float32, torch.bfloat16) if options.compile else ():
            passes = compile_passes(embed, images, kind)
            ways[f"{name_precision(kind)}, compiled"] = (partial(dump_seconds, passes, images, kind), None)
        compare(name, ways, options.rounds)


if __name__ == "__main__":
    main()
