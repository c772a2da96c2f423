"""The split that a command asks for, the one that a pack has, and the one that is offered where there is none."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lupctl.core.errors import LupError, UsageError
from lupctl.core.resolve.data.datasets import Target
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.data.sources.records import Source
    from lupctl.core.formats.pack.samples import Samples
    from lupctl.core.formats.pack.split import PackSplit

# What `--split` takes to undo the split of an existing pack.
NO_SPLIT: Final = "none"
OFFERED: Final = ("persons:0.5", "images:0.5")
# Drawing more than these takes seconds, which no one asked for.
MOST_OFFERED: Final = 1_000_000


def split_source(
    source: "Source", target: Target, split: str | None, seed: int | None, *, progress: Progress
) -> "Source":
    """The source with the roles of the split that is asked for, else of the one that its pack has; reports it.

    Args:
        source: the images.
        target: where the pack is, or will be.
        split: as typed; None for the split of the pack, if it has one.
        seed: as typed.
        progress: for the lines.

    Raises:
        UsageError: not a split, a seed without one, or images that have roles already.
        DataError: the images cannot be divided in this way.
    """
    from lupctl.core.data.sources.splits.rule import parse_split
    from lupctl.core.data.sources.splits.source import SplitSource, describe_split

    if split is None or split == NO_SPLIT:
        if seed is not None:
            raise UsageError(f"--split-seed {seed} has no meaning without --split", hint="add --split persons:0.5")
        known = None if split == NO_SPLIT else packed_rule(target.out)
        if known is None:
            return source
        split, seed = known
        progress.say(f"{target.dataset}: split {split} (as in its pack; --split {NO_SPLIT} undoes it)")
    divided = SplitSource(source, parse_split(split, seed=seed))
    for line in describe_split(divided.split):
        progress.say(f"{target.dataset}: {line}")
    return divided


def packed_rule(out: Path) -> tuple[str, int | None] | None:
    """The rule and the seed of the split of the pack at a path; None without one."""
    from lupctl.core.formats.pack.split import read_split
    from lupctl.core.stages.pack import read_packed_source

    found = read_split(read_packed_source(out))
    return None if found is None else (found.rule, found.seed)
