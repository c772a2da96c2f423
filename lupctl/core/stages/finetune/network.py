"""The network of a fine-tuning run: initialisation, evaluation, and saving."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lupctl.core.errors import UsageError
from lupctl.core.formats.pack.read import Pack
from lupctl.core.formats.weights.file import (
    Checkpoint,
    load_strictly,
    pack_reference,
    read_checkpoint,
    write_checkpoint,
)
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.formats.weights.plan import MgnHead, NeckHead
from lupctl.core.ranking.retrieval.extract import Encoder
from lupctl.core.ranking.retrieval.quick import score_pack
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.job import FinetuneJob, input_fingerprints, network_plan, scored_same_camera
from lupctl.core.stages.finetune.persons import Person
from lupctl.core.system.jobs.device import describe_devices
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.nets.build import build_mgn, build_reid
from lupctl.core.training.nets.heads import CLASSIFIERS
from lupctl.core.training.nets.mgn import MGN_CLASSIFIERS, NEW_PARTS, MgnNetwork, spread_trunk
from lupctl.core.training.nets.networks import ReidNetwork
from lupctl.core.training.nets.resnet.imagenet import imagenet_trunk
from lupctl.core.training.views.plan import build_view_plan


def build_started(job: FinetuneJob, num_classes: int, progress: Progress) -> ReidNetwork | MgnNetwork:
    """The network, initialised as the recipe says; if it starts from a network like it, it keeps that one's heads.

    Raises:
        FormatError: the trunk to start from does not fit.
    """
    plan = network_plan(job.recipe, num_classes)
    network = build_mgn(plan) if job.recipe.net.head == "mgn" else build_reid(plan)
    if job.start is not None:
        progress.say(f"start: {load_checkpoint(network, job.start)}")
    elif job.recipe.start == "imagenet":
        count = load_imagenet(network, job)
        progress.say(f"start: {count} trunk tensors from torchvision's ImageNet weights; new head")
    else:
        progress.say("start: random weights")
    return network


def load_imagenet(network: ReidNetwork | MgnNetwork, job: FinetuneJob) -> int:
    """Load torchvision's ImageNet weights into a network's trunk; returns the number of tensors.

    Raises:
        DataError: they are not here and cannot be fetched.
        FormatError: the trunk is not as wide as theirs.
        UsageError: torchvision has none for such a trunk.
    """
    match job.recipe.net.arch:
        case "vit-t" | "vit-s" | "vit-b":
            raise UsageError(
                f"--from imagenet: torchvision has no ImageNet weights for {job.recipe.net.arch} as re-id uses it",
                hint="--from FILE, a checkpoint that lupctl model convert made of ImageNet weights",
            )
        case arch:
            trunk = imagenet_trunk(arch, progress=not job.quiet and sys.stderr.isatty())
    return load_trunk(network, trunk, origin="ImageNet weights")


def load_checkpoint(network: ReidNetwork | MgnNetwork, start: Path) -> str:
    """Load all usable tensors of a checkpoint into a network; returns a description of them for the log.

    Raises:
        FormatError: the checkpoint does not fit.
    """
    checkpoint = read_checkpoint(start)
    head = checkpoint.header.network.head
    if isinstance(network, MgnNetwork) and isinstance(head, MgnHead):
        count = load_but_classifiers(network, checkpoint, MGN_CLASSIFIERS)
        return f"{count} tensors from {start}, heads included; new classifiers"
    if isinstance(network, ReidNetwork) and isinstance(head, NeckHead):
        count = load_but_classifiers(network, checkpoint, CLASSIFIERS)
        return f"{count} tensors from {start}, neck included; new classifier"
    trunk = {
        key.removeprefix("backbone."): value for key, value in checkpoint.tensors.items() if key.startswith("backbone.")
    }
    count = load_trunk(network, trunk, origin=str(start))
    return f"{count} trunk tensors from {start}; {len(checkpoint.tensors) - count} of its head not used, new head"


def load_but_classifiers(
    network: ReidNetwork | MgnNetwork, checkpoint: Checkpoint, classifiers: tuple[str, ...]
) -> int:
    """Load everything from the checkpoint of a network like this one, except the classifiers for its own persons.

    Args:
        network: modified.
        checkpoint: of a network with the same head.
        classifiers: key prefixes of its classifiers.

    Returns:
        number of loaded tensors.

    Raises:
        FormatError: another tensor is missing, unexpected or of another shape.
    """
    kept = {key: value for key, value in checkpoint.tensors.items() if not key.startswith(classifiers)}
    return load_strictly(network, kept, origin=str(checkpoint.path), may_lack=classifiers)


def load_trunk(network: ReidNetwork | MgnNetwork, trunk: Mapping[str, Tensor], *, origin: str) -> int:
    """Load a trunk's tensors, by torchvision's keys, into a network; in an mgn, into all branches.

    Returns:
        number of tensors in the trunk.

    Raises:
        FormatError: one is missing, unexpected or of another shape.
    """
    if isinstance(network, MgnNetwork):
        load_strictly(network, spread_trunk(trunk), origin=origin, may_lack=NEW_PARTS)
    else:
        load_strictly(network.backbone, trunk, origin=origin)
    return len(trunk)


def evaluate_network(
    network: ReidNetwork | MgnNetwork,
    recipe: FinetuneRecipe,
    pack: Pack,
    *,
    device: torch.device,
    kind: torch.dtype,
    workers: int,
) -> dict[str, float]:
    """mAP, official mAP, mINP and rank-1 of a network on the pack's queries; modules in training mode stay in it."""
    encoder = Encoder(network, build_view_plan(recipe.pixels.model_dump()), device, kind)
    scores = score_pack(encoder, pack, workers=workers, same_camera=scored_same_camera(recipe, pack)).scores
    return {"map": scores.map, "map_official": scores.map_official, "minp": scores.minp, "rank1": scores.cmc[1]}


def gather_scores(packs: Sequence[Pack], scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """A run's scores for its facts: those of its first pack and, if there are several packs, those of each."""
    own = {"scores": dict(scores.get(packs[0].dataset, {}))}
    return own if len(packs) == 1 else {**own, "all_scores": {name: dict(found) for name, found in scores.items()}}


def finish_run(
    job: FinetuneJob,
    network: ReidNetwork | MgnNetwork,
    packs: Sequence[Pack],
    persons: Sequence[Person],
    results: dict[str, Any],
) -> None:
    """Write the checkpoint and mark the run as finished."""
    folder, data = RunFolder(job.run), job.recipe.data
    parents = input_fingerprints(job)
    header = CheckpointHeader(
        stage="finetune",
        command=job.command,
        recipe=job.recipe.model_dump(mode="json"),
        network=network_plan(job.recipe, len(persons)),
        preprocessing=describe_pixels(job.recipe.pixels),
        classes=tuple(persons),
        parents=parents,
        data=tuple(pack_reference(pack) for pack in packs),
    )
    write_checkpoint(folder.checkpoint, network.state_dict(), header)
    facts: dict[str, Any] = {"command": "finetune", "arch": job.recipe.net.arch, "start": job.recipe.start}
    facts |= {"dataset": packs[0].dataset, "device": describe_devices(job.placement)}
    if len(packs) > 1:
        facts["datasets"] = [pack.dataset for pack in packs]
    if data.subset:
        facts["subset"] = data.subset
    if data.repeat != 1:
        facts["repeat"] = data.repeat
    paths = {"pack": str(job.packs[0].resolve()), "checkpoint": str(folder.checkpoint)}
    folder.write_facts({**facts, **paths, "parents": parents, **results})
    folder.resume.unlink(missing_ok=True)
