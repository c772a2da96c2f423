"""What `lupctl search` searches for, and the checkpoint that made its gallery."""

from collections.abc import Sequence
from pathlib import Path

from lupctl.core.choices import nearest_name
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import pick_network
from lupctl.core.resolve.retrieval.lineage import find_network, runtime_of
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace


def refuse_swapped(target: str, queries: Sequence[Path]) -> None:
    """Refuses a picture in place of the gallery.

    Raises:
        UsageError: the first argument is an image.
    """
    from lupctl.core.data.sources.folder import IMAGE_SUFFIXES

    if Path(target).is_file() and Path(target).suffix.lower() in IMAGE_SUFFIXES:
        raise UsageError(
            f"{target}: an image; the run or features file comes first", hint=f"lupctl search {queries[-1]} {target}"
        )


def find_queries(named: Sequence[Path]) -> tuple[Path, ...]:
    """The pictures to search for: files as named, and of a folder every image directly in it.

    Raises:
        DataError: there is no such file, or a folder has no images directly in it.
    """
    return tuple(query for path in named for query in (_list_images(path) if path.is_dir() else [_check_query(path)]))


def _list_images(folder: Path) -> list[Path]:
    from lupctl.core.data.sources.folder import IMAGE_SUFFIXES

    def images(inside: Path) -> list[Path]:
        found = (path for path in inside.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        return sorted(path for path in found if not path.name.startswith(".") and path.is_file())

    found = images(folder)
    if found:
        return found
    below = next((path for path in sorted(folder.iterdir(), reverse=True) if path.is_dir() and images(path)), None)
    raise DataError(
        f"{folder}: a folder without images directly in it; pictures of persons were expected",
        hint=f"ls {folder}" if below is None else f"did you mean {below}?",
    )


def _check_query(path: Path) -> Path:
    if path.is_file() and path.suffix == ".h5":
        raise DataError(f"{path}: a pack or features; an image was expected", hint=f"ls {path.parent}")
    if path.is_file():
        return path
    from lupctl.core.system.disk.reading import say_missing

    around = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    meant = nearest_name(path.name, around)
    raise DataError(
        f"{path}: {say_missing(path)}; an image was expected",
        hint=f"did you mean {path.parent / meant}?" if meant else f"ls {path.parent}",
    )


def gallery_checkpoint(space: Workspace, gallery: Path, named: str | None, progress: Progress) -> Path:
    """The checkpoint that made a gallery: as named, else the file with the fingerprint that the record names.

    It is searched for next to the features, in the workspace's runs and among its models.

    Raises:
        DataError: it is not found, or the record names none.
    """
    if named is not None:
        return pick_network(space, named, progress)
    from lupctl.core.formats.features.foreign import read_any_head
    from lupctl.core.ranking.retrieval.inputs import SHOWN, network_of

    record = read_any_head(gallery).record
    wanted = network_of(record)
    if wanted is None:
        raise DataError(f"{gallery}: its record does not name the network that made it", hint="name it: --from RUN")
    if (network := find_network(space, gallery, record)) is not None:
        kind = "checkpoint" if runtime_of(record) is None else "network"
        progress.say(f"{kind}: {network} (it made the gallery)")
        return network
    raise DataError(
        f"{gallery}: made by checkpoint {wanted[:SHOWN]}, which is neither next to it nor in {space.home}",
        hint="name it: --from FILE",
    )
