"""Where a comparison of runs goes."""

import hashlib
from pathlib import Path

from lupctl.core.workspace import Workspace

FOLDER = "comparisons"
# File systems take 255 bytes; what is put before and behind the names comes on top.
MAX_NAME, MAX_START = 200, 50


def comparison_path(space: Workspace, names: list[str], out: Path | None) -> Path:
    """Where a comparison goes: `out`, a file or a folder that exists; else the workspace's folder of comparisons."""
    name = f"{join_names(names)}.json"
    if out is None:
        return space.home / FOLDER / name
    return out / name if out.is_dir() else out


def join_names(names: list[str]) -> str:
    """Names of runs as one name of a file; of many, the first one, how many more, and a digest of all."""
    parts = [Path(one).name.removesuffix(".features.h5") for one in names]
    joined = "--".join(parts)
    if len(joined.encode()) <= MAX_NAME:
        return joined
    digest = hashlib.sha256("\0".join(names).encode()).hexdigest()[:8]
    return f"{parts[0][:MAX_START]}--and-{len(parts) - 1}-more-{digest}"
