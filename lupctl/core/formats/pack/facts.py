"""A pack in numbers, read one column and one file at a time, so that memory does not grow with the number of files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lupctl.core.choices import ROLE_CODES, ImageCheck, Role
from lupctl.core.formats.pack.read import pack_files, pack_fingerprint
from lupctl.core.formats.pack.shards import HINT, PACK_FORMAT
from lupctl.core.formats.record import open_recorded


@dataclass(frozen=True)
class PackFacts:
    """The counts of a pack.

    Args:
        files: number of files.
        images: number of images.
        persons: number of persons, without junk, distractors and unknown persons.
        cameras: number of cameras, without unknown ones.
        roles: images per role.
        num_bytes: bytes of all encoded images.
        quarantine: images that were left out, each with `name` and `reason`.
        fingerprint: see `pack_fingerprint`.
    """

    files: int
    images: int
    persons: int
    cameras: int
    roles: dict[Role, int]
    num_bytes: int
    quarantine: list[dict[str, str]]
    fingerprint: str


def read_pack_facts(path: Path) -> PackFacts:
    """Count what is in a pack that was just written; its structure is not checked.

    Raises:
        DataError: there is no such pack.
        FormatError: it is damaged.
    """
    files = pack_files(path)
    persons = cameras = np.zeros(0, np.int64)
    roles = np.zeros(256, np.int64)
    num_bytes = 0
    quarantine: list[dict[str, str]] = []
    for part in files:
        with open_recorded(part, "pack", PACK_FORMAT, hint=HINT) as (file, record):
            persons = np.union1d(persons, file["samples/person"][()])
            cameras = np.union1d(cameras, file["samples/camera"][()])
            roles += np.bincount(file["samples/role"][()], minlength=256)
            num_bytes += int(file["images/offsets"][-1])
            quarantine += record.get("quarantine", [])
    return PackFacts(
        files=len(files),
        images=int(roles.sum()),
        persons=int((persons > 0).sum()),
        cameras=int((cameras >= 0).sum()),
        roles={role: int(roles[code]) for role, code in ROLE_CODES.items()},
        num_bytes=num_bytes,
        quarantine=quarantine,
        fingerprint=pack_fingerprint(files),
    )


def packed_check(record: Mapping[str, Any]) -> ImageCheck:
    """The check that a pack's images passed when they were packed; a pack that does not say so was decoded."""
    return "header" if record.get("check") == "header" else "decode"
