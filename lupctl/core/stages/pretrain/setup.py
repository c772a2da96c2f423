"""Everything a process needs before its first step of pre-training, for the loop and for the profile."""

from collections.abc import Generator
from dataclasses import dataclass

import torch
from torch import Tensor

from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.weights.header import KeptImages
from lupctl.core.recipes.dino_sections import DinoSettings
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import MethodSettings, MocoSettings, PnlSettings, uses_labels
from lupctl.core.stages.pretrain.job import PretrainJob, choose_rows, count_parts, student_plan
from lupctl.core.stages.pretrain.labels import TrainLabels, read_labels
from lupctl.core.stages.pretrain.views import view_plans
from lupctl.core.system.jobs.messages import own_device, rank, world_size
from lupctl.core.system.jobs.precision import evaluation_precision, pick_training_precision
from lupctl.core.training.engine.curves import Curve, RateCurve, even_epochs
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.optim import build_optimizer
from lupctl.core.training.engine.parts import recompute_blocks
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import Batch, StepDataset, default_workers, open_loader
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.methods.build import AnyMethod, build_method, trained_trunk
from lupctl.core.training.methods.pnl import Pnl
from lupctl.core.training.methods.protocol import Now
from lupctl.core.training.methods.shards import keep_whole_moments
from lupctl.core.training.methods.watching import WATCH_EVERY_STEPS
from lupctl.core.training.nets.resnet.layout import set_order
from lupctl.core.training.nets.resnet.norms import share_norm_groups
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
        precision: type of the passes of training.
        workers: decoding processes.
        total: steps of the run.
        labels: of the training images, if the method uses them.
        kept: by which list the images were chosen, if one did.
    """

    device: torch.device
    packs: list[Pack]
    images: PackImages
    order: ShuffledOrder
    views: tuple[ViewPlan, ...]
    precision: torch.dtype
    workers: int
    total: int
    labels: TrainLabels | None = None
    kept: KeptImages | None = None

    @property
    def scoring(self) -> torch.dtype:
        """Type of the passes that make features."""
        return evaluation_precision(self.precision, self.device)


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
            is_watched=step % WATCH_EVERY_STEPS == 0,
        )


@dataclass(frozen=True)
class Trained:
    """What changes with every step.

    Args:
        method: its networks are on the device.
        optimizer: of the student.
        gradients: of the student, shared among parts and processes.
        curves: the scheduled numbers.
        label, truth: (N) of the training images, on the device, if the method uses labels and if truth is known.
    """

    method: AnyMethod
    optimizer: torch.optim.Optimizer
    gradients: SharedGradients
    curves: Curves
    label: Tensor | None = None
    truth: Tensor | None = None


def set_up(job: PretrainJob, precision: torch.dtype | None = None) -> Setup:
    """Opens the data and picks the device.

    Args:
        job: what to do.
        precision: type of the passes of training; None for what a new run would take here.

    Raises:
        DataError: a pack is missing, damaged, or has nothing to train on.
    """
    recipe, device = job.recipe, own_device(job.placement.kind)
    packs = [open_pack(path) for path in job.packs]
    choice = choose_rows(recipe, packs)
    images = PackImages(packs, choice.rows)
    order = ShuffledOrder(len(images), batch=recipe.data.batch, seed=recipe.seed, groups=recipe.bn_groups)
    return Setup(
        device=device,
        packs=packs,
        images=images,
        order=order,
        views=view_plans(recipe),
        precision=precision or pick_training_precision(recipe.precision, device),
        workers=default_workers(device) if job.workers is None else job.workers,
        total=order.steps_per_epoch * recipe.schedule.epochs,
        labels=read_labels(packs, images.rows) if uses_labels(recipe.settings) else None,
        kept=choice.kept,
    )


def build_trained(recipe: PretrainRecipe, setup: Setup) -> Trained:
    """New networks and their optimizer; the same in every process of the job."""
    torch.manual_seed(recipe.seed)
    labels = setup.labels
    method = place_method(recipe, setup.device, labels)
    optim = recipe.optim.model_dump(exclude={"clip", "clip_scope", "accumulate"})
    optimizer = build_optimizer(method.trained, **optim)
    if isinstance(method, Pnl) and method.classifier is not None:
        keep_whole_moments(optimizer, method.classifier)
    return Trained(
        method=method,
        optimizer=optimizer,
        gradients=share_gradients(recipe, method, kind=setup.device.type),
        curves=build_curves(recipe, setup.order.steps_per_epoch),
        label=None if labels is None else torch.from_numpy(labels.label).to(setup.device),
        truth=None if labels is None or labels.truth is None else torch.from_numpy(labels.truth).to(setup.device),
    )


def place_method(recipe: PretrainRecipe, device: torch.device, labels: TrainLabels | None = None) -> AnyMethod:
    """The method with its networks on the device, batch-norm groups set for this process's share of a part."""
    method: AnyMethod = build_method(
        recipe.settings,
        student_plan(recipe),
        seed=recipe.seed,
        drop_path=recipe.drop_path,
        classes=0 if labels is None else labels.num_classes,
        persons=None if labels is None or labels.persons is None else torch.from_numpy(labels.persons),
        solider=recipe.solider,
    ).to(device)
    parts = count_parts(recipe, device.type, processes=world_size())
    share_norm_groups(method, recipe.bn_groups, parts=parts)
    set_order(method, recipe.precision)
    for encoder in method.encoders:
        if device.type == "cuda" and recipe.bn_groups <= world_size() * parts:
            # Convolutions on tensor cores are fastest with channels last. Several groups need images first: they are
            # cut out of the batch as channels, which needs a copy in any other layout.
            encoder.to(memory_format=torch.channels_last)
        if recipe.net.compile:
            encoder.compile()
    if recipe.net.checkpoint_activations:
        recompute_blocks(trained_trunk(method).all_blocks())
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
    settings: MethodSettings = recipe.settings
    starts = {
        "decay": recipe.optim.weight_decay,
        "momentum": settings.momentum if isinstance(settings, MocoSettings | PnlSettings | DinoSettings) else 0.0,
        "temperature": settings.temperature,
    }
    curves = {}
    for name, curve in (
        ("decay", recipe.curves.decay),
        ("momentum", recipe.curves.momentum),
        ("temperature", recipe.curves.temperature),
    ):
        length = max(round((curve.epochs or recipe.schedule.epochs) * steps_per_epoch), 1)
        curves[name] = Curve(curve.kind, starts[name], steps=length, final=curve.final)
    steps = even_epochs(steps_per_epoch, recipe.schedule.epochs)
    rate = RateCurve(lr=recipe.optim.lr, steps=steps, **recipe.schedule.model_dump())
    return Curves(steps_per_epoch, rate, **curves)


def open_batches(setup: Setup, steps: range, *, seed: int) -> Generator[Batch, None, None]:
    """This process's share of the batches of some steps, decoded in advance."""
    dataset = StepDataset(setup.images, setup.order, setup.views, seed=seed, rank=rank(), processes=world_size())
    return open_loader(dataset, steps, workers=setup.workers, pin=setup.device.type == "cuda")
