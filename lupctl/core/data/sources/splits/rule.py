"""What `--split` asks for."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final, get_args

from lupctl.core.choices import SPLIT_SEED, SplitKind, nearest_name
from lupctl.core.errors import DataError, UsageError

KINDS: Final[tuple[SplitKind, ...]] = ("persons", "images", "cameras")
EXAMPLES: Final[dict[SplitKind, str]] = {
    "persons": "persons:0.5",
    "images": "images:0.5",
    "cameras": "cameras:1,2",
    "file": "split.csv",
}
SHARE: Final = re.compile(r"0?\.\d{1,18}")
CAMERAS: Final = re.compile(r"\d{1,5}(,\d{1,5})*")
assert set(EXAMPLES) == set(get_args(SplitKind))


@dataclass(frozen=True)
class SplitRule:
    """How labelled images are divided.

    Args:
        kind: what is divided.
        text: as typed.
        share: R, what is trained on, as typed; empty if cameras or a file are named.
        cameras: that are trained on, if they are named.
        path: of a split file.
        seed: of whatever is drawn.
    """

    kind: SplitKind
    text: str
    share: str = ""
    cameras: tuple[int, ...] = ()
    path: Path | None = None
    seed: int = SPLIT_SEED


def parse_split(text: str, *, seed: int | None = None) -> SplitRule:
    """The rule that a text names.

    >>> parse_split("persons:0.5").share, parse_split("cameras:1,2").cameras
    ('0.5', (1, 2))

    Args:
        text: `persons:R`, `images:R`, `cameras:R`, `cameras:C,C` or the path of a file.
        seed: as typed; None for the default.

    Raises:
        UsageError: not such a rule, or a seed where nothing is drawn.
        DataError: there is no such file.
    """
    name, colon, value = text.partition(":")
    kind = next((kind for kind in KINDS if kind == name), None)
    if kind is not None:
        return _parse_rule(kind, value, text, SPLIT_SEED if seed is None else seed)
    path = Path(text)
    if path.is_file():
        if seed is not None:
            raise UsageError(f"--split-seed {seed}: nothing is drawn with a split file", hint=f"--split {text}")
        return SplitRule("file", text, path=path)
    # `finetune --subset` says ids, and a share alone is most likely one of persons.
    near = "persons" if name == "ids" or SHARE.fullmatch(text) else nearest_name(name.lower(), KINDS)
    value = text if SHARE.fullmatch(text) else value
    if near is not None:
        meant = f"{near}:{value}" if _is_value(near, value) else _example(near)
        raise UsageError(f"--split {text}: did you mean {meant}?", hint=f"--split {meant}")
    if colon:
        raise UsageError(
            f"--split {text}: persons:R, images:R, cameras:C,C or a file was expected", hint="--split persons:0.5"
        )
    what = "not a file" if path.exists() else "there is no such file"
    raise DataError(f"--split {text}: {what}, and not a rule either", hint="--split persons:0.5")


def _parse_rule(kind: SplitKind, value: str, text: str, seed: int) -> SplitRule:
    if not _is_value(kind, value):
        expected = f"{kind}:R takes the share R that is trained on, above 0 and below 1"
        if kind == "cameras":
            expected = "cameras:C,C takes the cameras that are trained on, cameras:R a share of them, below 1"
        raise UsageError(f"--split {text}: {expected}", hint=f"--split {EXAMPLES[kind]}")
    if SHARE.fullmatch(value):
        return SplitRule(kind, text, share=value, seed=seed)
    return SplitRule(kind, text, cameras=tuple(sorted({int(camera) for camera in value.split(",")})), seed=seed)


def _is_value(kind: str, value: str) -> bool:
    """Whether the text after the colon is one."""
    if kind == "cameras" and CAMERAS.fullmatch(value):
        return True
    return bool(SHARE.fullmatch(value)) and float(value) > 0


def _example(kind: str) -> str:
    return next(example for known, example in EXAMPLES.items() if known == kind)
