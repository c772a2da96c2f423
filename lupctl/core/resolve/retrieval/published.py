"""Which published network some network is: by the note of its download, the name of its file, or the user's word."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, UsageError
from lupctl.core.system.examples import name_some
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.ranking.retrieval.lineage import KnownAs, Lineage

NOTE_PATTERN = "*.pth.json"


def refuse_published(published: str | None, *, compare: bool, every: bool) -> None:
    """Refuses to be told which published network several runs are.

    Raises:
        UsageError: `--published` was given with `--compare` or `--all`.
    """
    if published is not None and (compare or every):
        raise UsageError(
            f"--published has no meaning with {'--compare' if compare else '--all'}: it is said of one network",
            hint="leave --published out",
        )


def find_known_as(space: Workspace, asked: str | None, dataset: str, lineage: "Lineage") -> "KnownAs | None":
    """The published network that a network is; None if nobody knows of one.

    Args:
        space: where downloads and their notes are.
        asked: what the user says that it is.
        dataset: that it is scored on.
        lineage: of the network.

    Raises:
        UsageError: there is no such published network, it has no score on the dataset, or the note of the download says
            that it is another one.
    """
    from lupctl.core.ranking.retrieval.lineage import KnownAs
    from lupctl.core.stages.weights import find_weights

    own = None if not lineage.checkpoints else _identify(space, lineage.checkpoints[0])
    if asked is None:
        return own
    weights = find_weights(asked)
    if own is not None and own.said_by == "download" and own.name != asked:
        raise UsageError(
            f"--published {asked}: the network is {own.name}, as the note of its download says",
            hint="leave --published out",
        )
    if weights.score_on(dataset) is None:
        others = name_some([score.dataset for score in weights.scores])
        known = f"its scores are on {others}" if weights.scores else "it has no scores"
        raise UsageError(
            f"--published {asked}: nothing is published for it on {dataset}; {known}", hint="lupctl model list"
        )
    return KnownAs(asked, "user")


def _identify(space: Workspace, checkpoint: Path) -> "KnownAs | None":
    """The published re-id model that a converted checkpoint is of: what it became by training is another network."""
    from lupctl.core.data.catalog.weights import PUBLISHED
    from lupctl.core.formats.weights.header import is_method, read_header
    from lupctl.core.ranking.retrieval.lineage import KnownAs

    header = read_header(checkpoint, "method" if is_method(checkpoint) else "checkpoint")
    models = {one.name for one in PUBLISHED if one.use == "re-id model"}
    source = header.parents.get("source")
    if header.stage != "convert" or source is None:
        return None
    for note in (checkpoint.with_suffix(".pth.json"), *sorted(space.models.glob(NOTE_PATTERN))):
        name = _name_in(note, source)
        if name is not None:
            return KnownAs(name, "download") if name in models else None
    if checkpoint.stem in models and checkpoint.resolve().parent == space.models.resolve():
        return KnownAs(checkpoint.stem, "file name")
    return None


def _name_in(note: Path, source: str) -> str | None:
    """The name that a note of a download has for a file with a fingerprint; None where it is about another file."""
    from lupctl.core.data.catalog.origin import read_note

    try:
        found = read_note(note) if note.is_file() else None
    except DataError:
        return None  # damaged, and so not about this one
    return found["name"] if found is not None and found["sha256"] == source else None
