"""Published vision transformers of TransReID's family, with the addresses and scores that the projects' pages give.

Scores are those of the released files, which for TransReID are its README's and not the paper's. MSMT17 is V1.
"""

from typing import Final

from lupctl.core.data.catalog.published import Project, PublishedWeights, Score
from lupctl.core.data.catalog.testing import (
    CION_TESTING,
    PASS_TESTING,
    PERSONVIT_TESTING,
    TRANSREID_CAMERAS_TESTING,
    TRANSREID_SSL_CLUSTERS_TESTING,
    TRANSREID_SSL_TESTING,
    TRANSREID_TESTING,
    Testing,
)

DATA_TERMS: Final = "the data it was trained on have terms of their own"
TRANSREID: Final = Project("TransReID", "https://github.com/damo-cv/TransReID", f"MIT; {DATA_TERMS}")
TRANSREID_SSL: Final = Project("TransReID-SSL", "https://github.com/damo-cv/TransReID-SSL", f"MIT; {DATA_TERMS}")
PASS: Final = Project("PASS", "https://github.com/CASIA-IVA-Lab/PASS-reID", f"Apache-2.0; {DATA_TERMS}")
PERSONVIT: Final = Project("PersonViT", "https://github.com/hustvl/PersonViT", "no licence file: all rights reserved")
CION: Final = Project(
    "CION",
    "https://github.com/Zplusdragon/CION_ReIDZoo",
    "under an agreement in its repository, which its authors ask users to sign",
)
SMALL, TALL = (256, 128), (384, 128)
TESTING: Final = {
    TRANSREID_SSL.name: TRANSREID_SSL_TESTING,
    PASS.name: PASS_TESTING,
    PERSONVIT.name: PERSONVIT_TESTING,
}

# PersonViT's README names the folders of the trunks. The names of the files in them follow its run_epochs.sh, and those
# of the fine-tuned ones are as public scripts fetch them (second-hand).
PERSONVIT_RUN: Final = "lup.256x128.wopt.csk.4-8.ar.375.n8"
PERSONVIT_EPOCHS: Final = {"s": "0220", "b": "0260"}
PERSONVIT_FOLDERS: Final = {"msmt17": "msmt", "market1501": "market", "dukemtmc": "duke", "occluded-duke": "occ_duke"}
CION_FOLDER: Final = "https://drive.google.com/drive/folders/1PSFXdc4Iid7RK3DicTZ3Tfygu00ntrFn"


def _transreid(variant: str, dataset: str, drive_id: str, percent: tuple[float, float]) -> PublishedWeights:
    what, stride = TRANSREID_VARIANTS[variant]
    return PublishedWeights(
        f"transreid-{variant}-{dataset}",
        TRANSREID,
        what,
        "re-id model",
        f"drive:{drive_id}",
        size=SMALL,
        stride=stride,
        scores=(_score(dataset, percent),),
        testing=TRANSREID_TESTING if variant == BASELINE else TRANSREID_CAMERAS_TESTING,
    )


def _start(project: Project, name: str, what: str, address: str) -> PublishedWeights:
    return PublishedWeights(name, project, what, "initialisation", address, size=SMALL, stride=16)


def _tuned(
    project: Project,
    name: str,
    what: str,
    size: tuple[int, int],
    files: dict[str, tuple[str, float, float]],
    testing: Testing | None = None,
) -> tuple[PublishedWeights, ...]:
    """One model for each dataset it was fine-tuned on: address, mAP and rank-1 in percent."""
    return tuple(
        PublishedWeights(
            f"{name}-{dataset}",
            project,
            what,
            "re-id model",
            address,
            size=size,
            stride=16,
            scores=(_score(dataset, (mean, rank1)),),
            testing=testing or TESTING[project.name],
        )
        for dataset, (address, mean, rank1) in files.items()
    )


def _without_labels(kind: str, stem: str, files: dict[str, tuple[str, float, float]]) -> tuple[PublishedWeights, ...]:
    """Networks that TransReID-SSL trained on clusters of each set, by the same fields as `_tuned`.

    Args:
        kind: usl, from its pre-training; or uda, from a network fine-tuned on the other one of the two sets.
        stem: empty, or -ics.
        files: by the set of the clusters.
    """
    how = {"usl": "on clusters, without labels", "uda": "on clusters, from the other set of the two"}[kind]
    what = f"ViT-S/16{' with ICS' if stem else ''}, trained {how}"
    name = f"transreid-ssl-{kind}-vit-s{stem}"
    return _tuned(TRANSREID_SSL, name, what, SMALL, files, TRANSREID_SSL_CLUSTERS_TESTING)


def _personvit(width: str, percent: dict[str, tuple[float, float]]) -> tuple[PublishedWeights, ...]:
    run, epoch = f"vit{width}.{PERSONVIT_RUN}", PERSONVIT_EPOCHS[width]
    what = f"ViT-{width.upper()}/16"
    files = {
        dataset: (f"hub:lakeAGI/PersonViTReID/{folder}.{run}.e{epoch}/transformer_120.pth", *percent[dataset])
        for dataset, folder in PERSONVIT_FOLDERS.items()
    }
    start = f"hub:lakeAGI/PersonViT/{run}/checkpoint{epoch}.pth"
    return (
        _start(PERSONVIT, f"personvit-{width}", f"{what} pre-trained on LUPerson, epoch {int(epoch)}", start),
        *_tuned(PERSONVIT, f"personvit-{width}", f"{what}, from epoch {int(epoch)}", SMALL, files),
    )


def _cion(width: str, market: tuple[float, float], msmt: tuple[float, float]) -> PublishedWeights:
    return PublishedWeights(
        f"cion-vit-{width}",
        CION,
        f"ViT-{width.upper()}/16 with ICS, pre-trained on CION-AL",
        "initialisation",
        CION_FOLDER,
        steps="sign the agreement in its repository, then take the file of this network",
        size=SMALL,
        stride=16,
        scores=(_score("market1501", market), _score("msmt17", msmt)),
        testing=CION_TESTING,
    )


def _score(dataset: str, percent: tuple[float, float]) -> Score:
    return Score(dataset, round(percent[0] / 100, 4), round(percent[1] / 100, 4))


BASELINE, FULL, DEIT = "vit-b", "vit-b-s12-sie-jpm", "deit-b-s12-sie-jpm"
# The configurations for Occluded-Duke have stride 11.
OCCLUDED_FULL, OCCLUDED_DEIT = "vit-b-s11-sie-jpm", "deit-b-s11-sie-jpm"
TRANSREID_VARIANTS: Final = {
    BASELINE: ("ViT-B/16, the baseline", 16),
    FULL: ("ViT-B/16, stride 12, cameras, jigsaw", 12),
    DEIT: ("DeiT-B/16, stride 12, cameras, jigsaw", 12),
    OCCLUDED_FULL: ("ViT-B/16, stride 11, cameras, jigsaw", 11),
    OCCLUDED_DEIT: ("DeiT-B/16, stride 11, cameras, jigsaw", 11),
}
TRANSREID_WEIGHTS: Final = tuple(
    _transreid(variant, dataset, drive_id, percent)
    for variant, dataset, drive_id, percent in (
        (BASELINE, "msmt17", "1iF5JNPw9xi-rLY3Ri9EY-PFAkK6Vg_Pf", (61.8, 81.8)),
        (BASELINE, "market1501", "1crYsKRrW4eUq6abT4KK8_atMLFsbq56W", (87.1, 94.6)),
        (BASELINE, "dukemtmc", "17GQqFuTleAZWLD92AtEd1c_dnTyZHl4k", (79.6, 89.0)),
        (BASELINE, "occluded-duke", "1uHX5j7yepalN1EINdF9lzrT3iDWj-pr9", (53.8, 61.1)),
        (FULL, "msmt17", "1x6Na97ycxS0t2Dn_0iRKWe1U5ccIqASK", (67.8, 85.3)),
        (FULL, "market1501", "11p4RjmpCGGAS-876VEt7OoFrUeHTUlyO", (89.0, 95.1)),
        (FULL, "dukemtmc", "1BipxoqyThefQviJzuJIKtFJvNblIlPGN", (82.2, 90.7)),
        (OCCLUDED_FULL, "occluded-duke", "1VJg4rTA43TCHkR9hTIBu8S2Sy1KiTnSJ", (59.5, 67.4)),
        (DEIT, "msmt17", "1WSUD0gKjGIG_gzTc2izH_y-EuDzweN95", (66.3, 84.0)),
        (DEIT, "market1501", "1cbUK2KozdPSoewzvF0ucFQnZ0yfZiu_H", (88.5, 95.1)),
        (DEIT, "dukemtmc", "1ltaX9zGFO31Wwwu47K9c4WTTBZVLdzLw", (81.9, 90.7)),
        (OCCLUDED_DEIT, "occluded-duke", "1YJkBiMb5oVBnO6GXYW3Y_hFkR-Pl5ikC", (57.7, 65.2)),
    )
)
TRANSREID_SSL_WEIGHTS: Final = (
    _start(TRANSREID_SSL, "transreid-ssl-vit-s", "ViT-S/16 pre-trained on LUPerson, the images chosen by CFS",
           "drive:1ODxA7mJv17UfzwfXtY9dTWNsYghoNWGB"),
    _start(TRANSREID_SSL, "transreid-ssl-vit-s-ics", "ViT-S/16 with ICS, pre-trained like transreid-ssl-vit-s",
           "drive:18FL9JaJNlo15-UksalcJRXX-0dgo4Mz4"),
    _start(TRANSREID_SSL, "transreid-ssl-vit-b-ics", "ViT-B/16 with ICS, pre-trained like transreid-ssl-vit-s",
           "drive:1ZFMCBZ-lNFMeBD5K8PtJYJfYEk5D9isd"),
    *_tuned(TRANSREID_SSL, "transreid-ssl-vit-s", "ViT-S/16", SMALL, {
        "market1501": ("drive:1lED8sKkiFAHp5LEzfhUSmF_Yh-7kKFsP", 91.2, 95.8),
        "msmt17": ("drive:11KBWzbgyx73ejiS3Sn1NNDPN_34huQwP", 66.3, 84.8),
    }),
    *_tuned(TRANSREID_SSL, "transreid-ssl-vit-s-ics", "ViT-S/16 with ICS", SMALL, {
        "market1501": ("drive:1tdO01aYtckVP3nQZm-cpSSPPrxODCrmB", 91.4, 96.2),
        "msmt17": ("drive:1taqdhKGunBTGLTXve17UH_zfzzMjMqBb", 68.3, 86.2),
    }),
    *_tuned(TRANSREID_SSL, "transreid-ssl-vit-b-ics", "ViT-B/16 with ICS", TALL, {
        "market1501": ("drive:1wELRg_fCrgYCD3A3kUU7KJd-D_YSknQ_", 93.1, 96.6),
        "msmt17": ("drive:1m5a2vG6Se2K420g3oF4Zvu6m_zfWh-X4", 75.1, 89.6),
    }),
    *_without_labels("usl", "", {
        "market1501": ("drive:1lB7OS0hmYUbgUSqqKjULX_cYtiOVHi0j", 88.4, 94.6),
        "msmt17": ("drive:1YJDixKh75Igmj-euzITzhcNNBdhNprMl", 40.9, 66.4),
    }),
    *_without_labels("usl", "-ics", {
        "market1501": ("drive:1AcZSbEz4iDI6pG2T0GWpqZdefAUJ4oRo", 89.5, 95.3),
        "msmt17": ("drive:1Y32B1XcZp5JvavEf4QqbM7BYEsYCh9yq", 50.6, 75.0),
    }),
    *_without_labels("uda", "", {
        "market1501": ("drive:1W3SqChw4hcr0I52zwSODqEBJ-a_RrmoG", 89.2, 95.3),
        "msmt17": ("drive:1FgdyA_Vi0TsL0EKOYLy27RyEiQ1bd2hw", 47.7, 71.2),
    }),
    *_without_labels("uda", "-ics", {
        "market1501": ("drive:1DYnLuydsjZhEgpubrD2xsQqD6gXuI90V", 89.9, 95.4),
        "msmt17": ("drive:1yHKnhK2CYMbCceeO6vNBIKIMPUTY4VbS", 57.8, 79.4),
    }),
)  # fmt: skip
PASS_WEIGHTS: Final = (
    _start(PASS, "pass-vit-s", "ViT-S/16 with 3 part tokens, pre-trained on LUPerson",
           "drive:1q7oxT0vWvt0Ia0NMmdVlA3oUs0UCQq3C"),
    _start(PASS, "pass-vit-b", "ViT-B/16 with 3 part tokens, pre-trained on LUPerson",
           "drive:1sZUrabY6Lke-BJoxOEviX5ALJ017x4Ft"),
    *_tuned(PASS, "pass-vit-s", "ViT-S/16 with 3 part tokens", SMALL, {
        "market1501": ("drive:1e7QVo-0lJ9EUcRgJNIQ2gci2Pj1_ZE9M", 92.2, 96.3),
        "msmt17": ("drive:1or1Lj7Xvd_gmQIMEX_TvzcZsqOgNWoDk", 69.1, 86.5),
    }),
    *_tuned(PASS, "pass-vit-s-384", "ViT-S/16 with 3 part tokens", TALL, {
        "market1501": ("drive:1201j4ix92953te-o3FrrXh5sqxtTO7TE", 92.6, 96.8),
        "msmt17": ("drive:1EV4r3W_oCFn0JrhgwWX1j3X1jJR-BlcN", 71.7, 87.9),
    }),
    *_tuned(PASS, "pass-vit-b", "ViT-B/16 with 3 part tokens", SMALL, {
        "market1501": ("drive:104I1LStAfu52hlCMlx3eCIENIA_KMJUR", 93.0, 96.8),
        "msmt17": ("drive:1W18HEwF5P7qN8MqyacFXOHW0W5gwVUs4", 71.8, 88.2),
    }),
    *_tuned(PASS, "pass-vit-b-384", "ViT-B/16 with 3 part tokens", TALL, {
        "market1501": ("drive:1dYQjK4ycpXRfOJFoucbizQlKdytoKmpl", 93.3, 96.9),
        "msmt17": ("drive:1T-EVjOtw1fJ4Mk7k-fU7ZeAGjUtSrNbh", 74.3, 89.7),
    }),
)  # fmt: skip
PERSONVIT_WEIGHTS: Final = (
    *_personvit("s", {"msmt17": (74.3, 89.2), "market1501": (92.9, 96.8), "dukemtmc": (84.7, 91.9),
                      "occluded-duke": (65.2, 73.2)}),
    *_personvit("b", {"msmt17": (80.8, 92.0), "market1501": (95.0, 97.6), "dukemtmc": (88.1, 93.8),
                      "occluded-duke": (72.2, 79.8)}),
)  # fmt: skip
CION_WEIGHTS: Final = (
    _cion("t", (91.4, 96.3), (65.0, 84.6)),
    _cion("s", (92.8, 96.5), (70.3, 86.9)),
    _cion("b", (93.1, 96.9), (72.6, 88.5)),
)
