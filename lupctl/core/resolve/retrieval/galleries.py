"""The gallery of `lupctl search`, and the checkpoint that made it."""

from pathlib import Path

from lupctl.core.errors import DataError
from lupctl.core.resolve.checkpoints import find_checkpoint
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace


def check_gallery(space: Workspace, gallery: Path) -> None:
    """Refuses a gallery that is not a file; for a run, the hint names its features.

    Raises:
        DataError: there is no such file.
    """
    if gallery.is_file():
        return
    for folder in (gallery, space.runs / gallery):
        features = sorted(folder.glob("*.features.h5"))
        if features:
            raise DataError(f"{gallery}: a run; a features file was expected", hint=f"name {features[0]}")
    raise DataError(f"{gallery}: there is no such file", hint="lupctl dump RUN DATASET writes a gallery's features")


def gallery_checkpoint(space: Workspace, gallery: Path, named: str | None, progress: Progress) -> Path:
    """The checkpoint that made a gallery: as named, else the file with the fingerprint that the record names.

    It is searched for next to the features, in the workspace's runs and among its models.

    Raises:
        DataError: it is not found, or the record names none.
    """
    if named is not None:
        return find_checkpoint(space, named)
    from lupctl.core.formats.features.foreign import read_any_head
    from lupctl.core.ranking.retrieval.inputs import SHOWN, network_of
    from lupctl.core.system.disk.atomic import file_fingerprint

    wanted = network_of(read_any_head(gallery).record)
    if wanted is None:
        raise DataError(f"{gallery}: its record does not name the network that made it", hint="name it: --from RUN")
    candidates = [gallery.parent / CHECKPOINT_NAME, *sorted(space.runs.glob(f"*/{CHECKPOINT_NAME}"))]
    for path in dict.fromkeys([*candidates, *sorted(space.models.rglob("*.safetensors"))]):
        if path.is_file() and file_fingerprint(path) == wanted:
            progress.say(f"checkpoint: {path} (it made the gallery)")
            return path
    raise DataError(
        f"{gallery}: made by checkpoint {wanted[:SHOWN]}, which is neither next to it nor in {space.home}",
        hint="name it: --from FILE",
    )
