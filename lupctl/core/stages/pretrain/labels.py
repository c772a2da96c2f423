"""The labels that pre-training learns from: which images have one, and what is known of their truth."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, Method
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.read import Pack
from lupctl.core.training.loading.labels import label_persons

# Labels of LUPerson-NL, for a plan without data.
LUPERSON_NL_LABELS: Final = 433_997


@dataclass(frozen=True)
class TrainLabels:
    """The labels of N training images.

    Args:
        label: (N) int64 classes, 0 to C - 1.
        num_classes: C.
        truth: (N) int64 true persons, if the packs know them besides their noisy labels.
        persons: (C) int64 the true person whom most images of a class show; with `truth`.
    """

    label: NDArray[np.int64]
    num_classes: int
    truth: NDArray[np.int64] | None = None
    persons: NDArray[np.int64] | None = None


def trainable_rows(packs: Sequence[Pack]) -> NDArray[np.int64]:
    """Rows of the concatenated packs that may be trained on: unlabelled and train images, never test images.

    Raises:
        DataError: there are none.
    """
    role = np.concatenate([pack.samples.role for pack in packs])
    rows = np.flatnonzero((role == ROLE_CODES["unlabelled"]) | (role == ROLE_CODES["train"]))
    if len(rows) == 0:
        names = ", ".join(str(pack.path) for pack in packs)
        raise DataError(f"{names}: no unlabelled or training images, only query and gallery images", hint="--data NAME")
    return rows


def labelled_rows(packs: Sequence[Pack], method: Method) -> NDArray[np.int64]:
    """Rows of the concatenated packs that may be trained on and have a person number.

    Args:
        packs: each must have such images.
        method: for the error.

    Raises:
        DataError: a pack has no labels, there is one label only, or no label occurs twice.
    """
    rows = trainable_rows(packs)
    person = np.concatenate([pack.samples.person for pack in packs])
    known = rows[person[rows] >= 0]
    ends = list(accumulate(map(len, packs)))
    for pack, count in zip(packs, np.diff(np.searchsorted(known, [0, *ends])).tolist(), strict=True):
        if count == 0:
            raise DataError(
                f"{pack.path}: its images have no labels, from which the method {method} learns",
                hint="lupctl pretrain --method moco needs none",
            )
    labels = number_labels(packs, known)
    counts = np.bincount(labels)
    names = ", ".join(str(pack.path) for pack in packs)
    if len(counts) == 1:
        raise DataError(
            f"{names}: all {len(known)} images have the same label, which tells the method {method} nothing",
            hint="lupctl pretrain --method moco needs no labels",
        )
    if counts.max() == 1:
        raise DataError(
            f"{names}: {len(known)} images with {len(counts)} labels: no two images share one, "
            f"which tells the method {method} nothing",
            hint="lupctl pretrain --method moco needs no labels",
        )
    return known


def number_labels(packs: Sequence[Pack], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N) classes without gaps of some rows; the same number in two packs is two classes.

    Args:
        packs: in order.
        rows: (N) of the concatenated packs, ascending, all with a person number.
    """
    ends = np.searchsorted(rows, list(accumulate(map(len, packs))))
    person = np.concatenate([pack.samples.person for pack in packs])[rows]
    return label_persons(np.split(person, ends[:-1])).label


def read_labels(packs: Sequence[Pack], rows: NDArray[np.int64]) -> TrainLabels:
    """The labels of the rows that `labelled_rows` gives, with their truth if every pack knows it."""
    label = number_labels(packs, rows)
    return TrainLabels(label, int(label.max()) + 1)
