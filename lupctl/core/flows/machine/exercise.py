"""`lupctl doctor --exercise`: what is tried, and what its figures mean for a recipe."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, get_args

from lupctl.core.choices import Arch
from lupctl.core.errors import LupError
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from lupctl.core.formats.weights.plan import TrunkPlan
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.stages.exercise.check import Check, Outcome

SECONDS: Final = 60.0
HEIGHT, WIDTH = 96, 48
# What a family has besides its smallest network: other norms, and another stem.
VARIANTS: Final[Mapping[str, Mapping[str, Any]]] = {
    "r18 with IBN": {"net": {"arch": "r18", "ibn": True}},
    "vit-t with ICS": {"net": {"arch": "vit-t"}, "vit": {"stem": "ics"}},
}
# The recipes that `init` begins with, and the workers that decode for a device at most.
RECIPES: Final = {"cpu": "small-bot", "cuda": "bot"}
MOST_WORKERS: Final = 16


def exercise(progress: Progress, *, seconds: float | None = None) -> "list[Check]":
    """Tries everything that training, dump and eval need of this machine, each in a second or so.

    Nothing is written but temporary files, and every process that is started ends with it.

    Args:
        progress: shows a bar.
        seconds: for all of it, None for a minute; what comes later is skipped, and says so.
    """
    import torch

    from lupctl.core.stages.exercise.check import Budget, Trial, run_trial
    from lupctl.core.stages.exercise.compiling import compile_trials
    from lupctl.core.stages.exercise.run import list_trials
    from lupctl.core.system.jobs.device import pick_devices

    budget, devices = Budget(SECONDS if seconds is None else seconds), pick_devices(None, None)
    recipe = _find_recipe(devices[0].type)
    checks: list[Check] = []
    decoding, *others = list_trials(plan_trunks(), recipe, devices)
    training = Trial(f"training, {RECIPES[devices[0].type]}", partial(_train, recipe, devices, checks))
    trials = [decoding, training, *others, *compile_trials(devices[0])]
    before = torch.random.get_rng_state()
    with progress.task("exercise", total=len(trials), unit="checks") as bar:
        for trial in trials:
            checks.append(run_trial(trial, budget))
            bar.advance(note=trial.what)
    torch.random.set_rng_state(before)
    return checks


def plan_trunks() -> "dict[str, TrunkPlan]":
    """The smallest trunk of every family that `--arch` names, and its variants; a new family is found by itself."""
    from lupctl.core.stages.finetune.job import network_plan
    from lupctl.core.training.nets.memory import count_parameters

    smallest: dict[str, tuple[int, str, TrunkPlan]] = {}
    for arch in get_args(Arch):
        plan = network_plan(_describe({"net": {"arch": arch}}), 2)
        found = count_parameters(plan), str(arch), plan.trunk
        family = plan.trunk.kind
        smallest[family] = min(found, smallest.get(family, found), key=lambda one: one[0])
    plans = {name: trunk for _, name, trunk in smallest.values()}
    return plans | {name: network_plan(_describe(tables), 2).trunk for name, tables in VARIANTS.items()}


def raise_failed(checks: "list[Check]") -> None:
    """Does nothing where all is well.

    Raises:
        LupError: checks failed.
    """
    failed = [check.what for check in checks if check.status == "failed"]
    if failed:
        what = f"{failed[0]}: failed" if len(failed) == 1 else f"{len(failed)} checks failed: {name_some(failed)}"
        raise LupError(what, hint="the reasons are in the table above; --json has them in full")


def _describe(tables: Mapping[str, Any]) -> "FinetuneRecipe":
    """A recipe with a network for small images."""
    from lupctl.core.recipes.models import FinetuneRecipe

    pixels = {"height": HEIGHT, "width": WIDTH, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
    return FinetuneRecipe.model_validate({**tables, "pixels": pixels})


def _find_recipe(kind: str) -> "FinetuneRecipe":
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.recipes.shipped import resolve_recipe

    recipe = resolve_recipe("finetune", RECIPES[kind])
    assert isinstance(recipe, FinetuneRecipe)
    return recipe


def _train(recipe: "FinetuneRecipe", devices: "list[Any]", checks: "list[Check]", left_s: float) -> "Outcome":
    """Steps of a recipe on one device, and whether decoding keeps up with them.

    Args:
        recipe: of the devices' kind.
        devices: that would share the work.
        checks: so far; decoding is among them.
        left_s: of the exercise.
    """
    from lupctl.core.stages.exercise.check import Outcome
    from lupctl.core.stages.finetune.speed import time_step

    step_s = time_step(recipe, devices[0], budget_s=min(1.0, left_s))
    network = recipe.data.persons * recipe.data.images / step_s * len(devices)
    decoding = next((check.numbers for check in checks if "images_per_s_core" in check.numbers), None)
    if decoding is None:
        return Outcome("a step runs; how fast images are decoded is not known", f"{network:,.0f} images/s", {})
    return judge_speed(network, decoding, devices[0].type, len(devices))


def judge_speed(network: float, decoding: Mapping[str, float], kind: str, devices: int) -> "Outcome":
    """What training would do in a second, and what holds it up.

    Args:
        network: images per second through the network on all devices.
        decoding: the numbers of the check of it.
        kind: cpu or cuda.
        devices: that share the work.
    """
    from lupctl.core.stages.exercise.check import Outcome

    if kind == "cpu":
        # Both take the same cores, one after the other.
        decoded = decoding["images_per_s"]
        expected = 1 / (1 / network + 1 / decoded)
    else:
        decoded = decoding["images_per_s_core"] * min(decoding["cores"], MOST_WORKERS * devices)
        expected = min(network, decoded)
    slow = "the network" if network <= decoded else "decoding"
    share = f"network {network:,.0f} images/s on {devices} x {kind}, decoding {decoded:,.0f}"
    advice = "" if slow == "the network" else "; smaller images on disk (data pack --size) or more cores help"
    numbers = {"images_per_s": expected, "network_images_per_s": network, "decoding_images_per_s": decoded}
    return Outcome(f"{slow} is the bottleneck: {share}{advice}", f"{expected:,.0f} images/s expected", numbers)
