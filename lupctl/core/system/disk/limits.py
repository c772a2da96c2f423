"""How large foreign files may be, and what they decode to; the environment allows more."""

import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lupctl.core.errors import DataError, FormatError, UsageError

UNITS: Final = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# What is read as images or features hardly compresses: something that grows more than this holds none.
MOST_GROWTH = 100
FREE_BYTES = 1 << 26
# A network has a tensor for each of its layers, a few hundred.
MOST_PARTS = 100_000


@dataclass(frozen=True)
class Limit:
    """The most of something.

    Args:
        variable: of the environment, which sets a higher limit: a whole number, perhaps with K, M, G or T; a lower
            one changes nothing.
        what: is limited, with its unit.
        default: without that variable.
    """

    variable: str
    what: str
    default: int

    @property
    def most(self) -> int:
        """The limit that applies.

        Raises:
            UsageError: the variable is not such a number.
        """
        text = os.environ.get(self.variable)
        if text is None:
            return self.default
        number, unit = (text[:-1], text[-1:]) if text[-1:] in "KMGT" else (text, "")
        if not (number.isascii() and number.isdigit() and len(number) <= 15):
            raise UsageError(
                f"{self.variable}={text[:40]}: a whole number was expected, perhaps with K, M, G or T",
                hint=f"export {self.variable}={self.default}",
            )
        return max(self.default, int(number) * UNITS[unit])

    def allows(self, found: int) -> bool:
        """Whether so much is within the limit; the environment is asked about large things alone."""
        return found <= self.default or found <= self.most

    def describe(self, found: int) -> str:
        """That there is too much."""
        return f"{found:,} {self.what}; {self.variable} allows {self.most:,}"

    def hint(self, found: int) -> str:
        """How to allow it."""
        return f"if you trust it: export {self.variable}={found}"

    def check(self, path: Path, found: int) -> None:
        """Refuses what is too much.

        Raises:
            DataError: it is.
        """
        if not self.allows(found):
            raise DataError(f"{path}: {self.describe(found)}", hint=self.hint(found))


IMAGE_BYTES: Final = Limit("LUPCTL_MAX_IMAGE_BYTES", "bytes in an image", 2**28)
# Photographs of 100 megapixels exist; they take 300 MB in each worker.
IMAGE_PIXELS: Final = Limit("LUPCTL_MAX_IMAGE_PIXELS", "pixels in an image", 2**27)
LIST_BYTES: Final = Limit("LUPCTL_MAX_LIST_BYTES", "bytes in a list, which is read whole", 2**30)
PICKLE_BYTES: Final = Limit("LUPCTL_MAX_PICKLE_BYTES", "bytes in a pickle, which is read whole", 2**30)
# Recipes, records and notes are a few kilobytes.
TEXT_BYTES: Final = Limit("LUPCTL_MAX_TEXT_BYTES", "bytes in a recipe or a record", 2**24)


def limit_pixels() -> None:
    """Limits the pixels of an image, of any encoding, that OpenCV decodes; it asks once, when it is imported."""
    os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", str(IMAGE_PIXELS.most))


def check_zip(path: Path) -> None:
    """Refuses a zip of arrays or tensors that unpacks to far more than it stores, or has too many parts.

    Readers take no more of a part than its entry says, which is what counts here.

    Raises:
        FormatError: it does, or is damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = [part.file_size for part in archive.infolist()]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError) as error:
        raise FormatError(f"{path}: a damaged zip ({error})", hint=f"unzip -l {path}") from error
    if len(sizes) > MOST_PARTS:
        raise FormatError(f"{path}: {len(sizes):,} parts; at most {MOST_PARTS:,} are read", hint=f"unzip -l {path}")
    check_growth(path, path.stat().st_size, sum(sizes))


def check_growth(path: Path, stored: int, decoded: int) -> None:
    """Refuses a compressed or sparse file that says it decodes to far more than it stores.

    Args:
        path: the file.
        stored: its bytes, or those of the part that is read.
        decoded: bytes in memory.

    Raises:
        FormatError: it grows more than `MOST_GROWTH` times.
    """
    if decoded > max(FREE_BYTES, MOST_GROWTH * stored):
        raise FormatError(
            f"{path}: {stored:,} bytes that decode to {decoded:,}, more than {MOST_GROWTH} times as much; features and "
            "weights hardly compress",
            hint=f"inspect it by hand: ls -ls {path}",
        )
