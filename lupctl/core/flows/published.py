"""Published weights, downloaded and converted to a checkpoint."""

from typing import TYPE_CHECKING, Any

from lupctl.core.resolve.checkpoints import published_path
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.data.catalog.weights import PublishedWeights


def fetch_published(
    space: Workspace,
    wanted: "PublishedWeights",
    *,
    accepted: bool,
    force: bool,
    command: tuple[str, ...],
    progress: Progress,
) -> dict[str, Any]:
    """Downloads a published network and converts it, unless its checkpoint exists.

    Args:
        space: where it goes.
        wanted: the network.
        accepted: its terms of use were accepted.
        force: downloads and converts again.
        command: for the record.
        progress: reports the terms.

    Returns:
        `path` of the checkpoint and, if it was made now, what was recognised.

    Raises:
        DataError: the terms were not accepted, it can be downloaded only by hand, or the download failed.
        FormatError: the downloaded file is not the published one.
    """
    from lupctl.core.stages.convert.run import ConvertJob, convert
    from lupctl.core.stages.weights import fetch_weights

    out = published_path(space, wanted.name)
    if out.is_file() and not force:
        progress.say(f"{wanted.name}: already here; --force downloads it again")
        return {"path": str(out)}
    progress.say(f"{wanted.name}: {wanted.what}; terms: {wanted.terms}")
    fetched = fetch_weights(wanted, space.models, accepted=accepted, force=force)
    return convert(ConvertJob(fetched, out, force=force, command=command), progress)
