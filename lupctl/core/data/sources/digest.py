"""Detects whether a source has changed since it was packed."""

import hashlib
import json
import os
from importlib.metadata import version

import numpy as np

from lupctl.core.data.sources.records import DigestedSource, Source
from lupctl.core.formats.pack.samples import Samples

# The same files in another folder, next to another readme or with other notes make the same pack.
# Names of persons and cameras follow from the images' labels and names.
NAMES = frozenset({"person_names", "camera_names"})
UNIMPORTANT = NAMES | {"root", "ignored", "notes", "notice"}


def source_digest(source: Source, samples: Samples) -> tuple[str, int | None]:
    """A digest that differs once the source has changed, computed without reading an image.

    Args:
        source: if its `facts` have a `root`, its names are files below that folder.
        samples: its images.

    Returns:
        SHA-256 over names, labels, sizes and times of the files; and the total bytes of the files, None if drawn.
    """
    if isinstance(source, DigestedSource):
        return source.digest(samples)
    facts = {key: value for key, value in source.facts.items() if key not in UNIMPORTANT}
    root = source.facts.get("root")
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for column in (samples.person, samples.camera, samples.role):
        digest.update(np.ascontiguousarray(column).data)
    if root is None:
        # Drawn when read: another version of lupctl may draw them differently.
        digest.update(f"{version('lupctl')}\0".encode())
        for part in samples.name.joined():
            digest.update(part)
        return f"sha256:{digest.hexdigest()}", None
    num_bytes = 0
    for name in samples.name:
        try:
            found = os.stat(f"{root}/{name}")  # noqa: PTH116, half the cost of a Path over millions of files
        except OSError:
            digest.update(f"{name}\0gone\0".encode())
            continue
        num_bytes += found.st_size
        digest.update(f"{name}\0{found.st_size} {found.st_mtime_ns}\0".encode())
    return f"sha256:{digest.hexdigest()}", num_bytes
