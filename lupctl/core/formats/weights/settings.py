"""What can be set of a network after its training, without training again: as typed, and in a checkpoint's header."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final, assert_never, get_args

from lupctl.core.choices import Interpolation, PositionResize, SettingKey, nearest_name
from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.header import CheckpointHeader
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan

SETTING_KEYS: Final[tuple[SettingKey, ...]] = get_args(SettingKey)
# The entry in the record of features of a network of which something was set.
SETTINGS_KEY: Final = "set"
SIZE_RULE: Final = re.compile(r"(\d{1,5})x(\d{1,5})")
# Far more pixels than any published network was given; a slip of the finger would take hours or all of the memory.
MOST_PIXELS: Final = 2048
EXAMPLES: Final[dict[SettingKey, str]] = {
    "semantic_weight": "0.5",
    "size": "384x128",
    "position": "dino",
    "interpolation": "bicubic",
}


@dataclass(frozen=True)
class Settings:
    """What is set of a network; None is as in its checkpoint.

    Args:
        semantic_weight: of SOLIDER's semantic controller, in [0, 1].
        size: height and width of its images, in pixels.
        position: how the position embedding of a vision transformer is resized to their grid.
        interpolation: filter of the resize to that size.
    """

    semantic_weight: float | None = None
    size: tuple[int, int] | None = None
    position: PositionResize | None = None
    interpolation: Interpolation | None = None

    def to_json(self) -> dict[str, float | str]:
        """What is set, as a record has it.

        >>> Settings(semantic_weight=0.25, size=(384, 128)).to_json()
        {'semantic_weight': 0.25, 'size': '384x128'}
        """
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: f"{value[0]}x{value[1]}" if isinstance(value, tuple) else value
            for name, value in found.items()
            if value is not None
        }

    def given(self) -> tuple[str, ...]:
        """What is set, as it is typed.

        >>> Settings(semantic_weight=1.0, position="dino").given()
        ('semantic_weight=1', 'position=dino')
        """
        return tuple(f"{name}={show_value(value)}" for name, value in self.to_json().items())

    def tag(self) -> str:
        """What is set, as part of a file's name; empty if nothing is.

        >>> Settings(semantic_weight=0.25, size=(384, 128)).tag(), Settings().tag()
        ('semantic_weight-0.25.size-384x128', '')
        """
        return ".".join(one.replace("=", "-") for one in self.given())

    def __or__(self, other: "Settings") -> "Settings":
        """Both; what the other sets wins."""
        return replace(self, **{name: value for name, value in vars(other).items() if value is not None})


def show_value(value: float | str) -> str:
    """A value as it is typed.

    >>> show_value(0.30), show_value(1.0), show_value("384x128")
    ('0.3', '1', '384x128')
    """
    return value if isinstance(value, str) else f"{value:.12g}"


def parse_settings(texts: Sequence[str]) -> Settings:
    """What `--set KEY=VALUE`, which may be repeated, sets; later ones win.

    Raises:
        UsageError: one is not such text, there is no such key, or no such value of it.
    """
    found = Settings()
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            guess = _guess(key)
            raise UsageError(f"--set {text}: KEY=VALUE was expected", hint=f"did you mean {guess}={EXAMPLES[guess]}?")
        found |= parse_value(check_key(key.strip(), text, option="--set"), value.strip(), option="--set")
    return found


def check_key(key: str, text: str, *, option: str) -> SettingKey:
    """One of the keys.

    Args:
        key: as typed.
        text: of which it is a part.
        option: after which it was typed.

    Raises:
        UsageError: there is no such key.
    """
    for known in SETTING_KEYS:
        if key == known:
            return known
    guess, value = _guess(key), text.partition("=")[2]
    meant = value if value and guess != "size" else EXAMPLES[guess]
    names = f"{', '.join(SETTING_KEYS[:-1])} or {SETTING_KEYS[-1]}"
    raise UsageError(f"{option} {text}: {key!r} is not {names}", hint=f"did you mean {guess}={meant}?")


def parse_value(key: SettingKey, text: str, *, option: str) -> Settings:
    """One value of one key.

    Raises:
        UsageError: it has no such value.
    """
    match key:
        case "semantic_weight":
            return Settings(semantic_weight=_parse_weight(text, option))
        case "size":
            found = SIZE_RULE.fullmatch(text)
            if found is None or not all(0 < int(side) <= MOST_PIXELS for side in found.groups()):
                raise UsageError(
                    f"{option} size={text}: height and width from 1 to {MOST_PIXELS:,} pixels were expected",
                    hint=f"{option} size={EXAMPLES['size']}",
                )
            return Settings(size=(int(found[1]), int(found[2])))
        case "position":
            for resize in get_args(PositionResize):
                if text == resize:
                    return Settings(position=resize)
            raise _no_such_value(key, text, get_args(PositionResize), option)
        case "interpolation":
            for filter_ in get_args(Interpolation):
                if text == filter_:
                    return Settings(interpolation=filter_)
            raise _no_such_value(key, text, get_args(Interpolation), option)
        case _:
            assert_never(key)


def _no_such_value(key: SettingKey, text: str, names: Sequence[str], option: str) -> UsageError:
    near = nearest_name(text, names) or EXAMPLES[key]
    return UsageError(f"{option} {key}={text}: {' or '.join(names)} was expected", hint=f"{option} {key}={near}")


def parse_number(text: str) -> Decimal | None:
    """A finite number as typed, exactly; None if it is none."""
    try:
        number = Decimal(text) if text.isascii() and len(text) < 32 else None
    except InvalidOperation:
        return None
    return number if number is not None and number.is_finite() else None


def read_settings(record: Mapping[str, Any]) -> Settings:
    """What was set of the network that made some features, as their record says."""
    found = record.get(SETTINGS_KEY)
    return parse_settings([f"{key}={value}" for key, value in found.items()] if isinstance(found, Mapping) else [])


def own_value(header: CheckpointHeader, key: SettingKey) -> Settings:
    """The value that a network has of its own; nothing where it has no such key."""
    trunk, pixels = header.network.trunk, header.preprocessing
    match key:
        case "semantic_weight":
            return Settings(semantic_weight=trunk.semantic_weight if isinstance(trunk, SwinPlan) else None)
        case "size":
            return Settings(size=(pixels.height, pixels.width))
        case "position":
            return Settings(position=trunk.position if isinstance(trunk, ViTPlan) else None)
        case "interpolation":
            return Settings(interpolation=pixels.interpolation)
        case _:
            assert_never(key)


def _parse_weight(text: str, option: str) -> float:
    number = parse_number(text)
    if number is None or not 0 <= number <= 1:
        raise UsageError(
            f"{option} semantic_weight={text}: a number from 0, for looks, to 1, for meaning, was expected",
            hint=f"{option} semantic_weight={EXAMPLES['semantic_weight']}",
        )
    return float(number)


def _guess(key: str) -> SettingKey:
    """The key that was most likely meant: by its name in a recipe or elsewhere, else by its letters."""
    bare = key.rpartition(".")[2].lower().replace("-", "_")
    if bare in ("height", "width", "img_size", "image_size", "resolution", "pixels"):
        return "size"
    if bare in ("filter", "resize", "resample", "test_interpolation"):
        return "interpolation"
    if bare in ("lambda", "weight", "semantic"):
        return "semantic_weight"
    near = nearest_name(bare, SETTING_KEYS)
    return next((known for known in SETTING_KEYS if known == near), "semantic_weight")
