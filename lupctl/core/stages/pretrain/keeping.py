"""The part of the images that a run trains on: the best by scores, or by a list of names with the best first."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.read import Pack
from lupctl.core.formats.scores.file import Scores, best_first, read_scores, scores_path
from lupctl.core.formats.scores.lists import is_scores, is_sorted, read_names
from lupctl.core.formats.weights.header import KeptImages, ListReference
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.examples import count_things, name_some

# The folder of the images that circulate, which the published list leaves out; and the ending of an LMDB's keys.
FOLDER, SUFFIX = "images/", ".jpg"
# What a scores file says of how it was made, and a run repeats.
MADE: Final = ("distance", "pooling", "before", "after")


@dataclass(frozen=True)
class Choice:
    """What a run trains on.

    Args:
        rows: (K) int64 of the concatenated packs, ascending.
        kept: which list chose them; None if nothing was chosen.
        unusable: names of the list that are in no pack as an image to train on, but known: images for testing, without
            a label where the method needs one, or left out of the pack as unreadable.
    """

    rows: NDArray[np.int64]
    kept: KeptImages | None = None
    unusable: int = 0


def keep_best(packs: Sequence[Pack], rows: NDArray[np.int64], *, keep: float, scores: str) -> Choice:
    """The best of some rows.

    Args:
        packs: in order.
        rows: (N) of the concatenated packs, those that could be trained on.
        keep: a share up to 1, a count above it; 0 keeps all, or all that a list of names has.
        scores: a scores file, or a list of names with the best first; empty takes the scores beside each pack, where
            anything is to be kept.

    Raises:
        DataError: there are no scores, they are of another pack, or a list names what there is not, something twice,
            or fewer images than are to be kept.
        UsageError: one scores file for several packs, or one that is not told how many to keep.
    """
    if not keep and not scores:
        return Choice(rows)
    if scores and not is_scores(Path(scores)):
        return _keep_named(packs, rows, Path(scores), keep)
    if scores and len(packs) > 1:
        raise UsageError(
            f"data.scores = {scores}: the scores of one pack, and {len(packs)} are trained on",
            hint="leave data.scores out: those beside each pack are taken",
        )
    if not keep:
        raise UsageError(
            f"data.scores = {scores}: scores say which images are better, not how many to keep",
            hint=f"--keep 0.6 --keep {quote(scores)}",
        )
    paths = [Path(scores)] if scores else [scores_path(pack.path) for pack in packs]
    found = [_read_own(path, pack) for path, pack in zip(paths, packs, strict=True)]
    _check_alike(paths, found)
    count = count_kept(keep, len(rows))
    score = np.concatenate([one.score for one in found])[rows]
    lists = tuple(_refer(path, one.record) for path, one in zip(paths, found, strict=True))
    best = np.sort(rows[best_first(score)[:count]])
    return Choice(best, KeptImages(images=count, of=len(rows), lists=lists))


def count_kept(keep: float, images: int) -> int:
    """How many of some images a share or a count keeps; half an image counts as one, as in the published lists.

    >>> count_kept(0.6, 4_180_243), count_kept(0.5, 4_180_243), count_kept(1.0, 12), count_kept(7, 12)
    (2508146, 2090122, 12, 7)

    Args:
        keep: a share up to 1, a count above it.
        images: that there are.

    Raises:
        DataError: there are fewer, or none would be left.
    """
    count = int(keep * images + 0.5) if keep <= 1 else int(keep)
    if count > images:
        raise DataError(
            f"data.keep = {keep:g}: there are only {count_things(images, 'image')} to train on",
            hint=f"--keep {images}, or a share as in --keep 0.6",
        )
    if count == 0:
        raise DataError(
            f"data.keep = {keep:g}: leaves none of {count_things(images, 'image')}", hint="a larger share: --keep 0.6"
        )
    return count


def _read_own(path: Path, pack: Pack) -> Scores:
    """The scores of a pack.

    Raises:
        DataError: there are none, or they are of another pack.
    """
    if not path.exists():
        raise DataError(
            f"{path}: there are no scores of {pack.path}, the best of which are to be kept",
            hint=f"lupctl data score {quote(str(pack.path))} --before RUN --after RUN",
        )
    scores = read_scores(path)
    if scores.fingerprint != pack.fingerprint or len(scores) != len(pack):
        before, after = (str((scores.record.get(side) or {}).get("name") or "RUN") for side in ("before", "after"))
        raise DataError(
            f"{path}: the scores of {len(scores):,} images of {scores.record['dataset']} ({scores.fingerprint}), not "
            f"those of {pack.path}, {len(pack):,} images ({pack.fingerprint})",
            hint=f"lupctl data score {quote(str(pack.path))} --before {quote(before)} --after {quote(after)}",
        )
    return scores


def _check_alike(paths: Sequence[Path], found: Sequence[Scores]) -> None:
    """Refuses scores of several packs that were made in different ways and cannot be compared."""
    ways = [(one.record.get("distance"), *_networks(one.record)) for one in found]
    other = next((number for number, way in enumerate(ways) if way != ways[0]), None)
    if other is not None:
        raise DataError(
            f"{paths[other]}: made with other networks or another distance than {paths[0]}, so that no score of one can"
            " be compared with one of the other",
            hint="score every pack with the same two networks: lupctl data score PACK --before RUN --after RUN",
        )


def _networks(record: Any) -> tuple[object, ...]:
    """The fingerprints of the two networks."""
    return tuple(record["parents"].get(side) for side in ("before", "after"))


def _refer(path: Path, record: Any = None) -> ListReference:
    """What a checkpoint records about scores or a list."""
    made = None if record is None else {key: record[key] for key in MADE if key in record}
    return ListReference(path=str(path), fingerprint=file_fingerprint(path), made=made)


def _keep_named(packs: Sequence[Pack], rows: NDArray[np.int64], path: Path, keep: float) -> Choice:
    """The first usable names of a list, or all of them."""
    names = read_names(path)
    found = _find_names(packs, names, path)
    could = np.zeros(sum(map(len, packs)) + 1, np.bool_)  # the last one is that of row -1, of a name without an image
    could[rows] = True
    chosen = found[could[found]]
    count = count_kept(keep, len(rows)) if keep else len(chosen)
    if count > len(chosen) or count == 0:
        raise DataError(
            f"{path}: names {len(chosen):,} of the {count_things(len(rows), 'image')} to train on, and "
            f"{count or 1:,} are to be kept",
            hint=f"keep what it names: --keep {quote(str(path))}" if len(chosen) else "name images to train on in it",
        )
    if count < len(chosen) and is_sorted(names):
        raise DataError(
            f"{path}: its names are in alphabetical order, which is no ranking; the best were expected first",
            hint=f"keep all that it names: --keep {quote(str(path))}",
        )
    kept = KeptImages(images=count, of=len(rows), lists=(_refer(path),))
    return Choice(np.sort(chosen[:count]), kept, unusable=len(names) - len(chosen))


def _find_names(packs: Sequence[Pack], names: Sequence[str], path: Path) -> NDArray[np.int64]:
    """(M) the row of each name in the concatenated packs; -1 for an image that is known to have been left out.

    Raises:
        DataError: a name is there twice, or of no image, or of images in two packs.
    """
    place = {name: position for position, name in enumerate(names)}
    if len(place) < len(names):
        twice = [name for position, name in enumerate(names) if place[name] != position]
        raise DataError(
            f"{path}: {count_things(len(twice), 'name')} given more than once ({name_some(twice)})",
            hint="keep one line for each image",
        )
    found = np.full(len(names), -1, np.int64)
    row = 0
    for pack in packs:
        for name in pack.samples.name:
            position = _find_name(place, name)
            if position is not None:
                if found[position] >= 0:
                    raise DataError(
                        f"{path}: {names[position]} is the name of two images ({packs[0].path} and {pack.path})",
                        hint="train on one pack, or on one of both: lupctl data pack A B --merge NAME",
                    )
                found[position] = row
            row += 1
    left_out = {_find_name(place, entry["name"]) for pack in packs for entry in pack.record["quarantine"]}
    absent = [names[position] for position in np.flatnonzero(found < 0).tolist() if position not in left_out]
    if absent:
        places = ", ".join(str(pack.path) for pack in packs)
        raise DataError(
            f"{path}: {len(absent):,} of {count_things(len(names), 'name')} not in {places} ({name_some(absent)})",
            hint=f"score these images: lupctl data score {quote(str(packs[0].path))} --before RUN --after RUN",
        )
    return found


def _find_name(place: dict[str, int], name: str) -> int | None:
    """Where a list names an image of a pack, in one of the forms in which LUPerson's images are named."""
    short = name.removeprefix(FOLDER)
    for form in (name, short, short.removesuffix(SUFFIX)):
        if form in place:
            return place[form]
    return None
