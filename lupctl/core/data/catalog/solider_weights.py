"""SOLIDER's networks, with the addresses and scores that the projects' pages give; MSMT17 is V1 (inferred)."""

from typing import Final

from lupctl.core.data.catalog.published import Project, PublishedWeights, Score
from lupctl.core.data.catalog.testing import SOLIDER_TESTING

DATA_TERMS: Final = "the data it was trained on have terms of their own"
SOLIDER: Final = Project("SOLIDER", "https://github.com/tinyvision/SOLIDER", f"Apache-2.0; {DATA_TERMS}")
SOLIDER_REID: Final = Project("SOLIDER-REID", "https://github.com/tinyvision/SOLIDER-REID", f"MIT; {DATA_TERMS}")
PRETRAINED_SIZE, TUNED_SIZE = (256, 128), (384, 128)
WIDTHS: Final = {"t": "Swin-T", "s": "Swin-S", "b": "Swin-B"}
STARTS: Final = {
    "t": "12UyPVFmjoMVpQLHN07tNh4liHUmyDqg8",
    "s": "1oyEgASqDHc7YUPsQUMxuo2kBZyi2Tzfv",
    "b": "1uh7tO34tMf73MJfFqyFEGx42UBktTbZU",
}
# Fine-tuned on a data set: address, mAP and rank-1 in percent.
TUNED: Final = {
    ("t", "market1501"): ("1YrE_r9Fk5uR0uFFQboBv203vxlOpFXU8", 91.6, 96.1),
    ("t", "msmt17"): ("10YLhMbwvmxZl3gTVo2BN_828SKZHdCjr", 67.4, 85.9),
    ("s", "market1501"): ("14uOCf5yZq0Rt5rRSJI9I7_d5kt2EOyHO", 93.3, 96.6),
    ("s", "msmt17"): ("1C-aIZdFyjFsZX4W4feG-Ex39RU2Qvu3b", 76.9, 90.8),
    ("b", "market1501"): ("1pZ1unW2IwSsqSN2KYHcgBhgjQztQW_fe", 93.9, 96.9),
    ("b", "msmt17"): ("1Y-RFAYdT56vnMjwxH1Ym3DVhZzZuMQZs", 77.1, 90.7),
}
# The same after re-ranking.
RERANKED: Final = {
    ("t", "market1501"): (95.3, 96.6),
    ("t", "msmt17"): (81.5, 89.2),
    ("s", "market1501"): (95.4, 96.4),
    ("s", "msmt17"): (86.5, 91.7),
    ("b", "market1501"): (95.6, 96.7),
    ("b", "msmt17"): (86.5, 91.7),
}


def _start(width: str) -> PublishedWeights:
    what = f"{WIDTHS[width]} pre-trained on LUPerson, with its semantic controller"
    address = f"drive:{STARTS[width]}"
    scores = tuple(_score(*key) for key in TUNED if key[0] == width)
    return PublishedWeights(
        f"solider-swin-{width}",
        SOLIDER,
        what,
        "initialisation",
        address,
        size=PRETRAINED_SIZE,
        scores=scores,
        testing=SOLIDER_TESTING,
    )


def _score(width: str, dataset: str) -> Score:
    _, mean, rank1 = TUNED[width, dataset]
    again = RERANKED[width, dataset]
    return Score(
        dataset, round(mean / 100, 4), round(rank1 / 100, 4), (round(again[0] / 100, 4), round(again[1] / 100, 4))
    )


def _tuned(width: str, dataset: str) -> PublishedWeights:
    return PublishedWeights(
        f"solider-swin-{width}-{dataset}",
        SOLIDER_REID,
        f"{WIDTHS[width]}, semantic weight 0.2",
        "re-id model",
        f"drive:{TUNED[width, dataset][0]}",
        size=TUNED_SIZE,
        scores=(_score(width, dataset),),
        testing=SOLIDER_TESTING,
    )


SOLIDER_WEIGHTS: Final = (*(_start(width) for width in STARTS), *(_tuned(*key) for key in TUNED))
