"""Images that a fine-tuning run trains on, and who is in them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate
from pathlib import Path
from shlex import quote
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.data.sources.layouts.numbering import OFFSET_FACT
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.read import Pack
from lupctl.core.recipes.finetune_sections import SUBSET_KINDS
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.subsets import draw_subset, read_split
from lupctl.core.system.examples import count_images_of
from lupctl.core.training.loading.labels import label_persons, number_known

# A person or a camera: the number if there is one pack, dataset and number if there are several.
Person = int | str
Camera = int | str


@dataclass(frozen=True)
class LabelledRows:
    """The images of an epoch; a repeated image appears several times.

    Args:
        rows: (N) rows of the concatenated packs.
        label: (N) classes 0 to C - 1; packs have no persons in common. -1 for all where labels are not looked at.
        camera: (N) numbers of cameras, those of different packs are different ones; -1 for no camera.
        persons: the person of each of the C classes.
        cameras: the camera of each number.
    """

    rows: NDArray[np.int64]
    label: NDArray[np.int64]
    camera: NDArray[np.int16]
    persons: tuple[Person, ...]
    cameras: tuple[Camera, ...]

    @property
    def num_images(self) -> int:
        """Number of different images."""
        return len(np.unique(self.rows))


def pick_rows(recipe: FinetuneRecipe, packs: Sequence[Pack]) -> LabelledRows:
    """The part of the packs' training images that a recipe selects; a ratio applies to each pack separately.

    Raises:
        DataError: a pack has no labelled training images, fewer than two persons are left, or a split file does not
            fit the pack.
        UsageError: a split file for several packs, or two packs with the same name.
    """
    check_names(packs)
    if recipe.labels == "clusters":
        return pick_unlabelled(packs)
    if len(packs) > 1 and recipe.data.subset and not names_share(recipe.data.subset):
        raise UsageError(
            f"--subset {recipe.data.subset}: a split file names the images of one dataset, not of {len(packs)}",
            hint="--subset ids:R or images:R selects a part of each",
        )
    chosen = []
    for pack in packs:
        every = training_rows(pack)
        chosen.append(repeat_rows(pick_subset(recipe, pack, every), recipe.data.repeat, whole=len(every)))
    mine = [(pack.samples, rows) for pack, rows in zip(packs, chosen, strict=True)]
    labels = label_persons([samples.person[rows] for samples, rows in mine])
    found = join_packs(packs, chosen, labels.label, name_apart(packs, labels.persons))
    if labels.num_classes < 2:
        more = f"add images of other persons, then: lupctl data pack {quote(packs[0].dataset)} --force"
        raise DataError(
            f"{packs[0].path}: "
            f"{count_images_of(found.num_images, labels.num_classes, what='labelled training image')}; "
            "expected two or more persons",
            hint=more if labels.num_classes else f"lupctl data info {packs[0].path} shows the roles",
        )
    return found


def pick_unlabelled(packs: Sequence[Pack]) -> LabelledRows:
    """All training images of the packs, whoever they show: those of persons, and those without labels.

    Raises:
        DataError: a pack has none.
    """
    wanted = [ROLE_CODES["train"], ROLE_CODES["unlabelled"]]
    chosen = [np.flatnonzero(np.isin(pack.samples.role, wanted)) for pack in packs]
    for pack, rows in zip(packs, chosen, strict=True):
        if len(rows) == 0:
            raise DataError(
                f"{pack.path}: no images to train on", hint=f"lupctl data info {quote(str(pack.path))} shows the roles"
            )
    return join_packs(packs, chosen, np.full(sum(map(len, chosen)), -1, np.int64), persons=())


def join_packs(
    packs: Sequence[Pack], chosen: Sequence[NDArray[np.int64]], label: NDArray[np.int64], persons: tuple[Person, ...]
) -> LabelledRows:
    """Chosen rows of each pack as rows of all of them, with cameras that are kept apart."""
    camera, cameras = number_known([pack.samples.camera[rows] for pack, rows in zip(packs, chosen, strict=True)])
    begins = accumulate((len(pack) for pack in packs[:-1]), initial=0)
    return LabelledRows(
        rows=np.concatenate([rows + begin for rows, begin in zip(chosen, begins, strict=True)]),
        label=label,
        camera=camera.astype(np.int16),
        persons=persons,
        cameras=name_apart(packs, cameras),
    )


def name_apart(packs: Sequence[Pack], numbers: Sequence[NDArray[Any]]) -> tuple[int | str, ...]:
    """Persons or cameras of all packs: numbers if there is one pack, dataset and number if there are several."""
    if len(packs) == 1:
        return tuple(numbers[0].tolist())
    return tuple(
        f"{pack.dataset}/{number}" for pack, own in zip(packs, numbers, strict=True) for number in own.tolist()
    )


def _unlabelled(pack: Pack) -> DataError:
    source, again = pack.record.get("source", {}), ""
    if source.get("layout") == "images" and (pack.samples.role == ROLE_CODES["unlabelled"]).all():
        name = "" if Path(str(source["root"])).name == pack.dataset else f" --name {pack.dataset}"
        again = f"if its folders are persons: lupctl data pack {quote(str(source['root']))}{name} "
        again += "--layout persons --force"
    return DataError(
        f"{pack.path}: 0 labelled training images of 0 persons; expected two or more persons",
        hint=again or f"lupctl data info {pack.path} shows the roles",
    )


def training_rows(pack: Pack) -> NDArray[np.int64]:
    """The training images of a pack that show a known person."""
    return np.flatnonzero((pack.samples.role == ROLE_CODES["train"]) & (pack.samples.person >= 0))


def pick_subset(recipe: FinetuneRecipe, pack: Pack, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The training rows of a pack that a recipe's subset selects.

    Raises:
        DataError: the pack has none, no one is left, or a split file does not fit the pack.
    """
    if len(rows) == 0:
        raise _unlabelled(pack)
    subset = recipe.data.subset
    if not subset:
        return rows
    samples = pack.samples.select(rows)
    kind, _, ratio = subset.partition(":")
    split = next((split for split in SUBSET_KINDS if split == kind), None)
    if split is None:
        offset = int(pack.record.get("source", {}).get(OFFSET_FACT, 0))
        return rows[read_split(Path(subset), samples, offset=offset)]
    return rows[draw_subset(samples, split, ratio, seed=recipe.data.subset_seed)]


def repeat_rows(rows: NDArray[np.int64], repeat: float | Literal["full"], *, whole: int) -> NDArray[np.int64]:
    """The rows int(r) times, then the first int(frac(r) n) of the n rows once more, as in LUPerson's code.

    Args:
        rows: (n).
        repeat: r, 1 or more, read as an exact decimal number; or full, for a total of `whole` rows.
        whole: number of images in the whole training set.

    >>> repeat_rows(np.array([4, 7, 9]), 2.5, whole=10).tolist()
    [4, 7, 9, 4, 7, 9, 4]
    >>> repeat_rows(np.array([4, 7, 9]), "full", whole=5).tolist()
    [4, 7, 9, 4, 7]
    """
    times = Fraction(whole, len(rows)) if repeat == "full" else Fraction(str(repeat))
    extra = int((times - int(times)) * len(rows))
    return np.concatenate([np.tile(rows, int(times)), rows[:extra]])


def names_share(subset: str) -> bool:
    """Whether a subset is given by a ratio, and not by a file."""
    return subset.partition(":")[0] in SUBSET_KINDS


def check_names(packs: Sequence[Pack]) -> None:
    """Reject two packs with the same name, whose persons could not be distinguished.

    Raises:
        UsageError: there are two.
    """
    names = [pack.dataset for pack in packs]
    for number, name in enumerate(names):
        if name in names[:number]:
            first, second = packs[names.index(name)].path, packs[number].path
            raise UsageError(f"{first} and {second}: both contain the dataset {name!r}", hint="name every dataset once")
