"""The split that a command asks for, the one that a pack has, and the one that is offered where there is none."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

from lupctl.core.choices import Layout
from lupctl.core.errors import LupError, UsageError
from lupctl.core.resolve.data.datasets import Target
from lupctl.core.resolve.data.layouts import NO_NOISE
from lupctl.core.system.examples import count_things
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.data.sources.records import Source
    from lupctl.core.formats.pack.read import Pack
    from lupctl.core.formats.pack.samples import Samples

# What `--split` takes to undo the split of an existing pack.
NO_SPLIT: Final = "none"
NOISE_AND_SPLIT: Final = "--label-noise and --split: only images that are for training already can get wrong labels"
PACK_SUFFIX: Final = ".h5"
# In this order, until one divides the images.
OFFERED: Final = ("persons:0.5", "images:0.5")
# Drawing more images than these takes seconds, which no one asked for.
MOST_OFFERED: Final = 200_000
# In a command that is offered, what the rule takes the place of.
SPLIT_HERE: Final = "--split RULE"
# What a record names as the layout of images that were cut out of videos.
BUILT: Final = "videos"


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
        UsageError: not a split, a seed without one, images that have roles already, or labels that were disturbed.
        DataError: the images cannot be divided in this way.
    """
    is_noisy = "label_noise" in source.facts
    if split is not None and split != NO_SPLIT:
        if is_noisy:
            raise UsageError(f"{NOISE_AND_SPLIT} (the noise of {target.out})", hint=f"add --label-noise {NO_NOISE}")
        divided, lines = _divide(source, target, split, seed)
    elif seed is not None:
        raise UsageError(f"--split-seed {seed} has no meaning without --split", hint="add --split persons:0.5")
    else:
        known = None if split == NO_SPLIT else packed_rule(target.out)
        if known is None:
            return source
        if is_noisy:
            raise UsageError(f"{NOISE_AND_SPLIT} (the split of {target.out})", hint=f"add --split {NO_SPLIT}")
        try:
            divided, lines = _divide(source, target, *known)
        except LupError as error:
            raise type(error)(f"{error.message} (the split of {target.out})", hint=f"add --split {NO_SPLIT}") from error
        lines[0] += f" (as in its pack; --split {NO_SPLIT} undoes it)"
    for line in lines:
        progress.say(f"{target.dataset}: {line}")
    return divided


def _divide(source: "Source", target: Target, split: str, seed: int | None) -> "tuple[Source, list[str]]":
    """The source with new roles, and what there is to say about them."""
    from lupctl.core.data.sources.splits.rule import parse_split
    from lupctl.core.data.sources.splits.source import SplitSource
    from lupctl.core.formats.pack.split import describe_split

    divided = SplitSource(source, parse_split(split, seed=seed), dataset=target.dataset)
    return divided, describe_split(divided.split)


def open_packed(target: Target, split: str | None) -> "Source | None":
    """The images of a pack that is to be split into another one, such as one that was built from videos.

    None if the target is no pack, or no split is asked for.

    Raises:
        UsageError: the pack would replace itself.
        DataError: it is damaged.
    """
    if split in (None, NO_SPLIT) or target.root is None or target.root.suffix != PACK_SUFFIX:
        return None
    if target.out.exists() and target.out.samefile(target.root):
        raise UsageError(
            f"{target.root}: a pack that is split becomes another one, with a name of its own",
            hint=shlex.join(
                ["lupctl", "data", "pack", str(target.root), "--split", str(split), *_own_name(target.dataset)]
            ),
        )
    from lupctl.core.data.packing.pack_source import PackedSource

    return PackedSource(target.root)


def _own_name(dataset: str) -> list[str]:
    return ["--name", f"{dataset}-split"]


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
        again: the command that packs them again, with `SPLIT_HERE` where the split goes.
    """
    from lupctl.core.choices import ROLE_CODES, Role
    from lupctl.core.data.catalog.datasets import find_entry
    from lupctl.core.data.sources.splits.divide import divide
    from lupctl.core.data.sources.splits.rule import parse_split

    is_open = not ((samples.role == ROLE_CODES["query"]) | (samples.role == ROLE_CODES["gallery"])).any()
    if not is_open or find_entry(dataset) is not None or len(samples) > MOST_OFFERED:
        return None
    roles: tuple[Role, ...] = ("train", "query")
    for rule in OFFERED:
        try:
            _, split = divide(samples, parse_split(rule), dataset=dataset)
        except LupError:
            continue
        trained, tested = (count_things(split.persons[role], "person") for role in roles)
        queries = count_things(split.images["query"], "query", "queries")
        typed = again.replace(SPLIT_HERE, f"--split {rule}")
        return f"{typed} would train on {trained} and test with {queries} of {tested}"
    return None


def offer_for_target(space: Workspace, target: Target, source: "Source", progress: Progress) -> None:
    """Says that a target will have no queries, and what a split would give it; nothing where no split is possible."""
    if target.root is not None and "label_noise" not in source.facts:  # such labels are no persons to test with
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
    from lupctl.core.formats.pack.split import describe_split, packed_split

    packs = [open_pack(path) for path in paths]
    for pack in packs:
        split = packed_split(pack.record)
        for line in [] if split is None else describe_split(split):
            progress.say(f"{pack.dataset}: {line}")
    first = packs[0]
    has_queries = any((pack.samples.role == ROLE_CODES["query"]).any() for pack in packs)
    if has_queries or not (first.samples.role == ROLE_CODES["train"]).any():
        return
    again = _read_again(space, first, paths[0])
    offer = None if again is None else offer_split(first.samples, first.dataset, again)
    names = ", ".join(pack.dataset for pack in packs)
    progress.say(f"{names}: no queries, so the run will not be evaluated{f'; {offer}' if offer else ''}")


def _read_again(space: Workspace, pack: "Pack", path: Path) -> str | None:
    """The command that packs the images of a pack once more: from its raw data, or where it was built, from the pack.

    None if the raw data is gone, or if labels were disturbed when it was packed.
    """
    source: dict[str, Any] = pack.record.get("source", {})
    if "label_noise" in source:  # such labels are no persons to test with
        return None
    if source.get("layout") == BUILT and path.suffix == PACK_SUFFIX:
        words = ["lupctl", "data", "pack", str(path), *_own_name(pack.dataset), *_elsewhere(space)]
        return f"{shlex.join(words)} {SPLIT_HERE}"
    if source.get("layout") not in get_args(Layout) or not source.get("root"):
        return None
    raw = Path(str(source["root"]), str(source.get("table", "")))
    if not raw.exists():
        raw = space.raw / pack.dataset
    return _pack_again(space, pack.dataset, raw, path) if raw.exists() else None


def _pack_again(space: Workspace, dataset: str, root: Path, out: Path) -> str:
    """The command that packs some raw data once more; how it is read is adopted from its pack."""
    from lupctl.core.resolve.data.datasets import find_target

    try:
        by_name = find_target(space, dataset)
    except LupError:
        by_name = None
    found = None if by_name is None else by_name.root
    is_named = found is not None and root.samefile(found)
    own = root.stem if root.is_file() else root.absolute().name
    words = ["lupctl", "data", "pack", dataset if is_named else str(root)]
    words += [] if is_named or own == dataset else ["--name", dataset]
    words += [] if out.with_suffix("") == space.packs / dataset else ["--out", str(out)]
    return f"{shlex.join([*words, *_elsewhere(space)])} {SPLIT_HERE} --force"


def _elsewhere(space: Workspace) -> list[str]:
    """The option that names the workspace, if it is not the default."""
    return [] if space.home == open_workspace().home else ["--home", str(space.home)]
