"""The network of a fine-tuning run: how it begins, how well it does, how it is kept."""

import sys
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.formats.checkpoint import load_strictly, pack_story, read_checkpoint, write_checkpoint
from lupctl.core.formats.pack import Pack
from lupctl.core.loading.images import PackImages
from lupctl.core.loading.views import build_view_plan
from lupctl.core.nets.build import build_reid
from lupctl.core.nets.networks import ReidNetwork
from lupctl.core.nets.published import imagenet_trunk
from lupctl.core.progress import Progress
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.retrieval.extract import Encoder, extract_features
from lupctl.core.retrieval.score import score
from lupctl.core.stages.finetune.job import FinetuneJob, input_fingerprints, network_plan
from lupctl.core.train.runs import RunFolder

EVALUATION_CHUNK = 128


def build_started(job: FinetuneJob, num_classes: int, progress: Progress) -> ReidNetwork:
    """The network with its trunk where the recipe says it starts.

    Raises:
        FormatError: the start's trunk does not fit.
    """
    network = build_reid(network_plan(job.recipe, num_classes))
    if job.start is not None:
        checkpoint = read_checkpoint(job.start)
        trunk = {
            key.removeprefix("backbone."): value
            for key, value in checkpoint.tensors.items()
            if key.startswith("backbone.")
        }
        count = load_strictly(network.backbone, trunk, origin=str(job.start))
        left = len(checkpoint.tensors) - len(trunk)
        progress.say(f"start: {count} trunk tensors from {job.start}; {left} of its head left behind, new head")
    elif job.recipe.start == "imagenet":
        trunk = imagenet_trunk(job.recipe.net.arch, progress=not job.quiet and sys.stderr.isatty())
        count = load_strictly(network.backbone, trunk, origin="ImageNet weights")
        progress.say(f"start: {count} trunk tensors from torchvision's ImageNet weights; new head")
    else:
        progress.say("start: random weights")
    return network


def evaluate_network(
    network: ReidNetwork,
    recipe: FinetuneRecipe,
    pack: Pack,
    *,
    device: torch.device,
    kind: torch.dtype,
    workers: int,
) -> dict[str, float]:
    """mAP, official mAP, mINP and rank-1 of a network in training on the pack's queries; training mode is kept."""
    wanted = np.isin(pack.samples.role, [ROLE_CODES["query"], ROLE_CODES["gallery"]])
    rows = np.flatnonzero(wanted)
    network.eval()
    encoder = Encoder(network, build_view_plan(recipe.pixels.model_dump()), device, kind)
    features = extract_features(
        encoder,
        PackImages([pack], rows),
        chunk=EVALUATION_CHUNK,
        workers=workers,
        flip=False,
        progress=Progress(quiet=True),
    )
    network.train()
    scores = score(features, pack.samples.select(rows), device=device, same_camera=recipe.evaluation.same_camera).scores
    return {"map": scores.map, "map_official": scores.map_official, "minp": scores.minp, "rank1": scores.cmc[1]}


def finish_run(
    job: FinetuneJob, network: ReidNetwork, pack: Pack, persons: NDArray[np.int64], results: dict[str, Any]
) -> None:
    """Writes the checkpoint and marks the run as finished."""
    folder = RunFolder(job.run)
    parents = input_fingerprints(job)
    header = {
        "stage": "finetune",
        "command": list(job.command),
        "recipe": job.recipe.model_dump(mode="json"),
        "network": network_plan(job.recipe, len(persons)).to_json(),
        "preprocessing": job.recipe.pixels.model_dump(mode="json"),
        "classes": persons.tolist(),
        "parents": parents,
        "data": [pack_story(pack)],
    }
    write_checkpoint(folder.checkpoint, network.state_dict(), header)
    facts = {"command": "finetune", "arch": job.recipe.net.arch, "start": job.recipe.start, "dataset": pack.dataset}
    if job.recipe.data.subset:
        facts["subset"] = job.recipe.data.subset
    paths = {"pack": str(job.pack.resolve()), "checkpoint": str(folder.checkpoint)}
    folder.write_facts({**facts, **paths, "parents": parents, **results})
    folder.resume.unlink(missing_ok=True)
