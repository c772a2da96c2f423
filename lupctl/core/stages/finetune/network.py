"""The network of a fine-tuning run: initialisation, evaluation, and saving."""

import sys
from collections.abc import Sequence
from contextlib import redirect_stderr
from typing import Any, assert_never

import torch
from torch import Tensor, nn

from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.weights.file import pack_reference, write_checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.ranking.retrieval.extract import Encoder
from lupctl.core.ranking.retrieval.quick import score_pack
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.text import recipe_tables
from lupctl.core.stages.finetune.cameras import pick_cameras
from lupctl.core.stages.finetune.job import FinetuneJob, input_fingerprints, network_plan, scored_same_camera
from lupctl.core.stages.finetune.persons import Camera, LabelledRows
from lupctl.core.stages.finetune.setup import Setup
from lupctl.core.stages.finetune.starts import fit_trunk, load_checkpoint, load_trunk
from lupctl.core.system.jobs.device import describe_devices
from lupctl.core.system.printing import as_drawn
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.freezing import set_frozen
from lupctl.core.training.engine.parts import recompute_blocks
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.nets.build import Classifying, build_network
from lupctl.core.training.nets.foreign.imagenet_swin import imagenet_swin
from lupctl.core.training.nets.resnet.imagenet import imagenet_trunk
from lupctl.core.training.nets.resnet.layout import set_order
from lupctl.core.training.nets.resnet.norms import share_norm_groups
from lupctl.core.training.nets.swin.trunk import SwinTrunk
from lupctl.core.training.nets.vit.blocks import drop_keys, set_drop_keys, set_drop_path
from lupctl.core.training.nets.vit.imagenet import IMAGENET_GRID, imagenet_vit
from lupctl.core.training.views.plan import build_view_plan


def build_started(
    job: FinetuneJob, num_classes: int, progress: Progress, cameras: Sequence[Camera] = ()
) -> Classifying:
    """The network, initialised as the recipe says; if it starts from a network like it, it keeps that one's heads.

    Args:
        job: its recipe and start.
        num_classes: persons of the training set.
        progress: reports what was loaded.
        cameras: of the network's table, as `pick_cameras` gives them.

    Raises:
        FormatError: the trunk to start from does not fit.
    """
    plan = network_plan(job.recipe, num_classes, cameras)
    network = build_classifying(plan, drop_path=job.recipe.drop_path)
    if job.start is not None:
        datasets = [open_pack(path).dataset for path in job.packs]
        progress.say(f"start: {load_checkpoint(network, job.start, datasets)}")
    elif job.recipe.start == "imagenet":
        count = load_imagenet(network, job)
        progress.say(f"start: {count} trunk tensors from torchvision's ImageNet weights; new head")
    else:
        progress.say("start: random weights")
    return network


def build_classifying(plan: NetworkPlan, *, drop_path: float = 0.0) -> Classifying:
    """A network with classifiers, freshly initialised, with stochastic depth if it has blocks.

    Args:
        plan: of the network.
        drop_path: rate of stochastic depth at the last block.
    """
    network = build_network(plan)
    assert isinstance(network, Classifying)
    set_drop_path(network, drop_path)
    return network


def prepare_network(network: Classifying, recipe: FinetuneRecipe, device: torch.device, *, groups: int) -> Classifying:
    """Puts a network on a device for training, compiled or with blocks that are computed twice if the recipe says so.

    Evaluation calls `embed`, which is never compiled.

    Args:
        network: changed.
        recipe: how training runs it.
        device: where.
        groups: of batch norm, of the batch over all processes.
    """
    network.to(device).train()
    set_frozen(kept_modules(network, recipe), True)
    share_norm_groups(network, groups)
    set_order(network, recipe.precision)
    if recipe.net.compile:
        network.compile()
    if recipe.net.checkpoint_activations:
        recompute_blocks(network.all_blocks())
    return network


def freeze_parts(network: Classifying, recipe: FinetuneRecipe, *, is_early: bool) -> None:
    """Freezes the pre-trained parts at the start of a run, or lets them train, but for what stays as it is.

    Args:
        network: changed.
        recipe: says what stays.
        is_early: whether it is the start.
    """
    set_frozen(network.trunk_modules(), is_early)
    set_frozen(kept_modules(network, recipe), True)


def kept_modules(network: Classifying, recipe: FinetuneRecipe) -> list[nn.Module]:
    """What a run leaves as it was pre-trained: as published the semantic controller of a Swin."""
    trains = recipe.swin is None or recipe.swin.train_controller
    return [] if trains or not isinstance(network.backbone, SwinTrunk) else network.backbone.controller()


def load_imagenet(network: Classifying, job: FinetuneJob) -> int:
    """Load torchvision's ImageNet weights into a network's trunk; returns the number of tensors.

    Raises:
        DataError: they are not here and cannot be fetched.
        FormatError: the trunk is not as wide as theirs.
    """
    with redirect_stderr(as_drawn(sys.stderr)):  # for torch's bar
        return _load_imagenet(network, job, progress=not job.quiet and sys.stderr.isatty())


def _load_imagenet(network: Classifying, job: FinetuneJob, *, progress: bool) -> int:
    origin = "ImageNet weights"
    match job.recipe.net.arch:
        case "r18" | "r50" | "r101" | "r152":
            return load_trunk(network, imagenet_trunk(job.recipe.net.arch, progress=progress), origin=origin)
        case "vit-t" | "vit-s" | "vit-b":  # others than the plain vit-b are refused before, see `check_imagenet`
            found = network_plan(job.recipe, 1).trunk
            assert isinstance(found, ViTPlan)
            rows, columns = IMAGENET_GRID
            found = found.model_copy(update={"rows": rows, "columns": columns})
            trunk = fit_trunk(network, imagenet_vit(progress=progress), found, origin=origin)
            return load_trunk(network, trunk, origin=origin)
        case "swin-u" | "swin-t" | "swin-s" | "swin-b":  # the first one is refused before
            weights = imagenet_swin(job.recipe.net.arch, progress=progress)
            trunk = fit_trunk(network, weights, plan_swin(job.recipe.net.arch), origin=origin)
            return load_trunk(network, trunk, origin=origin)
        case (
            "osnet-x1.0"
            | "osnet-x0.75"
            | "osnet-x0.5"
            | "osnet-x0.25"
            | "osnet-ibn-x1.0"
            | "osnet-ain-x1.0"
            | "osnet-ain-x0.75"
            | "osnet-ain-x0.5"
            | "osnet-ain-x0.25"
        ):
            raise AssertionError("refused before, see `check_imagenet`")
        case _:
            assert_never(job.recipe.net.arch)


def draw_depth(network: Classifying, recipe: FinetuneRecipe, keys: Tensor, *, step: int) -> None:
    """Sets what a step draws its stochastic depth from; without any, nothing.

    Args:
        network: changed.
        recipe: its rate and seed.
        keys: (B) of the images' draws.
        step: counted from 0.
    """
    if recipe.drop_path:
        set_drop_keys(network, drop_keys(keys, seed=recipe.seed, step=step))


def evaluate_network(network: Classifying, recipe: FinetuneRecipe, pack: Pack, setup: Setup) -> dict[str, float]:
    """mAP, official mAP, mINP and rank-1 of a network on the pack's queries; modules in training mode stay in it."""
    view = build_view_plan(recipe.pixels.model_dump())
    encoder = Encoder(network, view, setup.device, setup.scoring, setup.table)
    workers = setup.workers
    scores = score_pack(encoder, pack, workers=workers, same_camera=scored_same_camera(recipe, pack)).scores
    return {"map": scores.map, "map_official": scores.map_official, "minp": scores.minp, "rank1": scores.cmc[1]}


def finish_run(
    job: FinetuneJob,
    network: Classifying,
    packs: Sequence[Pack],
    train: LabelledRows,
    results: dict[str, Any],
) -> None:
    """Write the checkpoint and mark the run as finished."""
    folder, data, persons = RunFolder(job.run), job.recipe.data, train.persons
    cameras = pick_cameras(job.recipe, train)
    parents = input_fingerprints(job)
    header = CheckpointHeader(
        stage="finetune",
        command=job.command,
        recipe=recipe_tables(job.recipe),
        network=network_plan(job.recipe, len(persons), cameras),
        preprocessing=describe_pixels(job.recipe.pixels),
        classes=tuple(persons),
        cameras=cameras,
        parents=parents,
        data=tuple(pack_reference(pack) for pack in packs),
    )
    write_checkpoint(folder.checkpoint, network.state_dict(), header)
    facts: dict[str, Any] = {"command": "finetune", "arch": job.recipe.net.arch, "start": job.recipe.start}
    facts |= {"dataset": packs[0].dataset, "device": describe_devices(job.placement)}
    if len(packs) > 1:
        facts["datasets"] = [pack.dataset for pack in packs]
    if job.recipe.labels != "persons":
        facts["labels"] = job.recipe.labels
    if job.recipe.distil is not None:
        facts["teacher"] = job.recipe.distil.teacher
    if data.subset:
        facts["subset"] = data.subset
    if data.repeat != 1:
        facts["repeat"] = data.repeat
    paths = {"pack": str(job.packs[0].resolve()), "checkpoint": str(folder.checkpoint)}
    folder.write_facts({**facts, **paths, "parents": parents, **results})
    folder.resume.unlink(missing_ok=True)
