"""Recipes in TOML, and keys and values of --set."""

from random import Random

from tests.hostile.runner import Case, Place
from tests.hostile.values import as_json, mutate, number_text, text, value

KEYS = (
    "optim.lr", "data.batch", "net.arch", "net.width", "seed", "schedule.epochs", "schedule.milestones", "start",
    "stage", "pixels.height", "pixels.mean", "augment.flip", "data.packs", "watch.collapse", "saving.every_epochs",
    "bn_groups",
    "moco.queue", "schedule.warmup_epochs", "optim.name", "pixels.interpolation", "data.persons", "data.images",
)  # fmt: skip
SHIPPED = ("small-moco", "bot", "small-dino", "transreid-vit-b-s12-sie-jpm", "solider-swin-t")
FILES = (
    "a = ", "[a", "a.b = 1\na.b = 2", "[a]\n[a]", "[[a]]\n[a]", "a = 1979-99-99", "a = 1979-05-27T07:32:00Z",
    "x = " + "[" * 5_000, ".".join("a" * 5_000) + " = 1", "a = {" * 3_000, "a = " + "9" * 5_000, "a = 0x" + "f" * 5_000,
    "stage = 'finetune'\nstage = 1", "\ufeffseed = 1", 'a = "\\ud800"', "a = '\x00'", "a = nan", "a = 1e999", "\udcff",
)  # fmt: skip
VALUES = (
    "[" * 20_000, "[" * 20_000 + "]" * 20_000, "{a=" * 10_000, "0x" + "f" * 9_000, '"\\u0000"', '"\\u001b]0;x\\u0007"',
    "'''", "1979-05-27", "[1, 'a', {}]", "[[1,2],[3]]", "-0", "+inf", "1e400", "1\nb = 2", "",
)  # fmt: skip


def make(draw: Random, place: Place) -> Case:
    """A recipe to show, or to plan a run with."""
    kind, words = draw.randrange(4), list[str]()
    if kind < 3:
        path = place.take(f"lup/runs/{draw.choice(('fine', 'pre'))}/recipe.toml", "r.toml")
        content = path.read_bytes()
        if kind == 0:
            content = mutate(draw, content)
        elif kind == 1:
            content = b"\n".join(_spoil_line(draw, line) for line in content.split(b"\n"))
        else:
            content = draw.choice(FILES).encode("utf-8", "surrogateescape")
        path.write_bytes(content)
        words = ["r.toml"]
    count = draw.choice((0, 1)) if words else draw.choice((1, 1, 2))
    sets = [word for _ in range(count) for word in ("--set", _setting(draw))]
    stage = draw.choice(("pretrain", "finetune"))
    if draw.random() < 0.6 or not words:
        more = draw.choice(([], ["--json"], ["--stage", stage]))
        return Case(["recipe", "show", *(words or [draw.choice(SHIPPED)]), *sets, *more])
    place.take("lup/packs")
    data = ["--data", "crowd"] if stage == "pretrain" else ["labelled", "--from", "scratch"]
    return Case([stage, *data, "--recipe", "r.toml", *sets, "--gpus", "0", "--dry-run"])


def _setting(draw: Random) -> str:
    """One KEY=VALUE."""
    key = draw.choice(KEYS)
    if draw.random() < 0.3:
        key = draw.choice((text(draw), f"{key}.{text(draw)}", ".".join("a" * 100_000), f"optim.{text(draw)}"))
    return f"{key}{draw.choice(('=', '=', '=', '', ' = '))}{_written(draw)}".replace("\0", "0").replace("\ud800", "?")


def _written(draw: Random) -> str:
    return draw.choice((draw.choice(VALUES), text(draw), number_text(draw), as_json(value(draw))))[:100_000]


def _spoil_line(draw: Random, line: bytes) -> bytes:
    if draw.random() > 0.1 or b"=" not in line:
        return line
    return line.partition(b"=")[0] + b"= " + _written(draw).encode("utf-8", "replace")
