"""LUPerson's and LUPerson-NL's networks, with the addresses and scores that the projects' own pages give."""

from collections.abc import Sequence
from typing import Final

from lupctl.core.data.catalog.published import Project, PublishedWeights, Score
from lupctl.core.data.catalog.testing import LUPERSON_TESTING

LUPERSON: Final = Project(
    "LUPerson", "https://github.com/DengpanFu/LUPerson", "research only; its authors forbid commercial use"
)
LUPERSON_NL: Final = Project(
    "LUPerson-NL", "https://github.com/DengpanFu/LUPerson-NL", "no licence: all rights reserved"
)
SIZE: Final = (384, 128)  # of MGN, whose scores these are; the backbones were trained at 256 x 128
BENCHMARKS: Final = ("msmt17", "dukemtmc", "market1501", "cuhk03-labeled")


def _scores(*fractions: tuple[float, float], reranked: Sequence[tuple[float, float]] = ()) -> tuple[Score, ...]:
    again: Sequence[tuple[float, float] | None] = reranked or [None] * len(BENCHMARKS)
    return tuple(Score(dataset, *pair, two) for dataset, pair, two in zip(BENCHMARKS, fractions, again, strict=True))


R50: Final = _scores(
    (0.6606, 0.8508), (0.8227, 0.9035), (0.9112, 0.9626), (0.7454, 0.7464),
    reranked=[(0.7993, 0.8763), (0.9170, 0.9282), (0.9616, 0.9712), (0.8584, 0.8286)],
)  # fmt: skip
R101: Final = _scores(
    (0.6841, 0.8628), (0.8415, 0.9188), (0.9186, 0.9656), (0.7598, 0.7586),
    reranked=[(0.8112, 0.8827), (0.9277, 0.9399), (0.9621, 0.9703), (0.8673, 0.8407)],
)  # fmt: skip
NL_R50: Final = _scores((0.680, 0.860), (0.843, 0.920), (0.919, 0.966), (0.804, 0.809))
NL_R101: Final = _scores((0.708, 0.871), (0.855, 0.928), (0.925, 0.969), (0.805, 0.812))
NL_R152: Final = _scores((0.716, 0.875), (0.856, 0.924), (0.927, 0.968), (0.806, 0.812))


def _luperson(arch: str, drive_id: str, scores: tuple[Score, ...] = ()) -> PublishedWeights:
    what = f"ResNet-{arch.removeprefix('r')} pre-trained on LUPerson without labels"
    return PublishedWeights(
        f"luperson-{arch}",
        LUPERSON,
        what,
        "initialisation",
        f"drive:{drive_id}",
        scores=scores,
        testing=LUPERSON_TESTING,
    )


def _luperson_nl(arch: str, page: str, code: str, scores: tuple[Score, ...]) -> PublishedWeights:
    what = f"ResNet-{arch.removeprefix('r')} pre-trained on LUPerson-NL with noisy labels"
    return PublishedWeights(
        f"luperson-nl-{arch}",
        LUPERSON_NL,
        what,
        "initialisation",
        page,
        steps=f"code {code}",
        scores=scores,
        testing=LUPERSON_TESTING,
    )


def _mgn(dataset: str, drive_id: str) -> PublishedWeights:
    return PublishedWeights(
        f"luperson-mgn-r50-{dataset}",
        LUPERSON,
        f"MGN with ResNet-50, from LUPerson, fine-tuned on {dataset}",
        "re-id model",
        f"drive:{drive_id}",
        size=SIZE,
        scores=tuple(score for score in R50 if score.dataset == dataset),
        testing=LUPERSON_TESTING,
    )


LUPERSON_WEIGHTS: Final = (
    _luperson("r50", "1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6", R50),
    _luperson("r101", "1Ckn0iVtx-IhGQackRECoMR7IVVr4FC5h", R101),
    _luperson("r152", "1nGGatER6--ZTHdcTryhWEqKRKYU-Mrl_"),
    _luperson_nl("r50", "https://pan.baidu.com/s/1aZxpwlZvekA4V-bQgZOM8w", "pr50", NL_R50),
    _luperson_nl("r101", "https://pan.baidu.com/s/1wQW7M6IKtEFUKbZVpzSjcg", "r101", NL_R101),
    _luperson_nl("r152", "https://pan.baidu.com/s/1hAqZlQYRgmnkx8qsZQjKMw", "r152", NL_R152),
    _mgn("market1501", "1AlXgY5bI0Lj7HClfNsl3RR8uPi2nq6Zn"),
    _mgn("msmt17", "1bV27gwAsX8L3a3yhLoxAJueqrGmQTodV"),
    _mgn("dukemtmc", "1leUezGnwFu8LKG2N8Ifd2Ii9utlJU5g4"),
    _mgn("cuhk03-labeled", "1BQ-zeEgZPud77OtliM9md8Z2lTz11HNh"),
)
