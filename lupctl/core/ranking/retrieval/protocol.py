"""The protocol of an evaluation that names none."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lupctl.core.choices import Protocol
from lupctl.core.formats.features.file import FEATURES_FORMAT, HINT
from lupctl.core.formats.features.foreign import is_archive, is_bare
from lupctl.core.formats.pack.split import read_split
from lupctl.core.formats.record import open_recorded
from lupctl.core.system.progress.lines import Progress


def recorded_protocol(path: Path, progress: Progress, record: Mapping[str, Any] | None = None) -> Protocol:
    """The protocol that the split of some images names, else Market-1501's; reads only the record of their features.

    Args:
        path: a features file, made by lupctl or elsewhere.
        progress: says which one it is, if not Market-1501's.
        record: that of the features, if they are yet to be made.

    Raises:
        DataError: there is no such file.
        FormatError: it is damaged, or its split is none that this lupctl knows.
    """
    if record is None:
        if is_archive(path) or is_bare(path):
            return "market1501"
        with open_recorded(path, "features", FEATURES_FORMAT, hint=HINT) as (_, record):
            split = read_split(record)
    else:
        split = read_split(record)
    if split is None or split.protocol == "market1501":
        return "market1501"
    progress.say(f"protocol: {split.protocol} (as the data's split says: nobody is seen by two cameras)")
    return split.protocol
