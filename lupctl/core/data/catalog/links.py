"""Where the published datasets are available: what lupctl can download, and what takes manual steps.

Every address comes from the dataset's authors unless `stated` says otherwise. Unknown values are left empty.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lupctl.core.choices import Dataset
from lupctl.core.data.catalog.datasets import CUHK03_PAGE, MARKET_PAGE, MSMT17_PAGE

MARKET_FOLDERS: Final = ("bounding_box_train", "query", "bounding_box_test")
CUHK03_BOXES: Final = ("labeled", "detected")
CUHK03_FOLDERS: Final = tuple(f"{boxes}/{folder}" for boxes in CUHK03_BOXES for folder in MARKET_FOLDERS)
VIDEO_LIST_NAMES: Final = ("vnames.txt", "vname.txt")  # the authors' instructions and script use different names
VIDEO_LIST_SIGNS: Final = tuple((name,) for name in VIDEO_LIST_NAMES)
MSMT17_LISTS: Final = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt")
CROP_SIGNS: Final = (("images",), ("lmdb",))
OPEN_REID: Final = "constant in the 2017 loader of github.com/Cysu/open-reid"
THIRD_PARTY: Final = "second-hand: checked by two third-party loaders, origin not traced"


@dataclass(frozen=True)
class Download:
    """One file that lupctl can download.

    Args:
        name: file name; empty to use the name that the server gives.
        address: `drive:` followed by a Google Drive id, or an http or https address.
        what: its contents, in a few words.
        stated: who publishes the link.
        into: for an archive, the folder it is unpacked into; the dataset's folder by default.
        signs: paths that show it is already present, see `has_signs`; by default the file itself, or `into`.
    """

    name: str
    address: str
    what: str
    stated: str = "its authors"
    into: str = ""
    signs: tuple[tuple[str, ...], ...] = ()

    @property
    def page(self) -> str:
        """The address to open in a browser."""
        drive_id = self.address.removeprefix("drive:")
        return self.address if drive_id == self.address else f"https://drive.google.com/file/d/{drive_id}/view"


@dataclass(frozen=True)
class KnownArchive:
    """A published archive whose checksum is known.

    Args:
        name: file name.
        md5: as stated.
        origin: who states the checksum; we have not hashed the archive ourselves.
        caution: what to know before using the archive.
    """

    name: str
    md5: str
    origin: str
    caution: str = ""


@dataclass(frozen=True)
class Links:
    """Everything known about how to get one dataset.

    Args:
        folder: name of its folder under `raw/`.
        downloads: files that lupctl can download.
        archives: archives whose checksums are known.
        mirrors: other sources, each with a note on how reliable it is.
        steps: what the user has to do by hand; `{folder}` stands for the folder under `raw/`.
        images: paths that show its images are present, see `has_signs`; if empty, any file does.
        others: paths that show another starting point is present, such as videos or detections.
        remarks: where its published counts come from.
        refused: why it cannot be downloaded at all.
    """

    folder: str
    downloads: tuple[Download, ...] = ()
    archives: tuple[KnownArchive, ...] = ()
    mirrors: tuple[str, ...] = ()
    steps: tuple[str, ...] = ()
    images: tuple[tuple[str, ...], ...] = ()
    others: tuple[tuple[str, ...], ...] = ()
    remarks: str = ""
    refused: str = ""


def has_signs(folder: Path, signs: tuple[tuple[str, ...], ...]) -> bool:
    """Whether all paths of at least one group exist in a folder, or in a subfolder of it, as archives unpack."""
    if not folder.is_dir():
        return False
    below = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")]
    return any(all((root / path).exists() for path in group) for root in (folder, *below) for group in signs)


def awaits_crops(folder: Path, dataset: Dataset) -> bool:
    """Whether a folder contains only the downloads that crops are cut from, and nothing else yet."""
    links = dataset_links(dataset)
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    fetched = {"videos", "videos.jsonl", *(sign for group in links.others for sign in group)}
    fetched |= {download.into or download.name for download in links.downloads}
    fetched |= {download.name for download in links.downloads}
    return bool(there) and bool(links.others) and there <= fetched


def dataset_links(dataset: Dataset) -> Links:
    """How to get one dataset."""
    match dataset:
        case "market1501":
            return MARKET1501
        case "cuhk03-labeled" | "cuhk03-detected":
            return CUHK03
        case "msmt17":
            return MSMT17
        case "dukemtmc":
            return DUKEMTMC
        case "luperson":
            return LUPERSON
        case "luperson-nl":
            return LUPERSON_NL
        case "synthetic":
            return Links(folder="", refused="it is drawn by lupctl itself")


MARKET1501: Final = Links(
    folder="market1501",
    downloads=(
        Download(
            name="Market-1501-v15.09.15.zip",
            address="drive:0B8-rUzbwVRk0c054eEozWG9COHM",
            what="images",
            stated="several projects",
            signs=(MARKET_FOLDERS,),
        ),
    ),
    archives=(KnownArchive("Market-1501-v15.09.15.zip", "65005ab7d12ec1c44de4eeafe813e68a", OPEN_REID),),
    steps=(
        f"open the dataset's page, {MARKET_PAGE} , or the link above in a browser",
        "put Market-1501-v15.09.15.zip into {folder}",
    ),
    images=(MARKET_FOLDERS,),
)
CUHK03: Final = Links(
    folder="cuhk03-np",
    downloads=(
        Download(
            name="",
            address="drive:1pBCIAGSZ81pgvqjC-lUHtl0OYV1icgkz",
            what="images, labeled and detected",
            stated="the authors of the new protocol",
            signs=(CUHK03_FOLDERS,),
        ),
    ),
    archives=(
        KnownArchive(
            "cuhk03_release.zip",
            "728939e58ad9f0ff53e521857dd8fb43",
            OPEN_REID,
            caution="the classic release, a different benchmark from the new protocol; their scores are not comparable",
        ),
    ),
    steps=(
        f"open {CUHK03_PAGE} , or the link above, in a browser",
        "put the archive into {folder}; unpacked, {folder} contains labeled/ and detected/",
    ),
    images=(
        MARKET_FOLDERS,
        *(tuple(path for path in CUHK03_FOLDERS if path.startswith(boxes)) for boxes in CUHK03_BOXES),
    ),
)
MSMT17: Final = Links(
    folder="msmt17",
    archives=(KnownArchive("MSMT17_V1.tar.gz", "ea5502ae9dd06c596ad866bd1db0280d", THIRD_PARTY),),
    steps=(
        f"ask its owners, the authors of {MSMT17_PAGE} , for the agreement form, sign it and return it",
        (
            "put the archive they send you into {folder}, or the unpacked folder MSMT17_V1 or MSMT17_V2; keep its "
            "name, because V1 and V2 (faces blurred) cannot be told apart by their lists"
        ),
    ),
    images=(
        ("train", "test", *MSMT17_LISTS),
        ("mask_train_v2", "mask_test_v2", *MSMT17_LISTS),
        MARKET_FOLDERS,
    ),
    remarks="train is list_train + list_val (30,248 + 2,373 images, second-hand)",
)
DUKEMTMC: Final = Links(
    folder="dukemtmc",
    archives=(KnownArchive("DukeMTMC-reID.zip", "2f93496f9b516d1ee5ef51c1d5e7d601", OPEN_REID),),
    images=(MARKET_FOLDERS,),
    remarks="36,411 images in all; 408 of the gallery's persons are distractors (second-hand)",
    refused="withdrawn by its authors in 2019 for the privacy of the people in it; there is no download",
)
LUPERSON: Final = Links(
    folder="luperson",
    downloads=(
        Download("vnames.txt", "drive:1eopcxZPNHnaobjnSwP37U2YFlptNE0A0", "list of videos", signs=VIDEO_LIST_SIGNS),
        Download("dets.pkl", "drive:1t_XPHOI_VzuebaAnXccu4iIzDXMNpTJO", "detections"),
        Download(
            "CFS_list.pkl",
            "drive:1D6RaiOv3F2WSABYfQB1Aa88mwGoVNa3k",
            "image names, best first, as chosen by TransReID-SSL",
            stated="the authors of TransReID-SSL",
        ),
    ),
    mirrors=(
        (
            "images rebuilt by a volunteer, completeness and checksums unknown: the link is in "
            "https://github.com/DengpanFu/LUPerson/issues/8#issuecomment-1004611808"
        ),
    ),
    steps=(
        (
            "the authors publish no images: fetch the videos with lupctl data download luperson --list "
            "{folder}/vnames.txt --accept-terms, then cut the crops with lupctl data build"
        ),
        "or put images that you already have into {folder}/images",
    ),
    images=CROP_SIGNS,
    others=(("videos",), *((name, "dets.pkl") for name in VIDEO_LIST_NAMES)),
    remarks=(
        "its README says 4 M images of more than 200 K persons; 4,180,243 is second-hand, and a "
        "user's count agrees; 219,848 persons is an estimate (second-hand)"
    ),
)
LUPERSON_NL: Final = Links(
    folder="luperson-nl",
    downloads=(
        Download("vnames.txt", "drive:19XPcO61QGrcNcqYE1pRZ1Hk3Z4CNu-6X", "list of videos", signs=VIDEO_LIST_SIGNS),
        Download("dets.zip", "drive:1-bFKMRglmD_e3wdtq4jlpjX3N3xGo2d2", "detections with person numbers", into="dets"),
    ),
    mirrors=(
        "processed images, from its authors: Baidu https://pan.baidu.com/s/1sNV62vxm2VtgkVa7V4VmIA code plnl",
        (
            "https://opendatalab.com/OpenDataLab/LUPerson-NL , which has its own command-line client "
            "(second-hand: named by a user in https://github.com/DengpanFu/LUPerson-NL/issues/3)"
        ),
    ),
    steps=(
        (
            "images: open https://pan.baidu.com/s/1sNV62vxm2VtgkVa7V4VmIA in a browser, code plnl, and put its "
            "contents into {folder}"
        ),
        (
            "or fetch the videos with lupctl data download luperson-nl --list {folder}/vnames.txt --accept-terms, "
            "then cut the crops with lupctl data build"
        ),
    ),
    images=CROP_SIGNS,
    others=(("videos",), *((name, "dets") for name in VIDEO_LIST_NAMES)),
    remarks=(
        "its README says 10 M images of more than 430 K persons from 21 K videos; 10,683,716 is second-hand, and a "
        "user's count agrees; 433,997 persons is second-hand. The numbers come from tracking and are noisy"
    ),
)
