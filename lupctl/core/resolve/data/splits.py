"""The split that a command asks for, the one that a pack has, and the one that is offered where there is none."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from lupctl.core.errors import LupError, UsageError
from lupctl.core.resolve.data.datasets import Target
from lupctl.core.system.examples import amount
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.data.sources.records import Source
    from lupctl.core.formats.pack.read import Pack
    from lupctl.core.formats.pack.samples import Samples

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
    if split is not None and split != NO_SPLIT:
        divided, lines = _divide(source, split, seed)
    elif seed is not None:
        raise UsageError(f"--split-seed {seed} has no meaning without --split", hint="add --split persons:0.5")
    else:
        known = None if split == NO_SPLIT else packed_rule(target.out)
        if known is None:
            return source
        try:
            divided, lines = _divide(source, *known)
        except LupError as error:
            raise type(error)(f"{error.message} (the split of {target.out})", hint=f"add --split {NO_SPLIT}") from error
        lines[0] += f" (as in its pack; --split {NO_SPLIT} undoes it)"
    for line in lines:
        progress.say(f"{target.dataset}: {line}")
    return divided


def _divide(source: "Source", split: str, seed: int | None) -> "tuple[Source, list[str]]":
    """The source with new roles, and what there is to say about them."""
    from lupctl.core.data.sources.splits.rule import parse_split
    from lupctl.core.data.sources.splits.source import SplitSource
    from lupctl.core.formats.pack.split import describe_split

    divided = SplitSource(source, parse_split(split, seed=seed))
    return divided, describe_split(divided.split)


def packed_rule(out: Path) -> tuple[str, int | None] | None:
    """The rule and the seed of the split of the pack at a path; None without one."""
    from lupctl.core.formats.pack.split import read_split
    from lupctl.core.stages.pack import read_packed_source

    found = read_split(read_packed_source(out))
    return None if found is None else (found.rule, found.seed)


def offer_split(samples: "Samples", dataset: str, again: str) -> str | None:
    """What a split would give to labelled images without queries, in the form of a command and its outcome.

    None where it would give nothing, and for the datasets of the catalogue, which have roles or are trained on whole.

    Args:
        samples: the images.
        dataset: their name.
        again: the command that packs them again, without `--split`.
    """
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.data.catalog.datasets import find_entry
    from lupctl.core.data.sources.splits.divide import divide
    from lupctl.core.data.sources.splits.rule import parse_split

    is_open = not ((samples.role == ROLE_CODES["query"]) | (samples.role == ROLE_CODES["gallery"])).any()
    if not is_open or find_entry(dataset) is not None or len(samples) > MOST_OFFERED:
        return None
    for rule in OFFERED:
        try:
            _, split = divide(samples, parse_split(rule), dataset=dataset)
        except LupError:
            continue
        return (
            f"{again} --split {rule} --force would train on {amount(split.persons['train'], 'person')} and test "
            f"with {amount(split.images['query'], 'query')} of {amount(split.persons['query'], 'person')}"
        )
    return None


def offer_for_target(space: Workspace, target: Target, source: "Source", progress: Progress) -> None:
    """Says that a target will have no queries, and what a split would give it; nothing where no split is possible."""
    if target.root is not None:
        again = _pack_again(space, target.dataset, target.root, target.out)
        offer = offer_split(source.list_images(), target.dataset, again)
        if offer is not None:
            progress.say(f"{target.dataset}: no queries and no gallery, so nothing can be tested; {offer}")


def say_tests(space: Workspace, paths: tuple[Path, ...], progress: Progress) -> None:
    """Says how packs were split, if they were; or that they have no queries, and what a split would give the first one.

    Raises:
        DataError: a pack is missing or damaged.
    """
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.formats.pack.split import describe_recorded_split

    packs = [open_pack(path) for path in paths]
    for pack in packs:
        for line in describe_recorded_split(pack.record.get("source", {})):
            progress.say(f"{pack.dataset}: {line}")
    if any((pack.samples.role == ROLE_CODES["query"]).any() for pack in packs):
        return
    first = packs[0]
    root = _raw_of(space, first)
    offer = None
    if root is not None:
        again = _pack_again(space, first.dataset, root, paths[0])
        offer = offer_split(first.samples, first.dataset, again)
    names = ", ".join(pack.dataset for pack in packs)
    progress.say(f"{names}: no queries, so the run will not be evaluated{f'; {offer}' if offer else ''}")


def _raw_of(space: Workspace, pack: "Pack") -> Path | None:
    """The raw data that a pack was made from, if it is still there."""
    source: dict[str, Any] = pack.record.get("source", {})
    if not source.get("root"):
        return None
    path = Path(str(source["root"]), str(source.get("table", "")))
    if path.exists():
        return path
    named = space.raw / pack.dataset
    return named if named.exists() else None


def _pack_again(space: Workspace, dataset: str, root: Path, out: Path) -> str:
    """The command that packs some raw data once more; how it is read is adopted from its pack."""
    from lupctl.core.resolve.data.datasets import find_target

    try:
        by_name = find_target(space, dataset)
    except LupError:
        by_name = None
    found = None if by_name is None else by_name.root
    is_named = found is not None and (root.samefile(found) or root.parent.samefile(found))
    own = root.stem if root.is_file() else root.absolute().name
    words = ["lupctl", "data", "pack", dataset if is_named else str(root)]
    words += [] if is_named or own == dataset else ["--name", dataset]
    words += [] if out.with_suffix("") == space.packs / dataset else ["--out", str(out)]
    words += [] if space.home == open_workspace().home else ["--home", str(space.home)]
    return shlex.join(words)
