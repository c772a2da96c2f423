"""How fast networks are: what is measured, and what came of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lupctl.core.choices import Backend


class Runner(Protocol):
    """A network that is open in a backend."""

    @property
    def only(self) -> int | None:
        """The one number of images that it takes; None for any."""

    def prepare(self, batch: int) -> Callable[[], object]:
        """A pass over a fixed batch of random images, from its input to its output, waited for."""


@dataclass(frozen=True)
class Subject:
    """A network.

    Args:
        name: as the user typed it.
        path: its file.
        fingerprint: of its checkpoint; of an ONNX file of another program that of the file.
        description: in words.
        height, width: of its images.
        parameters: that a feature depends on, without classifiers.
        flops: of one image, twice its multiplications with an addition each; None where that is not known.
    """

    name: str
    path: Path
    fingerprint: str
    description: str
    height: int
    width: int
    parameters: int
    flops: int | None


@dataclass(frozen=True)
class Contender:
    """A network in one backend.

    Args:
        subject: the network.
        backend: what runs it.
        open: opens it there.
    """

    subject: Subject
    backend: Backend
    open: Callable[[], Runner]


@dataclass(frozen=True)
class Timed:
    """A network in one backend, with so many images at a time.

    Args:
        name: of the network.
        backend: what ran it.
        batch: images of a pass.
        rounds: passes that were timed.
        median_ms, p95_ms: of a pass; half, and 95 % of them, are at most that long.
        images_per_s: by the median.
        memory_bytes: most memory at once above what there was before it was opened; None where that is not known.
    """

    name: str
    backend: Backend
    batch: int
    rounds: int
    median_ms: float
    p95_ms: float
    images_per_s: float
    memory_bytes: int | None


@dataclass(frozen=True)
class BenchResult:
    """The result of a comparison.

    Args:
        subjects: the networks.
        timed: by batch, and in the order that they were named.
        notes: what was left out, and why.
    """

    subjects: Sequence[Subject]
    timed: Sequence[Timed]
    notes: Sequence[str]
