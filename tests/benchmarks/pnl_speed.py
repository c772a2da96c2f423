"""What PNL's bookkeeping costs beside the products of a step that it cannot avoid, at the size of LUPerson-NL.

    OMP_NUM_THREADS=1 python tests/benchmarks/pnl_speed.py

One step's work on the labels of one device at C = 433,997: 64 images with a hidden layer of 256 and prototypes of 128,
which fit a small machine; every cost but the queue's grows with the images in the same way. Compared are

- the two big products, forward and backward: classifier (b x 256 x C, three times) and prototypes (b x 128 x C, twice);
- the bookkeeping: correction, prototypes, queue.

Target: the bookkeeping takes under 10 % of the products. Memory: what the peak of forward and backward adds, over the
bytes that it must hold: two maps of logits, the gradient of one at a time, and that of the classifier; target 1.1.
"""

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from lupctl.core.training.losses.noisy_labels import correct_labels, prototype_scores, score, scored_cross_entropy
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


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--classes", type=int, default=CLASSES)
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    classes, images = given.classes, given.images
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
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    whole = measure(step, 1)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - resident

    slope = torch.randn(images, classes, generator=generator) / classes

    def products() -> None:
        with torch.no_grad():
            classifier.weight @ hidden.T
            slope.T @ hidden
            slope @ classifier.weight
            query @ prototypes.mean.T
            slope @ prototypes.mean

    by_class = score(classifier(hidden.detach()).detach())
    by_prototype = prototype_scores(query.detach(), prototypes.mean, 0.07)
    costs = {
        "correction": measure(
            lambda: correct_labels(label, by_class, by_prototype, alpha=0.5, threshold=0.8), given.rounds
        ),
        "prototypes": measure(lambda: prototypes.update(every, every_label, momentum=0.999), given.rounds),
        "queue": measure(lambda: queue.push(every, every_label), given.rounds),
    }
    unavoidable = measure(products, given.rounds)

    print(f"C = {classes:,}, {images} images, {torch.get_num_threads()} thread(s)")
    print(f"products                  {1000 * unavoidable:9.1f} ms")
    for name, seconds in costs.items():
        print(f"{name:25s} {1000 * seconds:9.1f} ms  {seconds / unavoidable:6.1%}")
    print(f"bookkeeping               {1000 * sum(costs.values()):9.1f} ms  {sum(costs.values()) / unavoidable:6.1%}")
    print(f"forward, loss, backward   {1000 * whole:9.1f} ms; peak memory grew by {grown / MIB:,.0f} MiB")
    # Two maps of logits, one gradient of a map or one map of exponentials, and the gradients of the weights.
    need = (2 + 1) * images * classes * 4 + classes * HIDDEN * 4
    print(f"of which needed           {need / MIB:,.0f} MiB; ratio {grown / need:.2f}")


if __name__ == "__main__":
    main()
