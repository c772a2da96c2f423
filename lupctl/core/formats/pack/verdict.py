"""The result of `data verify`, kept next to the pack, so that a listing can show it without reading the pack again."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from lupctl.core.errors import DataError
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.documents import parse_as

FOLDER = ".verified"


@dataclass(frozen=True)
class KnownVerdict:
    """The outcome of an earlier check of a pack.

    Args:
        fingerprint: of the pack that was checked; empty if it was not computed.
        sound: whether no error was found.
        deep: whether every image was decoded.
        files: name, size and modification time of each file of the pack when the check began.
        errors: the message of each error, by its fixed name.
    """

    fingerprint: str
    sound: bool
    deep: bool
    files: list[list[str | int]]
    errors: dict[str, str] = field(default_factory=dict)


def pack_files(pack: Path) -> list[list[str | int]]:
    """Name, size in bytes and modification time in ns of each file of a pack: cheap to get, different for each pack."""
    paths = sorted(pack.glob("*.h5")) if pack.is_dir() else [pack]
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in paths]


def note_verdict(
    pack: Path,
    *,
    files: list[list[str | int]],
    sound: bool,
    deep: bool = False,
    fingerprint: str = "",
    errors: Mapping[str, str] | None = None,
) -> None:
    """Record the outcome of a check in `.verified/<name>.json` next to the pack.

    If the folder cannot be written to, as on a shared read-only disk, nothing is recorded: the check itself was the
    point.

    Args:
        pack: the file or the folder of shards.
        files: the result of `pack_files` before the check began, so that a pack that replaced it meanwhile is not
            mistaken for it.
        sound: whether no error was found.
        deep: whether every image was decoded.
        fingerprint: of the pack, if the caller has it.
        errors: what was wrong: messages by their fixed names.
    """
    verdict = KnownVerdict(fingerprint, sound, deep, files, dict(errors or {}))
    with suppress(OSError, DataError):
        write_text(note_path(pack), json.dumps(asdict(verdict), sort_keys=True, indent=1) + "\n")


def read_verdict(pack: Path) -> KnownVerdict | None:
    """The outcome of the last check of a pack; None when there was none, or the pack has changed since."""
    try:
        verdict = parse_as(KnownVerdict, note_path(pack).read_bytes())
        return verdict if verdict.files == pack_files(pack) else None
    except (OSError, ValueError):
        return None


def note_path(pack: Path) -> Path:
    """The file that keeps the verdict on a pack, in a hidden folder next to it."""
    return pack.parent / FOLDER / f"{pack.name}.json"
