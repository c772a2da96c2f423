"""The command line, as files record it."""

import sys

# Where, on what and how fast the work is done, and what is demanded of the scores: none of it changes the result, so
# the same work gives the same bytes anywhere.
OPTIONS_LEFT_OUT = frozenset({
    "--home", "--out", "--workers", "--jobs", "--device", "--gpus", "--processes", "--nodes", "--rdzv-endpoint",
    "--node-rank", "--executor", "--shard", "--min-map", "--min-rank1",
})  # fmt: skip
FLAGS_LEFT_OUT = frozenset(
    {"--json", "--quiet", "-q", "--debug", "--force", "--strict", "--page", "--no-page", "--tensorboard"}
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
