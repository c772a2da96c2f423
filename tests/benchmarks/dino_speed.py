"""A step of DINO beside its bare passes, and beside a transcription of the published step.

    OMP_NUM_THREADS=1 python tests/benchmarks/dino_speed.py step        seconds of steps (to reach: 1.03 and 1.00)
    OMP_NUM_THREADS=1 python tests/benchmarks/dino_speed.py launches    operators of a step (to reach: 0.85), and waits
    OMP_NUM_THREADS=1 python tests/benchmarks/dino_speed.py precision   bfloat16 and net.compile beside float32
    OMP_NUM_THREADS=1 python tests/benchmarks/dino_speed.py memory      peak of the loss, in maps of all logits

All steps begin with ready views, ten of an image, and have the same trunk: what differs is the step.

- ours: targets, forward and backward passes, loss, clipping, optimizer, teacher, as the training loop takes them;
- bare: forward and backward passes of the student over the ten views in two groups, of its head, and of a sum in place
  of a loss; a forward pass of the teacher over two views; the optimizer;
- transcription: the published step (tests/references/dino.py) with the published draws of stochastic depth.

The trunk is cut to `--depth` blocks, so that a round takes seconds; that makes the targets harder to reach, because
only passes get cheaper. Processor time counts, which other work on the machine does not stretch; so use one thread.
Operators are counted with torch's profiler: those that are called from outside of any other, without those that only
make a view of memory or read a number. They are the same on every machine: the transcription's AdamW is the one that
torch takes on a GPU.
"""

import argparse
import copy
import resource
import statistics
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain.setup import Trained, build_curves, place_method, share_gradients
from lupctl.core.stages.pretrain.step import learn_from
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.losses.self_distillation import self_distillation
from lupctl.core.training.methods.dino import Dino
from lupctl.core.training.methods.protocol import Given
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.vit.trunk import ViTTrunk
from tests.references.dino import DinoReference, ReferenceHead, ReferenceNetwork, ReferenceRules

CPU = torch.device("cpu")
# In the second epoch, so that the last layer is trained.
STEP, STEPS = 15, 10
RATE, DECAY = 1e-3, 0.04
VIEWS_OF_MEMORY = frozenset((
    "view", "_unsafe_view", "reshape", "_reshape_alias", "view_as", "expand", "expand_as", "t", "mT",
    "numpy_T", "transpose", "permute", "select", "slice", "narrow", "unbind", "chunk", "split",
    "split_with_sizes", "flatten", "unflatten", "squeeze", "unsqueeze", "diagonal", "as_strided", "alias",
    "detach", "detach_", "to", "empty", "empty_like", "requires_grad_", "lift_fresh", "resolve_conj",
    "resolve_neg", "result_type", "is_nonzero", "item",
))  # fmt: skip
WAITS = frozenset({"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::unique_consecutive"})
# What torch's optimizers read is the number of the step, which is on the CPU on every machine.
OPTIMIZER = "Optimizer.step"

Work = Callable[[], object]


class PooledTrunk(nn.Module):
    """A trunk with its pooling, called as a module."""

    def __init__(self, embedding: Embedding) -> None:
        super().__init__()
        self.embedding = embedding

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, D)."""
        return self.embedding.embed(images)


class PublishedDepth(nn.Module):
    """Stochastic depth from torch's own generator, drawn in every branch of every block, as published code does it."""

    def __init__(self, depth: int, rate: float) -> None:
        super().__init__()
        self.depth, self.rate = depth, rate

    def kept_all(self, images: int) -> list[Tensor | None]:
        """(2, B) factors for each block, or None for 1 everywhere."""
        return [self._kept(1 - self.rate * block / max(self.depth - 1, 1), images) for block in range(self.depth)]

    def _kept(self, keep: float, images: int) -> Tensor | None:
        if not self.training or keep == 1:
            return None
        return torch.stack([(keep + torch.rand(images)).floor_() / keep for _ in range(2)])


@dataclass(frozen=True)
class Size:
    """What is measured.

    Args:
        recipe: of DINO.
        depth: blocks that are left of the trunk.
        batch: images.
        outputs: of the head.
        drop_path: stochastic depth of the student.
    """

    recipe: str
    depth: int
    batch: int
    outputs: int
    drop_path: float


def sized_recipe(size: Size, *, compiled: bool = False) -> PretrainRecipe:
    """The recipe at this size, in one part."""
    flags = {"data.batch": size.batch, "dino.outputs": size.outputs, "vit.drop_path": size.drop_path, "bn_groups": 1}
    recipe = resolve_recipe("pretrain", size.recipe, flags={**flags, "net.compile": compiled})
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def build(size: Size, *, compiled: bool = False) -> Dino:
    """Student and teacher with a cut trunk, different from each other as after some training."""
    torch.manual_seed(0)
    method = place_method(sized_recipe(size, compiled=compiled), CPU)
    assert isinstance(method, Dino)
    for network in (method.student, method.teacher):
        trunk: Any = network.embedding.backbone
        del trunk.blocks[size.depth :]
        trunk.drop.depth = len(trunk.blocks)
    with torch.no_grad():
        for parameter in method.teacher.parameters():
            parameter.mul_(1 + 0.01 * torch.randn_like(parameter))
    return method


def draw_views(recipe: PretrainRecipe, batch: int) -> tuple[Tensor, ...]:
    """Two large views and the small ones, of noise."""
    assert recipe.local is not None
    sizes = [(recipe.pixels.height, recipe.pixels.width)] * 2
    sizes += [(recipe.local.height, recipe.local.width)] * recipe.local.count
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(batch, 3, *size, generator=generator) for size in sizes)


def prepare_optimizer(recipe: PretrainRecipe, modules: list[nn.Module]) -> torch.optim.Optimizer:
    """The recipe's, at a rate of the middle of a run."""
    optim = recipe.optim.model_dump(exclude={"clip", "clip_scope", "accumulate"})
    optimizer = build_optimizer(modules, **optim)
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = RATE, DECAY * group["decay_scale"]
    return optimizer


def prepare_ours(
    method: Dino, recipe: PretrainRecipe, views: tuple[Tensor, ...], *, precision: torch.dtype = torch.float32
) -> Work:
    """A whole step after the views, as the training loop takes it."""
    trained = Trained(
        method=method,
        optimizer=prepare_optimizer(recipe, method.trained),
        gradients=share_gradients(recipe, method, kind="cpu"),
        curves=build_curves(recipe, STEPS),
    )
    now, given = trained.curves.now(STEP), Given(views, keys=torch.arange(len(views[0])))
    return partial(learn_from, given, recipe, trained, now, precision=precision)


def prepare_bare(method: Dino, recipe: PretrainRecipe, views: tuple[Tensor, ...], rate: float) -> Work:
    """The passes alone, over views that are put together already."""
    groups = [torch.cat(views[:2]), torch.cat(views[2:])]
    use_published_depth(method.student, rate)
    optimizer = prepare_optimizer(recipe, method.trained)

    def work() -> None:
        with torch.no_grad():
            method.teacher(groups[0])
        method.student(*groups).logits.sum().backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return work


def use_published_depth(network: nn.Module, rate: float) -> None:
    """Replaces a trunk's keyed stochastic depth, so that it needs no keys."""
    for module in list(network.modules()):
        if isinstance(module, ViTTrunk):
            module.drop = PublishedDepth(module.drop.depth, rate)  # type: ignore[assignment]


def prepare_transcription(method: Dino, views: tuple[Tensor, ...], rate: float, *, on_gpu: bool = False) -> Work:
    """The published step with copies of the same weights."""
    head = method.student.head
    layers = [(layer.weight, layer.bias) for layer in head.mlp if isinstance(layer, nn.Linear)]
    (last,) = head.last_layer.parameters()
    student = ReferenceNetwork(PooledTrunk(method.student.embedding), ReferenceHead(layers, last))
    rules = ReferenceRules(steps=STEPS, rate=RATE, warmup_epochs=1)
    run = DinoReference(student, rules)
    use_published_depth(run.student, rate)
    use_published_depth(run.teacher, 0.0)
    for group in run.optimizer.param_groups:
        group["foreach"] = on_gpu or None
    return partial(run.step, views, STEP)


def peak_bytes() -> int:
    """The most memory that the process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def prepare(size: Size, *, on_gpu: bool = False) -> dict[str, Work]:
    """The three steps, each with networks of its own."""
    recipe = sized_recipe(size)
    views, method = draw_views(recipe, size.batch), build(size)
    bare, other = copy.deepcopy(method), copy.deepcopy(method)
    return {
        "ours": prepare_ours(method, recipe, views),
        "bare": prepare_bare(bare, recipe, views, size.drop_path),
        "transcription": prepare_transcription(other, views, size.drop_path, on_gpu=on_gpu),
    }


def time_in_turns(works: dict[str, Work], rounds: int) -> dict[str, list[float]]:
    """Processor seconds of each, by rounds; who begins a round changes, and the first round is not counted."""
    seconds: dict[str, list[float]] = {name: [] for name in works}
    names = list(works)
    for round_ in range(rounds + 1):
        turn = round_ % len(names)
        for name in names[turn:] + names[:turn]:
            started_at = time.process_time()
            works[name]()
            if round_:
                seconds[name].append(time.process_time() - started_at)
    return seconds


def show_times(seconds: dict[str, list[float]]) -> None:
    """Medians, and the first one's ratio with each of the others.

    The ratio is that of medians, of the shortest times, which other work disturbs least, and by rounds: least, middle,
    largest.
    """
    (own, mine), *others = seconds.items()
    print("; ".join(f"{name} {statistics.median(spent):.3f} s" for name, spent in seconds.items()))
    for name, theirs in others:
        ratios = sorted(left / right for left, right in zip(mine, theirs, strict=True))
        middle, least = (pick(mine) / pick(theirs) for pick in (statistics.median, min))
        spread = " ".join(f"{ratio:.3f}" for ratio in (ratios[0], statistics.median(ratios), ratios[-1]))
        print(f"{own} / {name} {middle:.3f}; of the shortest {least:.3f}; by rounds {spread}")


def count_operators(work: Work) -> Counter[str]:
    """Operators that a call launches from outside of any other operator, by name, without views of memory."""
    found, inside = Counter[str](), Counter[str]()
    with profile(use_cpu=True) as seen:
        work()
    for event in seen.function_events:
        parents = names_around(event)
        if event.name.startswith("aten::"):
            if not any(name.startswith(OPTIMIZER) for name in parents):
                inside[event.name] += 1
            if event.name.removeprefix("aten::") not in VIEWS_OF_MEMORY and not any(
                name.startswith("aten::") for name in parents
            ):
                found[event.name] += 1
    found["waits"] = sum(count for name, count in inside.items() if name in WAITS)
    return found


def names_around(event: Any) -> list[str]:
    """Names of the events that an event is inside of."""
    names, parent = list[str](), event.cpu_parent
    while parent is not None:
        names.append(parent.name)
        parent = parent.cpu_parent
    return names


def measure_launches(size: Size) -> None:
    """Counts the operators of a whole step and of the transcription's."""
    counts = {}
    for name, work in prepare(size, on_gpu=True).items():
        work()  # the first step makes the optimizer's state
        counts[name] = count_operators(work)
    totals = {}
    for name, count in counts.items():
        waits = count.pop("waits")
        totals[name] = count.total()
        print(f"{name}: {totals[name]} operators, {waits} waits for a number")
        print("   ", ", ".join(f"{kind.removeprefix('aten::')} {number}" for kind, number in count.most_common(14)))
    print(f"ours / transcription {totals['ours'] / totals['transcription']:.3f} (to reach: 0.85)")


def measure_precision(size: Size, rounds: int, what: list[str]) -> None:
    """Whole steps in float32, in bfloat16, and compiled."""
    recipe = sized_recipe(size)
    views = draw_views(recipe, size.batch)
    works = {"float32": prepare_ours(build(size), recipe, views)}
    if "bfloat16" in what:
        works["bfloat16"] = prepare_ours(build(size), recipe, views, precision=torch.bfloat16)
    if "compiled" in what:
        works["compiled"] = prepare_ours(build(size, compiled=True), recipe, views)
    seconds = time_in_turns(works, rounds)
    show_times(seconds)


def measure_memory(size: Size) -> None:
    """How much the peak of the process grows with logits, loss and backward pass, beside one map of (10 b, K)."""

    def grow(outputs: int) -> int:
        before = peak_bytes()
        hidden = torch.randn(10 * size.batch, 8, requires_grad=True)
        targets = torch.full((2, size.batch, outputs), 1 / outputs)
        logits = hidden @ torch.randn(8, outputs)
        loss = self_distillation(logits, targets, temperature=0.1, views=10)
        del logits
        loss.backward()  # type: ignore[no-untyped-call]
        return peak_bytes() - before - 2 * size.batch * outputs * 4

    grow(16)  # what is loaded with the first pass is no tensor's memory
    grown, one = grow(size.outputs), 10 * size.batch * size.outputs * 4
    print(f"peak grew by {grown / 2**20:,.0f} MiB, {grown / one:.2f} maps of {one / 2**20:,.0f} MiB")


def main() -> None:
    """Measures what the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["step", "launches", "precision", "memory"])
    parser.add_argument("--recipe", default="dino-vit-s-ics")
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--outputs", type=int, default=65_536)
    parser.add_argument("--drop-path", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=["bfloat16", "compiled"], help="beside float32")
    given = parser.parse_args()
    size = Size(given.recipe, given.depth, given.batch, given.outputs, given.drop_path)
    print(f"{size}, {torch.get_num_threads()} thread(s)")
    match given.what:
        case "step":
            show_times(time_in_turns(prepare(size), given.rounds))
        case "launches":
            measure_launches(size)
        case "precision":
            measure_precision(size, given.rounds, given.only)
        case "memory":
            measure_memory(size)


if __name__ == "__main__":
    main()
