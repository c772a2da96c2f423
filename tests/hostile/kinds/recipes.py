"""Recipes in TOML, and keys and values of --set."""

import json
from random import Random
from typing import Any

from tests.hostile.runner import Case, Place
from tests.hostile.values import RAW, mutate, number, text, value

KEYS = ("optim.lr", "data.batch", "net.arch", "net.width", "seed", "schedule.epochs", "schedule.milestones", "pixels.height", "pixels.mean", "augment.flip", "data.packs", "watch.collapse", "start", "stage", "saving.every_epochs", "moco.queue", "bn_groups", "schedule.warmup_epochs", "optim.name", "pixels.interpolation", "data.persons", "data.images")
TEXTS = ("a = ", "[a", "a.b = 1\na.b = 2", "[a]\n[a]", "[[a]]\n[a]", "a = 1979-99-99", "a = 1979-05-27T07:32:00Z", "x = " + "[" * 5_000, ".".join("a" * 5_000) + " = 1", "a = {" * 3_000, "a = " + "9" * 5_000, "a = 0x" + "f" * 5_000, "stage = 'finetune'\nstage = 1", "\ufeffseed = 1", 'a = "\\ud800"', "a = '\x00'", "a = nan", "a = inf", "a = 1e999")


def make(draw: Random, place: Place) -> Case:
    """A recipe to show, or to plan a run with."""
    kind = draw.randrange(4)
    words = list[str]()
    if kind < 3:
        run = draw.choice(("fine", "pre"))
        path = place.take(f"lup/runs/{run}/recipe.toml", "r.toml")
        content = path.read_bytes()
        if kind == 0:
            content = mutate(draw, content)
        elif kind == 1:
            content = b"\n".join(_spoil_line(draw, line) for line in content.split(b"\n"))
        else:
            content = draw.choice(TEXTS).encode("utf-8", "replace")
        path.write_bytes(content)
        words = ["r.toml"]
    sets = [word for _ in range(draw.choice((0, 1)) if words else draw.choice((1, 1, 2))) for word in ("--set", setting(draw))]
    stage = draw.choice(("pretrain", "finetune"))
    if draw.random() < 0.6 or kind == 3:
        shown = words or [draw.choice(("small-moco", "bot", "small-dino", "transreid-vit-b-s12-sie-jpm", "solider-swin-t"))]
        return Case(["recipe", "show", *shown, *sets, *draw.choice(([], ["--json"], ["--stage", stage]))])
    place.take("lup/packs")
    data = ["--data", "crowd"] if stage == "pretrain" else ["labelled", "--from", "scratch"]
    return Case([stage, *data, "--recipe", "r.toml", *sets, "--gpus", "0", "--dry-run"])


def setting(draw: Random) -> str:
    """One KEY=VALUE."""
    key = draw.choice(KEYS) if draw.random() < 0.7 else draw.choice((text(draw), f"{draw.choice(KEYS)}.{text(draw)}", ".".join("a" * draw.choice((3, 100_000))), f"optim.{text(draw)}"))
    return f"{key}{draw.choice(('=', '=', '=', '', ' = '))}{_written(draw)}".replace("\0", "0").replace("\ud800", "?")


def _written(draw: Random) -> str:
    kind = draw.randrange(4)
    if kind == 0:
        return draw.choice(RAW_TOML)
    if kind == 1:
        return text(draw)
    if kind == 2:
        return str(number(draw)) if draw.random() < 0.9 else "9" * 5_000
    found: Any = value(draw)
    return json.dumps(found)


RAW_TOML = ("[" * 20_000, "[" * 20_000 + "]" * 20_000, "{a=" * 10_000, RAW["@digits@"], "0x" + "f" * 9_000, '"\\u0000"', '"\\u001b]0;x\\u0007"', "'''", "1979-05-27", "[1, 'a', {}]", "[[1,2],[3]]", "-0", "+inf", "1e400")


def _spoil_line(draw: Random, line: bytes) -> bytes:
    if draw.random() > 0.1 or b"=" not in line:
        return line
    return line.partition(b"=")[0] + b"= " + _written(draw).encode("utf-8", "replace")
