"""torchreid's OSNets, with the addresses and scores of its model zoo; MSMT17 is V1 (inferred)."""

from typing import Final

from lupctl.core.data.catalog.published import Project, PublishedWeights, Score
from lupctl.core.data.catalog.testing import TORCHREID_COSINE_TESTING, TORCHREID_TESTING, Testing

TORCHREID: Final = Project(
    "torchreid",
    "https://github.com/KaiyangZhou/deep-person-reid",
    "MIT; the data it was trained on have terms of their own",
)
SIZE: Final = (256, 128)
# Of CUHK03 torchreid takes the detected boxes if nobody asks for others (inferred of these scores).
M, D, MS, C = "market1501", "dukemtmc", "msmt17", "cuhk03-detected"

IMAGENET: Final = {
    "x1.0": "1LaG1EJpHrxdAxKnSCJ_i0u-nbxSAeiFY",
    "x0.75": "1uwA9fElHOk3ZogwbeY5GkLI6QPTX70Hq",
    "x0.5": "16DGLbZukvVYgINws8u8deSaOqjybZ83i",
    "x0.25": "1rb8UN5ZzPKRc_xvtHlyDh-cSz88YX9hs",
    "ibn-x1.0": "1sr90V6irlYYDd4_4ISU2iruoRG8J__6l",
    "ain-x1.0": "1-CaioD9NaqbHK_kzSMW8VE4_3KcsRjEo",
    "ain-x0.75": "1apy0hpsMypqstfencdH-jKIUEFOW4xoM",
    "ain-x0.5": "1KusKvEYyKGDTUBVRxRiz55G31wkihB6l",
    "ain-x0.25": "1SxQt2AvmEcgWNhaRb2xC4rP6ZwVDP0Wt",
}
# Trained on a data set: address, then mAP and rank-1 in percent on its own test, or on those of others.
TRAINED: Final[dict[tuple[str, str], tuple[str, dict[str, tuple[float, float]]]]] = {
    ("x1.0", M): ("1vduhq5DpN2q1g4fYEZfPI17MJeh9qyrA", {M: (82.6, 94.2)}),
    ("x1.0", D): ("1QZO_4sNf4hdOKKKzKc-TZU9WW1v6zQbq", {D: (70.2, 87.0)}),
    ("x1.0", MS): ("112EMUfBPYeYg70w-syK6V6Mx8-Qb9Q1M", {MS: (43.8, 74.9)}),
    ("x0.75", M): ("1ozRaDSQw_EQ8_93OUmjDbvLXw9TnfPer", {M: (81.2, 93.7)}),
    ("x0.75", D): ("1IE3KRaTPp4OUa6PGTFL_d5_KQSJbP0Or", {D: (69.8, 85.8)}),
    ("x0.75", MS): ("1QEGO6WnJ-BmUzVPd3q9NoaO_GsPNlmWc", {MS: (41.4, 72.8)}),
    ("x0.5", M): ("1PLB9rgqrUM7blWrg4QlprCuPT7ILYGKT", {M: (79.8, 92.5)}),
    ("x0.5", D): ("1KoUVqmiST175hnkALg9XuTi1oYpqcyTu", {D: (67.4, 85.1)}),
    ("x0.5", MS): ("1UT3AxIaDvS2PdxzZmbkLmjtiqq7AIKCv", {MS: (37.5, 69.7)}),
    ("x0.25", M): ("1z1UghYvOTtjx7kEoRfmqSMu-z62J6MAj", {M: (75.0, 91.2)}),
    ("x0.25", D): ("1eumrtiXT4NOspjyEV4j8cHmlOaaCGk5l", {D: (61.4, 82.0)}),
    ("x0.25", MS): ("1sSwXSUlj4_tHZequ_iZ8w_Jh0VaRQMqF", {MS: (29.5, 61.4)}),
    ("ibn-x1.0", M): ("1uWW7_z_IcUmRNPqQOrEBdsvic94fWH37", {D: (26.7, 48.5)}),
    ("ibn-x1.0", D): ("1CNxL1IP0BjcE1TSttiVOID1VNipAjiF3", {M: (26.1, 57.7)}),
    ("ain-x1.0", M): ("14bNFGm0FhwHEkEpYKqKiDWjLNhXywFAd", {D: (30.5, 52.4)}),
    ("ain-x1.0", D): ("1hypJvq8G04SOby6jvF337GEkg5K_bmCw", {M: (30.6, 61.0)}),
}
# Trained on all images of MSMT17, those of its test too.
ALL_OF_MSMT17: Final = {
    "x1.0": ("1IosIFlLiulGIjwW3H8uMRmx3MzPwf86x", {M: (37.5, 66.6), D: (45.3, 66.0)}),
    "x0.75": ("1fhjSS_7SUGCioIf2SWXaRGPqIY9j7-uw", {M: (35.5, 63.6), D: (44.5, 65.3)}),
    "x0.5": ("1DHgmb6XV4fwG3n-CnCM0zdL9nMsZ9_RF", {M: (34.9, 64.3), D: (43.3, 65.2)}),
    "x0.25": ("1Kkx2zW89jq_NETu4u42CFZTMVD5Hwm6e", {M: (31.0, 59.9), D: (39.6, 61.5)}),
    "ibn-x1.0": ("1q3Sj2ii34NlfxA4LvmHdWO_75NDRmECJ", {M: (37.2, 66.5), D: (45.6, 67.4)}),
    "ain-x1.0": ("1SigwBE6mPdqiJMqhuIY4aqC7--5CsMal", {M: (43.3, 70.1), D: (52.7, 71.1)}),
}
# Trained on three of four data sets and tested on the fourth, by which they are called here: address, mAP and rank-1.
WITHOUT: Final = {
    ("x1.0", M): ("1tuYY1vQXReEd8N8_npUkc7npPDDmjNCV", 44.2, 72.5),
    ("x1.0", D): ("1UxUI4NsE108UCvcy3O1Ufe73nIVPKCiu", 47.0, 65.2),
    ("x1.0", C): ("1kAA6qHJvbaJtyh1b39ZyEqWROwUgWIhl", 23.3, 23.9),
    ("x1.0", MS): ("1wAHuYVTzj8suOwqCNcEmu6YdbVnHDvA2", 12.6, 33.2),
    ("ibn-x1.0", M): ("14sH6yZwuNHPTElVoEZ26zozOOZIej5Mf", 44.9, 73.0),
    ("ibn-x1.0", D): ("1Sk-2SSwKAF8n1Z4p_Lm_pl0E6v2WlIBn", 45.7, 64.6),
    ("ibn-x1.0", C): ("1actHP7byqWcK4eBE1ojnspSMdo7k2W4G", 25.4, 25.7),
    ("ibn-x1.0", MS): ("1BGOSdLdZgqHe2qFafatb-5sPY40JlYfp", 16.2, 39.8),
    ("ain-x1.0", M): ("1nIrszJVYSHf3Ej8-j6DTFdWz8EnO42PB", 45.8, 73.3),
    ("ain-x1.0", D): ("1YjJ1ZprCmaKG6MH2P9nScB9FL_Utf9t1", 47.2, 65.6),
    ("ain-x1.0", C): ("1IxIg5P0cei3KPOJQ9ZRWDE_Mdrz01ha2", 27.1, 27.4),
    ("ain-x1.0", MS): ("1KcoUKzLmsUoGHI7B6as_Z2fXL50gzexS", 16.2, 40.2),
}


def _scores(found: dict[str, tuple[float, float]]) -> tuple[Score, ...]:
    return tuple(Score(name, round(mean / 100, 4), round(rank1 / 100, 4)) for name, (mean, rank1) in found.items())


def _title(arch: str) -> str:
    """An architecture as its paper writes it.

    >>> _title("ain-x0.5"), _title("x1.0")
    ('OSNet-AIN x0.5', 'OSNet x1.0')
    """
    kind, _, width = arch.rpartition("-")
    return f"OSNet-{kind.upper()} {width}" if kind else f"OSNet {width}"


def _initial(arch: str) -> PublishedWeights:
    """Weights of ImageNet; fine-tuning from them gave what is known of the same network trained on a data set."""
    own = {name: score for (known, _), (_, found) in TRAINED.items() if known == arch for name, score in found.items()}
    scores = _scores(own) if arch.startswith("x") else ()
    what = f"{_title(arch)} pre-trained on ImageNet"
    address = f"drive:{IMAGENET[arch]}"
    return PublishedWeights(
        f"osnet-{arch}-imagenet", TORCHREID, what, "initialisation", address, scores=scores, testing=_testing(arch)
    )


def _testing(arch: str) -> Testing:
    """How torchreid tests: AIN by the cosine, the others by the Euclidean distance of features as they come."""
    return TORCHREID_COSINE_TESTING if arch.startswith("ain") else TORCHREID_TESTING


def _trained(arch: str, name: str, what: str, address: str, found: dict[str, tuple[float, float]]) -> PublishedWeights:
    is_of_several = name.startswith("for-")
    return PublishedWeights(
        f"osnet-{arch}-{name}",
        TORCHREID,
        f"{_title(arch)}, {what}",
        "re-id model",
        f"drive:{address}",
        size=SIZE,
        scores=_scores(found),
        testing=TORCHREID_COSINE_TESTING if is_of_several else _testing(arch),
    )


OSNET_WEIGHTS: Final = (
    *(_initial(arch) for arch in IMAGENET),
    *(_trained(arch, data, f"trained on {data}", *known) for (arch, data), known in TRAINED.items()),
    *(_trained(arch, "msmt17-all", "trained on all images of msmt17", *known) for arch, known in ALL_OF_MSMT17.items()),
    *(
        _trained(
            arch,
            f"for-{data}",
            f"trained on {', '.join(one for one in (M, D, MS, C) if one != data)}",
            address,
            {data: (mean, rank1)},
        )
        for (arch, data), (address, mean, rank1) in WITHOUT.items()
    ),
)
