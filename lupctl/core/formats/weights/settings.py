"""What can be set of a network after its training, without training again: as typed, and in a checkpoint's header."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Final, assert_never, get_args

from lupctl.core.choices import PositionResize, SettingKey, nearest_name
from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.header import CheckpointHeader, describe_network
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import JpmHead, MgnHead
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.recipes.models import MGN_HEIGHT_STEP
from lupctl.core.recipes.osnet_sections import takes_images
from lupctl.core.recipes.patches import count_patches

SETTING_KEYS: Final[tuple[SettingKey, ...]] = get_args(SettingKey)
# The entry in the record of features of a network of which something was set.
SETTINGS_KEY: Final = "set"
SIZE_RULE: Final = re.compile(r"(\d{1,5})x(\d{1,5})")
# Far more pixels than any published network was given; a slip of the finger would take hours or all of the memory.
MOST_PIXELS: Final = 2048
EXAMPLES: Final[dict[SettingKey, str]] = {"semantic_weight": "0.5", "size": "384x128", "position": "dino"}


@dataclass(frozen=True)
class Settings:
    """What is set of a network; None is as in its checkpoint.

    Args:
        semantic_weight: of SOLIDER's semantic controller, in [0, 1].
        size: height and width of its images, in pixels.
        position: how the position embedding of a vision transformer is resized to their grid.
    """

    semantic_weight: float | None = None
    size: tuple[int, int] | None = None
    position: PositionResize | None = None

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
            for known in get_args(PositionResize):
                if text == known:
                    return Settings(position=known)
            names = " or ".join(get_args(PositionResize))
            near = nearest_name(text, get_args(PositionResize)) or EXAMPLES["position"]
            raise UsageError(f"{option} position={text}: {names} was expected", hint=f"{option} position={near}")
        case _:
            assert_never(key)


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
        case _:
            assert_never(key)


def apply_settings(
    header: CheckpointHeader, settings: Settings, *, origin: str, option: str = "--set"
) -> CheckpointHeader:
    """The header of the network that the settings make of another one; its weights are the same.

    Args:
        header: of the network as it was trained.
        settings: what is set of it.
        origin: the checkpoint, for errors.
        option: after which they were typed.

    Raises:
        UsageError: the network has no such key, or cannot take images of that size.
    """
    changed, described = header, describe_network(header)
    if settings.size is not None:
        changed = _resized(changed, settings.size, origin=origin, option=option)
    if settings.semantic_weight is not None:
        trunk = changed.network.trunk
        if not isinstance(trunk, SwinPlan) or trunk.semantic_weight is None:
            raise UsageError(
                f"{origin}: {described} has no semantic controller, and so semantic_weight cannot be set; "
                "networks of SOLIDER have one",
                hint=_without(option),
            )
        trunk = trunk.model_copy(update={"semantic_weight": settings.semantic_weight})
        changed = changed.model_copy(update={"network": changed.network.model_copy(update={"trunk": trunk})})
    if settings.position is None:
        return changed
    is_resized = settings.size is not None
    return _repositioned(changed, settings.position, is_resized=is_resized, origin=origin, option=option)


def _resized(header: CheckpointHeader, size: tuple[int, int], *, origin: str, option: str) -> CheckpointHeader:
    (height, width), trunk, head = size, header.network.trunk, header.network.head
    own = header.preprocessing
    if size == (own.height, own.width):
        return header
    refused, hint = f"{origin}: {describe_network(header)} takes no images of {height} x {width}: ", f"{option} size="
    if isinstance(trunk, ViTPlan):
        rows, columns = count_patches(height, width, trunk.stem, patch=trunk.patch, stride=trunk.stride)
        if min(rows, columns) < 1:
            raise UsageError(
                f"{refused}no patch of {trunk.patch} x {trunk.patch} pixels fits",
                hint=f"{hint}{own.height}x{own.width}",
            )
        if isinstance(head, JpmHead) and rows * columns < head.parts:
            raise UsageError(
                f"{refused}they have {rows * columns} patches, fewer than its {head.parts} parts",
                hint=f"{hint}{own.height}x{own.width}",
            )
    if isinstance(trunk, SwinPlan) and min(height, width) < trunk.patch * trunk.window:
        least = trunk.patch * trunk.window
        raise UsageError(
            f"{refused}one window of its attention shows {least} x {least} pixels, the least that they may have",
            hint=f"{hint}{max(height, least)}x{max(width, least)}",
        )
    if isinstance(trunk, OsnetPlan) and not takes_images(trunk.arch, height, width):
        raise UsageError(
            f"{refused}a cell of its last map shows 16 x 16 pixels, and too few are left",
            hint=f"{hint}{own.height}x{own.width}",
        )
    if isinstance(head, MgnHead) and height % MGN_HEIGHT_STEP:
        fitting = max(MGN_HEIGHT_STEP, round(height / MGN_HEIGHT_STEP) * MGN_HEIGHT_STEP)
        raise UsageError(
            f"{refused}an mgn cuts maps into halves and thirds, and its heights are multiples of {MGN_HEIGHT_STEP}",
            hint=f"{hint}{fitting}x{width}",
        )
    return header.model_copy(update={"preprocessing": own.model_copy(update={"height": height, "width": width})})


def _repositioned(
    header: CheckpointHeader, how: PositionResize, *, is_resized: bool, origin: str, option: str
) -> CheckpointHeader:
    trunk, pixels = header.network.trunk, header.preprocessing
    if not isinstance(trunk, ViTPlan):
        raise UsageError(
            f"{origin}: {describe_network(header)} has no position embedding to resize; vision transformers have one",
            hint=_without(option),
        )
    if not is_resized and trunk.grid(pixels.height, pixels.width) == (trunk.rows, trunk.columns):
        raise UsageError(
            f"{origin}: its positions are those of images of {pixels.height} x {pixels.width} and are not resized, so "
            f"position={how} would change nothing",
            hint=f"set another size, too: --set size={2 * pixels.height}x{2 * pixels.width}",
        )
    trunk = trunk.model_copy(update={"position": how})
    return header.model_copy(update={"network": header.network.model_copy(update={"trunk": trunk})})


def _without(option: str) -> str:
    """What to type where a network has no such key: every one can be given images of another size."""
    return "leave --set out" if option == "--set" else f"{option} size=256x128,{EXAMPLES['size']}"


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
    if bare in ("lambda", "weight", "semantic"):
        return "semantic_weight"
    near = nearest_name(bare, SETTING_KEYS)
    return next((known for known in SETTING_KEYS if known == near), "semantic_weight")
