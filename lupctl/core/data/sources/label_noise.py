"""Wrong labels of the kind that a tracker makes: one person under two labels, and two persons under one."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import groupby
from shlex import quote
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.data.drawing.chance import LABEL, Chance
from lupctl.core.data.sources.records import Source
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.samples import Samples

EXAMPLE: Final = "--label-noise split:0.3,merge:0.1"


@dataclass(frozen=True)
class LabelNoise:
    """How many labels are wrong.

    Args:
        split: share of the persons whose images become two tracklets, cut where their order has a random place.
        merge: share of the tracklets that get the label of a tracklet of another person.
        seed: another one makes other mistakes.
    """

    split: float = 0.0
    merge: float = 0.0
    seed: int = 0


def parse_label_noise(text: str, *, seed: int) -> LabelNoise:
    """The noise that `split:SHARE,merge:SHARE` describes, in any order; either may be left out.

    >>> parse_label_noise("merge:0.1,split:0.3", seed=0)
    LabelNoise(split=0.3, merge=0.1, seed=0)

    Raises:
        UsageError: another word, one twice, or no share from 0 to 1, or below 1 for merge.
    """
    shares: dict[str, float] = {}
    for entry in text.split(","):
        name, _, value = entry.strip().partition(":")
        try:
            share = float(value)
        except ValueError:
            share = -1.0
        if name in shares:
            raise UsageError(f"--label-noise {text}: {name} is given twice", hint=EXAMPLE)
        if name not in ("split", "merge") or not 0 <= share <= 1:
            raise UsageError(
                f"--label-noise {quote(text)}: {repr(entry.strip()) if entry.strip() else 'nothing'}; split or merge "
                "with a share from 0 to 1 was expected",
                hint=EXAMPLE,
            )
        if name == "merge" and share == 1:
            raise UsageError(
                f"--label-noise {text}: no label is left for another person to get; a share of merge below 1 was "
                "expected",
                hint=EXAMPLE,
            )
        shares[name] = share
    return LabelNoise(**shares, seed=seed)


class NoisySource:
    """A source whose training images have tracklet numbers instead of persons; the rest is unchanged.

    The true persons are in `facts` and so in the pack's record, where they serve to measure purity.

    Args:
        source: with persons.
        noise: how many labels are wrong.
    """

    def __init__(self, source: Source, noise: LabelNoise) -> None:
        self._source, self._noise = source, noise

    @property
    def dataset(self) -> str:
        """That of the source."""
        return self._source.dataset

    @property
    def facts(self) -> dict[str, object]:
        """Those of the source, and its noise with the true persons of the training images: [person, images] in turn."""
        samples, train = self._clean
        runs = [[int(person), len(list(same))] for person, same in groupby(samples.person[train].tolist())]
        return {**self._source.facts, "label_noise": {**asdict(self._noise), "true_persons": runs}}

    def list_images(self) -> Samples:
        """The images of the source, with the labels of tracklets where they are for training.

        Raises:
            DataError: no training image has a person.
        """
        samples, train = self._clean
        person = samples.person.copy()
        person[train] = draw_labels(samples.person[train], self._noise)
        return replace(samples, person=person)

    def read(self, name: str) -> bytes:
        """As of the source."""
        return self._source.read(name)

    @cached_property
    def _clean(self) -> tuple[Samples, NDArray[np.int64]]:
        samples = self._source.list_images()
        train = np.flatnonzero(samples.role == ROLE_CODES["train"])
        if not (samples.person[train] >= 0).any():
            raise DataError(
                f"{self.dataset}: no training image has a person, so that there are no labels to disturb",
                hint="leave out --label-noise",
            )
        return samples, train


def draw_labels(person: NDArray[np.int64], noise: LabelNoise) -> NDArray[np.int64]:
    """(N) tracklet numbers from 1 for the persons of N images in order; -1 where the person is unknown.

    Args:
        person: (N), negative where it is unknown.
        noise: how many labels are wrong.
    """
    tracklets: list[tuple[int, NDArray[np.int64]]] = []  # person and rows
    for one in np.unique(person[person >= 0]).tolist():
        rows, chance = np.flatnonzero(person == one), Chance(noise.seed, LABEL, 0, one)
        is_cut = chance.bernoulli(noise.split) and len(rows) > 1
        parts = np.split(rows, [chance.integer(1, len(rows))]) if is_cut else [rows]
        tracklets += [(one, part) for part in parts]
    owners = _merge([one for one, _ in tracklets], noise)
    number = {owner: place + 1 for place, owner in enumerate(sorted(set(owners)))}
    label = np.full(len(person), -1, np.int64)
    for owner, (_, rows) in zip(owners, tracklets, strict=True):
        label[rows] = number[owner]
    return label


def _merge(persons: Sequence[int], noise: LabelNoise) -> list[int]:
    """For every tracklet, the one whose label it gets: itself, or one of another person that kept its own."""
    moved = [Chance(noise.seed, LABEL, 1, place).bernoulli(noise.merge) for place in range(len(persons))]
    kept = [place for place, is_moved in enumerate(moved) if not is_moved]
    owners = []
    for place, one in enumerate(persons):
        others = [other for other in kept if persons[other] != one] if moved[place] else []
        owners.append(Chance(noise.seed, LABEL, 2, place).pick(others) if others else place)
    return owners
