"""The origin and terms of raw data, in a file next to it that is read again when the data is packed."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from lupctl.core.errors import DataError
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.documents import parse_json

ORIGIN_NAME: Final = ".lupctl.json"
ORIGIN_FORMAT: Final = 1
NOTE_SHAPE: Final = {"name": str, "terms": str, "sha256": str}
SHAPE: Final[dict[str, Any]] = {
    "dataset": str, "terms": str, "published": str,
    "files": [{
        "name": str, "address": str, "bytes": int, "sha256": str, "md5": str, "published_md5": str, "content": [str],
    }],
}  # fmt: skip
FILE_KEYS: Final = set(SHAPE["files"][0])


def write_origin(folder: Path, origin: Mapping[str, object]) -> None:
    """Writes `<folder>/.lupctl.json`: `dataset`, `terms`, `published`, and `files` with address, bytes and hashes.

    It contains no timestamp, so the same download always gives the same bytes.

    Raises:
        DataError: the disk is full, or refuses the write.
    """
    text = json.dumps({"format": ORIGIN_FORMAT, **origin}, sort_keys=True, indent=1, ensure_ascii=False)
    write_text(folder / ORIGIN_NAME, text + "\n", alone=True)


def read_origin(root: Path) -> dict[str, Any]:
    """The recorded origin of raw data; empty if it was placed by hand.

    Args:
        root: the dataset's folder under `raw/`, or a folder at most two levels below it, as archives often contain one.
    """
    for folder in (root, *root.absolute().parents[:2]):
        try:
            origin: dict[str, Any] = parse_json((folder / ORIGIN_NAME).read_text(encoding="utf-8"), SHAPE)
        except (OSError, ValueError):
            continue
        if origin.get("format") == ORIGIN_FORMAT:
            files = [one for one in origin.get("files") or [] if set(one) == FILE_KEYS and None not in one.values()]
            return {**origin, "files": files} if "files" in origin else origin
    return {}


def read_note(path: Path) -> dict[str, str]:
    """What `lupctl model download` wrote next to a file: `name`, `terms` and `sha256` among others.

    Raises:
        DataError: it cannot be read.
    """
    try:
        note: dict[str, str] = parse_json(path.read_text(encoding="utf-8"), NOTE_SHAPE)
        missing = [key for key in ("name", "terms", "sha256") if note.get(key) is None]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error})", hint="remove it and the file that it is about") from error
    return note
