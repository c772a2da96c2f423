"""What torch.compile costs and saves in the passes of a dump on a CPU; run by hand.

    TORCHINDUCTOR_COMPILE_THREADS=1 OMP_NUM_THREADS=1 python tests/benchmarks/compile_speed.py r50 vit-s swin-t

Passes of 16 images through a trunk of the named recipe's, as `lupctl dump` takes them and as it takes them with
`--compile`, in turns, one thread, medians of processor time; before them, the processor time of compiling, with that of
the C++ compiler. Where the code is kept already, that is what a later start costs.
"""

import argparse
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from lupctl.core.ranking.retrieval.extract import GROUP
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain.job import student_plan
from lupctl.core.system.jobs.compiling import CompiledPasses
from lupctl.core.system.jobs.precision import autocast, name_precision
from lupctl.core.training.nets.build import build_network

CPU = torch.device("cpu")
RECIPES = {"r50": "luperson-moco", "vit-s": "dino-vit-s-ics", "swin-t": "dino-swin-t", "small-vit": "small-dino"}
Embed = Callable[[Tensor, Tensor | None], Tensor]


def pass_seconds(embed: Embed, images: Tensor, kind: torch.dtype) -> float:
    """Processor time of a pass in this thread."""
    began = time.thread_time()
    with torch.no_grad(), autocast(CPU, kind):
        embed(images, None).float()
    return time.thread_time() - began


def process_seconds() -> float:
    """Processor time of this process and of those that it has waited for."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in spent)


def measure(name: str, kind: torch.dtype, rounds: int) -> None:
    """Prints what compiling a network costs, and a pass without and with."""
    recipe = resolve_recipe("pretrain", RECIPES[name])
    assert isinstance(recipe, PretrainRecipe)
    torch.manual_seed(0)
    plain: Embed = build_network(student_plan(recipe)).eval().embed
    images = torch.randn(GROUP, 3, recipe.pixels.height, recipe.pixels.width)
    pass_seconds(plain, images, kind)
    compiled, before = CompiledPasses(plain, GROUP), process_seconds()
    pass_seconds(compiled, images, kind)
    cost = process_seconds() - before
    pairs = [[pass_seconds(embed, images, kind) for embed in (plain, compiled)] for _ in range(rounds)]
    one, other = (statistics.median(spent) for spent in zip(*pairs, strict=True))
    share = statistics.median(right / left for left, right in pairs)
    pays = f"saved after {cost / (1 - share) / one * GROUP:,.0f} images" if share < 1 else "never saved"
    print(
        f"{name:9} {name_precision(kind):7} {one:.3f} s, compiled {other:.3f} s: {share:.2f}; "
        f"compiling {cost:.0f} s, {pays}",
        flush=True,
    )


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+", choices=RECIPES)
    parser.add_argument("--precision", nargs="+", choices=["float32", "bf16"], default=["float32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    for name in given.names:
        for precision in given.precision:
            measure(name, torch.bfloat16 if precision == "bf16" else torch.float32, given.rounds)


if __name__ == "__main__":
    main()
