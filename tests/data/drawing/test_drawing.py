"""The drawing itself: bodies keep their bones, traits are shared and yet tell persons apart, bags have two sides."""

import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from lupctl.core.data.drawing.chance import Chance
from lupctl.core.data.drawing.person.canvas import Canvas, Material
from lupctl.core.data.drawing.person.figure import draw_figure
from lupctl.core.data.drawing.person.parts import Part
from lupctl.core.data.drawing.person.pose import Pose, Skeleton, View, build_skeleton
from lupctl.core.data.drawing.person.traits import Traits, draw_traits
from lupctl.core.data.drawing.shot import PLAIN_GREY, Shot, draw_parts, draw_shot
from lupctl.core.data.drawing.street.scene import draw_scene

PEOPLE = [draw_traits(7, 0, person) for person in range(400)]


def stand(angle: float, *, phase: float = 0.0, stride: float = 0.0) -> Pose:
    return Pose(angle, phase, stride, 0.0, (0.2, 0.2), 0.0)


def materials(traits: Traits, angle: float) -> NDArray[np.uint8]:
    canvas = Canvas(256, 128, light=0.5)
    draw_figure(canvas, traits, stand(angle), View(64, 248, 235, 1.2, 0.1, angle))
    return canvas.material


def count(layer: NDArray[np.uint8], *wanted: Material) -> int:
    return int(np.isin(layer, wanted).sum())


# Chance


def test_draws_depend_on_the_whole_key() -> None:
    keys = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 1)]
    firsts = [Chance(*key).unit() for key in keys]
    assert len(set(firsts)) == len(keys)
    assert [Chance(*key).unit() for key in keys] == firsts


def test_draws_have_the_promised_distributions() -> None:
    chance = Chance(5)
    bells = np.array([chance.bell(10.0, 2.0) for _ in range(20_000)])
    assert bells.mean() == pytest.approx(10.0, abs=0.06)
    assert bells.std() == pytest.approx(2.0, abs=0.06)
    assert np.abs(bells - 10).max() <= 5.0
    picks = [chance.pick("abc", (1, 2, 7)) for _ in range(20_000)]
    assert picks.count("c") / 20_000 == pytest.approx(0.7, abs=0.015)
    assert {chance.integer(2, 5) for _ in range(200)} == {2, 3, 4}
    assert {chance.sign() for _ in range(50)} == {-1, 1}


# Traits


def test_no_two_persons_are_equal_but_most_share_their_colours() -> None:
    assert len(set(PEOPLE)) == len(PEOPLE)
    colours = np.array([(*person.upper.cloth.colour, *person.lower.cloth.colour) for person in PEOPLE], float)
    distance = np.abs(colours[:, None] - colours[None]).max(axis=2)
    np.fill_diagonal(distance, np.inf)
    has_double = distance.min(axis=1) < 16  # half a bin of an 8-bin histogram
    assert 0.55 < has_double.mean() < 0.99


def test_every_kind_of_trait_occurs() -> None:
    assert {person.head.style for person in PEOPLE} == {"short", "long", "bob", "ponytail", "bun", "bald"}
    assert {person.head.headwear for person in PEOPLE} == {"none", "cap", "beanie", "scarf"}
    assert {person.upper.kind for person in PEOPLE} == {"shirt", "jacket", "hoodie", "coat", "dress"}
    assert {person.lower.kind for person in PEOPLE} == {"trousers", "shorts", "skirt"}
    assert {person.bag for person in PEOPLE} == {"none", "backpack", "shoulder", "hand"}
    assert len({person.upper.cloth.pattern for person in PEOPLE}) == 8


# Bodies


def length(first: tuple[float, float, float], second: tuple[float, float, float]) -> float:
    return math.dist(first, second)


@pytest.mark.parametrize("side", [0, 1])
def test_bones_keep_their_lengths_and_a_foot_stays_on_the_ground(side: int) -> None:
    body = PEOPLE[0].body

    def at(phase: float) -> Skeleton:
        return build_skeleton(body, stand(0.0, phase=phase, stride=0.4))

    still = at(0.0)
    for phase in np.linspace(0, 2 * math.pi, 17):
        bones = at(float(phase))
        assert length(bones.hip[side], bones.knee[side]) == pytest.approx(
            length(still.hip[side], still.knee[side]), rel=0.02
        )
        assert length(bones.knee[side], bones.ankle[side]) == pytest.approx(
            length(still.knee[side], still.ankle[side]), rel=0.02
        )
        lowest = min(*(ankle[1] - 0.04 for ankle in bones.ankle), *(toe[1] - 0.012 for toe in bones.toe))
        assert lowest == pytest.approx(0.0, abs=1e-9)
        assert 0.9 < bones.head[1] + 0.066 < 1.05


def test_arms_swing_against_the_legs() -> None:
    bones = build_skeleton(PEOPLE[0].body, stand(0.0, phase=math.pi / 2, stride=0.4))
    assert bones.knee[1][2] > bones.knee[0][2]  # the left leg is in front
    assert bones.wrist[1][2] < bones.wrist[0][2]  # and the right arm


def test_a_view_keeps_left_and_right() -> None:
    def seen(angle: float) -> View:
        return View(0.0, 0.0, 100.0, 1.0, 0.0, angle)

    left, front = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)
    assert seen(0.0).project(left)[0] == pytest.approx(100)  # a person who faces us has the left hand on our right
    assert seen(math.pi).project(left)[0] == pytest.approx(-100)
    assert seen(math.pi / 2).project(front)[0] == pytest.approx(100)
    assert seen(0.0).nearness(front) == pytest.approx(1)
    assert seen(math.pi / 2).nearness(left) == pytest.approx(-1)
    assert seen(math.pi / 2).half_width(0.1, 0.06) == pytest.approx(6)


def test_a_standing_person_fills_the_frame_from_head_to_foot() -> None:
    for person in PEOPLE[:40]:
        used = np.flatnonzero((materials(person, 0.3) > 0).any(axis=1))
        assert 5 <= used[0] <= 32
        assert 240 <= used[-1] <= 255


# What depends on the view


def test_a_backpack_is_large_from_behind_and_straps_from_the_front() -> None:
    person = replace(next(p for p in PEOPLE if p.head.style == "short" and p.head.headwear == "none"), bag="backpack")
    behind = count(materials(person, math.pi), Material.BAG, Material.BAG_DARK)
    front = count(materials(person, 0.0), Material.BAG, Material.BAG_DARK)
    assert front > 100
    assert behind > 3 * front
    assert count(materials(replace(person, bag="none"), math.pi), Material.BAG, Material.BAG_DARK) == 0


def test_faces_and_open_jackets_are_seen_from_the_front_only() -> None:
    person = next(p for p in PEOPLE if p.upper.kind == "jacket" and p.head.style == "short" and p.bag == "none")
    person = replace(person, head=replace(person.head, headwear="none"))
    front, behind = materials(person, 0.0), materials(person, math.pi)
    assert count(front, Material.INK) > 10
    assert count(behind, Material.INK) == 0
    assert count(front, Material.INNER) > 300
    assert count(behind, Material.INNER) == 0
    assert count(behind, Material.HAIR) > count(front, Material.HAIR)


# Shots and scenes


def test_an_ordinary_box_holds_a_person_and_a_junk_box_often_none(monkeypatch: pytest.MonkeyPatch) -> None:
    shots = [Shot(7, 0, person, 1 + person % 3, 0, is_junk) for is_junk in (False, True) for person in range(60)]
    peopled = [draw_shot(shot, height=128, width=64, effects=True).astype(int) for shot in shots]
    monkeypatch.setattr("lupctl.core.data.drawing.shot._put_person", put_nobody)
    empty = [draw_shot(shot, height=128, width=64, effects=True).astype(int) for shot in shots]
    covered = np.array([(np.abs(a - b).max(axis=2) > 8).mean() for a, b in zip(peopled, empty, strict=True)])
    ordinary, junk = covered[:60], covered[60:]
    assert ordinary.min() > 0.12
    assert np.median(ordinary) > 0.25
    assert 0.25 < (junk < 0.1).mean() < 0.8


def put_nobody(image: NDArray[np.uint8], *_: object, **__: object) -> NDArray[np.uint8]:
    return np.zeros(image.shape[:2], np.uint8)


def test_parts_are_where_they_are_drawn() -> None:
    """From the top down on whole persons, each in its own colour, and nowhere on those who are not in the picture."""
    matching = 0
    for person in range(40):
        shot = Shot(7, 0, person, 1, 0)
        pixels, parts = (draw(shot, height=128, width=64, effects=False) for draw in (draw_shot, draw_parts))
        assert parts.shape == pixels.shape[:2]
        assert set(np.unique(parts)) == set(Part)
        middle = [np.flatnonzero((parts == part).any(axis=1)).mean() for part in (Part.UPPER, Part.LOWER, Part.SHOES)]
        assert middle == sorted(middle)
        plain = (pixels.astype(int) == PLAIN_GREY).all(axis=2)
        assert (plain == (parts == Part.BACKGROUND)).mean() > 0.95  # but for edges, which are mixed
        colours = draw_traits(7, 0, person)
        if colours.lower.cloth.pattern == "plain" and max(colours.lower.cloth.colour) > 100:
            seen = pixels[parts == Part.LOWER].mean(axis=0)[::-1]
            matching += np.argmax(seen) == np.argmax(colours.lower.cloth.colour)
    assert matching > 3


def test_what_stands_before_a_person_hides_the_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    shots = [Shot(7, 0, person, 1 + person % 3, 0) for person in range(60)]
    hidden = [draw_parts(shot, height=128, width=64, effects=True) for shot in shots]
    monkeypatch.setattr("lupctl.core.data.drawing.shot._draw_obstacle", lambda *_, **__: None)
    whole = [draw_parts(shot, height=128, width=64, effects=True) for shot in shots]
    for some, every in zip(hidden, whole, strict=True):
        assert np.isin(some[some != every], Part.BACKGROUND).all()
    assert 2 <= sum((some != every).any() for some, every in zip(hidden, whole, strict=True)) <= 25
    assert np.mean([(every > 0).mean() for every in whole]) > 0.25


def test_scenes_differ_and_cannot_be_written_to() -> None:
    first, second = draw_scene(7, 1), draw_scene(7, 2)
    assert np.abs(first.panorama.astype(int) - second.panorama.astype(int)).mean() > 10
    assert first.camera != second.camera
    with pytest.raises(ValueError, match="read-only"):
        first.panorama[0, 0] = 0


def test_colour_casts_stay_realistic() -> None:
    for number in range(60):
        camera = draw_scene(7, number).camera
        assert 0.93 <= camera.gains[0] / camera.gains[1] <= 1.08
        assert 0.93 <= camera.gains[2] / camera.gains[1] <= 1.08
        assert 0.75 <= camera.saturation <= 1.15
        assert 0.85 <= camera.gamma <= 1.15
