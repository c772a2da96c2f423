"""Published weights, downloaded and converted to a checkpoint."""

from typing import TYPE_CHECKING, Any

from lupctl.core.resolve.checkpoints import published_path
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.data.catalog.published import PublishedWeights


def fetch_published(
    space: Workspace,
    wanted: "PublishedWeights",
    *,
    accepted: bool,
    force: bool,
    command: tuple[str, ...],
    timeout_s: float | None,
    progress: Progress,
) -> dict[str, Any]:
    """Downloads a published network and converts it, unless its checkpoint exists.

    Args:
        space: where it goes.
        wanted: the network.
        accepted: its terms of use were accepted.
        force: downloads and converts again.
        command: for the record.
        timeout_s: longest time for the file; None for one that grows with its size.
        progress: reports the terms.

    Returns:
        `path` of the checkpoint and, if it was made now, what was recognised.

    Raises:
        DataError: the terms were not accepted, it can be downloaded only by hand, or the download failed.
        FormatError: the downloaded file is not the published one.
    """
    from lupctl.core.stages.convert.run import ConvertJob, convert
    from lupctl.core.stages.download.weights import fetch_weights
    from lupctl.core.stages.weights import convert_line
    from lupctl.core.system.fetch.transfer import Patience
    from lupctl.core.training.nets.foreign.grids import Asked

    out = published_path(space, wanted.name)
    if out.is_file() and not force:
        progress.say(f"{wanted.name}: already here; --force downloads it again")
        return {"path": str(out)}
    progress.say(f"{wanted.name}: {wanted.what}; terms: {wanted.project.terms}")
    fetched = fetch_weights(
        wanted,
        space.models,
        accepted=accepted,
        force=force,
        then=convert_line(wanted, space.models),
        progress=progress,
        patience=Patience(whole_s=timeout_s),
    )
    job = ConvertJob(
        fetched,
        out,
        reid=wanted.use == "re-id model",
        start=wanted.use == "initialisation",
        asked=Asked(wanted.size if wanted.stride else None, wanted.stride),
        force=force,
        command=command,
    )
    return convert(job, progress)
