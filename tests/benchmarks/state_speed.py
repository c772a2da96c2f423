"""What saving and resuming a pre-training run costs; run by hand on a quiet machine.

python tests/benchmarks/state_speed.py save      seconds that the loop stands still, and until the state is on disk
python tests/benchmarks/state_speed.py memory    peak memory of a fresh run and of a resumed one, in processes apart
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain.setup import place_method
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.engine.saving import StateWriter
from lupctl.core.training.engine.state import pack_state, restore_state
from lupctl.core.training.methods.moco import MoCo
from lupctl.core.training.methods.protocol import Given, Now

CPU = torch.device("cpu")


def recipe_of(arch: str, batch: int) -> PretrainRecipe:
    """LUPerson's recipe with its queue of 65,536, on a batch that fits here."""
    flags = {"net.arch": arch, "data.batch": batch, "bn_groups": 1}
    recipe = resolve_recipe("pretrain", "luperson-moco", flags=flags)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def train_two_steps(recipe: PretrainRecipe, folder: RunFolder, *, resumed: bool) -> tuple[MoCo, torch.optim.Optimizer]:
    """A method and its optimizer after two steps, from the folder's state where there is one.

    The optimizer's own memory comes into being at the end of the first; the second is like all that follow.
    """
    method = place_method(recipe, CPU)
    assert isinstance(method, MoCo)
    optimizer = build_optimizer([method.student], name="sgd", lr=0.3, momentum=0.9, weight_decay=1e-4)
    if resumed:
        restore_state(folder, method, optimizer)
    alone = SharedGradients(method.student)
    for step in range(2):
        views = torch.randn(2, recipe.data.batch, 3, recipe.pixels.height, recipe.pixels.width)
        now = Now(step, 0, rate=0.3, decay=1e-4, momentum=0.999, temperature=0.1)
        method.learn(Given(tuple(views), torch.arange(recipe.data.batch)), now, alone, precision=torch.float32)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        method.follow(now)
    return method, optimizer


def measure_save(recipe: PretrainRecipe, folder: RunFolder, rounds: int) -> None:
    """The copy, which the loop waits for, and the whole way to the disk."""
    method, optimizer = train_two_steps(recipe, folder, resumed=False)
    for _ in range(rounds):
        writer = StateWriter(folder)
        started_at = time.perf_counter()
        writer.save(pack_state(1, method, optimizer, precision=torch.float32))
        copied_s = time.perf_counter() - started_at
        writer.join()
        written_s = time.perf_counter() - started_at
        writer.close()
        size = folder.resume.stat().st_size / 2**20
        print(f"{size:.0f} MiB: the loop stands still for {copied_s:.2f} s, on the disk after {written_s:.2f} s")


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["save", "memory", "step"])
    parser.add_argument("--arch", default="r50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--resumed", action="store_true")
    options = parser.parse_args()
    recipe = recipe_of(options.arch, options.batch)
    if options.what == "step":
        folder = RunFolder(options.folder)
        method, optimizer = train_two_steps(recipe, folder, resumed=options.resumed)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
        print(f"{'resumed' if options.resumed else 'fresh'}: peak {peak:,.0f} MiB", flush=True)
        if not options.resumed:
            folder.save_state(pack_state(1, method, optimizer, precision=torch.float32))
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        if options.what == "save":
            measure_save(recipe, RunFolder(Path(name)), options.rounds)
            return
        words = [sys.executable, __file__, "step", "--folder", name, "--arch", options.arch]
        for more in ([], ["--resumed"]):
            subprocess.run([*words, "--batch", str(options.batch), *more], check=True)


if __name__ == "__main__":
    main()
