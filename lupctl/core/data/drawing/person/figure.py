"""A person on a canvas, part by part, the far ones first."""

import math

from lupctl.core.data.drawing.person.bags import draw_bag_behind, draw_bag_in_front
from lupctl.core.data.drawing.person.canvas import NEUTRAL, Canvas, Material
from lupctl.core.data.drawing.person.heads import draw_back_hair, draw_falling_hair, draw_head
from lupctl.core.data.drawing.person.pose import Pixel, Point, Pose, Skeleton, View, build_skeleton
from lupctl.core.data.drawing.person.traits import Body, Traits

FAR = NEUTRAL - 22  # limbs on the far side are in the body's own shadow

# Half width and half depth of the trunk at heights between hip (0) and shoulder (1).
TRUNK = ((0.0, 0.088, 0.066), (0.28, 0.079, 0.06), (0.62, 0.096, 0.068), (0.86, 0.107, 0.062), (0.96, 0.102, 0.052))


def draw_figure(canvas: Canvas, traits: Traits, pose: Pose, view: View) -> None:
    """Draws the whole person."""
    bones = build_skeleton(traits.body, pose)
    faces_camera = math.cos(pose.angle) > 0
    near = 1 if view.nearness((1.0, 0.0, 0.0)) > 0 else 0  # which of (right, left) is nearer
    draw_bag_behind(canvas, traits, bones, view)
    if faces_camera:
        draw_back_hair(canvas, traits.head, bones, view, pose.turn)
    order = sorted((0, 1), key=lambda side: view.nearness(bones.elbow[side]))
    hidden = [side for side in order if view.nearness(bones.elbow[side]) < -0.03]
    for side in hidden:
        _draw_arm(canvas, traits, bones, view, side, level=FAR)
    for side in sorted((0, 1), key=lambda side: view.nearness(bones.knee[side]) + view.nearness(bones.ankle[side])):
        _draw_leg(canvas, traits, bones, view, side, level=NEUTRAL if side == near else NEUTRAL - 12)
    _draw_pelvis(canvas, traits, bones, view)
    _draw_neck(canvas, traits, bones, view)
    _draw_trunk(canvas, traits, bones, view)
    draw_bag_in_front(canvas, traits, bones, view, is_below_hair=True)
    draw_head(canvas, traits.head, traits.body.head, bones, view, pose.turn)
    if not faces_camera:
        draw_falling_hair(canvas, traits.head, bones, view, pose.turn)
    for side in order:
        if side not in hidden:
            _draw_arm(canvas, traits, bones, view, side, level=NEUTRAL)
    draw_bag_in_front(canvas, traits, bones, view, is_below_hair=False)


def _between(first: Point, second: Point, share: float) -> Point:
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
        first[2] + (second[2] - first[2]) * share,
    )


def _px(view: View, size: float) -> float:
    """A thickness in pixels; between the stretched width and the height."""
    return size * view.tall * (0.4 + 0.6 * view.stretch)


def _draw_leg(canvas: Canvas, traits: Traits, bones: Skeleton, view: View, side: int, *, level: int) -> None:
    girth, lower = traits.body.girth, traits.lower
    hip, knee, ankle = bones.hip[side], bones.knee[side], bones.ankle[side]
    thick = [_px(view, size * (0.35 + 0.65 * girth)) for size in (0.053, 0.036, 0.021)]
    if lower.kind != "trousers" or lower.end > 0.06:
        calf = _between(knee, ankle, 0.3)
        joints = [view.project(joint) for joint in (hip, knee, calf, ankle)]
        canvas.tube(joints, (thick[0], thick[1], thick[1] * 1.04, thick[2]), Material.LEG, level=level)
    _draw_shoe(canvas, traits, bones, view, side, level=level)
    wide = [size * lower.fit for size in thick]
    if lower.kind == "shorts":
        reach = min(1.0, 2 * (traits.body.leg - lower.end) / (traits.body.leg - 0.04))
        end = _between(hip, knee, reach)
        canvas.tube([view.project(hip), view.project(end)], (wide[0], wide[1] * 1.25), Material.LOWER, level=level)
    elif lower.kind == "trousers":
        reach = 1.0 - max(0.0, lower.end - 0.05) / max(0.1, knee[1] - 0.04)
        end = _between(knee, ankle, max(0.2, min(1.0, reach)))
        hem = max(wide[2] * (1.15 if lower.fit < 1.15 else 1.35), wide[1] * (1 - 0.6 * reach))
        canvas.tube(
            [view.project(joint) for joint in (hip, knee, end)], (wide[0], wide[1], hem), Material.LOWER, level=level
        )
        out = 0.03 if side else -0.03
        if lower.has_side_stripe and view.nearness((out, 0.0, 0.0)) > -0.02:
            line = [view.project((x + out, y, z)) for x, y, z in (hip, knee, end)]
            canvas.stroke(line, _px(view, 0.014), Material.LOWER_SECOND, level=level)


def _draw_shoe(canvas: Canvas, traits: Traits, bones: Skeleton, view: View, side: int, *, level: int) -> None:
    ankle, toe = bones.ankle[side], bones.toe[side]
    heel = (ankle[0], ankle[1] - 0.022, ankle[2] - 0.022)
    if traits.has_pale_soles:
        sole = [view.project((x, y - 0.014, z)) for x, y, z in (heel, toe)]
        canvas.stroke(sole, _px(view, 0.03), Material.SOLE, level=level)
    shaft = (ankle[0], ankle[1] + (0.09 if traits.has_boots else 0.0), ankle[2])
    joints = [view.project(joint) for joint in (shaft, ankle, toe)]
    top = 0.031 if traits.has_boots else 0.022
    canvas.tube(joints, [_px(view, size) for size in (top, 0.024, 0.016)], Material.SHOE, level=level)
    canvas.tube(
        [view.project(heel), view.project(toe)], (_px(view, 0.022), _px(view, 0.018)), Material.SHOE, level=level
    )


def _outline(view: View, rows: list[tuple[Point, float, float]]) -> list[Pixel]:
    """A closed outline from (centre, half width, half depth) of its cross-sections, from below upwards."""
    left, right = [], []
    for centre, half_left, half_forward in rows:
        x, y = view.project(centre)
        half = view.half_width(half_left, half_forward)
        left.append((x - half, y))
        right.append((x + half, y))
    return left + right[::-1]


def trunk_rows(body: Body, bones: Skeleton, *, room: float) -> list[tuple[Point, float, float]]:
    """Cross-sections of the trunk with `room` of cloth around it."""
    low, high = bones.hip[0][1], bones.neck[1] - 0.025
    rows: list[tuple[Point, float, float]] = []
    for share, half_left, half_forward in TRUNK:
        wide = body.hips * (1 - share) + body.shoulders * share
        fat = 0.3 + 0.7 * body.girth if share > 0.8 else body.girth
        belly = 0.02 * (body.girth - 0.9) * (1 - abs(share - 0.35))
        centre = (0.0, low + (high - low) * share, bones.neck[2] * share + belly)
        rows.append((centre, half_left * wide * fat + room, half_forward * fat * (0.2 + 0.8 * body.girth) + room))
    return rows


def _draw_pelvis(canvas: Canvas, traits: Traits, bones: Skeleton, view: View) -> None:
    lower = traits.lower
    rows = trunk_rows(traits.body, bones, room=0.003)
    hip = rows[0]
    up = hip[0][1]
    if lower.kind == "skirt":
        reach = up - lower.end
        flare = 0.012 + 0.1 * reach * lower.fit
        swing = 0.25 * (bones.knee[0][2] + bones.knee[1][2])
        hem = ((0.0, lower.end, swing), hip[1] + flare, hip[2] + flare + 0.03)
        middle = ((0.0, up - 0.4 * reach, 0.3 * swing), hip[1] + 0.5 * flare, hip[2] + 0.6 * flare + 0.01)
        canvas.shape(_outline(view, [hem, middle, hip, rows[1]]), Material.LOWER)
    else:
        crotch = ((0.0, up - 0.055, 0.0), hip[1] * 0.92, hip[2] * 0.85)
        canvas.shape(_outline(view, [crotch, hip, rows[1]]), Material.LOWER)


def _draw_neck(canvas: Canvas, traits: Traits, bones: Skeleton, view: View) -> None:
    low, high = bones.neck, bones.head
    thick = _px(view, 0.03 + 0.01 * (traits.body.girth - 1))
    start = view.project((low[0], low[1] - 0.02, low[2]))
    canvas.tube([start, view.project(high)], (thick * 1.15, thick), Material.SKIN, level=NEUTRAL - 16)


def _draw_trunk(canvas: Canvas, traits: Traits, bones: Skeleton, view: View) -> None:
    upper, body = traits.upper, traits.body
    room = {"shirt": 0.006, "jacket": 0.014, "hoodie": 0.016, "coat": 0.018, "dress": 0.003}[upper.kind]
    rows = trunk_rows(body, bones, room=room)
    hip = rows[0]
    hem_up = upper.hem + hip[0][1] - 0.51
    flare = 0.004 + (0.1 if upper.kind == "dress" else 0.05) * max(0.0, hip[0][1] - hem_up)
    below = [((0.0, hem_up, hip[0][2]), hip[1] + flare, hip[2] + flare + 0.004)]
    slope = ((0.0, bones.neck[1] + 0.004, bones.neck[2]), 0.045 + 0.3 * room, 0.035 + 0.3 * room)
    canvas.shape(_outline(view, [*below, *rows, slope]), Material.UPPER)
    _draw_front(canvas, traits, bones, view, [*below, *rows, slope])
    if upper.kind == "hoodie":
        behind = (0.0, bones.neck[1] - 0.005, bones.neck[2] - 0.035)
        size = (view.half_width(0.07, 0.045), _px(view, 0.045))
        canvas.blob(view.project(behind), size, Material.UPPER, level=NEUTRAL - 14)


def _draw_front(
    canvas: Canvas, traits: Traits, bones: Skeleton, view: View, rows: list[tuple[Point, float, float]]
) -> None:
    """What only the front shows: an open jacket, a neckline, a zip, a print."""
    upper, facing = traits.upper, math.cos(view.angle)
    if facing < 0.12:
        _draw_print(canvas, traits, view, rows, facing)
        return
    front = [view.project((0.0, centre[1], centre[2] + 0.85 * deep)) for centre, _, deep in rows]
    if upper.kind in ("jacket", "coat"):
        spread = [0.034, 0.03, 0.028, 0.034, 0.036, 0.03, 0.024]
        halves = [_px(view, wide) * facing for wide in spread]
        points = [(x - half, y) for (x, y), half in zip(front, halves, strict=True)]
        points += [(x + half, y) for (x, y), half in zip(front, halves, strict=True)][::-1]
        canvas.shape(points, Material.INNER, level=NEUTRAL - 8)
        hip, low = view.project((0.0, traits.body.leg - 0.03, 0.06)), front[0]
        if low[1] > hip[1]:  # below the shirt's hem the open coat shows the trousers
            strip = [(low[0] - halves[0], low[1]), (hip[0] - halves[1], hip[1])]
            strip += [(hip[0] + halves[1], hip[1]), (low[0] + halves[0], low[1])]
            canvas.shape(strip, Material.LOWER, level=NEUTRAL - 16, is_round=False)
    else:
        collar = view.project((0.0, bones.neck[1] + 0.002, bones.neck[2] + 0.035))
        deep = 0.034 if upper.kind == "dress" or upper.sleeve < 0.2 else 0.018
        canvas.blob(collar, (_px(view, 0.032) * facing, _px(view, deep)), Material.SKIN, level=NEUTRAL - 10)
    if upper.kind == "hoodie":
        x, y = front[1]
        half, tall = _px(view, 0.06) * facing, _px(view, 0.075)
        pocket = [(x - half, y), (x - 0.7 * half, y - tall), (x + 0.7 * half, y - tall), (x + half, y)]
        canvas.shape(pocket, Material.UPPER, level=NEUTRAL - 22, is_round=False)
    _draw_print(canvas, traits, view, rows, facing)


def _draw_print(
    canvas: Canvas, traits: Traits, view: View, rows: list[tuple[Point, float, float]], facing: float
) -> None:
    if traits.upper.cloth.pattern != "logo" or facing < 0.2:
        return
    centre, _, deep = rows[3]
    x, y = view.project((0.0, centre[1] - 0.01, centre[2] + 0.9 * deep))
    size = 0.6 * traits.upper.cloth.period + 0.018
    half = _px(view, size) * facing
    if traits.upper.has_other_sleeves or traits.upper.cloth.period > 0.052:
        canvas.blob((x, y), (half, _px(view, size)), Material.UPPER_SECOND)
    else:
        tall = _px(view, 0.7 * size)
        box = [(x - half, y - tall), (x + half, y - tall), (x + half, y + tall), (x - half, y + tall)]
        canvas.shape(box, Material.UPPER_SECOND, is_round=False)


def _draw_arm(canvas: Canvas, traits: Traits, bones: Skeleton, view: View, side: int, *, level: int) -> None:
    upper, girth = traits.upper, 0.4 + 0.6 * traits.body.girth
    shoulder, elbow, wrist = bones.shoulder[side], bones.elbow[side], bones.wrist[side]
    thick = [_px(view, size * girth) for size in (0.031, 0.025, 0.017)]
    cloth = _px(view, {"shirt": 0.004, "jacket": 0.009, "hoodie": 0.011, "coat": 0.01, "dress": 0.003}[upper.kind])
    sleeve = Material.UPPER_SECOND if upper.has_other_sleeves else Material.UPPER
    joints = [view.project(joint) for joint in (shoulder, elbow, wrist)]
    hand = view.project(_between(elbow, wrist, 1.26))
    bare = joints[:3] if upper.sleeve < 1.0 else joints[2:3]
    sizes = thick if upper.sleeve < 1.0 else thick[2:]
    canvas.tube([*bare, hand], (*sizes, thick[2] * 1.1), Material.SKIN, level=level)
    over = [size + cloth for size in thick]
    if upper.sleeve >= 0.5:
        reach = view.project(_between(elbow, wrist, (upper.sleeve - 0.5) * 1.9))
        canvas.tube([joints[0], joints[1], reach], over, sleeve, level=level)
    else:
        reach = view.project(_between(shoulder, elbow, 0.1 + 1.4 * upper.sleeve))
        canvas.tube([joints[0], reach], (over[0], over[1] + cloth), sleeve, level=level)
