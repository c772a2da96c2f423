"""Where trained networks are published, as the projects' own pages say."""

from dataclasses import dataclass
from typing import Final

LUPERSON_PAGE: Final = "https://github.com/DengpanFu/LUPerson"
LUPERSON_NL_PAGE: Final = "https://github.com/DengpanFu/LUPerson-NL"
RESEARCH: Final = "research only; its authors forbid commercial use"
UNLICENSED: Final = "no licence: all rights reserved"


@dataclass(frozen=True)
class PublishedWeights:
    """One published network.

    Args:
        name: what a user types.
        what: in a few words.
        page: the project's.
        terms: of use.
        place: Google Drive's number of the file, or the address of a page that only a browser can fetch from.
        code: the word that such a page asks for.
    """

    name: str
    what: str
    page: str
    terms: str
    place: str
    code: str = ""

    @property
    def is_direct(self) -> bool:
        """Whether lupctl can fetch it."""
        return not self.place.startswith("https://")

    @property
    def url(self) -> str:
        """What a person would open in a browser."""
        return f"https://drive.google.com/file/d/{self.place}/view" if self.is_direct else self.place


def _luperson(arch: str, place: str) -> PublishedWeights:
    what = f"ResNet-{arch.removeprefix('r')} pre-trained on LUPerson without labels"
    return PublishedWeights(f"luperson-{arch}", what, LUPERSON_PAGE, RESEARCH, place)


def _luperson_nl(arch: str, place: str, code: str) -> PublishedWeights:
    what = f"ResNet-{arch.removeprefix('r')} pre-trained on LUPerson-NL with noisy labels"
    return PublishedWeights(f"luperson-nl-{arch}", what, LUPERSON_NL_PAGE, UNLICENSED, place, code)


def _mgn(dataset: str, place: str) -> PublishedWeights:
    what = f"MGN with ResNet-50, from LUPerson, fine-tuned on {dataset}"
    return PublishedWeights(f"luperson-mgn-r50-{dataset}", what, LUPERSON_PAGE, RESEARCH, place)


PUBLISHED: Final = (
    _luperson("r50", "1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6"),
    _luperson("r101", "1Ckn0iVtx-IhGQackRECoMR7IVVr4FC5h"),
    _luperson("r152", "1nGGatER6--ZTHdcTryhWEqKRKYU-Mrl_"),
    _luperson_nl("r50", "https://pan.baidu.com/s/1aZxpwlZvekA4V-bQgZOM8w", "pr50"),
    _luperson_nl("r101", "https://pan.baidu.com/s/1wQW7M6IKtEFUKbZVpzSjcg", "r101"),
    _luperson_nl("r152", "https://pan.baidu.com/s/1hAqZlQYRgmnkx8qsZQjKMw", "r152"),
    _mgn("market1501", "1AlXgY5bI0Lj7HClfNsl3RR8uPi2nq6Zn"),
    _mgn("msmt17", "1bV27gwAsX8L3a3yhLoxAJueqrGmQTodV"),
    _mgn("dukemtmc", "1leUezGnwFu8LKG2N8Ifd2Ii9utlJU5g4"),
    _mgn("cuhk03-labeled", "1BQ-zeEgZPud77OtliM9md8Z2lTz11HNh"),
)
