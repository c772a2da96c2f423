"""Telling whether a source has changed since it was packed."""

import hashlib
import json
import os
from importlib.metadata import version

import numpy as np

from lupctl.core.data.sources.records import DigestedSource, Source
from lupctl.core.formats.pack.samples import Samples

# The same files elsewhere, with another readme beside them or described in other words, make the same pack.
UNIMPORTANT = frozenset({"root", "ignored", "notes", "notice"})


def source_digest(source: Source, samples: Samples) -> tuple[str, int | None]:
    """What tells a source from the same one changed, without reading an image.

    Args:
        source: where its `facts` have a `root`, its names are files below that folder.
        samples: its images.

    Returns:
        SHA-256 over names, labels, sizes and times of the files; and the bytes of all files, None where they are drawn.
    """
    if isinstance(source, DigestedSource):
        return source.digest(samples)
    facts = {key: value for key, value in source.facts.items() if key not in UNIMPORTANT}
    root = source.facts.get("root")
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for column in (samples.person, samples.camera, samples.role):
        digest.update(np.ascontiguousarray(column).data)
    if root is None:
        # Made when read: another lupctl may make them differently.
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
