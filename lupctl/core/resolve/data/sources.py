"""How the raw data of a target is read, and what a user has to know about it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

from lupctl.core.choices import DRAWING_SEED, CameraRule, Layout, Version
from lupctl.core.errors import DataError
from lupctl.core.resolve.data.datasets import Target
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from lupctl.core.data.sources.records import Source

Choice = TypeVar("Choice")


@dataclass(frozen=True)
class Reading:
    """How raw data is to be read.

    Args:
        layout: how the files are laid out; None detects it.
        cameras: for folders of persons, where the camera's number is; None if not given.
        seed: for drawn images.
        version: of MSMT17; None if not given.
        with_val: for MSMT17, whether list_val.txt is part of train; None if not given.
        keys: key file of an LMDB; None if not given.
        root: folder that the paths of a table are relative to; None if not given.
        label_noise: wrong labels for the training images, as in `split:0.3,merge:0.1`; None for none.
    """

    layout: Layout | None = None
    cameras: CameraRule | None = None
    seed: int = DRAWING_SEED
    version: Version | None = None
    with_val: bool | None = None
    keys: str | None = None
    root: Path | None = None
    label_noise: str | None = None


def build_target_source(target: Target, reading: Reading, *, progress: Progress) -> "Source":
    """The images of a target; reports the layout when it was guessed.

    Raw data that has a pack is read as for that pack unless requested otherwise, so that the two stay comparable.

    Raises:
        DataError: no such folder, or it has another layout.
    """
    from lupctl.core.data.sources.build import build_source, build_synthetic
    from lupctl.core.data.sources.guess import guess_layout
    from lupctl.core.stages.pack import read_packed_source

    if target.root is None:
        return _disturb(build_synthetic(seed=reading.seed), reading)
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
    _report_facts(source, progress)
    return _disturb(source, reading)


def _disturb(source: "Source", reading: Reading) -> "Source":
    """The source with the wrong labels that were requested."""
    if reading.label_noise is None:
        return source
    from lupctl.core.data.sources.label_noise import NoisySource, parse_label_noise

    return NoisySource(source, parse_label_noise(reading.label_noise, seed=reading.seed))


def _adopt(reading: Reading, packed: Mapping[str, Any]) -> Reading:
    """How to read raw data: as requested, else as for its pack.

    What was detected on disk when the pack was made is detected again, so that a change is noticed.
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


def _report_facts(source: "Source", progress: Progress) -> None:
    """Reports what a source detected, and what its user has to know."""
    facts = source.facts
    notes = facts.get("notes", [])
    assert isinstance(notes, list)
    for note in notes:
        progress.say(f"{source.dataset}: {note}")
    if facts.get("ignored"):
        progress.say(f"{source.dataset}: {facts['ignored']} files other than images are ignored")


def check_notice(source: "Source", *, accepted: bool, progress: Progress) -> None:
    """Warns of what has to be known about a dataset before its images are used.

    Raises:
        DataError: `--accept-terms` was not given.
    """
    for dataset, notice in _list_notices(source.dataset, source.facts):
        if not accepted:
            raise DataError(
                f"{dataset}: {notice}; it is packed only when that is acknowledged",
                hint="add --accept-terms, or use another dataset",
            )
        progress.warn(f"{dataset}: {notice}")


def _list_notices(dataset: str, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The notices of a source: its own, that of the pack it is, and those of its merged parts."""
    own = [(dataset, str(facts["notice"]))] if "notice" in facts else []
    below = [(part["dataset"], part) for part in facts.get("parts", [])]
    below += [(dataset, facts["source"])] if "source" in facts else []
    return own + [found for name, part in below for found in _list_notices(name, part)]


def _one_of(choices: tuple[Choice, ...], value: object) -> Choice | None:
    """The choice that a record names, if this lupctl knows it."""
    return next((choice for choice in choices if choice == value), None)
