"""What a network that takes cameras is given for each image: its camera's row, or what stands for an unknown camera."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import UNKNOWN_CAMERA, CameraUse
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.features.cameras import DEFAULT_USE, CameraCounts, read_counts
from lupctl.core.formats.weights.header import CheckpointHeader
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.system.examples import count_things, name_some
from lupctl.core.training.nets.vit.side import MEAN_ROW, NO_ROW


@dataclass(frozen=True)
class CameraTable:
    """The cameras that a network was trained on, and what it has for others.

    Args:
        cameras: of each row: the number in the dataset, or dataset and number if it was trained on several; empty if
            they are not known.
        datasets: that it was trained on; empty if they are not known, as for converted networks.
        rows: of the table.
        has_unknown: whether another row was learned for unknown cameras.
    """

    cameras: tuple[int | str, ...]
    datasets: tuple[str, ...]
    rows: int
    has_unknown: bool

    @property
    def unknown_row(self) -> int:
        """What stands for an unknown camera: the row that was learned for it, else the mean of all rows."""
        return self.rows if self.has_unknown else MEAN_ROW

    def is_of(self, dataset: str) -> bool:
        """Whether the cameras of a dataset may be the network's own; True where it is not known what they are of."""
        return not self.datasets or dataset in self.datasets

    def rows_of(self, dataset: str) -> dict[int, int]:
        """The row of each camera of a dataset, by its number."""
        found = {}
        for row, name in enumerate(self.cameras):
            owner, _, number = str(name).rpartition("/")
            if number.isdecimal() and owner in ("", dataset):
                found[int(number)] = row
        return found


@dataclass(frozen=True)
class CameraRows:
    """The rows of N images, as `embed` takes them.

    Args:
        rule: by which they were chosen.
        rows: (N) int64.
        table: of the network.
        line: what has to be said of them before the features are trusted; empty if every image has its own camera's.
    """

    rule: CameraUse
    rows: NDArray[np.int64]
    table: CameraTable
    line: str

    def count(self, kept: range | None = None, *, left_out: int = 0) -> CameraCounts:
        """How many images have which row.

        Args:
            kept: counts only these images.
            left_out: images without a camera among them that turned out not to be images.
        """
        rows = self.rows if kept is None else self.rows[kept.start : kept.stop]
        found = {
            "own_row": int(((rows >= 0) & (rows < self.table.rows)).sum()),
            "unknown_row": int((rows == self.table.rows).sum()),
            "mean_row": int((rows == MEAN_ROW).sum()),
            "no_term": int((rows == NO_ROW).sum()),
        }
        if left_out:
            found[_kind_of(self.table, NO_ROW if self.rule == "none" else self.table.unknown_row)] -= left_out
        return CameraCounts(self.rule, **found)


def camera_table(header: CheckpointHeader, *, origin: str) -> CameraTable | None:
    """The cameras of a checkpoint's network; None if it takes none.

    Raises:
        FormatError: the header names more or fewer cameras than the table has rows, or one twice.
    """
    trunk = header.network.trunk
    if not isinstance(trunk, ViTPlan) or not trunk.side_rows:
        return None
    rows = trunk.side_rows
    different = len(set(header.cameras))
    if different != len(header.cameras) or different not in (0, rows):
        raise FormatError(
            f"{origin}: names {count_things(different, 'different camera')} for the {rows} rows of its table",
            hint="make the file again, or copy it again",
        )
    datasets = tuple(pack.dataset for pack in header.data)
    return CameraTable(header.cameras, datasets, rows, trunk.unknown_camera)


def choose_rows(
    table: CameraTable | None, camera: NDArray[Any], *, dataset: str, use: CameraUse | None, network: str
) -> CameraRows | None:
    """The row of each image of a pack or folder; None if the network takes no cameras.

    By the rule `mean`, a camera of a dataset that the network was not trained on is unknown, whatever its number.
    `known` trusts the numbers: it is for data that has the network's cameras under another name.

    Args:
        table: of the network.
        camera: (N) the number of each image's camera; negative where it has none.
        dataset: that the images are of.
        use: the rule; None takes the default.
        network: how the user names it, for errors.

    Raises:
        DataError: the rule is `known`, and an image is from no camera of the network.
        UsageError: there is a rule, and the network takes no cameras.
    """
    if table is None:
        if use is None:
            return None
        raise takes_none(use, network)
    rule: CameraUse = use or DEFAULT_USE
    if rule == "none":
        return _leave_out(table, len(camera), f"{count_things(len(camera), 'image')} of {dataset}")
    row_of = table.rows_of(dataset) if rule == "known" or table.is_of(dataset) else {}
    numbers, index = np.unique(camera, return_inverse=True)
    known = [row_of.get(number, table.unknown_row) for number in numbers.tolist()]
    rows = np.array(known, np.int64)[index.reshape(-1)]
    strange = Counter(camera[~np.isin(camera, list(row_of))].tolist())
    count = sum(strange.values())
    share = "all" if count == len(camera) else f"{count:,} of"
    images = f"{share} {count_things(len(camera), 'image')} of {dataset}"
    if strange and rule == "known":
        raise DataError(
            f"--cameras known: {images} {'is' if count == 1 else 'are'} from no camera of {network}: "
            f"{_describe(strange)}",
            hint="--cameras mean gives them the learned row or the mean of all rows; --cameras none leaves out cameras",
        )
    said = []
    if strange:
        said.append(f"{images} {'gets' if count == 1 else 'get'} {_name_unknown(table)}: {_describe(strange)}")
        if not table.is_of(dataset) and set(strange) != {UNKNOWN_CAMERA}:
            said.append(f"the network was trained on {name_some(table.datasets)}")
    if rule != "known" and not table.datasets and count < len(camera):
        others = f"the other images of {dataset}" if strange else f"the images of {dataset}"
        said.append(f"{others} are taken by the numbers of their cameras, as the network does not say whose those are")
    return CameraRows(rule, rows, table, f"cameras: {'; '.join(said)}" if said else "")


def takes_none(use: CameraUse, network: str) -> UsageError:
    """The error for a rule and a network without a table of cameras."""
    return UsageError(
        f"--cameras {use}: {network} takes no cameras (it was trained without side information, or on the images "
        "of one camera), so its features are the same by any rule",
        hint="leave out --cameras",
    )


def choose_query_rows(table: CameraTable | None, count: int, *, gallery: Mapping[str, Any]) -> CameraRows | None:
    """The rows of pictures whose cameras are not known, as the queries of a search; None without a table.

    Args:
        table: of the network.
        count: number of pictures.
        gallery: the record of the features that they are compared with; if those have no camera's row, nor do they.
    """
    if table is None:
        return None
    made, queries = read_counts(gallery), count_things(count, "query", "queries")
    if made is not None and made.rule == "none":
        return _leave_out(table, count, queries)
    line = f"cameras: {queries} without a camera {'gets' if count == 1 else 'get'} {_name_unknown(table)}"
    return CameraRows(DEFAULT_USE, np.full(count, table.unknown_row, np.int64), table, line)


def _leave_out(table: CameraTable, count: int, images: str) -> CameraRows:
    line = f"cameras: none, so {images} {'gets' if count == 1 else 'get'} no camera's row"
    return CameraRows("none", np.full(count, NO_ROW, np.int64), table, line)


def _name_unknown(table: CameraTable) -> str:
    return "the row that the network learned for unknown cameras" if table.has_unknown else "the mean of all rows"


def _kind_of(table: CameraTable, row: int) -> str:
    """The count that a row for unknown cameras belongs to."""
    return {table.rows: "unknown_row", MEAN_ROW: "mean_row", NO_ROW: "no_term"}[row]


def _describe(strange: Counter[int]) -> str:
    """Which cameras, with the number of images of each.

    >>> _describe(Counter({7: 9, -1: 1}))
    'no camera (1 image), camera 7 (9 images)'
    """
    return name_some(
        f"{'no camera' if camera < 0 else f'camera {camera}'} ({count_things(strange[camera], 'image')})"
        for camera in sorted(strange)
    )
