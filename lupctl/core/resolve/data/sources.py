"""How the raw data of a target is read, and what a user has to know about it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lupctl.core.choices import DRAWING_SEED
from lupctl.core.errors import DataError
from lupctl.core.resolve.data.datasets import Target
from lupctl.core.resolve.data.layouts import NO_NOISE, Reading, pick_layout, refuse_for_drawn
from lupctl.core.system.examples import count_things
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from lupctl.core.data.sources.records import Source


def build_target_source(target: Target, reading: Reading, *, progress: Progress) -> "Source":
    """The images of a target; reports the layout when it was guessed.

    Raw data that has a pack is read as for that pack unless requested otherwise, so that the two stay comparable.

    Raises:
        DataError: no such folder, or it has another layout.
        UsageError: the layout is a toss-up, or does not know an option that was given.
    """
    from lupctl.core.data.sources.build import build_source, build_synthetic
    from lupctl.core.data.sources.layouts.persons import PersonsSource
    from lupctl.core.stages.pack import read_packed_source

    if target.root is None:
        refuse_for_drawn(reading)
        return _disturb(build_synthetic(seed=DRAWING_SEED if reading.seed is None else reading.seed), reading)
    known, reason = pick_layout(target, reading, read_packed_source(target.out))
    assert known.layout is not None
    line = f"{target.dataset}: layout {known.layout}" + (f" ({reason})" if reason else "")
    if reason and known.layout != "persons":
        progress.say(line)
    source = build_source(
        known.layout,
        target.root,
        dataset=target.dataset,
        cameras=known.cameras,
        version=known.version,
        with_val=known.with_val is not False,
        keys=known.keys,
        root=known.root,
    )
    if isinstance(source, PersonsSource):
        progress.say(f"{line}: {source.description}")
    _report_facts(source, progress)
    if known.label_noise is not None and reading.label_noise is None:
        progress.say(f"{target.dataset}: --label-noise {known.label_noise} (as in its pack)")
    return _disturb(source, known)


def _disturb(source: "Source", reading: Reading) -> "Source":
    """The source with the wrong labels that were requested."""
    if reading.label_noise in (None, NO_NOISE):
        return source
    from lupctl.core.data.sources.label_noise import NoisySource, parse_label_noise

    assert reading.label_noise is not None
    return NoisySource(source, parse_label_noise(reading.label_noise, seed=reading.seed or DRAWING_SEED))


def _report_facts(source: "Source", progress: Progress) -> None:
    """Reports what a source detected, and what its user has to know."""
    facts = source.facts
    notes = facts.get("notes", [])
    assert isinstance(notes, list)
    for note in notes:
        progress.say(f"{source.dataset}: {note}")
    ignored = facts.get("ignored")
    if isinstance(ignored, int) and ignored:
        one = ignored == 1
        progress.say(
            f"{source.dataset}: {count_things(ignored, 'file')} other than images {'is' if one else 'are'} ignored"
        )


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
