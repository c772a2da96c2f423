"""Disks that are full, and accounts that may not write more."""

from random import Random

from tests.hostile.runner import Case, Place, pick_command

COMMANDS = """
data pack crops --workers 1 --out disk/x.h5
data pack --merge m crowd labelled --workers 1 --out disk/m.h5
dump fine labelled --workers 0 --device cpu --out disk/f.h5
dump fine labelled --workers 0 --device cpu --out disk/f.h5 --flip
model convert lup/runs/fine --to torchvision --out disk/x.pth
model convert lup/runs/pre --to torchvision --out disk/x.safetensors
eval lup/fine.features.h5 --out disk/r.json --no-page
eval lup/fine.features.h5 --out disk/r.json
data info labelled --sheet disk/s.png
search lup/fine.features.h5 a.jpg --from fine --device cpu --sheet disk/s.png
data score crowd --before pre --after fine --workers 0 --device cpu --out disk/x.scores.h5
data build x --videos videos --detections mot --format mot --workers 1 --out disk/x.h5
"""
# What the command says goes to a file, too.
SIZES = (2_000, 4_096, 8_192, 20_000, 65_536, 100_000, 180_000)


def make(draw: Random, place: Place) -> Case:
    """A command that writes to a disk with little space."""
    for name in ("lup", "videos", "mot", "a.jpg"):
        place.take(name)
    (place.work / "disk").mkdir()
    words, num_bytes = pick_command(draw, COMMANDS), draw.choice(SIZES)
    if place.can_mount and draw.random() < 0.6:
        return Case(words, disk_bytes=max(4_096, num_bytes))
    return Case(words, file_bytes=num_bytes)
