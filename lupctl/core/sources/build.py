"""From a layout to a source."""

from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from lupctl.core.choices import CameraRule, Layout
from lupctl.core.errors import DataError
from lupctl.core.sources.catalog import find_entry
from lupctl.core.sources.images import ImagesSource
from lupctl.core.sources.market1501 import Market1501Source, has_market_folders
from lupctl.core.sources.persons import ROLE_FOLDERS, PersonsSource
from lupctl.core.sources.records import Source
from lupctl.core.sources.synthetic import SyntheticPlan, SyntheticSource


@dataclass(frozen=True)
class Guess:
    """A layout that was chosen for the user, and why, in words to print.

    Args:
        layout: what was chosen.
        reason: what spoke for it.
    """

    layout: Layout
    reason: str


def build_source(layout: Layout, root: Path, *, dataset: str, cameras: CameraRule = "none") -> Source:
    """The images of a folder in a given layout.

    Args:
        layout: how the files lie.
        root: the folder.
        dataset: the name the pack will carry; the catalogue adds the terms of the ones it knows.
        cameras: for folders of persons, where the camera's number stands.

    Raises:
        DataError: the folder is not laid out so.
    """
    entry = find_entry(dataset)
    terms = entry.terms if entry else ""
    match layout:
        case "market1501":
            return Market1501Source(root, dataset=dataset, terms=terms)
        case "images":
            return ImagesSource(root, dataset=dataset, terms=terms)
        case "persons":
            return PersonsSource(root, dataset=dataset, cameras=cameras, terms=terms)
        case _:
            assert_never(layout)


def build_synthetic(*, seed: int = 0) -> SyntheticSource:
    """Drawn persons in a number that suits trying things out on a CPU: about 10,000 images.

    Args:
        seed: another seed draws other persons in other places.
    """
    plan = SyntheticPlan(
        seed=seed,
        unlabelled_persons=2_000,
        train_persons=120,
        test_persons=80,
        cameras=6,
        shots=3,
        distractors=100,
        junk=50,
    )
    return SyntheticSource(plan)


def guess_layout(root: Path, *, dataset: str) -> Guess:
    """The layout of a folder whose user did not say: the catalogue's for a known name, else what the folders tell.

    A folder per person cannot be told from any other tree, and labels are not guessed: such a tree counts as
    unlabelled.

    Raises:
        DataError: there is no such folder.
    """
    if not root.is_dir():
        raise DataError(f"{root}: there is no such folder", hint=f"put the images under {root}")
    entry = find_entry(dataset)
    if entry is not None and entry.layout != "drawn":
        return Guess(entry.layout, f"{dataset} is {entry.title}")
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if any(has_market_folders(folder) for folder in (root, *folders)):
        return Guess("market1501", "it has bounding_box_train, query and bounding_box_test")
    names = {folder.name for folder in folders}
    if "train" in names and names <= set(ROLE_FOLDERS):
        return Guess("persons", f"it has the folders {', '.join(sorted(names))}")
    return Guess("images", "a tree of images without labels; if each folder is one person, say --layout persons")
