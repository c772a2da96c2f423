"""Published weights, with the addresses that the projects' own pages give."""

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
        what: a short description.
        page: the project's page.
        terms: terms of use.
        location: the Google Drive id of the file, or the address of a page that only a browser can download from.
        code: the access code that such a page asks for.
    """

    name: str
    what: str
    page: str
    terms: str
    location: str
    code: str = ""

    @property
    def is_direct(self) -> bool:
        """Whether lupctl can download it."""
        return not self.location.startswith("https://")

    @property
    def url(self) -> str:
        """The address to open in a browser."""
        return f"https://drive.google.com/file/d/{self.location}/view" if self.is_direct else self.location


def _luperson(arch: str, location: str) -> PublishedWeights:
    what = f"ResNet-{arch.removeprefix('r')} pre-trained on LUPerson without labels"
    return PublishedWeights(f"luperson-{arch}", what, LUPERSON_PAGE, RESEARCH, location)


def _luperson_nl(arch: str, location: str, code: str) -> PublishedWeights:
    what = f"ResNet-{arch.removeprefix('r')} pre-trained on LUPerson-NL with noisy labels"
    return PublishedWeights(f"luperson-nl-{arch}", what, LUPERSON_NL_PAGE, UNLICENSED, location, code)


def _mgn(dataset: str, location: str) -> PublishedWeights:
    what = f"MGN with ResNet-50, from LUPerson, fine-tuned on {dataset}"
    return PublishedWeights(f"luperson-mgn-r50-{dataset}", what, LUPERSON_PAGE, RESEARCH, location)


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
