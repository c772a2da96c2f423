"""Checks whether the boxes of a video can have been made on this stream of it."""

from lupctl.core.data.video.boxes import Boxes, are_inside

SHARE_THAT_WARNS = 0.05
FEWEST_BOXES = 20  # with fewer, a share says nothing
SMALL_REACH = 0.7


def outside_share(boxes: Boxes, *, height: int, width: int) -> float:
    """The share of boxes, 0 to 1, that extend beyond a frame of this size."""
    if len(boxes) == 0:
        return 0.0
    return int((~are_inside(boxes.box, height=height, width=width)).sum()) / len(boxes)


def describe_misfit(boxes: Boxes, *, height: int, width: int) -> str:
    """The reason, as text, why the boxes do not seem to belong to frames of this size; "" if they do.

    The published detections record neither the size nor the rate of the stream they were made on, so a different stream
    gives wrong crops without any error. Boxes beyond the frame show that the stream is too small; boxes that never
    reach the right and lower part show that it is too large.
    """
    if len(boxes) == 0:
        return ""
    share = outside_share(boxes, height=height, width=width)
    if share > SHARE_THAT_WARNS:
        return f"{100 * share:.1f} % of its {len(boxes):,} boxes leave the frame of {width} x {height}: wrong stream?"
    right, bottom = float(boxes.box[:, 2].max()), float(boxes.box[:, 3].max())
    if len(boxes) >= FEWEST_BOXES and right < SMALL_REACH * width and bottom < SMALL_REACH * height:
        reach = f"{right:.0f} x {bottom:.0f} of {width} x {height}"
        return f"its {len(boxes):,} boxes reach no further than {reach} pixels: was a smaller stream used for them?"
    return ""
