"""The labelled pack that the features of a pre-training are looked at with."""

from pathlib import Path
from typing import Final

from lupctl.core.errors import DataError
from lupctl.core.resolve.data.packs import pick_pack
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

MAKE_ONE: Final = "lupctl data pack NAME --split persons:0.5 makes queries and a gallery; then: --probe NAME"


def pick_probe(space: Workspace, name: str, progress: Progress) -> Path:
    """The pack that is named.

    Raises:
        DataError: it does not exist, or has no queries with a right answer; names one here that has.
    """
    path = pick_pack(space, name, progress)
    check_probe(space, path)
    return path


def check_probe(space: Workspace, path: Path) -> None:
    """Refuses a pack that no features can be looked at with.

    Raises:
        DataError: it has no queries with a right answer; names a pack here that has.
    """
    reason = _missing(path)
    if reason is not None:
        other = next((one for one in space.pack_paths() if _missing(one) is None), None)
        raise DataError(f"{path}: cannot be a probe: {reason}", hint=f"--probe {other.stem}" if other else MAKE_ONE)


def _missing(path: Path) -> str | None:
    """What a pack lacks to be a probe; None if nothing."""
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.formats.pack.split import packed_same_camera
    from lupctl.core.ranking.retrieval.answerable import check_answerable

    pack = open_pack(path)
    try:
        check_answerable(pack.samples, same_camera=packed_same_camera(pack.record))
    except DataError as error:
        return error.message
    return None
