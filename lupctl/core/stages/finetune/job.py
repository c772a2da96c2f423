"""What a fine-tuning command asks for, and what that amounts to."""

from collections.abc import Sequence
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
from lupctl.core.formats.weights.plan import FcHead, JpmHead, MgnHead, NeckHead, NetworkPlan, PartsHead
from lupctl.core.formats.weights.trunk_plan import plan_trunk
from lupctl.core.ranking.retrieval.answerable import check_answerable
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.text import recipe_tables
from lupctl.core.stages.finetune.cameras import pick_cameras
from lupctl.core.stages.finetune.checks import check_start
from lupctl.core.stages.finetune.persons import Camera, LabelledRows, names_share, pick_rows
from lupctl.core.stages.finetune.teacher import TEACHER, TeacherPlan, plan_teacher
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.jobs.compiling import check_compiler
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.jobs.outer import Rendezvous
from lupctl.core.system.jobs.split import check_split
from lupctl.core.training.engine.board import check_tensorboard
from lupctl.core.training.engine.curves import Epochs, even_epochs
from lupctl.core.training.loading.samplers import PersonsImagesOrder, ShuffledOrder, StepOrder
from lupctl.core.training.loading.streams import CameraStream, PersonPasses, PersonStream
from lupctl.core.training.nets.memory import activation_bytes, count_parameters, parameter_bytes, recomputed_bytes
from lupctl.core.training.nets.osnet.network import FEATURES


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
        teacher: checkpoint of the network that is learned from; there if and only if the recipe has `distil`.
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
    teacher: Path | None = None

    @property
    def local_processes(self) -> int:
        """Processes on this machine."""
        return self.placement.processes // (1 if self.rendezvous is None else self.rendezvous.nodes)


@dataclass(frozen=True)
class FinetunePlan:
    """What a job will do.

    Args:
        images, persons: of the training set, each image counted once; no persons where labels are not looked at.
        steps_per_epoch, steps: optimizer updates; the mean, rounded, where epochs differ in length.
        batch_per_device: images.
        memory_bytes: estimate per device: network, gradient, optimizer and activations in float32.
        queries: valid queries of the evaluations, 0 when no pack has any.
        parameters: of the network, with its classifiers.
        cameras: of the network's table, in order; none if it has none.
        teacher: what it adds; None without one.
    """

    images: int
    persons: int
    steps_per_epoch: int
    steps: int
    batch_per_device: int
    memory_bytes: int
    queries: int
    parameters: int
    cameras: tuple[Camera, ...]
    teacher: TeacherPlan | None


def plan_finetuning(job: FinetuneJob) -> FinetunePlan:
    """Counts what a job will do, without touching anything.

    Raises:
        DataError: the pack is missing, damaged, unlabelled, or its query set cannot be scored.
        UsageError: batch, groups and devices do not fit together, or an extra is missing.
        DeviceError: the network is to be compiled, and no compiler is here.
    """
    recipe = job.recipe
    if job.tensorboard:
        check_tensorboard()
    if recipe.net.compile:
        check_compiler(job.placement.kind)
    batch = check_batch(recipe, job.placement.processes)
    packs = [open_pack(path) for path in job.packs]
    train = pick_rows(recipe, packs)
    cameras = pick_cameras(recipe, train)
    check_start(job.start, recipe, cameras, datasets=[pack.dataset for pack in packs])
    assert (job.teacher is None) == (recipe.distil is None)
    teacher = None if job.teacher is None else plan_teacher(job.teacher, job.run)
    epochs = plan_epochs(recipe, train)
    net = network_plan(recipe, len(train.persons), cameras)
    local = batch // job.placement.processes
    count_bytes = recomputed_bytes if recipe.net.checkpoint_activations else activation_bytes
    activations = count_bytes(net, height=recipe.pixels.height, width=recipe.pixels.width)
    return FinetunePlan(
        images=train.num_images,
        persons=len(train.persons),
        steps_per_epoch=epochs.mean_length,
        steps=epochs.total,
        batch_per_device=local,
        memory_bytes=(5 if recipe.optim.name == "amsgrad" else 4) * parameter_bytes(net)
        + local * activations
        + (0 if teacher is None else teacher.bytes),
        queries=sum(count_queries(recipe, pack) for pack in packs),
        parameters=count_parameters(net),
        cameras=cameras,
        teacher=teacher,
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


def describe_setup(job: FinetuneJob) -> dict[str, Any]:
    """What may not change while a run is continued: its recipe, and the fingerprints of its inputs."""
    return {"recipe": recipe_tables(job.recipe), "inputs": input_fingerprints(job)}


def input_fingerprints(job: FinetuneJob) -> dict[str, str]:
    """What the run is made from."""
    inputs = {f"pack:{pack.dataset}": pack.fingerprint for pack in map(open_pack, job.packs)}
    if job.start is not None:
        inputs["start"] = file_fingerprint(job.start)
    if job.teacher is not None:
        inputs[TEACHER] = file_fingerprint(job.teacher)
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
        case "shuffled":
            return shuffle(len(label), persons * images, seed=seed)
        case _:
            assert_never(recipe.data.order)


def shuffle(count: int, batch: int, *, seed: int) -> ShuffledOrder:
    """Batches of images of whomever.

    Raises:
        UsageError: there are fewer images than one batch needs.
    """
    if count < batch:
        raise UsageError(
            f"data.persons x data.images is a batch of {batch}; the training set has {count} images",
            hint=f"--batch {max(4, count // 8 * 4)}",
        )
    return ShuffledOrder(count, batch=batch, seed=seed)


def plan_epochs(recipe: FinetuneRecipe, train: LabelledRows) -> Epochs:
    """The epochs of a run: passes over its persons, or as many steps as a recipe says between two clusterings."""
    if recipe.clusters is not None:
        return even_epochs(recipe.clusters.steps, recipe.schedule.epochs)
    return build_order(recipe, train.label, train.camera).epochs(recipe.schedule.epochs)


def network_plan(recipe: FinetuneRecipe, num_classes: int, cameras: Sequence[Camera] = ()) -> NetworkPlan:
    """The network a recipe describes.

    Args:
        recipe: resolved.
        num_classes: persons of the training set.
        cameras: of the training set, as `table_cameras` gives them.
    """
    net, vit, swin, jpm = recipe.net, recipe.vit, recipe.swin, recipe.jpm
    count = len(cameras)
    trunk = plan_trunk(net, recipe.pixels, vit=vit, swin=swin, sie=recipe.sie, cameras=count, ibn=net.ibn)
    head: NeckHead | PartsHead | MgnHead | JpmHead | FcHead
    match net.head:
        case "bnneck" if net.pooling == "parts":
            head = PartsHead(kind="parts", classes=num_classes, feature=net.feature)
        case "bnneck":
            head = NeckHead(kind="bnneck", classes=num_classes, feature=net.feature)
        case "fc":
            head = FcHead(kind="fc", classes=num_classes, outputs=FEATURES)
        case "mgn":
            head = MgnHead(kind="mgn", classes=num_classes, embedding=net.embedding, extra_bn=net.extra_bn)
            return NetworkPlan(trunk=trunk, pooling="gem", head=head)
        case "jpm":
            assert jpm is not None, "filled in by `check_arch_sections`"
            head = JpmHead(
                kind="jpm",
                classes=num_classes,
                feature=net.feature,
                shift=jpm.shift,
                groups=jpm.groups,
                parts=jpm.parts,
            )
        case _:
            assert_never(net.head)
    return NetworkPlan(trunk=trunk, pooling=net.pooling, head=head)


def has_queries(samples: Samples) -> bool:
    """Whether there is anything to evaluate."""
    return bool((samples.role == ROLE_CODES["query"]).any())
