"""Builds the source for a layout."""

from pathlib import Path
from typing import TYPE_CHECKING, assert_never

from lupctl.core.choices import DRAWING_SEED, CameraRule, Layout, Version
from lupctl.core.data.catalog.datasets import find_entry
from lupctl.core.data.sources.records import Source

if TYPE_CHECKING:
    from lupctl.core.data.sources.synthetic import SyntheticSource


def build_source(
    layout: Layout,
    path: Path,
    *,
    dataset: str,
    cameras: CameraRule | None = None,
    version: Version | None = None,
    with_val: bool = True,
    keys: str | None = None,
    root: Path | None = None,
) -> Source:
    """The images of a folder or file in a given layout.

    Args:
        layout: how the files are arranged.
        path: the folder, or the file itself for tables, index files and databases.
        dataset: the name to store in the pack; the catalogue adds the terms of a dataset it knows.
        cameras: for folders of persons, where the camera number is found; None detects it.
        version: of MSMT17, if the user gives it.
        with_val: for MSMT17, whether list_val.txt is part of train.
        keys: for an LMDB, its key file, or `none`.
        root: for a table or an index file, the folder of the images; by default found next to the file.

    Raises:
        DataError: the folder does not have this layout.
    """
    # Each layout is imported only when needed: a table needs no database reader, and no layout needs the drawing code.
    entry = find_entry(dataset)
    terms = entry.terms if entry else ""
    match layout:
        case "market1501":
            from lupctl.core.data.sources.layouts.market1501 import Market1501Source

            return Market1501Source(path, dataset=dataset, terms=terms, version=version)
        case "images":
            from lupctl.core.data.sources.layouts.images import ImagesSource

            return ImagesSource(path, dataset=dataset, terms=terms)
        case "persons":
            from lupctl.core.data.sources.layouts.persons import PersonsSource

            return PersonsSource(path, dataset=dataset, cameras=cameras, terms=terms)
        case "cuhk03-index":
            from lupctl.core.data.sources.layouts.cuhk03 import Cuhk03IndexSource

            return Cuhk03IndexSource(path, dataset=dataset, terms=terms, root=root)
        case "msmt17":
            from lupctl.core.data.sources.layouts.msmt17 import Msmt17Source

            return Msmt17Source(path, dataset=dataset, terms=terms, version=version, with_val=with_val)
        case "luperson-nl":
            from lupctl.core.data.sources.layouts.luperson_nl import LupersonNlSource

            return LupersonNlSource(path, dataset=dataset, terms=terms)
        case "lmdb":
            from lupctl.core.data.sources.layouts.lmdb_folder import LmdbSource

            return LmdbSource(path, dataset=dataset, terms=terms, keys=keys)
        case "csv":
            from lupctl.core.data.sources.layouts.csv_table import CsvSource

            return CsvSource(path, dataset=dataset, terms=terms, root=root)
        case _:
            assert_never(layout)


def build_synthetic(*, seed: int = DRAWING_SEED) -> "SyntheticSource":
    """Drawn persons, few enough for experiments on a CPU: about 10,000 images.

    Args:
        seed: another seed draws other persons in other scenes.
    """
    from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource

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
