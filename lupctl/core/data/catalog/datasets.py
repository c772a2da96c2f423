"""The catalogue of published datasets: their counts, layouts and terms."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from lupctl.core.choices import Dataset, Layout, Role

CUHK03_PAGE = "https://github.com/zhunzhong07/person-re-ranking/tree/master/CUHK03-NP"
LUPERSON_PAGE = "https://github.com/DengpanFu/LUPerson"
LUPERSON_NL_PAGE = "https://github.com/DengpanFu/LUPerson-NL"
MSMT17_PAGE = "https://arxiv.org/abs/1711.08565"
MARKET_PAGE = "https://zheng-lab.cecs.anu.edu.au/Project/project_reid.html"


@dataclass(frozen=True)
class CatalogEntry:
    """One dataset as its authors published it.

    Args:
        name: what a user types.
        title: what papers call it.
        layout: how its files are arranged, or "drawn" if lupctl draws it.
        images: number of files per role; empty if that depends on the user's copy.
        persons: number of persons per role, without junk and distractors.
        distractors: number of gallery images of persons who appear in no query (person 0).
        junk: number of gallery images that count neither way (person -1).
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
    """The catalogue entry of one dataset."""
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
        case "cuhk03-labeled" | "cuhk03-detected":
            labeled = dataset == "cuhk03-labeled"
            return CatalogEntry(
                name=dataset,
                title=f"CUHK03, new protocol, {'labeled' if labeled else 'detected'} boxes",
                layout="market1501",
                images={"train": 7_368, "query": 1_400, "gallery": 5_328}
                if labeled
                else {"train": 7_365, "query": 1_400, "gallery": 5_332},
                persons={"train": 767, "query": 700, "gallery": 700},
                cameras=2,
                terms="academic research only (Li et al. 2014; protocol of Zhong et al. 2017)",
                published=CUHK03_PAGE,
            )
        case "msmt17":
            return CatalogEntry(
                name="msmt17",
                title="MSMT17",
                layout="msmt17",
                images={"train": 32_621, "query": 11_659, "gallery": 82_161},
                persons={"train": 1_041, "query": 3_060, "gallery": 3_060},
                cameras=15,
                terms="research only, by signed agreement with its owners (Wei et al. 2018)",
                published=MSMT17_PAGE,
            )
        case "dukemtmc":
            return CatalogEntry(
                name="dukemtmc",
                title="DukeMTMC-reID",
                layout="market1501",
                images={"train": 16_522, "query": 2_228, "gallery": 17_661},
                persons={"train": 702, "query": 702, "gallery": 702 + 408},
                cameras=8,
                terms="withdrawn by its authors in 2019 for the privacy of the people in it; not to be passed on",
            )
        case "luperson":
            return CatalogEntry(
                name="luperson",
                title="LUPerson",
                layout="images",
                images={"unlabelled": 4_180_243},
                terms="research only, no commercial use (Fu et al. 2021); the videos belong to their uploaders",
                published=LUPERSON_PAGE,
            )
        case "luperson-nl":
            return CatalogEntry(
                name="luperson-nl",
                title="LUPerson-NL",
                layout="luperson-nl",
                images={"train": 10_683_716},
                persons={"train": 433_997},
                terms="no licence stated (Fu et al. 2022): all rights reserved; the videos belong to their uploaders",
                published=LUPERSON_NL_PAGE,
            )
        case "synthetic":
            return CatalogEntry(
                name=dataset, title="drawn persons", layout="drawn", terms="drawn by lupctl; free to use"
            )


def find_entry(name: str) -> CatalogEntry | None:
    """The entry with a given name, or None if the catalogue does not have it."""
    return next((catalog_entry(known) for known in known_datasets() if known == name), None)


def known_datasets() -> list[Dataset]:
    """All names in the catalogue, in catalogue order."""
    return list(get_args(Dataset))
