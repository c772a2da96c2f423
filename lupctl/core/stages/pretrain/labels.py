"""The labels that pre-training learns from: which images have one, and what is known of their truth."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, Method
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.read import Pack
from lupctl.core.training.loading.labels import label_persons

# Labels of LUPerson-NL, for a plan without data.
LUPERSON_NL_LABELS: Final = 433_997
# What a run's metrics say of its labels, as shares of the images.
LABEL_SHARES: Final = ("corrected", "agreement", "purity_given", "purity")


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
        DataError: a pack has no labels.
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
    return known


def check_labels(packs: Sequence[Pack], rows: NDArray[np.int64], method: Method) -> None:
    """Refuses labels that tell a method nothing.

    Args:
        packs: in order.
        rows: of the concatenated packs, ascending, all with a person number.
        method: for the error.

    Raises:
        DataError: there is one label only, or no label occurs twice.
    """
    counts = np.bincount(number_labels(packs, rows))
    names = ", ".join(str(pack.path) for pack in packs)
    if len(counts) == 1:
        raise DataError(
            f"{names}: all {len(rows)} images have the same label, which tells the method {method} nothing",
            hint="lupctl pretrain --method moco needs no labels",
        )
    if counts.max() == 1:
        raise DataError(
            f"{names}: {len(rows)} images with {len(counts)} labels: no two images share one, "
            f"which tells the method {method} nothing",
            hint="lupctl pretrain --method moco needs no labels",
        )


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
    known = [true_persons(pack) for pack in packs]
    if any(one is None for one in known):
        return TrainLabels(label, int(label.max()) + 1)
    truth = label_persons([one for one in known if one is not None]).label[rows]
    return TrainLabels(label, int(label.max()) + 1, truth, main_persons(label, truth))


def true_persons(pack: Pack) -> NDArray[np.int64] | None:
    """(N) the true persons of a pack's images, if its labels were disturbed when it was made; -1 if not for training.

    They are in the record in runs of [person, images]. None if there are none, or if images were left out since.
    """
    source = pack.record.get("source")
    noise = source.get("label_noise") if isinstance(source, dict) else None
    train = np.flatnonzero(pack.samples.role == ROLE_CODES["train"])
    if not isinstance(noise, dict):
        return None
    runs = np.array(noise["true_persons"], np.int64).reshape(-1, 2)
    if int(runs[:, 1].sum()) != len(train):
        return None
    truth = np.full(len(pack), -1, np.int64)
    truth[train] = runs[:, 0].repeat(runs[:, 1])
    return truth


def main_persons(label: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """(C) for each label the person whom most of its images show; of several with as many, the smallest number.

    >>> main_persons(np.array([0, 0, 0, 1, 1]), np.array([7, 4, 7, 5, 3])).tolist()
    [7, 3]
    """
    pairs, counts = np.unique(np.stack([label, truth], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    _, first = np.unique(pairs[order, 0], return_index=True)
    best: NDArray[np.int64] = pairs[order][first, 1]
    return best


def label_history(rows: Iterable[Mapping[str, Any]], *, most: int = 8) -> list[dict[str, float]]:
    """What became of the labels over a run: means of some epochs, evenly spaced, the first and last included.

    >>> rows = [{"step": 10, "epoch": 0, "agreement": 0.25}, {"step": 15, "epoch": 0, "agreement": 0.625}]
    >>> label_history([*rows, {"step": 16, "epoch": 1, "agreement": 0.75}])
    [{'epoch': 0, 'agreement': 0.375}, {'epoch': 1, 'agreement': 0.75}]
    >>> rows = [{"step": 3 * epoch + 3, "epoch": epoch, "agreement": 1.0} for epoch in range(90)]
    >>> [row["epoch"] for row in label_history(rows, most=4)]
    [0, 30, 59, 89]

    Args:
        rows: of the run's metrics; each is the mean of the steps since the one before, and counts as often.
        most: epochs at most.

    Returns:
        for each of these epochs its number and the `LABEL_SHARES` that there are; empty if no label was ever compared
        with a prototype.
    """
    by_epoch: dict[int, list[tuple[int, Mapping[str, Any]]]] = {}
    before = 0
    for row in rows:
        if "agreement" in row:
            by_epoch.setdefault(row["epoch"], []).append((row["step"] - before, row))
            before = row["step"]
    epochs = sorted(by_epoch)
    picked = np.linspace(0, len(epochs) - 1, min(most, len(epochs))).round().astype(int).tolist()
    history = []
    for epoch in [epochs[place] for place in picked]:
        found = by_epoch[epoch]
        steps = sum(count for count, _ in found)
        names = [name for name in LABEL_SHARES if name in found[0][1]]
        means = {name: sum(count * row[name] for count, row in found) / steps for name in names}
        history.append({"epoch": epoch, **means})
    return history
