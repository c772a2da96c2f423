"""The command line, as files record it."""

import shlex
import sys
from collections.abc import Sequence

COMMENT = "# Command: "

# Where, on what and how fast the work is done, and what is demanded of the scores: none of it changes the result, so
# the same work gives the same bytes anywhere.
OPTIONS_LEFT_OUT = frozenset({
    "--home", "--out", "--workers", "--jobs", "--device", "--gpus", "--processes", "--nodes", "--rdzv-endpoint",
    "--node-rank", "--executor", "--shard", "--min-map", "--min-rank1",
})  # fmt: skip
FLAGS_LEFT_OUT = frozenset(
    {"--json", "--quiet", "-q", "--debug", "--force", "--strict", "--page", "--no-page", "--attention", "--tensorboard"}
)


def recorded_command() -> tuple[str, ...]:
    """This process's command, without the options that do not change its result."""
    kept, is_value = ["lupctl"], False
    for argument in sys.argv[1:]:
        option, equals, _ = argument.partition("=")
        if is_value:
            is_value = False
        elif option in OPTIONS_LEFT_OUT:
            is_value = not equals
        elif argument not in FLAGS_LEFT_OUT:
            kept.append(argument)
    return tuple(kept)


def comment_command(command: Sequence[str]) -> str:
    """A command as the first line of a recipe, so that a stopped run can say how it is continued; empty without one.

    >>> comment_command(["lupctl", "finetune", "my staff"])
    "# Command: lupctl finetune 'my staff'\\n"
    """
    line = f"{COMMENT}{shlex.join(command)}"
    return f"{line}\n" if command and line.isprintable() else ""


def read_command(recipe: str) -> str:
    """The command that `comment_command` wrote at the top of a recipe's text; empty where there is none."""
    first = recipe.partition("\n")[0]
    return first.removeprefix(COMMENT) if first.startswith(COMMENT) else ""
