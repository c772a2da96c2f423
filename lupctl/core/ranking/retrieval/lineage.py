"""What a network has seen: the packs that it, and the networks it started from, were trained on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class ScoredPack:
    """A pack whose queries and gallery are scored.

    Args:
        dataset: its name.
        path: the pack as it was when the features were made; None if it is not here.
    """

    dataset: str
    path: Path | None


@dataclass(frozen=True)
class TrainedPack:
    """A pack that a network was trained on.

    Args:
        dataset: its name.
        path: the pack as it was then; None if it is not here.
        stage: the stage that trained on it.
        is_labelled: whether the labels of its images were used.
        subset: the share of its training images that was used, as the user named it; empty for all of them.
        terms: of use, if the pack states any.
        notice: what else has to be known of it, as that it was withdrawn.
    """

    dataset: str
    path: Path | None
    stage: Literal["pretrain", "finetune"]
    is_labelled: bool
    subset: str = ""
    terms: str = ""
    notice: str = ""


@dataclass(frozen=True)
class Lineage:
    """A network's own training, and that of the networks it started from.

    Args:
        checkpoints: of the network, and of what it started from, and so on; none if the network is not here.
        trained: every pack, the network's own first.
        unknown: why it is not known what a network was trained on, one line for each that it is true of.
    """

    checkpoints: tuple[Path, ...] = ()
    trained: tuple[TrainedPack, ...] = ()
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True)
class KnownAs:
    """The published network that a network is.

    Args:
        name: in the catalogue.
        said_by: how that is known: the note of its download, the name of its file, or what the user says.
    """

    name: str
    said_by: Literal["download", "file name", "user"]
