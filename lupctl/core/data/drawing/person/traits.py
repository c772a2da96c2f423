"""What stays the same about a person from camera to camera."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from lupctl.core.data.drawing.chance import PERSON, Chance
from lupctl.core.data.drawing.palette import (
    BAG,
    HAIR,
    LOWER,
    SHOES,
    SKIN,
    SKIRT,
    UPPER,
    Colour,
    luminance,
    mix,
    pick_colour,
)

HairStyle = Literal["short", "long", "bob", "ponytail", "bun", "bald"]
Headwear = Literal["none", "cap", "beanie", "scarf"]
UpperKind = Literal["shirt", "jacket", "hoodie", "coat", "dress"]
LowerKind = Literal["trousers", "shorts", "skirt"]
BagKind = Literal["none", "backpack", "shoulder", "hand"]
Pattern = Literal["plain", "rows", "columns", "checks", "logo", "band", "yoke", "blotches"]


@dataclass(frozen=True)
class Body:
    """Proportions; 1 is the average, `leg` is the height of the hips as a share of the person's height."""

    girth: float
    shoulders: float
    hips: float
    leg: float
    head: float
    stride: float


@dataclass(frozen=True)
class Head:
    """Hair, face and headwear; `length` is how far hair falls, in heads below the chin."""

    skin: Colour
    hair: Colour
    style: HairStyle
    length: float
    headwear: Headwear
    headwear_colour: Colour
    has_glasses: bool
    has_beard: bool


@dataclass(frozen=True)
class Garment:
    """A garment's cloth; `period` is the width of one repeat as a share of the person's height."""

    colour: Colour
    second: Colour
    pattern: Pattern
    period: float


@dataclass(frozen=True)
class Upper:
    """The upper garment. `sleeve`: 0 none, 0.45 to above the elbow, 1 to the wrist; `hem`: height of its lower edge."""

    kind: UpperKind
    cloth: Garment
    inner: Colour
    sleeve: float
    hem: float
    has_other_sleeves: bool


@dataclass(frozen=True)
class Lower:
    """The lower garment. `end`: height of its lower edge; `fit`: 0.9 tight, 1.4 wide."""

    kind: LowerKind
    cloth: Garment
    end: float
    fit: float
    has_side_stripe: bool


@dataclass(frozen=True)
class Traits:
    """A whole person. `bag_side` is -1 for the right hand and 1 for the left."""

    body: Body
    head: Head
    upper: Upper
    lower: Lower
    shoes: Colour
    has_boots: bool
    has_pale_soles: bool
    bag: BagKind
    bag_colour: Colour
    bag_side: int


@lru_cache(maxsize=4096)
def draw_traits(seed: int, crowd: int, person: int) -> Traits:
    """The traits of one person; every call gives the same, and no two persons share a stream."""
    chance = Chance(seed, PERSON, crowd, person)
    is_woman = chance.bernoulli(0.5)
    shoes = pick_colour(chance, SHOES)
    upper = _upper(chance, is_woman)
    return Traits(
        body=_body(chance, is_woman),
        head=_head(chance, is_woman),
        upper=upper,
        lower=_lower(chance, is_woman, upper.kind),
        shoes=shoes,
        has_boots=chance.bernoulli(0.15),
        has_pale_soles=chance.bernoulli(0.4),
        bag=chance.pick(("none", "backpack", "shoulder", "hand"), (45, 25, 18, 12)),
        bag_colour=pick_colour(chance, BAG),
        bag_side=chance.sign(),
    )


def _body(chance: Chance, is_woman: bool) -> Body:
    girth = max(0.82, chance.bell(0.96 if is_woman else 1.0, 0.12))
    return Body(
        girth=girth + (chance.between(0.1, 0.3) if chance.bernoulli(0.15) else 0.0),
        shoulders=chance.bell(0.93 if is_woman else 1.06, 0.05),
        hips=chance.bell(1.07 if is_woman else 0.98, 0.06),
        leg=chance.bell(0.53, 0.014),
        head=chance.bell(1.0, 0.05),
        stride=chance.bell(1.0, 0.15),
    )


def _head(chance: Chance, is_woman: bool) -> Head:
    weights = (12, 40, 14, 20, 8, 0.5) if is_woman else (80, 4, 3, 2, 1, 10)
    headwear: Headwear = chance.pick(
        ("none", "cap", "beanie", "scarf"), (84, 8, 5, 7) if is_woman else (74, 16, 8, 0.01)
    )
    return Head(
        skin=pick_colour(chance, SKIN),
        hair=pick_colour(chance, HAIR),
        style=chance.pick(("short", "long", "bob", "ponytail", "bun", "bald"), weights),
        length=chance.between(0.5, 1.7),
        headwear=headwear,
        headwear_colour=pick_colour(chance, UPPER),
        has_glasses=chance.bernoulli(0.1),
        has_beard=not is_woman and chance.bernoulli(0.2),
    )


def _upper(chance: Chance, is_woman: bool) -> Upper:
    kind: UpperKind = chance.pick(
        ("shirt", "jacket", "hoodie", "coat", "dress"), (46, 20, 14, 10, 14) if is_woman else (54, 24, 18, 8, 0.01)
    )
    pattern: Pattern = "plain"
    match kind:
        case "shirt" | "dress":
            pattern = chance.pick(
                ("plain", "rows", "columns", "checks", "logo", "band", "yoke", "blotches"), (40, 13, 6, 9, 16, 6, 6, 5)
            )
            sleeve = chance.pick((0.12, 0.45, 0.75, 1.0), (8, 55, 7, 30))
        case "hoodie":
            pattern, sleeve = chance.pick(("plain", "logo", "band", "yoke"), (55, 25, 10, 10)), 1.0
        case "jacket" | "coat":
            pattern, sleeve = chance.pick(("plain", "yoke", "checks"), (80, 12, 8)), 1.0
    hem = {"shirt": 0.475, "jacket": 0.46, "hoodie": 0.47, "coat": 0.34, "dress": 0.33}[kind]
    return Upper(
        kind=kind,
        cloth=_cloth(chance, pick_colour(chance, UPPER), pattern),
        inner=pick_colour(chance, UPPER),
        sleeve=sleeve,
        hem=hem + chance.bell(0.0, 0.018 if hem > 0.4 else 0.035),
        has_other_sleeves=chance.bernoulli(0.1),
    )


def _lower(chance: Chance, is_woman: bool, upper: UpperKind) -> Lower:
    kind: LowerKind = chance.pick(("trousers", "shorts", "skirt"), (56, 18, 26) if is_woman else (74, 26, 0.01))
    if upper == "coat":
        kind = "trousers"
    elif upper == "dress":  # over bare legs or over leggings
        kind = "shorts" if chance.bernoulli(0.65) else "trousers"
    end = {"trousers": 0.045, "shorts": 0.31, "skirt": 0.32}[kind]
    if kind == "trousers" and chance.bernoulli(0.18):
        end = chance.between(0.09, 0.17)
    elif kind == "skirt" and chance.bernoulli(0.35):
        end = chance.between(0.1, 0.22)
    elif upper == "dress":
        end = 0.5
    elif kind != "trousers":
        end += chance.bell(0.0, 0.025)
    pattern: Pattern = "plain"
    if kind == "skirt":
        pattern = chance.pick(("plain", "checks", "rows", "blotches"), (70, 12, 8, 10))
    elif chance.bernoulli(0.06):
        pattern = chance.pick(("checks", "blotches"))
    colour = pick_colour(chance, SKIRT if kind == "skirt" else LOWER)
    return Lower(
        kind=kind,
        cloth=_cloth(chance, colour, pattern),
        end=end,
        fit=max(0.92, chance.bell(1.1, 0.13)),
        has_side_stripe=kind == "trousers" and chance.bernoulli(0.08),
    )


def _cloth(chance: Chance, colour: Colour, pattern: Pattern) -> Garment:
    """The second colour differs visibly in lightness; checks and columns keep to quiet contrasts."""
    second = pick_colour(chance, UPPER)
    if abs(luminance(second) - luminance(colour)) < 55:
        second = mix(colour, (238, 238, 236) if luminance(colour) < 120 else (24, 24, 30), 0.72)
    if pattern in ("checks", "columns"):
        second = mix(colour, second, 0.65)
    wide = chance.between(0.035, 0.07)
    return Garment(colour, second, pattern, wide if pattern != "columns" else 0.7 * wide)
