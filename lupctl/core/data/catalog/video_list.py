"""The list of videos that LUPerson and LUPerson-NL publish: `country+city+videoid`, one per line."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.limits import LIST_BYTES
from lupctl.core.system.disk.reading import read_text

# Country and city become folder names: nothing that could point elsewhere or be hidden is accepted.
PLACE_RULE: Final = re.compile(r"[a-z0-9_][a-z0-9_.'-]*")
ID_RULE: Final = re.compile(r"[A-Za-z0-9_-]{11}")
EXAMPLE: Final = "argentina+buenos_aires+-0UsgiQiPbY"


@dataclass(frozen=True, order=True)
class VideoName:
    """One video of the list.

    Args:
        country: lower case with underscores.
        city: likewise.
        id: eleven letters, digits, `_` or `-`; it may begin with `-`.
    """

    country: str
    city: str
    id: str

    def __str__(self) -> str:
        return f"{self.country}+{self.city}+{self.id}"

    @property
    def path(self) -> Path:
        """Where the published scripts store it, relative to the folder of videos."""
        return Path(self.country, self.city, f"{self}.mp4")


def read_video_list(path: Path) -> list[VideoName]:
    """The videos of a list, sorted and without repeats.

    Blank lines, trailing blanks and Windows line ends are ignored.

    Raises:
        DataError: there is no such file.
        FormatError: a line is not a video name, or there is no video at all.
    """
    try:
        lines = read_text(path, LIST_BYTES).splitlines()
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: there is no such list", hint="lupctl data download luperson --accept-terms"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})", hint=f"ls -l {path}") from error
    except UnicodeDecodeError as error:
        raise FormatError(
            f"{path}: not a text file; a list of videos was expected", hint=f"lines such as {EXAMPLE}"
        ) from error
    videos = {
        parse_video_name(line.rstrip(), where=f"{path}: line {row}")
        for row, line in enumerate(lines, 1)
        if line.strip()
    }
    if not videos:
        raise FormatError(f"{path}: lists no video", hint=f"lines such as {EXAMPLE}")
    return sorted(videos, key=str)


def parse_video_name(line: str, *, where: str) -> VideoName:
    """One line of the list.

    >>> parse_video_name("us+new_york+-abcdefghij", where="list: line 1").id
    '-abcdefghij'

    Args:
        line: without its end.
        where: file and line, for the error.

    Raises:
        FormatError: not three fields, or a field is invalid.
    """
    fields = line.split("+")
    hint = f"lines such as {EXAMPLE}"
    if len(fields) != 3:
        raise FormatError(f"{where}: {len(fields)} fields in {line!r}; country+city+videoid was expected", hint=hint)
    country, city, video_id = fields
    for what, value in (("country", country), ("city", city)):
        if not PLACE_RULE.fullmatch(value):
            raise FormatError(
                f"{where}: {value!r} is not a {what}; lower case with underscores was expected", hint=hint
            )
    if not ID_RULE.fullmatch(video_id):
        raise FormatError(
            f"{where}: {video_id!r} is not a video id; eleven of A-Z a-z 0-9 _ - were expected", hint=hint
        )
    return VideoName(country, city, video_id)
