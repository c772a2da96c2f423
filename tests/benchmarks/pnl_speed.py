"""What PNL's bookkeeping costs beside the products of a step that it cannot avoid, at the size of LUPerson-NL.

    OMP_NUM_THREADS=1 python tests/benchmarks/pnl_speed.py           the parts of a step, each on its own
    OMP_NUM_THREADS=1 python tests/benchmarks/pnl_speed.py --step    whole steps with a tiny trunk, as a run takes them

One step's work on the labels of one device at C = 433,997: 64 images with a hidden layer of 256 and prototypes of 128,
which fit a small machine; every cost but the queue's grows with the images in the same way. Compared are

- the two big products, forward and backward: classifier (b x 256 x C, three times) and prototypes (b x 128 x C, twice);
- the bookkeeping: correction, prototypes, queue.

Target: the bookkeeping takes under 10 % of the products. Memory: what the peak of forward and backward adds, over the
bytes that it must hold: two maps of logits, the gradient of one at a time, and that of the classifier; target 1.1.
Whole steps also hold the classifier's weights and momentum, the prototypes, and the queue.
"""

import argparse
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain.labels import TrainLabels
from lupctl.core.stages.pretrain.setup import place_method, share_gradients
from lupctl.core.training.engine.curves import RateCurve, even_epochs
from lupctl.core.training.engine.groups import set_rates
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.losses.noisy_labels import correct_labels, prototype_scores, score, scored_cross_entropy
from lupctl.core.training.methods import pnl
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.methods.prototypes import Prototypes
from lupctl.core.training.methods.queue import LabelledQueue

CLASSES, IMAGES, BATCH, HIDDEN, DIM, QUEUE = 433_997, 64, 1536, 256, 128, 65_536
MIB = 2**20


def measure(work: Callable[[], object], rounds: int) -> float:
    """Least seconds of some rounds: other work on the machine only adds."""
    seconds = []
    for _ in range(rounds):
        started_at = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started_at)
    return min(seconds)


def resident_bytes() -> int:
    """Memory that the process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    """The most memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@contextmanager
def watched(spent: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds of the three kinds of bookkeeping while steps are taken."""

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            started_at = time.perf_counter()
            result = work(*args, **options)
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - started_at
            return result

        return call

    with (
        mock.patch.object(pnl, "correct_labels", timed("correction", correct_labels)),
        mock.patch.object(Prototypes, "update", timed("prototypes", Prototypes.update)),
        mock.patch.object(LabelledQueue, "push", timed("queue", LabelledQueue.push)),
    ):
        yield


def take_steps(classes: int, images: int, rounds: int) -> None:
    """Takes whole steps in the last phase: R18 of width 4 on 64 x 32 pixels, and every label there is."""
    own = {"net.width": 4, "data.batch": images, "bn_groups": 1, "pnl.dim": DIM, "pnl.hidden": HIDDEN}
    recipe = resolve_recipe("pretrain", "small-pnl", flags={**own, "pnl.queue": QUEUE})
    assert isinstance(recipe, PretrainRecipe)
    generator = torch.Generator().manual_seed(0)
    before = resident_bytes()
    method = place_method(recipe, torch.device("cpu"), TrainLabels(np.arange(classes), classes))
    assert isinstance(method, pnl.Pnl)
    optim = recipe.optim.model_dump(exclude={"clip", "clip_scope", "accumulate"})
    optimizer, gradients = build_optimizer(method.trained, **optim), share_gradients(recipe, method, kind="cpu")
    curve = RateCurve(kind="constant", unit="step", lr=0.06, epochs=1, steps=even_epochs(rounds + 1, 1))
    seconds, spent = list[float](), dict[str, float]()
    for step in range(rounds + 1):
        if step == 1:  # the first one makes the momentum, and fills some prototypes
            spent.clear()
        views = tuple(torch.randn(images, 3, 64, 32, generator=generator) for _ in range(2))
        label = torch.randint(classes, (images,), generator=generator)
        now = Now(step=step, epoch=99, rate=0.06, decay=1e-4, momentum=0.99, temperature=0.1)
        started_at = time.perf_counter()
        with watched(spent):
            set_rates(optimizer, rate=curve, step=step, decay=now.decay)
            given = Given(views, keys=torch.arange(images), label=label)
            method.learn(given, now, gradients, precision=torch.float32)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            method.follow(now)
        seconds.append(time.perf_counter() - started_at)
    grown = peak_bytes() - before
    # Weights, gradient and momentum of the classifier; prototypes; three maps of logits at once; the queue.
    need = 4 * (classes * (3 * HIDDEN + DIM) + 3 * images * classes + QUEUE * DIM)
    hidden, query = torch.randn(images, HIDDEN, generator=generator), torch.randn(images, DIM, generator=generator)
    slope = torch.randn(images, classes, generator=generator) / classes
    assert method.student.classes is not None
    assert method.student.classes.classifier is not None
    assert method.prototypes is not None
    weight, mean = method.student.classes.classifier.weight, method.prototypes.mean
    unavoidable = measure(lambda: multiply(weight, mean, hidden, query, slope), rounds)
    print(f"C = {classes:,}, {images} images, {torch.get_num_threads()} thread(s), {rounds} steps after the first")
    show_costs(unavoidable, {name: value / rounds for name, value in spent.items()})
    print(f"a whole step              {1000 * min(seconds[1:]):9.1f} ms")
    print(f"peak memory grew by       {grown / MIB:,.0f} MiB; needed {need / MIB:,.0f} MiB; ratio {grown / need:.2f}")


@torch.no_grad()
def multiply(weight: Tensor, mean: Tensor, hidden: Tensor, query: Tensor, slope: Tensor) -> None:
    """The products that a step cannot avoid."""
    weight @ hidden.T
    slope.T @ hidden
    slope @ weight
    query @ mean.T
    slope @ mean


def show_costs(unavoidable: float, costs: dict[str, float]) -> None:
    """Prints the bookkeeping beside the products, in seconds and as shares."""
    print(f"products                  {1000 * unavoidable:9.1f} ms")
    for name, seconds in {**costs, "bookkeeping": sum(costs.values())}.items():
        print(f"{name:25s} {1000 * seconds:9.1f} ms  {seconds / unavoidable:6.1%}")


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--step", action="store_true", help="whole steps, not their parts")
    given = parser.parse_args()
    if given.step:
        take_steps(500, 4, 1)  # what is loaded with the first step is no tensor's memory
        take_steps(given.classes, given.images, given.rounds)
    else:
        measure_parts(given.classes, given.images, given.rounds)


def measure_parts(classes: int, images: int, rounds: int) -> None:
    """Measures the bookkeeping and the products on their own, and the memory of a forward and backward pass."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(images, HIDDEN, generator=generator).relu_().requires_grad_()
    query = nn.functional.normalize(torch.randn(images, DIM, generator=generator), dim=1).requires_grad_()
    classifier = nn.Linear(HIDDEN, classes)
    prototypes, queue = Prototypes(classes, DIM), LabelledQueue(DIM, QUEUE, seed=0)
    label = torch.randint(classes, (images,), generator=generator)
    every_label = torch.randint(classes, (BATCH,), generator=generator)
    every = nn.functional.normalize(torch.randn(BATCH, DIM, generator=generator), dim=1)
    for _ in range(3):
        prototypes.update(every, every_label, momentum=0.999)

    def step() -> Tensor:
        by_class = score(classifier(hidden))
        by_prototype = prototype_scores(query, prototypes.mean, 0.07)
        used = correct_labels(label, by_class, by_prototype, alpha=0.5, threshold=0.8)
        loss = scored_cross_entropy(by_class, used) + scored_cross_entropy(by_prototype, used)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    # First, before anything else has reached a higher peak.
    resident = resident_bytes()
    whole = measure(step, 1)
    grown = peak_bytes() - resident

    slope = torch.randn(images, classes, generator=generator) / classes

    by_class = score(classifier(hidden.detach()).detach())
    by_prototype = prototype_scores(query.detach(), prototypes.mean, 0.07)
    costs = {
        "correction": measure(lambda: correct_labels(label, by_class, by_prototype, alpha=0.5, threshold=0.8), rounds),
        "prototypes": measure(lambda: prototypes.update(every, every_label, momentum=0.999), rounds),
        "queue": measure(lambda: queue.push(every, every_label), rounds),
    }
    unavoidable = measure(
        lambda: multiply(classifier.weight, prototypes.mean, hidden.detach(), query.detach(), slope), rounds
    )

    print(f"C = {classes:,}, {images} images, {torch.get_num_threads()} thread(s)")
    show_costs(unavoidable, costs)
    print(f"forward, loss, backward   {1000 * whole:9.1f} ms; peak memory grew by {grown / MIB:,.0f} MiB")
    # Two maps of logits, one gradient of a map or one map of exponentials, and the gradients of the weights.
    need = (2 + 1) * images * classes * 4 + classes * HIDDEN * 4
    print(f"of which needed           {need / MIB:,.0f} MiB; ratio {grown / need:.2f}")


if __name__ == "__main__":
    main()
