"""Which files are archives, and which of them cannot be unpacked here."""

import re
from pathlib import Path
from typing import Literal

from lupctl.core.errors import FormatError

Kind = Literal["zip", "tar", "tar.gz", "tar.bz2", "tar.xz"]
SUFFIXES: dict[str, Kind] = {
    ".zip": "zip", ".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz", ".tar.bz2": "tar.bz2", ".tbz2": "tar.bz2",
    ".tar.xz": "tar.xz", ".txz": "tar.xz",
}  # fmt: skip
OTHER_ARCHIVE = re.compile(r"\.(z\d\d|\d{3}|7z|rar)$")


def archive_kind(name: str) -> Kind | None:
    """The kind of archive that a file name says it is.

    >>> archive_kind("MSMT17_V1.tar.gz"), archive_kind("keys.pkl")
    ('tar.gz', None)
    """
    lower = name.lower()
    return next((kind for suffix, kind in SUFFIXES.items() if lower.endswith(suffix)), None)


def is_archive(name: str) -> bool:
    """Whether a file is an archive by its name, or a volume of one, or one that has to be unpacked by hand.

    >>> is_archive("images.zip"), is_archive("images.z01"), is_archive("dets.pkl")
    (True, True, False)
    """
    return archive_kind(name) is not None or OTHER_ARCHIVE.search(name.lower()) is not None


def check_single_volume(path: Path) -> None:
    """Refuses one volume of a split archive, and formats that Python cannot read; the hint is the command that helps.

    Raises:
        FormatError: it is one.
    """
    name = path.name
    lower, stem = name.lower(), name.rpartition(".")[0]
    if re.search(r"\.z\d\d$", lower) or (lower.endswith(".zip") and path.with_suffix(".z01").exists()):
        raise FormatError(
            f"{path}: one volume of a split zip; a whole archive was expected",
            hint=f"join the volumes with zip -s 0 {stem}.zip --out {stem}-joined.zip and keep the joined file only",
        )
    if re.search(r"\.7z\.\d{3}$", lower):
        raise FormatError(f"{path}: one volume of a 7z archive", hint=f"unpack it by hand: 7z x {stem}.001")
    if re.search(r"\.\d{3}$", lower):
        raise FormatError(
            f"{path}: one volume of an archive cut into pieces; a whole archive was expected",
            hint=f"join the volumes with cat {stem}.[0-9][0-9][0-9] > {stem} and keep the joined file only",
        )
    if lower.endswith((".7z", ".rar")):
        tool = "7z x" if lower.endswith(".7z") else "unrar x"
        raise FormatError(
            f"{path}: neither zip nor tar; only those are unpacked here", hint=f"unpack it by hand: {tool} {name}"
        )
