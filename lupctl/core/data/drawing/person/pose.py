"""A walking body in three dimensions, and where a camera sees it."""

import math
from dataclasses import dataclass

from lupctl.core.data.drawing.person.traits import Body

Point = tuple[float, float, float]  # to the person's left, up, forward; in units of the person's height
Pixel = tuple[float, float]


@dataclass(frozen=True)
class Pose:
    """A moment of a walk.

    Args:
        angle: where the person faces, radians: 0 the camera, pi/2 right in the image, pi away.
        phase: of the step, radians.
        stride: swing of the thighs, radians; 0 when standing.
        lean: of the trunk, radians.
        bend: of the (right, left) elbow, radians.
        turn: of the head against the body, radians.
    """

    angle: float
    phase: float
    stride: float
    lean: float
    bend: tuple[float, float]
    turn: float


@dataclass(frozen=True)
class View:
    """The projection from body space to pixels.

    Args:
        x: of the feet in pixels.
        y: of the ground under the feet in pixels.
        tall: the person's height in pixels.
        stretch: ratio of width to height.
        tilt: how far the camera looks down, radians.
        angle: of the person, see `Pose`.
    """

    x: float
    y: float
    tall: float
    stretch: float
    tilt: float
    angle: float

    def project(self, point: Point) -> Pixel:
        """A point in pixels. Seen from above, heads look larger and nearer points lower."""
        left, up, forward = point
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        across = left * cos + forward * sin
        nearer = forward * cos - left * sin
        wide = self.stretch * self.tall * (1 + 0.5 * self.tilt * (up - 0.5))
        return (
            self.x + wide * across,
            self.y - self.tall * (up * (1 - 0.1 * self.tilt * (1 - up)) - nearer * math.sin(self.tilt)),
        )

    def half_width(self, left: float, forward: float) -> float:
        """Half the width in pixels of an upright ellipse with these half axes."""
        return self.stretch * self.tall * math.hypot(left * math.cos(self.angle), forward * math.sin(self.angle))

    def nearness(self, point: Point) -> float:
        """Larger is nearer to the camera, 0 the body's axis."""
        return point[2] * math.cos(self.angle) - point[0] * math.sin(self.angle)


@dataclass(frozen=True)
class Skeleton:
    """Joints of a pose; each pair is (right, left)."""

    hip: tuple[Point, Point]
    knee: tuple[Point, Point]
    ankle: tuple[Point, Point]
    toe: tuple[Point, Point]
    shoulder: tuple[Point, Point]
    elbow: tuple[Point, Point]
    wrist: tuple[Point, Point]
    neck: Point
    head: Point


def build_skeleton(body: Body, pose: Pose) -> Skeleton:
    """The joints of a pose, with the lower foot on the ground."""
    legs = [_leg(body, pose, side) for side in (-1, 1)]
    drop = min(min(ankle[1] - 0.04, toe[1] - 0.012) for _, _, ankle, toe in legs)
    right, left = ([_raise(joint, -drop) for joint in leg] for leg in legs)
    arms = [[_raise(joint, -drop) for joint in _arm(body, pose, side)] for side in (-1, 1)]
    top = 0.8 - drop
    forward = 0.3 * math.sin(pose.lean)
    return Skeleton(
        hip=(right[0], left[0]),
        knee=(right[1], left[1]),
        ankle=(right[2], left[2]),
        toe=(right[3], left[3]),
        shoulder=(arms[0][0], arms[1][0]),
        elbow=(arms[0][1], arms[1][1]),
        wrist=(arms[0][2], arms[1][2]),
        neck=(0.0, top + 0.03, forward),
        head=(0.0, top + 0.13, 1.35 * forward + 0.012),
    )


def _raise(point: Point, up: float) -> Point:
    return point[0], point[1] + up, point[2]


def _leg(body: Body, pose: Pose, side: int) -> tuple[Point, Point, Point, Point]:
    swing = pose.stride * body.stride * math.sin(pose.phase) * side
    # The leg that swings forward lifts its foot; the one that pushes off is nearly straight.
    lift = max(0.0, math.cos(pose.phase) * side)
    bend = 0.06 + pose.stride * (0.25 * max(0.0, -math.sin(pose.phase) * side) + 1.1 * lift)
    half, shank = 0.5 * (body.leg - 0.04) * 1.04, 0.5 * (body.leg - 0.04) * 0.96
    hip = (side * 0.048 * body.hips, body.leg, 0.0)
    knee = (hip[0] * 0.95, hip[1] - half * math.cos(swing), half * math.sin(swing))
    lower = swing - bend
    ankle = (hip[0] * 0.85, knee[1] - shank * math.cos(lower), knee[2] + shank * math.sin(lower))
    foot = 0.6 * lower
    toe = (
        hip[0] * 0.85 + side * 0.014,
        ankle[1] - 0.03 + 0.1 * math.sin(min(0.3, foot)),
        ankle[2] + 0.1 * math.cos(foot),
    )
    return hip, knee, ankle, toe


def _arm(body: Body, pose: Pose, side: int) -> tuple[Point, Point, Point]:
    swing = -0.75 * pose.stride * body.stride * math.sin(pose.phase) * side
    bend = pose.bend[0 if side < 0 else 1]
    out = 0.05 + 0.05 * body.girth
    shoulder = (side * 0.103 * body.shoulders * (0.7 + 0.3 * body.girth), 0.774, 0.3 * math.sin(pose.lean))
    elbow = (
        shoulder[0] + side * 0.17 * math.sin(out),
        shoulder[1] - 0.17 * math.cos(swing),
        shoulder[2] + 0.17 * math.sin(swing) - 0.01,
    )
    lower = swing + bend
    inward = 0.25 * max(0.0, bend - 0.6)
    wrist = (
        elbow[0] + side * 0.15 * (math.sin(out) * 0.4 - inward),
        elbow[1] - 0.15 * math.cos(lower),
        elbow[2] + 0.15 * math.sin(lower),
    )
    return shoulder, elbow, wrist
