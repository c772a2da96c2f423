"""Everything a process needs before its first step of pre-training, for the loop and for the profile."""

from collections.abc import Generator
from dataclasses import dataclass

import torch

from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.stages.pretrain.job import PretrainJob, count_parts, student_plan, trainable_rows
from lupctl.core.stages.pretrain.views import view_plans
from lupctl.core.system.jobs.device import pick_precision
from lupctl.core.system.jobs.messages import own_device, rank, world_size
from lupctl.core.training.engine.curves import Curve, RateCurve
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.engine.parts import recompute_blocks
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import Batch, StepDataset, default_workers, open_loader
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.methods.build import AnyMethod, build_method
from lupctl.core.training.methods.protocol import Now
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from lupctl.core.training.views.plan import ViewPlan


@dataclass(frozen=True)
class Setup:
    """One process's data and device.

    Args:
        device: of this process.
        packs: opened.
        images: the training images.
        order: of the images.
        views: how each view of an image is made.
        precision: type of the forward pass.
        workers: decoding processes.
        total: steps of the run.
    """

    device: torch.device
    packs: list[Pack]
    images: PackImages
    order: ShuffledOrder
    views: tuple[ViewPlan, ...]
    precision: torch.dtype
    workers: int
    total: int


@dataclass(frozen=True)
class Curves:
    """The scheduled numbers of a run.

    Args:
        steps_per_epoch: converts steps to epochs.
        rate, decay: of the optimizer.
        momentum, temperature: of the method.
    """

    steps_per_epoch: int
    rate: RateCurve
    decay: Curve
    momentum: Curve
    temperature: Curve

    def now(self, step: int) -> Now:
        """All numbers of a step, counted from 0."""
        return Now(
            step=step,
            epoch=step // self.steps_per_epoch,
            rate=self.rate.at(step),
            decay=self.decay.at(step),
            momentum=self.momentum.at(step),
            temperature=self.temperature.at(step),
        )


@dataclass(frozen=True)
class Trained:
    """What changes with every step.

    Args:
        method: its networks are on the device.
        optimizer: of the student.
        gradients: of the student, shared among parts and processes.
        curves: the scheduled numbers.
    """

    method: AnyMethod
    optimizer: torch.optim.Optimizer
    gradients: SharedGradients
    curves: Curves


def set_up(job: PretrainJob) -> Setup:
    """Open the data and pick the device.

    Raises:
        DataError: a pack is missing, damaged, or has nothing to train on.
    """
    recipe, device = job.recipe, own_device(job.placement.kind)
    packs = [open_pack(path) for path in job.packs]
    images = PackImages(packs, trainable_rows(packs))
    order = ShuffledOrder(len(images), batch=recipe.data.batch, seed=recipe.seed)
    return Setup(
        device=device,
        packs=packs,
        images=images,
        order=order,
        views=view_plans(recipe),
        precision=pick_precision(recipe.precision, device),
        workers=default_workers(device) if job.workers is None else job.workers,
        total=order.steps_per_epoch * recipe.schedule.epochs,
    )


def build_trained(recipe: PretrainRecipe, setup: Setup) -> Trained:
    """New networks and their optimizer; the same in every process of the job."""
    torch.manual_seed(recipe.seed)
    method = place_method(recipe, setup.device)
    optim = recipe.optim.model_dump(exclude={"clip", "clip_scope", "accumulate"})
    return Trained(
        method=method,
        optimizer=build_optimizer(method.student.parameters(), **optim),
        gradients=share_gradients(recipe, method, kind=setup.device.type),
        curves=build_curves(recipe, setup.order.steps_per_epoch),
    )


def place_method(recipe: PretrainRecipe, device: torch.device) -> AnyMethod:
    """The method with its networks on the device, batch-norm groups set for this process's share of a part."""
    method = build_method(recipe.settings, student_plan(recipe), seed=recipe.seed).to(device)
    groups = recipe.bn_groups // world_size() // count_parts(recipe, device.type, processes=world_size())
    set_norm_groups(method, groups)
    for encoder in method.encoders:
        if device.type == "cuda" and groups == 1:
            # Convolutions on tensor cores are fastest with channels last. Several groups need images first: they are
            # cut out of the batch as channels, which needs a copy in any other layout.
            encoder.to(memory_format=torch.channels_last)
        if recipe.net.compile:
            encoder.compile()
    if recipe.net.checkpoint_activations:
        recompute_blocks(method.student.backbone.blocks())
    return method.train()


def share_gradients(recipe: PretrainRecipe, method: AnyMethod, *, kind: str) -> SharedGradients:
    """The student with its gradients shared among parts and processes.

    Args:
        recipe: determines the number of parts.
        method: its student is wrapped.
        kind: of the devices, cpu or cuda.
    """
    return SharedGradients(method.student, parts=count_parts(recipe, kind, processes=world_size()))


def build_curves(recipe: PretrainRecipe, steps_per_epoch: int) -> Curves:
    """The scheduled numbers that a recipe describes."""
    starts = {
        "decay": recipe.optim.weight_decay,
        "momentum": recipe.settings.momentum,
        "temperature": recipe.settings.temperature,
    }
    curves = {}
    for name, settings in (
        ("decay", recipe.curves.decay),
        ("momentum", recipe.curves.momentum),
        ("temperature", recipe.curves.temperature),
    ):
        steps = max(round((settings.epochs or recipe.schedule.epochs) * steps_per_epoch), 1)
        curves[name] = Curve(settings.kind, starts[name], steps=steps, final=settings.final)
    rate = RateCurve(lr=recipe.optim.lr, steps_per_epoch=steps_per_epoch, **recipe.schedule.model_dump())
    return Curves(steps_per_epoch, rate, **curves)


def open_batches(setup: Setup, steps: range, *, seed: int) -> Generator[Batch, None, None]:
    """This process's share of the batches of some steps, decoded in advance."""
    dataset = StepDataset(setup.images, setup.order, setup.views, seed=seed, rank=rank(), processes=world_size())
    return open_loader(dataset, steps, workers=setup.workers, pin=setup.device.type == "cuda")
