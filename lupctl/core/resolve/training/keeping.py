"""What `--keep` asks for: a share or a number of images, a list that says which are the best, or both."""

from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from lupctl.core.errors import DataError, UsageError
from lupctl.core.system.examples import count_things
from lupctl.core.system.progress.lines import Progress

if TYPE_CHECKING:
    from lupctl.core.stages.pretrain.job import PretrainJob

# Of scores, and of lists of names as they are published or written by hand.
LIST_SUFFIXES = (".h5", ".pkl", ".pickle", ".txt", ".csv")


def parse_keep(words: Sequence[str]) -> dict[str, Any]:
    """The recipe keys of `--keep`; None where nothing was said.

    Args:
        words: each a number, or the path of scores or of a list of image names; one of each kind at most.

    Raises:
        UsageError: a number that keeps nothing or is neither share nor count, or two of a kind.
        DataError: a word that is neither a number nor a file.
    """
    found: dict[str, Any] = {"data.keep": None, "data.scores": None}
    for word in words:
        number = _as_number(word)
        key = "data.keep" if number is not None else "data.scores"
        if found[key] is not None:
            what = "numbers" if number is not None else "lists"
            raise UsageError(
                f"--keep {found[key]} --keep {word}: two {what}", hint=f"one of them: --keep {quote(word)}"
            )
        if number is not None:
            _check_number(word, number)
        elif not Path(word).exists():
            raise _no_list(word)
        found[key] = word if number is None else number
    if found["data.scores"] is not None and found["data.keep"] is None:
        found["data.keep"] = 0.0  # all that the list names, whatever share the recipe keeps
    return found


def _as_number(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _no_list(word: str) -> DataError:
    """The error for a word that is neither a number nor a file, by what it looks like."""
    if Path(word).suffix.lower() in LIST_SUFFIXES:
        return DataError(
            f"--keep {word}: there is no such file; scores, or a list of image names, were expected",
            hint="lupctl data score PACK --before RUN --after RUN makes scores; then: --keep 0.6",
        )
    is_percent = word.endswith("%") and _as_number(word[:-1]) is not None
    hint = f"as a share: --keep {float(word[:-1]) / 100:g}" if is_percent else "--keep 0.6"
    return DataError(f"--keep {word}: neither a number nor a file that exists", hint=hint)


def _check_number(word: str, number: float) -> None:
    """Refuses what is neither a share of the images nor a number of them.

    Raises:
        UsageError: it is not.
    """
    if not isfinite(number) or number <= 0:
        raise UsageError(
            f"--keep {word}: a share above 0 and up to 1, or a number of images, was expected",
            hint="--keep 0.6; without --keep all images are trained on",
        )
    if number > 1 and not number.is_integer():
        raise UsageError(
            f"--keep {word}: above 1 it is a number of images, which is whole",
            hint="a share as in --keep 0.6, or a number as in --keep 1000",
        )


def say_kept(job: "PretrainJob", progress: Progress) -> None:
    """A line on the part of the images that a run trains on, and on the list that chose them.

    Args:
        job: its packs.
        progress: takes the line.
    """
    data = job.recipe.data
    if not job.packs or not (data.keep or data.scores):
        return
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.stages.pretrain.job import choose_rows

    choice = choose_rows(job.recipe, [open_pack(path) for path in job.packs])
    kept = choice.kept
    if kept is None:
        return
    lists = ", ".join(one.path for one in kept.lists)
    made = kept.lists[0].made
    how = "by the names in" if made is None else "the best by"
    line = f"images: {kept.images:,} of {kept.of:,} ({kept.images / kept.of:.1%}), {how} {lists}"
    if made is not None:
        line += f" ({describe_made(made)})"
    if choice.unusable:
        count = count_things(choice.unusable, "name")
        line += f"; {count} of it left out: images for testing, without a label, or left out of the pack"
    progress.say(line)


def describe_made(made: dict[str, Any]) -> str:
    """How scores were made, in one line.

    >>> describe_made({"distance": "cosine", "before": {"name": "dino"}, "after": {"name": "tuned"}})
    'cosine between dino and tuned'
    """
    names = [str((made.get(side) or {}).get("name", "?")) for side in ("before", "after")]
    return f"{made.get('distance')} between {names[0]} and {names[1]}"
