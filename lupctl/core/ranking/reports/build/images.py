"""The images behind some features, where they are at hand."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lupctl.core.errors import CorruptImageError, DataError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.system.progress.lines import Progress

Images = Callable[[str], bytes | None]
PACK_PARENT = "pack:"


def open_images(place: Path | None, record: Mapping[str, Any], progress: Progress) -> Images:
    """Reads encoded images by name; gives None for what is not there.

    Args:
        place: the pack the features were made from, or a folder that holds the names; None has no images.
        record: of the features; a pack it does not name is not used, because its images may be others.
        progress: takes a line that says why there are none.
    """
    if place is None:
        return _nothing
    if place.is_dir() and not any(place.glob("*.h5")):
        return lambda name: _read_file(place / name)
    try:
        pack = open_pack(place)
    except DataError as error:
        progress.say(f"no pictures: {error.message}")
        return _nothing
    packs = {value for name, value in (record.get("parents") or {}).items() if name.startswith(PACK_PARENT)}
    if packs and pack.fingerprint not in packs:
        progress.say(f"no pictures: {place} is not the pack the features were made from")
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
        return path.read_bytes()
    except OSError:
        return None
