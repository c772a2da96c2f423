"""The images that features were made from, where they are available."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lupctl.core.errors import CorruptImageError, DataError
from lupctl.core.formats.images.files import read_encoded
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.system.progress.lines import Progress

Images = Callable[[str], bytes | None]
PACK_PARENT = "pack:"


def open_images(path: Path | None, record: Mapping[str, Any], progress: Progress) -> Images:
    """A reader of encoded images by name; it gives None for an image that is not there.

    Args:
        path: the pack the features were made from, or a folder with files of these names; None gives no images.
        record: of the features; a pack it does not name is not used, because its images may be different.
        progress: reports why there are no images.
    """
    if path is None:
        return _nothing
    if path.is_dir() and not any(path.glob("*.h5")):
        return lambda name: _read_file(path / name)
    try:
        pack = open_pack(path)
    except DataError as error:
        progress.say(f"no pictures: {error.message}")
        return _nothing
    packs = {value for name, value in (record.get("parents") or {}).items() if name.startswith(PACK_PARENT)}
    if packs and pack.fingerprint not in packs:
        progress.say(f"no pictures: {path} is not the pack the features were made from")
        return _nothing
    rows = {name: row for row, name in enumerate(pack.samples.name)}

    def read(name: str) -> bytes | None:
        row = rows.get(name)
        try:
            return None if row is None else pack.read(row)
        except CorruptImageError as error:
            progress.warn(error.message)
            return None

    return read


def _nothing(name: str) -> bytes | None:
    return None


def _read_file(path: Path) -> bytes | None:
    try:
        return read_encoded(path)
    except (OSError, CorruptImageError):
        return None
