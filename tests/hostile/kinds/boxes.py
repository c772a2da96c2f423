"""Detections as text and JSON: frames, boxes, scores and persons that are no numbers, or too large."""

import json
from random import Random

from tests.hostile.runner import Case, Place
from tests.hostile.values import as_json, mutate_file, number_text, spoil, text, value

OPTIONS = ("", "--track", "--filters published", "--dry-run", "--global-ids", "--first-frame 0", "--strict")


def make(draw: Random, place: Place) -> Case:
    """A file of boxes for a small video."""
    place.take("videos")
    kind = draw.choice(("mot", "coco", "coco"))
    path = place.take(f"{kind}/clip{'.txt' if kind == 'mot' else '.json'}")
    if draw.random() < 0.3:
        mutate_file(draw, path)
    elif kind == "mot":
        lines = [line.split(",") for line in path.read_text().splitlines()]
        for _ in range(draw.choice((1, 1, 3))):
            line = draw.choice(lines)
            line[draw.randrange(len(line))] = draw.choice((number_text(draw), text(draw)))
        path.write_text("\n".join(map(",".join, lines)), encoding="utf-8", errors="replace")
    else:
        content = json.loads(path.read_text())
        if draw.random() < 0.2:
            content = content["annotations"]
        if draw.random() < 0.1:
            content = value(draw)
        path.write_text(as_json(spoil(draw, content, times=draw.choice((1, 1, 3)))))
    more = draw.choice(OPTIONS).split()
    build = f"data build x --videos videos --detections {kind} --format {kind} --workers 1 --quiet"
    return Case([*build.split(), *more])
