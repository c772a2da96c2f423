"""The height and width of images, as typed."""

import re

from lupctl.core.errors import UsageError

SIZE_RULE = re.compile(r"(\d{1,5})x(\d{1,5})")


def parse_size(size: str | None, option: str = "--size") -> tuple[int, int] | None:
    """The height and width given with an option.

    Raises:
        UsageError: not two numbers of pixels.
    """
    if size is None:
        return None
    found = SIZE_RULE.fullmatch(size)
    if found is None or not all(0 < int(side) <= 65_535 for side in found.groups()):
        raise UsageError(f"{option} {size}: height and width were expected", hint=f"{option} 256x128")
    return int(found[1]), int(found[2])
