"""Which boxes become crops: the collection rules of LUPerson as options."""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import BoxFilters, DetectionFormat
from lupctl.core.data.video.boxes import Boxes
from lupctl.core.errors import DataError

HEAD = slice(0, 5)  # nose, eyes, ears
SHOULDERS = slice(5, 7)
LEGS = slice(11, 17)  # hips, knees, ankles


@dataclass(frozen=True)
class FilterRules:
    """The requirements on a box; None is no requirement.

    Args:
        min_score: the detector's score must be above this.
        min_width: the box must be wider than this many pixels.
        aspect: smallest and largest height / width.
        min_keypoint: a keypoint is visible from this score on; a person must then show a point of the head, both
            shoulders, and a hip, knee or ankle.
    """

    min_score: float | None = None
    min_width: float | None = None
    aspect: tuple[float, float] | None = None
    min_keypoint: float | None = None

    @property
    def facts(self) -> dict[str, object]:
        """The rules in the form that a record stores."""
        return asdict(self)


# LUPerson: score > 0.72, width > 48 px, height / width within 1.5 to 5. It also required visible keypoints; from
# which score on is not published, so that rule is off until the user sets one.
PUBLISHED = FilterRules(min_score=0.72, min_width=48, aspect=(1.5, 5.0))


def pick_filters(asked: BoxFilters | None, boxes_from: DetectionFormat | None) -> FilterRules:
    """The initial rules: the published ones for LUPerson's boxes and for our own detector's, else none.

    Boxes in the other formats have already been selected, or were drawn by hand.

    Args:
        asked: `--filters`.
        boxes_from: format of the detections; None for a detector.
    """
    kind = asked or ("published" if boxes_from in ("luperson", None) else "none")
    return PUBLISHED if kind == "published" else FilterRules()


def drop_unwanted(boxes: Boxes, rules: FilterRules) -> tuple[Boxes, dict[str, int]]:
    """The boxes that pass every rule, and how many each rule dropped; a box counts for the first rule it fails.

    Raises:
        DataError: a rule needs scores that the detections do not have.
    """
    kept = np.ones(len(boxes), bool)
    dropped = {}
    for reason, passed in _apply_rules(boxes, rules):
        if count := int((kept & ~passed).sum()):
            dropped[reason] = count
        kept &= passed
    return (boxes.select(kept), dropped) if dropped else (boxes, {})


def _apply_rules(boxes: Boxes, rules: FilterRules) -> list[tuple[str, NDArray[np.bool_]]]:
    width = boxes.box[:, 2] - boxes.box[:, 0]
    height = boxes.box[:, 3] - boxes.box[:, 1]
    results: list[tuple[str, NDArray[np.bool_]]] = []
    if rules.min_score is not None:
        _check_known(boxes.score, "scores", "--min-score")
        results.append(("score", boxes.score > np.float32(rules.min_score)))
    if rules.min_width is not None:
        results.append(("width", width > rules.min_width))
    if rules.aspect is not None:
        low, high = rules.aspect
        results.append(("aspect", (height >= low * width) & (height <= high * width)))
    if rules.min_keypoint is not None:
        _check_known(boxes.keypoints, "keypoint scores", "--min-keypoint")
        seen = boxes.keypoints >= rules.min_keypoint
        shown = seen[:, HEAD].any(axis=1) & seen[:, SHOULDERS].all(axis=1) & seen[:, LEGS].any(axis=1)
        results.append(("keypoints", np.asarray(shown)))
    return results


def _check_known(values: NDArray[np.float32], what: str, option: str) -> None:
    if np.isnan(values).any():
        raise DataError(f"its boxes have no {what}, so {option} cannot be applied", hint="--filters none")
