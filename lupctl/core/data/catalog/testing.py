"""How the projects measured the scores that they publish, as their code says; what it does not say is None."""

from dataclasses import dataclass, replace
from typing import Final, Literal

from lupctl.core.choices import Interpolation, PositionResize, RerankBase, Version

# What the projects rank by: the cosine of features, or the Euclidean distance of features as they come.
TestDistance = Literal["cosine", "euclidean"]


@dataclass(frozen=True)
class Reranking:
    """Constants of k-reciprocal re-ranking, and the distance that it starts from."""

    k1: int
    k2: int
    weight: float
    base: RerankBase


@dataclass(frozen=True)
class Testing:
    """The way in which published scores were measured; None is not known.

    Args:
        size: height and width of the images, where it is not that of the published file.
        interpolation: filter of the resize to that size.
        flip: whether features of mirrored images were added.
        distance: of two features.
        cameras: whether each image was given the row of its camera.
        position: how positions are resized to images of another size.
        semantic_weight: of SOLIDER's controller.
        reranking: the constants of re-ranked scores.
        msmt17: the version of that data set.
    """

    size: tuple[int, int] | None = None
    interpolation: Interpolation | None = None
    flip: bool | None = None
    distance: TestDistance | None = None
    cameras: bool | None = None
    position: PositionResize | None = None
    semantic_weight: float | None = None
    reranking: Reranking | None = None
    msmt17: Version | None = None


UNKNOWN_TESTING: Final = Testing()
ZHONG: Final = Reranking(20, 6, 0.3, "d2")
SQUARED_TWICE: Final = Reranking(20, 6, 0.3, "d4")

# MGN in the project's copy of fast-reid; which MSMT17 it was is not known.
LUPERSON_TESTING: Final = Testing(
    size=(384, 128), interpolation="bicubic", flip=False, distance="cosine", cameras=False, reranking=SQUARED_TWICE
)
# Bicubic in training, bilinear in the test.
TRANSREID_TESTING: Final = Testing(
    interpolation="bilinear",
    flip=False,
    distance="cosine",
    cameras=False,
    position="bilinear",
    reranking=Reranking(50, 15, 0.3, "d2"),
    msmt17="v1",
)
TRANSREID_CAMERAS_TESTING: Final = replace(TRANSREID_TESTING, cameras=True)
TRANSREID_SSL_TESTING: Final = replace(TRANSREID_TESTING, reranking=ZHONG)
# Without labels it follows other code, of which flip and re-ranking are not known.
TRANSREID_SSL_CLUSTERS_TESTING: Final = replace(
    TRANSREID_SSL_TESTING, interpolation="bicubic", flip=None, reranking=None
)
PASS_TESTING: Final = TRANSREID_SSL_TESTING
PERSONVIT_TESTING: Final = TRANSREID_TESTING
CION_TESTING: Final = replace(TRANSREID_SSL_TESTING, size=(256, 128))
# Whether mirrored images were added is not known; that MSMT17 is V1 is inferred, as of torchreid.
SOLIDER_TESTING: Final = Testing(
    size=(384, 128),
    interpolation="bilinear",
    distance="cosine",
    cameras=False,
    semantic_weight=0.2,
    reranking=ZHONG,
    msmt17="v1",
)
TORCHREID_TESTING: Final = Testing(
    size=(256, 128),
    interpolation="bilinear",
    flip=False,
    distance="euclidean",
    cameras=False,
    reranking=SQUARED_TWICE,
    msmt17="v1",
)
# AIN, and all that was trained on several sets.
TORCHREID_COSINE_TESTING: Final = replace(TORCHREID_TESTING, distance="cosine")
