"""What bfloat16 and channels-last convolutions save on this processor; run by hand on a quiet machine.

    python tests/benchmarks/precision_speed.py                        all of the table
    python tests/benchmarks/precision_speed.py --only small-moco dump-r50

Training steps are those of the recipes on random pixels: with `precision = "float32"`, which keeps channels first; with
`"auto"` where bf16 is not fast; and in bf16. Dumps are those of `lupctl dump` from a pack of drawn persons, from the
checkpoint to the file, with the workers that it takes: in float32 with channels first, as they were once, in float32,
and in bf16. What a processor has no instructions for is left out. The ways are measured in turns in one process and one
thread; medians of processor time count, that of the workers included.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal
from unittest.mock import patch

import torch

from lupctl.core.choices import Precision
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.dump.job import DumpJob
from lupctl.core.stages.dump.run import dump
from lupctl.core.stages.finetune import speed as finetune_speed
from lupctl.core.stages.finetune.job import network_plan
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain import speed as pretrain_speed
from lupctl.core.stages.pretrain.job import student_plan
from lupctl.core.system.jobs import precision
from lupctl.core.system.jobs.precision import CpuBf16, measure_cpu
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.resnet.layout import Convolutional

CPU, QUIET = torch.device("cpu"), Progress(quiet=True)
# Of a drawn person's images, from each of two cameras.
SHOTS = 2
Stage = Literal["pretrain", "finetune"]
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


def step_seconds(name: str, asked: Precision) -> float:
    """Processor time of one training step of a recipe, after one that is not counted; auto is float32 here."""
    stage, overrides, _ = STEPS[name]
    recipe = resolve_recipe(stage, name, overrides=(*overrides, f"precision={asked}"))
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


def write_network(path: Path, stage: Stage, name: str) -> None:
    """A checkpoint of random weights of the network that a recipe trains."""
    recipe = resolve_recipe(stage, name)
    match recipe:
        case PretrainRecipe():
            plan = student_plan(recipe)
        case FinetuneRecipe():
            plan = network_plan(recipe, 0)
        case _:
            raise AssertionError(recipe)
    torch.manual_seed(0)
    header = CheckpointHeader(
        stage=stage,
        command=(),
        recipe=None,
        network=plan,
        preprocessing=describe_pixels(recipe.pixels),
        classes=(),
        parents={},
        data=(),
    )
    write_checkpoint(path, build_network(plan).state_dict(), header)


@contextmanager
def channels_first() -> Iterator[None]:
    """Networks take images as they come."""
    with patch.object(Convolutional, "lay_out", lambda _, images: images):
        yield


def dump_seconds(folder: Path, asked: Precision) -> float:
    """Processor time of a dump, that of its decoding workers included."""
    job = DumpJob(folder / "net.safetensors", folder / "drawn.h5", folder / "f.h5", precision=asked, force=True)
    before = os.times()
    dump(job, CPU, QUIET)
    return sum(os.times()[:4]) - sum(before[:4])


def first_seconds(folder: Path) -> float:
    """The same in float32, with channels first."""
    with channels_first():
        return dump_seconds(folder, "float32")


def compare_steps(name: str, rounds: int) -> None:
    """Prints the seconds of a step in each way; not in bf16 on a processor that has no instructions for it."""
    ways: dict[str, tuple[Callable[[], float], float | None]] = {
        "float32, channels first": (partial(step_seconds, name, "float32"), None),
        "float32": (partial(step_seconds, name, "auto"), None),
    }
    if measure_cpu().unit:
        ways["bf16"] = (partial(step_seconds, name, "bf16"), STEPS[name][2])
    with patch.object(precision, "measure_cpu", lambda: CpuBf16("", 1.0)):
        compare(name, ways, rounds)


def compare_dumps(name: str, images: int, rounds: int) -> None:
    """Prints the seconds of a dump of so many drawn images in each way."""
    stage, recipe, *goals = DUMPS[name]
    persons = SyntheticPlan(
        train_persons=1, test_persons=-(-images // (2 * SHOTS)), cameras=2, shots=SHOTS, height=256, width=128
    )
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        pack(SyntheticSource(persons), out=folder / "drawn.h5", progress=QUIET)
        write_network(folder / "net.safetensors", stage, recipe)
        ways = {
            "float32, channels first": (partial(first_seconds, folder), None),
            "float32": (partial(dump_seconds, folder, "float32"), goals[0]),
        }
        if measure_cpu().unit:
            ways["bf16"] = (partial(dump_seconds, folder, "bf16"), goals[1])
        compare(name, ways, rounds)


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=[*STEPS, *DUMPS], default=[*STEPS, *DUMPS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=64, help="of a dump")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"bf16: {measure_cpu().describe()}")
    for module in (pretrain_speed, finetune_speed):
        vars(module)["time_calls"] = processor_calls
    for name in options.only:
        if name in DUMPS:
            compare_dumps(name, options.images, options.rounds)
            continue
        compare_steps(name, options.rounds)


if __name__ == "__main__":
    main()
