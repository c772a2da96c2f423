"""How the raw data of a target is read, and what has to be known of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from lupctl.core.choices import DRAWING_SEED, CameraRule, Layout, Version
from lupctl.core.errors import DataError
from lupctl.core.resolve.datasets import Target
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from lupctl.core.data.sources.records import Source

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Reading:
    """How the user wants raw data to be read.

    Args:
        layout: how the files lie; None where it is to be found out.
        cameras: for folders of persons, where the camera's number stands; None where the user did not say.
        seed: for drawn images.
        version: of MSMT17; None where the user did not say.
        with_val: for MSMT17, whether list_val.txt is part of train; None where the user did not say.
        keys: key file of an LMDB; None where the user did not say.
        root: folder that the paths of a table are relative to; None where the user did not say.
    """

    layout: Layout | None = None
    cameras: CameraRule | None = None
    seed: int = DRAWING_SEED
    version: Version | None = None
    with_val: bool | None = None
    keys: str | None = None
    root: Path | None = None


def build_target_source(target: Target, reading: Reading, *, progress: Progress) -> "Source":
    """The images of a target; says which layout was taken when none was named.

    A pack that is there already tells how its raw data was read, so that it stays comparable with it.

    Raises:
        DataError: no such folder, or it is not laid out so.
    """
    from lupctl.core.data.sources.build import build_source, build_synthetic
    from lupctl.core.data.sources.guess import guess_layout
    from lupctl.core.stages.pack import read_packed_source

    if target.root is None:
        return build_synthetic(seed=reading.seed)
    known = _adopt(reading, read_packed_source(target.out))
    layout = known.layout
    if layout is None:
        guess = guess_layout(target.root, dataset=target.dataset)
        layout = guess.layout
        progress.say(f"{target.dataset}: layout {layout} ({guess.reason})")
    elif reading.layout is None:
        progress.say(f"{target.dataset}: layout {layout} (as in its pack)")
    source = build_source(
        layout,
        target.root,
        dataset=target.dataset,
        cameras=known.cameras or "none",
        version=known.version,
        with_val=known.with_val is not False,
        keys=known.keys,
        root=known.root,
    )
    _say_facts(source, progress)
    return source


def _adopt(reading: Reading, packed: Mapping[str, Any]) -> Reading:
    """How to read raw data: as the user says, else as its pack was made.

    What was found out from the disk when the pack was made is found out again, so that a change is noticed.
    """
    root = packed.get("root")
    is_table = packed.get("layout") in ("csv", "cuhk03-index")
    with_val = packed.get("val")
    return replace(
        reading,
        layout=reading.layout or _one_of(get_args(Layout), packed.get("layout")),
        cameras=reading.cameras or _one_of(get_args(CameraRule), packed.get("cameras")),
        version=reading.version or _one_of(get_args(Version), packed.get("version")),
        with_val=with_val if reading.with_val is None and isinstance(with_val, bool) else reading.with_val,
        keys=reading.keys or (str(packed["keys"]) if "keys" in packed else None),
        root=reading.root or (Path(root) if is_table and isinstance(root, str) and Path(root).is_dir() else None),
    )


def _say_facts(source: "Source", progress: Progress) -> None:
    """Says what a source found out for itself, and what a user of it has to know."""
    facts = source.facts
    notes = facts.get("notes", [])
    assert isinstance(notes, list)
    for note in notes:
        progress.say(f"{source.dataset}: {note}")
    if facts.get("ignored"):
        progress.say(f"{source.dataset}: {facts['ignored']} other files beside the images are ignored")


def check_notice(source: "Source", *, accepted: bool, progress: Progress) -> None:
    """Says aloud what has to be known of a dataset before its images are used.

    Raises:
        DataError: nobody said `--accept-terms`.
    """
    for dataset, notice in _list_notices(source.dataset, source.facts):
        if not accepted:
            raise DataError(
                f"{dataset}: {notice}; it is packed when that is acknowledged",
                hint="add --accept-terms, or use another dataset",
            )
        progress.warn(f"{dataset}: {notice}")


def _list_notices(dataset: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The notices of a source: its own, that of the pack it is, those of the parts it is merged from."""
    own = [(dataset, str(facts["notice"]))] if "notice" in facts else []
    below = [(part["dataset"], part) for part in facts.get("parts", [])]
    below += [(dataset, facts["source"])] if "source" in facts else []
    return own + [found for name, part in below for found in _list_notices(name, part)]


def _one_of(choices: tuple[Choice, ...], value: object) -> Choice | None:
    """The choice that a record names, if it names one that this lupctl knows."""
    return next((choice for choice in choices if choice == value), None)
