"""What is known about the published datasets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from lupctl.core.choices import Dataset, Layout, Role

MARKET_PAGE = "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"


@dataclass(frozen=True)
class CatalogEntry:
    """One dataset as its authors published it.

    Args:
        name: what a user types.
        title: what papers call it.
        layout: how its files lie, or "drawn" where there are none.
        images: files per role; empty where that depends on the user.
        persons: persons per role, junk and distractors left out.
        distractors: gallery images of persons who are in no query (person 0).
        junk: gallery images that count neither way (person -1).
        cameras: number of cameras.
        terms: terms of use in one line.
        published: where it is described.
    """

    name: Dataset
    title: str
    layout: Layout | Literal["drawn"]
    images: Mapping[Role, int] = field(default_factory=dict)
    persons: Mapping[Role, int] = field(default_factory=dict)
    distractors: int = 0
    junk: int = 0
    cameras: int | None = None
    terms: str = ""
    published: str = ""


def catalog_entry(dataset: Dataset) -> CatalogEntry:
    """What is known about one dataset."""
    match dataset:
        case "market1501":
            return CatalogEntry(
                name="market1501",
                title="Market-1501",
                layout="market1501",
                # 19,732 = 13,115 labelled + 2,798 distractors + 3,819 junk; the dataset's page says 2,793 distractors.
                images={"train": 12_936, "query": 3_368, "gallery": 19_732},
                persons={"train": 751, "query": 750, "gallery": 750},
                distractors=2_798,
                junk=3_819,
                cameras=6,
                terms="academic research only (Zheng et al. 2015)",
                published=MARKET_PAGE,
            )
        case "synthetic":
            return CatalogEntry(
                name="synthetic", title="drawn persons", layout="drawn", terms="drawn by lupctl; free to use"
            )


def find_entry(name: str) -> CatalogEntry | None:
    """The entry of a name, or None when the catalogue does not know it."""
    return next((catalog_entry(known) for known in known_datasets() if known == name), None)


def known_datasets() -> list[Dataset]:
    """The names in the catalogue, in its order."""
    return list(get_args(Dataset))
