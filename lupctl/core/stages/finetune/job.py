"""What a fine-tuning command asks for, and what that amounts to."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, SameCamera
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import packed_same_camera
from lupctl.core.formats.weights.header import read_header
from lupctl.core.formats.weights.plan import (
    MgnHead,
    NeckHead,
    NetworkPlan,
    ResNetPlan,
    TrunkPlan,
    describe_trunk,
)
from lupctl.core.formats.weights.vit_plan import ViTPlan, plan_vit
from lupctl.core.ranking.retrieval.answerable import check_answerable
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.persons import names_share, pick_rows
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.jobs.outer import Rendezvous
from lupctl.core.system.jobs.split import check_split
from lupctl.core.training.engine.board import check_tensorboard
from lupctl.core.training.loading.samplers import PersonsImagesOrder, StepOrder
from lupctl.core.training.loading.streams import CameraStream, PersonPasses, PersonStream
from lupctl.core.training.nets.memory import activation_bytes, parameter_bytes


@dataclass(frozen=True)
class FinetuneJob:
    """One command's worth of fine-tuning.

    Args:
        recipe: resolved; `recipe.start` is imagenet, scratch, or what the user called the checkpoint `start`.
        packs: the labelled data; the first one's queries are the run's own test.
        start: checkpoint the trunk begins from; None with imagenet and scratch.
        run: the run's folder.
        placement: devices of all machines.
        workers: decoding processes per device; None picks.
        command: the command line, for the record.
        rendezvous: of several machines; None on one machine, and inside a job that torchrun or srun started.
        tensorboard: whether the metrics are also written as curves.
        force: start over if there is already a run.
        quiet: no lines, no bars.
    """

    recipe: FinetuneRecipe
    packs: tuple[Path, ...]
    start: Path | None
    run: Path
    placement: Placement
    workers: int | None
    command: tuple[str, ...]
    rendezvous: Rendezvous | None = None
    tensorboard: bool = False
    force: bool = False
    quiet: bool = False

    @property
    def local_processes(self) -> int:
        """Processes on this machine."""
        return self.placement.processes // (1 if self.rendezvous is None else self.rendezvous.nodes)


@dataclass(frozen=True)
class FinetunePlan:
    """What a job will do.

    Args:
        images, persons: of the training set, each image counted once.
        steps_per_epoch, steps: optimizer updates; the mean, rounded, where epochs differ in length.
        batch_per_device: images.
        memory_bytes: estimate per device: network, gradient, optimizer and activations in float32.
        queries: valid queries of the evaluations, 0 when no pack has any.
    """

    images: int
    persons: int
    steps_per_epoch: int
    steps: int
    batch_per_device: int
    memory_bytes: int
    queries: int


def plan_finetuning(job: FinetuneJob) -> FinetunePlan:
    """Counts what a job will do, without touching anything.

    Raises:
        DataError: the pack is missing, damaged, unlabelled, or its query set cannot be scored.
        UsageError: batch, groups and devices do not fit together, or an extra is missing.
    """
    recipe = job.recipe
    if job.tensorboard:
        check_tensorboard()
    batch = check_batch(recipe, job.placement.processes)
    check_start(job)
    packs = [open_pack(path) for path in job.packs]
    train = pick_rows(recipe, packs)
    epochs = build_order(recipe, train.label, train.camera).epochs(recipe.schedule.epochs)
    net = network_plan(recipe, len(train.persons))
    local = batch // job.placement.processes
    activations = activation_bytes(net, height=recipe.pixels.height, width=recipe.pixels.width)
    return FinetunePlan(
        images=train.num_images,
        persons=len(train.persons),
        steps_per_epoch=epochs.mean_length,
        steps=epochs.total,
        batch_per_device=local,
        memory_bytes=4 * parameter_bytes(net) + local * activations,
        queries=sum(count_queries(recipe, pack) for pack in packs),
    )


def check_batch(recipe: FinetuneRecipe, processes: int) -> int:
    """The images of a batch, which is one of persons x images and nothing else.

    Raises:
        UsageError: batch, groups and devices do not fit together.
    """
    persons, images = recipe.data.persons, recipe.data.images
    batch = persons * images
    if batch % processes:
        raise UsageError(
            f"data.persons x data.images = {persons} x {images} is a batch of {batch}, "
            f"which does not divide among {processes} devices",
            hint=f"--set data.persons={-(-persons // processes) * processes}",
        )
    check_split(batch, recipe.bn_groups, processes, spanning=True)
    return batch


def scored_same_camera(recipe: FinetuneRecipe, pack: Pack) -> SameCamera:
    """What becomes of matches from the query's own camera: as the recipe says, but kept where the pack's split says so.

    Nobody is seen by two cameras in such a pack, so nothing could be scored without them.
    """
    return "keep" if recipe.evaluation.same_camera == "keep" else packed_same_camera(pack.record)


def count_queries(recipe: FinetuneRecipe, pack: Pack) -> int:
    """Queries that will be scored; 0 when the pack has none.

    Raises:
        DataError: there are queries, and none can be answered.
    """
    if not has_queries(pack.samples):
        return 0
    same_camera = scored_same_camera(recipe, pack)
    try:
        return check_answerable(pack.samples, same_camera=same_camera).valid
    except DataError as error:
        if "camera" not in error.hint or same_camera == "keep":
            raise
        hint = "count them as right answers: --set evaluation.same_camera=keep"
        raise DataError(error.message, hint=hint) from error


def check_start(job: FinetuneJob) -> None:
    """Refuses a start whose trunk is not the recipe's, before anything is written.

    Raises:
        UsageError: depth or width differ.
        FormatError: the start is no checkpoint.
    """
    if job.start is None:
        if job.recipe.start == "imagenet" and job.recipe.net.ibn:
            raise UsageError(
                "net.ibn = true: torchvision has ImageNet weights for plain trunks only",
                hint="--from scratch, or --set net.ibn=false",
            )
        return
    found, net = read_header(job.start).network, job.recipe.net
    if isinstance(found.head, MgnHead):
        if net.head != "mgn":
            raise UsageError(
                f"{job.start}: an mgn of three branches; the recipe's net.head is {net.head}, which has one",
                hint="--recipe mgn-luperson, or another one whose net.head is mgn",
            )
        if (found.head.embedding, found.head.extra_bn) != (net.embedding, net.extra_bn):
            raise UsageError(
                f"{job.start}: an mgn with embedding {found.head.embedding} and extra_bn {found.head.extra_bn}; "
                f"the recipe says {net.embedding} and {net.extra_bn}",
                hint=f"--set net.embedding={found.head.embedding} "
                f"--set net.extra_bn={str(found.head.extra_bn).lower()}",
            )
    trunk, wanted = found.trunk, trunk_plan(job.recipe)
    if isinstance(trunk, ViTPlan) or isinstance(wanted, ViTPlan):
        if type(trunk) is not type(wanted) or trunk.arch != wanted.arch:
            raise UsageError(
                f"{job.start}: a trunk {describe_trunk(trunk)}; the recipe says {describe_trunk(wanted)}",
                hint=f"--arch {trunk.arch}" if trunk.arch else f"--from scratch --arch {net.arch}",
            )
    elif (trunk.arch, trunk.width) != (net.arch, net.width):
        raise UsageError(
            f"{job.start}: a trunk {trunk.arch} of width {trunk.width}; "
            f"the recipe says {net.arch} of width {net.width}",
            hint=f"--arch {trunk.arch} --set net.width={trunk.width}",
        )


def describe_setup(job: FinetuneJob) -> dict[str, Any]:
    """What may not change while a run is continued: its recipe, and the fingerprints of its inputs."""
    return {"recipe": job.recipe.model_dump(mode="json"), "inputs": input_fingerprints(job)}


def input_fingerprints(job: FinetuneJob) -> dict[str, str]:
    """What the run is made from."""
    inputs = {f"pack:{pack.dataset}": pack.fingerprint for pack in map(open_pack, job.packs)}
    if job.start is not None:
        inputs["start"] = file_fingerprint(job.start)
    subset = job.recipe.data.subset
    if subset and not names_share(subset):
        inputs["subset"] = file_fingerprint(Path(subset))
    return inputs


def build_order(recipe: FinetuneRecipe, label: NDArray[np.int64], camera: NDArray[np.int16]) -> StepOrder:
    """The batches a recipe describes, over images with these classes and cameras."""
    persons, images, seed = recipe.data.persons, recipe.data.images, recipe.seed
    match recipe.data.order:
        case "epochs":
            return PersonsImagesOrder(label, persons=persons, images=images, seed=seed)
        case "stream":
            return PersonStream(label, persons=persons, images=images, seed=seed)
        case "cameras":
            return CameraStream(label, camera, persons=persons, images=images, seed=seed)
        case "once":
            return PersonPasses(label, persons=persons, images=images, seed=seed)
        case _:
            assert_never(recipe.data.order)


def network_plan(recipe: FinetuneRecipe, num_classes: int) -> NetworkPlan:
    """The network a recipe describes."""
    net = recipe.net
    trunk = trunk_plan(recipe)
    match net.head:
        case "bnneck":
            neck = NeckHead(kind="bnneck", classes=num_classes)
            pooling = net.pooling if isinstance(trunk, ResNetPlan) else "token"
            return NetworkPlan(trunk=trunk, pooling=pooling, head=neck)
        case "mgn":
            heads = MgnHead(kind="mgn", classes=num_classes, embedding=net.embedding, extra_bn=net.extra_bn)
            return NetworkPlan(trunk=trunk, pooling="gem", head=heads)
        case "jpm":
            raise UsageError("net.head = jpm: fine-tuning has no loss for it yet", hint="--set net.head=bnneck")
        case _:
            assert_never(net.head)


def trunk_plan(recipe: FinetuneRecipe) -> TrunkPlan:
    """The trunk a recipe describes.

    Raises:
        UsageError: the head has no meaning for it, or no patch fits into the images.
    """
    net = recipe.net
    match net.arch:
        case "vit-t" | "vit-s" | "vit-b":
            if net.head == "mgn":
                raise UsageError(f"net.head = mgn: an mgn has a residual trunk, not {net.arch}", hint="--arch r50")
            return plan_vit(net.arch, height=recipe.pixels.height, width=recipe.pixels.width)
        case _:
            width, stride = net.width, net.last_stride
            return ResNetPlan(kind="resnet", arch=net.arch, width=width, last_stride=stride, ibn=net.ibn)


def has_queries(samples: Samples) -> bool:
    """Whether there is anything to evaluate."""
    return bool((samples.role == ROLE_CODES["query"]).any())
