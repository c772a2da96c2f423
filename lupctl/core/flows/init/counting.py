"""Who is in the images: counts, labels to train on, and what a split would set aside for a test."""

from typing import TYPE_CHECKING

from lupctl.core.errors import LupError
from lupctl.core.flows.init.model import Counts, HeldOut
from lupctl.core.resolve.data.splits import MOST_OFFERED, OFFERED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lupctl.core.formats.pack.samples import Samples


def count_samples(samples: "Samples") -> Counts:
    """How many images of each kind there are, and of whom."""
    import numpy as np

    from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES, UNKNOWN_CAMERA

    train = (samples.role == ROLE_CODES["train"]) & (samples.person != JUNK)
    return Counts(
        images=len(samples),
        unlabelled=int((samples.role == ROLE_CODES["unlabelled"]).sum()),
        train=int(train.sum()),
        queries=int((samples.role == ROLE_CODES["query"]).sum()),
        gallery=int((samples.role == ROLE_CODES["gallery"]).sum()),
        persons=len(np.unique(samples.person[samples.person > DISTRACTOR])),
        train_persons=len(np.unique(samples.person[train])),
        cameras=len(np.unique(samples.camera[samples.camera != UNKNOWN_CAMERA])),
    )


def pick_labels(samples: "Samples") -> "NDArray[np.int64]":
    """(N) the person of each image to train on."""
    import numpy as np

    from lupctl.core.choices import JUNK, ROLE_CODES

    return np.asarray(samples.person[(samples.role == ROLE_CODES["train"]) & (samples.person != JUNK)], np.int64)


def hold_out(samples: "Samples", words: tuple[str, ...], *, dataset: str) -> HeldOut | None:
    """What a split would set aside for a test: half of the persons, else half of each person's images.

    None if there is a test already, or neither is possible.

    Args:
        samples: the images.
        words: of the command that packs them, without a split.
        dataset: the name of the pack that it makes.
    """
    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.data.sources.splits.divide import divide
    from lupctl.core.data.sources.splits.rule import parse_split

    if len(samples) > MOST_OFFERED:
        return None
    for rule in OFFERED:
        try:
            role, split = divide(samples, parse_split(rule), dataset=dataset)
        except LupError:
            continue
        return HeldOut(
            words=(*words, "--split", rule),
            dataset=dataset,
            labels=samples.person[role == ROLE_CODES["train"]],
            images=split.images["query"] + split.images["gallery"],
            queries=split.images["query"],
            is_closed=split.closed_set,
            same_camera=split.protocol == "same-camera-allowed",
        )
    return None
