"""What a finished run of pre-training leaves."""

from collections.abc import Sequence
from typing import Any

from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, PackStory, describe_pixels
from lupctl.core.stages.pretrain.job import PretrainJob, network_plan
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.methods.moco import MoCo


def finish_run(job: PretrainJob, method: MoCo, data: Sequence[PackStory], results: dict[str, Any]) -> None:
    """Writes the checkpoint and marks the run as finished.

    Args:
        job: what was done.
        method: trained.
        data: what `pack_story` says of each pack.
        results: counts and the last means, for `run.json`.
    """
    folder = RunFolder(job.run)
    parents = {f"pack:{pack.dataset}": pack.fingerprint for pack in data}
    header = CheckpointHeader(
        stage="pretrain",
        command=job.command,
        recipe=job.recipe.model_dump(mode="json"),
        network=network_plan(job.recipe),
        preprocessing=describe_pixels(job.recipe.pixels),
        classes=(),
        parents=parents,
        data=tuple(data),
    )
    write_checkpoint(folder.checkpoint, method.encoder_q.state_dict(), header)
    folder.write_facts(
        {
            "command": "pretrain",
            "method": job.recipe.method,
            "arch": job.recipe.net.arch,
            "packs": [pack.dataset for pack in data],
            "checkpoint": str(folder.checkpoint),
            "parents": parents,
            **results,
        }
    )
    folder.resume.unlink(missing_ok=True)
