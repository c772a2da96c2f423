"""The command line as a file keeps it."""

import sys
from collections.abc import Collection

# What names places, speeds up or talks, and has no say in the result.
FLEETING_OPTIONS = ("--home", "--out", "--workers")
FLEETING_FLAGS = ("--json", "--quiet", "-q", "--debug", "--force")


def lasting_command(*, options: Collection[str] = (), flags: Collection[str] = ()) -> tuple[str, ...]:
    """This process's command without what has no say in the result: the same work gives the same bytes anywhere.

    Args:
        options: more options with a value that have none.
        flags: more without a value.
    """
    kept = ["lupctl"]
    skips_next = False
    for word in sys.argv[1:]:
        option, _, value = word.partition("=")
        if skips_next:
            skips_next = False
        elif option in FLEETING_OPTIONS or option in options:
            skips_next = not value
        elif word not in FLEETING_FLAGS and word not in flags:
            kept.append(word)
    return tuple(kept)
