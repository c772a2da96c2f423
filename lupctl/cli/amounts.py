"""Sizes and ages, as short as a column of a table needs them."""

import time


def describe_bytes(num_bytes: int) -> str:
    """A size in the largest unit that leaves a number before the point.

    >>> describe_bytes(300), describe_bytes(4_100_000), describe_bytes(27_000_000_000)
    ('300 B', '3.9 MiB', '25 GiB')
    """
    if num_bytes < 1000:
        return f"{num_bytes} B"
    size, units = num_bytes / 1024, ["KiB", "MiB", "GiB", "TiB"]
    while size >= 1000 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.1f} {units[0]}" if size < 10 else f"{size:.0f} {units[0]}"


def describe_age(changed_at: float, *, now: float | None = None) -> str:
    """How long ago something changed, in its largest unit; times are seconds since 1970.

    >>> describe_age(0, now=30), describe_age(0, now=600), describe_age(0, now=200_000)
    ('30 s', '10 min', '2 days')
    """
    seconds = max(0.0, (time.time() if now is None else now) - changed_at)
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s"
