"""What `lupctl init` finds, and what it advises."""

import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["nothing", "images", "pack", "videos"]


@dataclass(frozen=True)
class Counts:
    """How many images there are of each kind, and of whom.

    Args:
        images: all of them.
        unlabelled: without a person.
        train: to train on, of a known person.
        queries, gallery: to test with.
        persons: different known persons.
        train_persons: of them, those to train on.
        cameras: different known cameras.
    """

    images: int
    unlabelled: int
    train: int
    queries: int
    gallery: int
    persons: int
    train_persons: int
    cameras: int


@dataclass(frozen=True)
class HeldOut:
    """What a split would set aside for a test.

    Args:
        words: of the command that packs the images with the split.
        dataset: the name of that pack.
        labels: (N) the person of each image that is left to train on.
        images: queries and gallery.
        queries: of them.
        is_closed: the persons of the test are trained on.
        same_camera: matches from the query's own camera count, because nobody is seen by two cameras.
    """

    words: tuple[str, ...]
    dataset: str
    labels: "NDArray[np.int64]"
    images: int
    queries: int
    is_closed: bool
    same_camera: bool


@dataclass(frozen=True)
class Seen:
    """What is there.

    Args:
        kind: of data.
        dataset: name of its pack.
        packing: words of the command that makes the pack; empty for a pack.
        title: what it is, in one line.
        counts: of images; None for videos without detections.
        labels: (N) the person of each image to train on; None if there is none.
        held_out: what can be set aside for a test; None if there is a test already, or none is possible.
        read_s: seconds that reading and decoding one image takes on one core.
        missing: what is not there, and what can be done without it.
    """

    kind: Kind
    dataset: str = ""
    packing: tuple[str, ...] = ()
    title: str = ""
    counts: Counts | None = None
    labels: "NDArray[np.int64] | None" = None
    held_out: HeldOut | None = None
    read_s: float = 0.0
    missing: tuple[str, ...] = ()


@dataclass(frozen=True)
class Machine:
    """What training would run on.

    Args:
        kind: cuda or cpu.
        devices: number of GPUs, or 1.
        cores: of the CPU.
        line: the devices in words.
    """

    kind: str
    devices: int
    cores: int
    line: str


@dataclass(frozen=True)
class Step:
    """One command.

    Args:
        words: after `lupctl`.
        about: what it does, in one line.
        seconds: how long it takes here, estimated; None if that is not known.
    """

    words: tuple[str, ...]
    about: str
    seconds: float | None = None

    @property
    def command(self) -> str:
        """The command as it is typed."""
        return shlex.join(["lupctl", *self.words])


@dataclass(frozen=True)
class Advice:
    """The commands from what is there to scores, or to answers.

    Args:
        seen: what is there.
        machine: where they run.
        steps: in order.
        later: commands that need something of the user's, as comments.
        missing: what is not there, and what can be done without it.
    """

    seen: Seen
    machine: Machine
    steps: tuple[Step, ...]
    later: tuple[str, ...] = ()
    missing: tuple[str, ...] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """The same for scripts."""
        counts = self.seen.counts
        return {
            "kind": self.seen.kind,
            "dataset": self.seen.dataset or None,
            "title": self.seen.title,
            "counts": None if counts is None else vars(counts),
            "device": self.machine.kind,
            "devices": self.machine.devices,
            "steps": [{"command": step.command, "about": step.about, "seconds": step.seconds} for step in self.steps],
            "later": list(self.later),
            "missing": list(self.missing),
        }
