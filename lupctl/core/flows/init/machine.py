"""This machine, the recipes that suit it, and how long a step of theirs takes on it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lupctl.core.flows.init.model import Machine

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# A batch of the published MGN has four persons; fewer than this many to train on are too few for it.
FEWEST_FOR_MGN = 16
# From here on LUPerson's pre-training is worth its eight GPUs.
MANY_IMAGES = 100_000
# Momentum contrast needs a batch, and a queue well below the number of images.
FEWEST_TO_PRETRAIN = 64


@dataclass(frozen=True)
class Training:
    """One command of training, for this machine and this data.

    Args:
        words: recipe and settings, as typed.
        about: the recipe in words.
        seconds: of all its steps, estimated.
        image_s: of the network on one image, without a gradient, estimated.
    """

    words: tuple[str, ...]
    about: str
    seconds: float
    image_s: float = 0.0


def find_machine() -> Machine:
    """The devices that training would take, as `lupctl doctor` reports them."""
    from lupctl.core.system.jobs.device import pick_placement
    from lupctl.core.system.threads.cores import usable_cores

    placement = pick_placement(gpus=None, processes=None)
    cores = usable_cores()
    line = f"cpu with {cores} cores (no GPU is visible)" if placement.kind == "cpu" else placement.line.split(": ")[1]
    return Machine(placement.kind, placement.processes, cores, line)


def choose_finetuning(machine: Machine, labels: "NDArray[np.int64]", *, pretrained: bool) -> Training:
    """The recipe for labelled images on this machine, and its time.

    Args:
        machine: where it runs.
        labels: (N) the person of each training image.
        pretrained: whether it starts from a pre-training run of the same machine.
    """
    import numpy as np
    import torch

    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.recipes.shipped import resolve_recipe
    from lupctl.core.stages.finetune.job import build_order
    from lupctl.core.stages.finetune.speed import time_step

    persons = len(np.unique(labels))
    name, words, about = _pick_finetuning(machine, persons, pretrained=pretrained)
    recipe = resolve_recipe("finetune", name)
    assert isinstance(recipe, FinetuneRecipe)
    settings = () if persons >= recipe.data.persons else (f"data.persons={max(persons, 2)}",)
    if settings:
        recipe = resolve_recipe("finetune", name, overrides=settings)
        assert isinstance(recipe, FinetuneRecipe)
    used = int(words[words.index("--gpus") + 1]) if "--gpus" in words else 1
    step_s = time_step(recipe, torch.device(machine.kind), devices=used)
    epochs = build_order(recipe, labels, np.zeros(len(labels), np.int16)).epochs(recipe.schedule.epochs)
    batch = recipe.data.persons * recipe.data.images
    return Training(
        words=(*words, *(word for entry in settings for word in ("--set", entry))),
        about=f"{about}, {recipe.schedule.epochs} epochs of {epochs.mean_length} steps",
        seconds=epochs.total * step_s,
        image_s=step_s * used / batch / 3,
    )


def _pick_finetuning(machine: Machine, persons: int, *, pretrained: bool) -> tuple[str, tuple[str, ...], str]:
    """The recipe's name, the words of the command, and the recipe in words."""
    if machine.kind == "cpu":
        words = ("--recipe", "small-bot", *(() if pretrained else ("--from", "scratch")))
        return "small-bot", words, "bag of tricks with a half-width R18 at 128 x 64"
    devices = max(count for count in (1, 2, 4, 8, 16) if count <= machine.devices)
    if devices == 1 or persons < FEWEST_FOR_MGN:
        words = ("--recipe", "bot", "--from", "imagenet", "--gpus", "1")
        return "bot", words, "bag of tricks with R50 at 256 x 128, from ImageNet's weights (fetched once, 98 MB)"
    words = ("--gpus", str(devices)) if pretrained else ("--from", "imagenet", "--gpus", str(devices))
    start = "from the pre-training" if pretrained else "from ImageNet's weights (fetched once, 98 MB)"
    return "mgn-luperson" if pretrained else "mgn-imagenet", words, f"the published MGN with R50 at 384 x 128, {start}"


def choose_pretraining(machine: Machine, images: int) -> Training | None:
    """The recipe for images without labels on this machine, and its time; None where there are too few of them."""
    import torch

    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.recipes.shipped import resolve_recipe
    from lupctl.core.stages.pretrain.speed import time_step

    if images < FEWEST_TO_PRETRAIN:
        return None
    if machine.devices == 8 and images >= MANY_IMAGES:
        words: tuple[str, ...] = ("--arch", "r50", "--gpus", "8")
        recipe = resolve_recipe("pretrain", "luperson-moco", overrides=("data.batch=320", "bn_groups=1"))
        assert isinstance(recipe, PretrainRecipe)
        steps = images // 2560 * recipe.schedule.epochs
        about = f"LUPerson's published pre-training with R50, {recipe.schedule.epochs} epochs"
    else:
        settings = _fit_contrast(images)
        words = ("--recipe", "small-moco", *(word for entry in settings for word in ("--set", entry)))
        if machine.kind != "cpu":
            words = (*words, "--gpus", "1")
        recipe = resolve_recipe("pretrain", "small-moco", overrides=settings)
        assert isinstance(recipe, PretrainRecipe)
        steps = images // recipe.data.batch * recipe.schedule.epochs
        about = f"momentum contrast with a half-width R18 at 128 x 64, {recipe.schedule.epochs} epochs"
    step_s = time_step(recipe, torch.device(machine.kind))
    return Training(words, about, steps * step_s, image_s=step_s / recipe.data.batch / 5)


def _fit_contrast(images: int) -> tuple[str, ...]:
    """What small-moco needs for few images: a batch an eighth of them, and a queue of half of them."""
    batch, queue = 128, 512
    fitting = 1 << (images // 4).bit_length() - 1
    if fitting >= batch and images > 2 * queue:
        return ()
    batch, queue = min(batch, fitting), min(queue, 2 * fitting)
    return (f"data.batch={batch}", f"moco.queue={queue}", f"optim.lr={0.06 * batch / 128:g}")
