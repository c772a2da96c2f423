"""Writes the checkpoint of a finished pre-training run."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from lupctl.core.formats.weights.file import write_checkpoint, write_method
from lupctl.core.formats.weights.header import CheckpointHeader, KeptImages, PackReference, describe_pixels
from lupctl.core.recipes.text import recipe_tables
from lupctl.core.stages.pretrain.job import PretrainJob, student_plan
from lupctl.core.system.jobs.device import describe_devices
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.nets.networks import Embedding


def finish_run(
    job: PretrainJob,
    tensors: Mapping[str, Tensor],
    kept: Embedding,
    *,
    data: Sequence[PackReference],
    chosen: KeptImages | None,
    start: Mapping[str, str],
    results: dict[str, Any],
) -> None:
    """Write the checkpoint and the method's networks, and mark the run as finished.

    Args:
        job: its settings.
        tensors: the state of the method.
        kept: the network of it that the checkpoint keeps.
        data: the result of `pack_reference` for each pack.
        chosen: the part of their images that it was trained on, if a list chose it.
        start: fingerprints of what it started from, by name.
        results: counts and the last means, for `run.json`.
    """
    folder = RunFolder(job.run)
    parents = {f"pack:{pack.dataset}": pack.fingerprint for pack in data} | {**start}
    parents |= {} if chosen is None else {f"list:{kept.path}": kept.fingerprint for kept in chosen.lists}
    header = CheckpointHeader(
        stage="pretrain",
        command=job.command,
        recipe=recipe_tables(job.recipe),
        network=student_plan(job.recipe),
        preprocessing=describe_pixels(job.recipe.pixels),
        classes=(),
        parents=parents,
        data=tuple(data),
        kept=chosen,
    )
    write_method(folder.method, tensors, header)
    write_checkpoint(folder.checkpoint, kept.state_dict(), header)
    folder.write_facts(
        {
            "command": "pretrain",
            "method": job.recipe.method,
            "arch": job.recipe.net.arch,
            **({} if job.recipe.solider is None else {"start": job.recipe.solider.start}),
            "packs": [pack.dataset for pack in data],
            "checkpoint": str(folder.checkpoint),
            "parents": parents,
            "device": describe_devices(job.placement),
            **({} if chosen is None else {"kept": chosen.to_json()}),
            **results,
        }
    )
    folder.resume.unlink(missing_ok=True)
