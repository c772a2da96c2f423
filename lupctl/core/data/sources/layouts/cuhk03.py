"""CUHK03 in the new protocol, from its published index files (Zhong et al. 2017, arXiv 1701.08398)."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import Dataset, Role
from lupctl.core.data.sources.folder import list_folders
from lupctl.core.data.sources.layouts.market1501 import has_market_folders
from lupctl.core.data.sources.tree import ImageTree, build_samples
from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.examples import name_some

INDEX_NAME: Final = "cuhk03_new_protocol_config_{boxes}.mat"
PARTS: Final[tuple[tuple[Dataset, str], ...]] = (("cuhk03-labeled", "labeled"), ("cuhk03-detected", "detected"))
BOXES: Final = tuple(boxes for _, boxes in PARTS)
# Images with labeled and with detected boxes have the same names, so each kind has its own folder.
IMAGE_FOLDERS: Final = ("images_{boxes}", "{boxes}", "cuhk03_{boxes}", "")
INDICES: Final[dict[str, Role]] = {"train_idx": "train", "query_idx": "query", "gallery_idx": "gallery"}
CLASSIC_NAME: Final = "cuhk-03.mat"
HINT = "download the index file again from https://github.com/zhunzhong07/person-re-ranking/tree/master/CUHK03-NP"


class Cuhk03IndexSource:
    """The images listed in an index file of the new protocol, next to it.

    Args:
        index: `cuhk03_new_protocol_config_labeled.mat` or `..._detected.mat`, or a folder that contains one of them.
        dataset: the name to store in the pack.
        terms: terms of use, if known.
        root: the folder of the extracted images; by default searched for next to the index.

    Raises:
        DataError: no index, both of them, the file of the classic protocol, or no folder of images.
    """

    def __init__(self, index: Path, *, dataset: str, terms: str = "", root: Path | None = None) -> None:
        self.index = find_index(index)
        self.dataset = dataset
        self.root = root or self._find_images()
        self._tree = ImageTree(self.root, layout="cuhk03-index", terms=terms)

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, for the pack's record."""
        return self._tree.facts(index=self.index.name)

    def list_images(self) -> Samples:
        """Every image of the index, sorted by (role, name); whether the files exist is not checked.

        Raises:
            FormatError: the index is damaged or inconsistent.
        """
        return self._samples

    def read(self, name: str) -> bytes:
        """The bytes of one image file."""
        return self._tree.read(name)

    @cached_property
    def _config(self) -> dict[str, Any]:
        return read_index(self.index)

    @cached_property
    def _samples(self) -> Samples:
        config = self._config
        names, labels, cameras = config["filelist"], config["labels"].tolist(), config["camId"].tolist()
        return build_samples(
            (role, names[row], labels[row], cameras[row])
            for key, role in INDICES.items()
            for row in (config[key] - 1).tolist()  # MATLAB counts from 1
        )

    def _find_images(self) -> Path:
        boxes = next(kind for kind in BOXES if kind in self.index.name)
        first = self._config["filelist"][0]
        folders = [self.index.parent / name.format(boxes=boxes) for name in IMAGE_FOLDERS]
        found = next((folder for folder in folders if (folder / first).is_file()), None)
        if found is None:
            raise DataError(
                f"{self.index}: its first image {first} is in none of {', '.join(map(str, folders))}",
                hint=f"put the extracted images into {folders[0]}, or name their folder with --root",
            )
        return found


def index_files(root: Path) -> list[Path]:
    """The index files of the new protocol in a folder."""
    return [path for boxes in BOXES if (path := root / INDEX_NAME.format(boxes=boxes)).is_file()]


def find_index(path: Path) -> Path:
    """The index file at a path: the file itself, or the only one in a folder.

    Raises:
        DataError: there is none, both are there, or it is the file of the classic protocol.
    """
    refuse_classic(path)
    if path.is_file():
        if not any(boxes in path.name for boxes in BOXES):
            raise DataError(
                f"{path}: its name contains neither labeled nor detected, unlike {INDEX_NAME.format(boxes='labeled')}",
                hint="rename it as published",
            )
        return path
    found = index_files(path)
    if len(found) == 1:
        return found[0]
    if found:
        raise DataError(
            f"{path}: contains the indices of both labeled and detected boxes", hint=f"name one: {found[0]}"
        )
    raise DataError(f"{path}: contains no {INDEX_NAME.format(boxes='(labeled|detected)')}", hint=HINT)


def find_parts(root: Path) -> list[tuple[Dataset, Path]]:
    """The datasets of CUHK03's new protocol that a folder contains: with labeled and with detected boxes.

    Returns:
        each with its folder in Market-1501's layout, else with its index file; empty for any other folder.
    """
    if not root.is_dir():
        return []
    for parent in (root, *list_folders(root)):
        folders = [(name, parent / boxes) for name, boxes in PARTS if has_market_folders(parent / boxes)]
        if folders:
            return folders
    indices = {path.name: path for path in index_files(root)}
    return [(name, indices[key]) for name, boxes in PARTS if (key := INDEX_NAME.format(boxes=boxes)) in indices]


def refuse_classic(path: Path) -> None:
    """Refuses the classic release, which is often confused with the new protocol.

    Raises:
        DataError: `path` is its file, or a folder with its file and without the new protocol's.
    """
    files = os.listdir(path) if path.is_dir() and not index_files(path) else [path.name]  # noqa: PTH208, many
    if any(name.lower() == CLASSIC_NAME for name in files):
        raise DataError(
            f"{path}: CUHK03 in the classic protocol (1,367 and 100 persons, 20 splits), a different benchmark from "
            "the new protocol (767 and 700 persons) that is read here",
            hint=f"get the images of CUHK03-NP, or {INDEX_NAME.format(boxes='labeled')} and the extracted images",
        )


def read_index(path: Path) -> dict[str, Any]:
    """The index: `filelist` (list of N names), `labels` and `camId` (N), and the three arrays of indices from 1.

    Raises:
        DataError: scipy, which reads MATLAB files, is not installed.
        FormatError: not a MATLAB 5 file, or parts are missing or inconsistent.
    """
    try:
        from scipy.io import loadmat  # an extra: only this layout needs it
    except ImportError as error:
        raise DataError(
            f"{path}: reading MATLAB files needs scipy, which is not installed", hint="pip install 'lupctl[mat]'"
        ) from error
    try:
        found = loadmat(path, variable_names=[*INDICES, "filelist", "labels", "camId"])
        config: dict[str, Any] = {key: _numbers(found[key]) for key in (*INDICES, "labels", "camId")}
        config["filelist"] = [str(cell.item()) for cell in found["filelist"].ravel()]
    except KeyError as error:
        raise FormatError(
            f"{path}: has no {error.args[0]}, which an index of the new protocol contains", hint=HINT
        ) from error
    except Exception as error:  # scipy raises whatever its parser stumbles over
        raise FormatError(f"{path}: not a MATLAB 5 file, or damaged ({error})", hint=HINT) from error
    _check_index(path, config)
    return config


def _numbers(matrix: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(matrix.ravel(), np.int64)


def _check_index(path: Path, config: dict[str, Any]) -> None:
    count = len(config["filelist"])
    for key in ("labels", "camId"):
        if len(config[key]) != count:
            raise FormatError(f"{path}: {len(config[key]):,} {key} for {count:,} files", hint=HINT)
        if count and not (config[key].min() >= 0 and config[key].max() <= np.iinfo(np.int16).max):
            raise FormatError(f"{path}: {key} are between {config[key].min()} and {config[key].max()}", hint=HINT)
    rows = np.concatenate([config[key] for key in INDICES])
    outside = rows[(rows < 1) | (rows > count)]
    if len(outside):
        raise FormatError(
            f"{path}: {len(outside):,} indices are outside 1 to {count:,}: {name_some(outside)}",
            hint=HINT,
        )
    numbers, times = np.unique(rows, return_counts=True)
    twice = [config["filelist"][number - 1] for number in numbers[times > 1].tolist()]
    if twice:
        raise FormatError(f"{path}: {len(twice):,} images are in two of its parts: {name_some(twice)}", hint=HINT)
