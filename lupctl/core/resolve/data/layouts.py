"""The layout in which raw data is read, and the options that only some layouts know."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import quote
from typing import Any, Final, TypeVar, get_args

from lupctl.core.choices import SYNTHETIC, CameraRule, Layout, Version
from lupctl.core.errors import UsageError
from lupctl.core.resolve.data.datasets import Target

Choice = TypeVar("Choice")
# The layouts that know an option.
KNOWN_BY: Final[dict[str, tuple[Layout, ...]]] = {
    "--cameras": ("persons",),
    "--keys": ("lmdb",),
    "--version": ("msmt17", "market1501"),
    "--val": ("msmt17",),
    "--no-val": ("msmt17",),
    "--root": ("csv", "cuhk03-index"),
}
# What `--label-noise` takes to undo that of an existing pack.
NO_NOISE: Final = "none"


@dataclass(frozen=True)
class Reading:
    """How raw data is to be read; None where not given.

    Args:
        layout: how the files are laid out; None detects it.
        cameras: for folders of persons, where the camera's number is; None detects it.
        seed: for drawn images.
        version: of MSMT17.
        with_val: for MSMT17, whether list_val.txt is part of train.
        keys: key file of an LMDB.
        root: folder that the paths of a table are relative to.
        label_noise: wrong labels for the training images, as in `split:0.3,merge:0.1`; none undoes those of the pack.
        again: the command that was typed, for this raw data alone; for hints.
    """

    layout: Layout | None = None
    cameras: CameraRule | None = None
    seed: int | None = None
    version: Version | None = None
    with_val: bool | None = None
    keys: str | None = None
    root: Path | None = None
    label_noise: str | None = None
    again: str = ""

    @property
    def options(self) -> dict[str, str]:
        """The options that only some layouts know, as typed."""
        given = {"--cameras": self.cameras, "--keys": self.keys, "--version": self.version, "--root": self.root}
        options = {option: f"{option} {quote(str(value))}" for option, value in given.items() if value is not None}
        if self.with_val is not None:
            options["--val" if self.with_val else "--no-val"] = "--val" if self.with_val else "--no-val"
        return options


def refuse_for_drawn(reading: Reading) -> None:
    """Refuses options for files where persons are drawn.

    Raises:
        UsageError: one of them is given.
    """
    _refuse_all(reading, f"{SYNTHETIC}: its persons are drawn")


def refuse_for_packs(reading: Reading, name: str) -> None:
    """Refuses options for raw data where there are packs alone.

    Raises:
        UsageError: one of them is given.
    """
    _refuse_all(reading, f"{name}: it is a pack, and its labels are known")


def _refuse_all(reading: Reading, why: str) -> None:
    given = {"--layout": f"--layout {reading.layout}"} if reading.layout else {}
    for option, typed in (given | reading.options).items():
        raise UsageError(f"{typed}: has no meaning for {why}", hint=f"leave {option} out")


def pick_layout(target: Target, reading: Reading, packed: Mapping[str, Any]) -> tuple[Reading, str]:
    """How a target is read, with its layout: as requested, else as for its pack, else as the files look.

    Args:
        target: the raw data.
        reading: as requested.
        packed: how its pack was made; empty if there is none.

    Returns:
        with a layout, and why it was chosen; empty if it was requested.

    Raises:
        UsageError: an option that the layout does not know, or a layout that is a toss-up.
        DataError: no such folder, or it holds no person images.
    """
    if reading.seed is not None:
        raise UsageError(
            f"--seed draws other persons of {SYNTHETIC}; {target.dataset} is not drawn", hint="leave --seed out"
        )
    if reading.layout is not None:
        _refuse_unknown(target, reading, reading.layout, f"it has --layout {reading.layout}")
        return _adopt(reading, packed), ""
    known = _adopt(reading, packed)
    found, reason = known.layout, "as in its pack"
    choices: tuple[str, ...] = ()
    remedy = ""
    if found is None:
        from lupctl.core.data.sources.guess import guess_layout

        assert target.root is not None
        guess = guess_layout(target.root, dataset=target.dataset)
        found, reason, choices, remedy = guess.layout, guess.reason, guess.choices, guess.remedy
    if reading.cameras is not None and found in (None, "images"):
        found, reason = "persons", f"--cameras {reading.cameras} belongs to it"
    if found is None:
        _refuse_unknown(target, reading, None, f"that of {target.root} is unclear ({reason})")
        raise _toss_up(target, reading.again, reason, choices, remedy)
    _refuse_unknown(target, reading, found, f"{target.root} has layout {found} ({reason})")
    return replace(known, layout=found), reason


def _refuse_unknown(target: Target, reading: Reading, layout: Layout | None, found: str) -> None:
    """Refuses an option that a layout does not know, and would drop without a word."""
    for option, typed in reading.options.items():
        is_other_market = option == "--version" and layout == "market1501" and target.dataset != "msmt17"
        if layout not in KNOWN_BY[option] or is_other_market:
            raise UsageError(
                f"{typed}: belongs to layout {' or '.join(KNOWN_BY[option])}{' of msmt17' * is_other_market}, but "
                f"{found}",
                hint=f"leave {option} out, or name its layout: --layout {KNOWN_BY[option][0]}",
            )


def _toss_up(target: Target, again: str, reason: str, choices: tuple[str, ...], remedy: str) -> UsageError:
    """The error for a tree that may be several things, with the commands to choose from."""
    name = f" --name {target.dataset}" if target.root is not None and target.root.name != target.dataset else ""
    command = again or f"lupctl data pack {target.words}{name}"
    ways = [remedy] if remedy else []
    ways += [f"{'without labels: ' * (' images' in choice)}{command} {choice}" for choice in choices]
    return UsageError(f"{target.root}: unclear whether its folders are persons: {reason}", hint="; or ".join(ways))


def _adopt(reading: Reading, packed: Mapping[str, Any]) -> Reading:
    """How to read raw data: as requested, else as for its pack.

    What was detected on disk when the pack was made is detected again, so that a change is noticed.
    """
    root = packed.get("root")
    is_table = packed.get("layout") in ("csv", "cuhk03-index")
    with_val = packed.get("val")
    return replace(
        reading,
        layout=reading.layout or _one_of(get_args(Layout), packed.get("layout")),
        cameras=reading.cameras or _one_of(get_args(CameraRule), packed.get("cameras")),
        version=reading.version or _one_of(get_args(Version), packed.get("version")),
        with_val=with_val if reading.with_val is None and isinstance(with_val, bool) else reading.with_val,
        keys=reading.keys or (str(packed["keys"]) if "keys" in packed else None),
        root=reading.root or (Path(root) if is_table and isinstance(root, str) and Path(root).is_dir() else None),
        label_noise=_packed_noise(packed) if reading.label_noise is None else reading.label_noise,
    )


def _packed_noise(packed: Mapping[str, Any]) -> str | None:
    """The wrong labels of a pack, as `--label-noise` asks for them."""
    noise = packed.get("label_noise")
    return f"split:{noise['split']},merge:{noise['merge']}" if isinstance(noise, dict) else None


def _one_of(choices: tuple[Choice, ...], value: object) -> Choice | None:
    """The choice that a record names, if this lupctl knows it."""
    return next((choice for choice in choices if choice == value), None)
