"""What a sweep is of: the key and its values, the network and its test images, and the options that go with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from lupctl.core.choices import SettingKey
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import find_checkpoint, newest_finetuning
from lupctl.core.resolve.data.images import find_images_of_run, sweep_folder
from lupctl.core.resolve.data.packs import pick_pack
from lupctl.core.resolve.hints import list_runs
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace, output_path

if TYPE_CHECKING:
    from lupctl.core.formats.weights.settings import Settings

# Every value costs the features of all test images.
MOST_VALUES = 101
EXAMPLE = "semantic_weight=0:1:0.1"


@dataclass(frozen=True)
class Axis:
    """What is varied.

    Args:
        key: of the settings.
        values: each sets that key alone; in the order of numbers, else as typed.
    """

    key: SettingKey
    values: "tuple[Settings, ...]"


def parse_sweep(text: str) -> Axis:
    """The values of `--sweep KEY=START:STOP:STEP`, both ends included, or `--sweep KEY=VALUE,VALUE`.

    Raises:
        UsageError: it is neither, there is no such key or value, or there are too many or repeated values.
    """
    from lupctl.core.formats.weights.settings import EXAMPLES, check_key, parse_value, show_value

    name, equals, listed = (part.strip() for part in text.partition("="))
    if not equals or not name or not listed:
        raise UsageError(
            f"--sweep {text}: KEY=START:STOP:STEP, or KEY=VALUE,VALUE, was expected", hint=f"--sweep {EXAMPLE}"
        )
    key = check_key(name, text, option="--sweep")
    if ":" in listed:
        if key != "semantic_weight":
            raise UsageError(
                f"--sweep {text}: a range is of numbers; values of {key} were expected, with commas between them",
                hint=f"--sweep {key}={'256x128,' if key == 'size' else 'bilinear,'}{EXAMPLES[key]}",
            )
        words = _parse_range(text, listed)
    else:
        words = listed.split(",")
    _check_count(text, len(words))
    values = [parse_value(key, word.strip(), option="--sweep") for word in words]
    unique = list(dict.fromkeys(values))
    if len(unique) < len(values):
        shown = ",".join(show_value(one.to_json()[key]) for one in unique)
        raise UsageError(f"--sweep {text}: a value is named twice", hint=f"--sweep {key}={shown}")
    if key == "semantic_weight":
        unique.sort(key=lambda one: one.semantic_weight or 0.0)
    return Axis(key, tuple(unique))


def _parse_range(text: str, listed: str) -> list[str]:
    """The numbers from start to stop, exactly as decimal fractions have them."""
    from lupctl.core.formats.weights.settings import parse_number

    numbers = [number for part in listed.split(":") if (number := parse_number(part.strip())) is not None]
    if len(numbers) != 3 or listed.count(":") != 2:
        raise UsageError(f"--sweep {text}: START:STOP:STEP, three numbers, was expected", hint=f"--sweep {EXAMPLE}")
    start, stop, step = numbers
    if step <= 0:
        raise UsageError(f"--sweep {text}: a step above 0 was expected", hint=f"--sweep {EXAMPLE}")
    if start > stop:
        key = text.partition("=")[0]
        raise UsageError(
            f"--sweep {text}: starts at {start}, after its end, {stop}", hint=f"--sweep {key}={stop}:{start}:{step}"
        )
    # Checked before the values are made: 0:1:1e-30 has more than fit into any memory.
    if (stop - start) / step > MOST_VALUES:
        _check_count(text, int(min((stop - start) / step, Decimal(10**9))) + 1)
    return [str(start + index * step) for index in range(int((stop - start) / step) + 1)]


def _check_count(text: str, count: int) -> None:
    if count > MOST_VALUES:
        raise UsageError(
            f"--sweep {text}: {count:,} values, each of which costs the features of all test images; at most "
            f"{MOST_VALUES} were expected",
            hint=f"--sweep {EXAMPLE}",
        )


def refuse_with_sweep(sweep: str | None, others: Mapping[str, object], needing: Mapping[str, object]) -> None:
    """Refuses options that have no meaning with a sweep, and those that have none without.

    Args:
        sweep: as typed, if it was.
        others: what is not of a sweep, by option.
        needing: what is of a sweep alone, by option.

    Raises:
        UsageError: one of them is given.
    """
    given = [option for option, value in (needing if sweep is None else others).items() if value not in (None, False)]
    if given and sweep is None:
        raise UsageError(f"{given[0]} has no meaning without --sweep", hint=f"add --sweep {EXAMPLE}")
    if given:
        raise UsageError(
            f"{given[0]} has no meaning with --sweep, which scores one network at several values",
            hint=f"leave {given[0]} out",
        )


def find_swept(space: Workspace, names: list[str], sweep: str, progress: Progress) -> tuple[Path, Path]:
    """The checkpoint and the pack of a sweep: as named, else the newest fine-tuning run and its own dataset.

    Args:
        space: the workspace.
        names: a run or a checkpoint, and a dataset or a pack; either may be left out.
        sweep: as typed, for hints.
        progress: reports what was chosen.

    Raises:
        DataError: there is none, or it is something else.
        UsageError: there are more than two names.
    """
    if len(names) > 2:
        raise UsageError(
            f"--sweep takes one network and one dataset, not {' '.join(names)}",
            hint=f"lupctl eval {quote(names[0])} --sweep {sweep}",
        )
    if names and names[0].endswith(".h5") and Path(names[0]).is_file():
        raise _no_network(space, Path(names[0]), sweep)
    if len(names) == 1 and not (space.runs / names[0]).exists() and space.named_pack(names[0]) is not None:
        names = [str(newest_finetuning(space, progress)), *names]  # a dataset alone
    checkpoint = find_checkpoint(space, names[0] if names else str(newest_finetuning(space, progress)))
    if len(names) == 2:
        return checkpoint, pick_pack(space, names[1], progress)
    try:
        return checkpoint, find_images_of_run(space, None, checkpoint, progress)
    except DataError as error:
        data = next((path.stem for path in space.pack_paths()), "DATASET")
        raise DataError(error.message, hint=f"lupctl eval {quote(str(checkpoint))} {data} --sweep {sweep}") from error


def _no_network(space: Workspace, path: Path, sweep: str) -> DataError:
    """The error for features, or a pack, where a network was expected."""
    runs = [path.parent] if (path.parent / CHECKPOINT_NAME).is_file() else list_runs(space)
    run = "RUN" if not runs else quote(runs[0].name if runs[0].parent == space.runs else str(runs[0]))
    return DataError(
        f"{path}: features or a pack, in which nothing can be set any more; a run or a checkpoint was expected",
        hint=f"lupctl eval {run} --sweep {sweep}",
    )


def sweep_path(checkpoint: Path, pack: Path, key: SettingKey, base: str, out: Path | None) -> Path:
    """Where a sweep goes: `out`, a file or a folder; else the folder of what is made with settings.

    Args:
        checkpoint, pack: of the sweep.
        key: what is varied.
        base: what else is set, as part of a name; may be empty.
        out: as typed.
    """
    name = f"{'.'.join(part for part in (pack.resolve().stem, base, key) if part)}.sweep.json"
    return sweep_folder(checkpoint) / name if out is None else output_path(out, name)


def name_values(axis: Axis) -> str:
    """The values in one line, as typed."""
    return name_some([one.given()[0].partition("=")[2] for one in axis.values])
