"""The images of a dump: of a pack, or of a plain folder."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lupctl.core.choices import ROLE_CODES, Role
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import SPLIT_KEY
from lupctl.core.training.loading.images import FileImages, PackImages

if TYPE_CHECKING:
    from lupctl.core.data.sources.layouts.images import ImagesSource

# What has to be known of a dataset goes with everything made from it: a pack's entry, and its name in the features.
# The version tells MSMT17's two apart; a record's own `version` is that of lupctl. The split names the protocol.
PASSED_ON = {"notice": "notice", "version": "dataset_version", SPLIT_KEY: SPLIT_KEY}


@dataclass(frozen=True)
class Inputs:
    """The images of a dump, who is on them, and where they come from.

    Args:
        images: N of them.
        samples: (N).
        dataset: its name.
        digest: changes when the images, or their order, do.
        parents: fingerprints by name.
        facts: what has to be known of a dataset, and goes with everything made from it.
        left_out: names in a folder that are no regular files.
    """

    images: PackImages | FileImages
    samples: Samples
    dataset: str
    digest: str
    parents: dict[str, str]
    facts: dict[str, Any]
    left_out: Sequence[str] = ()


def open_images(data: Path, roles: Sequence[Role]) -> Inputs:
    """The images of a pack or folder; nothing is decoded.

    Raises:
        DataError: there are none.
    """
    if is_pack(data):
        pack = open_pack(data)
        rows = select_roles(pack.samples, roles)
        if len(rows) == 0:
            raise DataError(f"{data}: no images of role {', '.join(roles)}", hint=f"lupctl data info {data}")
        return Inputs(
            images=PackImages([pack], rows),
            samples=pack.samples.select(rows),
            dataset=pack.dataset,
            digest=f"{pack.fingerprint} {hashlib.sha256(rows.astype('<i8').tobytes()).hexdigest()}",
            parents={f"pack:{pack.dataset}": pack.fingerprint},
            facts={PASSED_ON[key]: value for key, value in pack.record.get("source", {}).items() if key in PASSED_ON},
        )
    source = _open_folder(data)
    samples = source.list_images()
    return Inputs(
        images=FileImages(f"{data}/{name}" for name in samples.name),
        samples=samples,
        dataset=data.resolve().name,
        digest=_digest_files(data, samples.name),
        parents={},
        facts={},
        left_out=source.left_out,
    )


def list_files(folder: Path) -> Samples:
    """The files of a folder that may be images; nothing is decoded.

    Raises:
        DataError: there are none.
    """
    return _open_folder(folder).list_images()


def _open_folder(folder: Path) -> "ImagesSource":
    # Raw data is read for a folder alone; who dumps a pack does not wait for it.
    from lupctl.core.data.sources.layouts.images import ImagesSource

    return ImagesSource(folder, dataset=folder.name)


def _digest_files(folder: Path, names: Sequence[str]) -> str:
    """Of names, sizes and times of change; reading every file twice would cost as much as the rest."""
    digest = hashlib.sha256()
    for name in names:
        found = os.stat(f"{folder}/{name}")  # noqa: PTH116 - a str per image, not a Path
        digest.update(f"{name}\0{found.st_size} {found.st_mtime_ns}\0".encode())
    return digest.hexdigest()


def select_roles(samples: Samples, roles: Sequence[Role]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows of the wanted roles; by default queries and gallery, or everything where there are none."""
    if not roles:
        wanted = [ROLE_CODES["query"], ROLE_CODES["gallery"]]
        rows = np.flatnonzero(np.isin(samples.role, wanted))
        return rows if len(rows) else np.arange(len(samples))
    return np.flatnonzero(np.isin(samples.role, [ROLE_CODES[role] for role in roles]))


def is_pack(path: Path) -> bool:
    """Whether a path is a pack rather than a folder of images."""
    return path.is_file() or any(path.glob("*.h5"))
