"""How fast networks are: what is measured."""

from collections.abc import Callable
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
