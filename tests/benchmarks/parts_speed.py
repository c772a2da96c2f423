"""Pseudo labels of body parts beside the rest of a step of SOLIDER, and beside scikit-learn; run by hand.

    OMP_NUM_THREADS=1 python tests/benchmarks/parts_speed.py            (to reach: 0.05 of a step)
    python tests/benchmarks/parts_speed.py --device cuda --batch 48     the share of one of the eight published GPUs

The step is what every step of SOLIDER has at least: a pass of the teacher over both global views, and passes forward
and backward of the student over all ten views, in two groups. Heads, losses, masked copies and the optimizer are left
out, so that the share of the pseudo labels that is printed is more than their share of a whole step.

Labels are of the maps of a network with fresh weights, where k-means has most to do. scikit-learn's are the published
steps (k = 2 of the lengths, k = 3 of the vectors, map by map, in one thread). On a GPU, theirs are on the CPU.
Processor time counts on a CPU, and time on the clock on a GPU; the median of rounds in turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from sklearn.cluster import KMeans
from torch import Tensor

from lupctl.core.choices import SwinArch
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.training.clusters.body_parts import find_parts
from lupctl.core.training.nets.swin.trunk import SwinTrunk

LOCAL_VIEWS = 8
PUBLISHED = "published: 0.1 to 0.7 s for 96 images with n_init = 1 or 10, on a CPU thread"


def step(student: SwinTrunk, teacher: SwinTrunk, views: tuple[Tensor, Tensor], precision: torch.dtype) -> None:
    """The passes over global views (2 b, …) and local views (8 b, …); leaves no gradients."""
    with torch.autocast(views[0].device.type, precision, enabled=precision != torch.float32):
        with torch.no_grad():
            teacher(views[0])
        total = sum(student(group).map.float().square().mean() for group in views)
    assert isinstance(total, Tensor)
    total.backward()  # type: ignore[no-untyped-call]
    student.zero_grad(set_to_none=True)


def published_labels(maps: Tensor, restarts: int) -> int:
    """The published clustering with scikit-learn; the number of maps that it keeps."""
    kept = 0
    for tokens in maps.flatten(2).mT.float().numpy():
        lengths = (tokens**2).sum(axis=1, keepdims=True) ** 0.5
        sides = KMeans(2, n_init=restarts, random_state=0).fit(lengths)
        is_person = sides.labels_ == sides.cluster_centers_[:, 0].argmax()
        if is_person.sum() > len(tokens) / 2:
            KMeans(3, n_init=restarts, random_state=0).fit(tokens[is_person])
            kept += 1
    return kept


def median_seconds(works: dict[str, Callable[[], object]], rounds: int, device: torch.device) -> dict[str, float]:
    """Of each, in turns; the first round is not counted."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    spent: dict[str, list[float]] = {name: [] for name in works}
    for round_ in range(rounds + 1):
        for name, work in works.items():
            started_at = clock()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if round_:
                spent[name].append(clock() - started_at)
    return {name: statistics.median(seconds) for name, seconds in spent.items()}


def measure(arch: SwinArch, size: tuple[int, int], batch: int, rounds: int, device: torch.device) -> None:
    """Prints seconds and shares."""
    torch.manual_seed(0)
    student, teacher = (SwinTrunk(plan_swin(arch)).to(device) for _ in range(2))
    height, width = size
    views = (
        torch.randn(2 * batch, 3, height, width, device=device),
        torch.randn(LOCAL_VIEWS * batch, 3, height // 2, width // 2, device=device),
    )
    with torch.no_grad():
        maps = teacher(views[0]).map
    on_cpu, precision = maps.cpu(), torch.float32 if device.type == "cpu" else torch.bfloat16
    works: dict[str, Callable[[], object]] = {"step": partial(step, student, teacher, views, precision)}
    for restarts in (1, 10):
        works[f"ours, {restarts}"] = partial(
            find_parts, maps, restarts=restarts, seeds=torch.arange(len(maps), device=device)
        )
        works[f"scikit-learn, {restarts}"] = partial(published_labels, on_cpu, restarts)
    seconds = median_seconds(works, rounds, device)
    kept = find_parts(maps).kept.double().mean()
    print(
        f"{arch}, {height} x {width}, {batch} images, {torch.get_num_threads()} thread(s), {device}; "
        f"{kept:.2f} of maps kept"
    )
    print(f"the passes of a step {seconds['step']:.3f} s")
    for restarts in (1, 10):
        ours, theirs = seconds[f"ours, {restarts}"], seconds[f"scikit-learn, {restarts}"]
        per_96 = 96 / batch
        print(
            f"n_init = {restarts}: ours {ours:.4f} s, {ours / (seconds['step'] + ours):.4f} of a step; "
            f"scikit-learn {theirs:.4f} s, {theirs / (seconds['step'] + theirs):.4f}; "
            f"for 96 images {ours * per_96:.3f} and {theirs * per_96:.3f} s"
        )
    print(PUBLISHED)


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--arch", choices=["swin-u", "swin-t", "swin-s", "swin-b"], default="swin-t")
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    size = given.height, given.height // 2
    measure(given.arch, size, given.batch, given.rounds, torch.device(given.device))


if __name__ == "__main__":
    main()
