"""Names of files and words of a command line."""

import os
from random import Random

from tests.hostile.runner import Case, Place
from tests.hostile.values import file_name, number, text
from tests.tools.tiny.images import encode_tiny


def files(draw: Random, place: Place) -> Case:
    """Images, runs, packs and recipes whose names are traps."""
    kind = draw.choice(("images", "images", "persons", "runs", "packs", "raw"))
    folder = place.work / "lup"
    name = _plain(file_name(draw))
    if kind in ("images", "persons", "raw"):
        place.take("lup/raw/people", f"lup/raw/{name if kind == 'raw' else 'people'}")
        root = os.fsencode(folder / "raw" / (name if kind == "raw" else "people"))
        for seed in range(2):
            parts = [os.fsencode(_plain(file_name(draw))) for _ in range(draw.choice((1, 2)))]
            if kind == "persons":
                parts.insert(0, b"3")
            if draw.random() < 0.2:
                parts[-1] = parts[-1][:200] + b"\xff\xfe"
            target = os.path.join(root, *parts[:-1], parts[-1][:240] + b".jpg")
            try:
                os.makedirs(os.path.dirname(target), exist_ok=True)
                with open(target, "wb") as stream:  # noqa: PTH123  # bytes that are no text
                    stream.write(encode_tiny(seed))
            except OSError:
                continue
        words = draw.choice((["data", "pack", "--workers", "1"], ["data", "list"], ["data", "list", "--json"], ["data", "verify", f"lup/raw/{name}" if kind == "raw" else "lup/raw/people"], ["data", "pack", "people", "--layout", draw.choice(("images", "persons", "market1501")), "--workers", "1", "--json"]))
        return Case(words)
    if kind == "runs":
        place.take("lup/runs/fine", f"lup/runs/{name}")
        place.take("lup/packs")
        return Case(draw.choice((["run", "list"], ["run", "show", name], ["run", "list", "--json"], ["dump", "--data", "labelled", "--workers", "0", "--device", "cpu"], ["eval", name, "--device", "cpu", "--no-page"], ["model", "list"], ["run", "rm", name, "--yes", "--dry-run"], ["recipe", "show", name])))
    place.take("lup/packs/labelled.h5", f"lup/packs/{name[:80]}.h5")
    pack = f"lup/packs/{name[:80]}.h5"
    return Case(draw.choice((["data", "list"], ["data", "info", pack], ["data", "verify", pack, "--json"], ["finetune", pack, "--from", "scratch", "--gpus", "0", "--dry-run"], ["pretrain", "--gpus", "0", "--dry-run"], ["data", "info", "gone"])))


OPTIONS = (
    ["data", "info", "{}"], ["data", "pack", "{}"], ["data", "pack", "crops", "--out", "{}"], ["data", "pack", "crops", "--name", "{}"], ["data", "pack", "crops", "--home", "{}"],
    ["data", "verify", "{}"], ["data", "rm", "{}", "--yes"], ["data", "list", "--home", "{}"], ["data", "download", "{}"], ["data", "download", "mine", "--url", "{}"], ["data", "download", "mine", "--url", "http://{}/x.zip"],
    ["data", "download", "mine", "--url", "http://127.0.0.1:9/x.zip", "--sha256", "{}"], ["data", "build", "{}"], ["data", "build", "x", "--videos", "{}"], ["data", "build", "x", "--videos", "videos", "--detections", "{}"],
    ["data", "build", "x", "--videos", "videos", "--detector", "fasterrcnn", "--detector-weights", "{}", "--device", "cpu", "--workers", "1"], ["data", "build", "x", "--videos", "videos", "--detections", "mot", "--aspect", "{}"],
    ["data", "pack", "crops", "--size", "{}"], ["data", "pack", "people", "--split", "{}"], ["data", "pack", "--merge", "{}", "crowd", "labelled"], ["data", "pack", "crops", "--label-noise", "{}"], ["data", "pack", "crops", "--layout", "{}"], ["data", "pack", "crops", "--keys", "{}"],
    ["pretrain", "--data", "{}", "--gpus", "0"], ["pretrain", "--data", "crowd", "--out", "{}", "--gpus", "0", "--dry-run"], ["pretrain", "--data", "crowd", "--recipe", "{}", "--gpus", "0", "--dry-run"], ["pretrain", "--data", "crowd", "--from", "{}", "--gpus", "0", "--dry-run"],
    ["finetune", "{}", "--gpus", "0"], ["finetune", "labelled", "--from", "{}", "--gpus", "0", "--dry-run"], ["finetune", "labelled", "--from", "scratch", "--out", "{}", "--gpus", "0", "--dry-run"],
    ["dump", "{}"], ["dump", "fine", "--data", "{}"], ["dump", "fine", "--data", "labelled", "--out", "{}", "--workers", "0", "--device", "cpu"], ["dump", "fine", "--data", "labelled", "--device", "{}"], ["dump", "fine", "--shard", "{}"], ["dump", "fine", "--role", "{}"],
    ["eval", "{}"], ["eval", "fine", "--out", "{}", "--device", "cpu", "--no-page"], ["eval", "{}", "--home", "{}"], ["eval", "fine", "--images", "{}", "--device", "cpu"], ["eval", "fine", "--sweep", "{}"], ["eval", "fine", "--threshold", "{}", "--device", "cpu", "--no-page"], ["eval", "{}", "{}", "--compare"],
    ["search", "{}", "a.jpg"], ["search", "fine", "{}"], ["search", "fine", "a.jpg", "--sheet", "{}", "--device", "cpu"], ["find", "{}", "--in", "labelled"], ["find", "a.jpg", "--in", "{}"], ["find", "a.jpg", "--in", "labelled", "--after", "{}"],
    ["model", "info", "{}"], ["model", "convert", "{}"], ["model", "convert", "foreign.pth", "--out", "{}"], ["model", "convert", "foreign.pth", "--recipe", "{}"], ["model", "convert", "lup/runs/fine", "--to", "torchvision", "--out", "{}"], ["model", "export", "{}"], ["model", "download", "{}"], ["model", "convert", "foreign.pth", "--size", "{}"],
    ["recipe", "show", "{}"], ["recipe", "show", "bot", "--set", "{}"], ["run", "show", "{}"], ["run", "rm", "{}", "--yes"], ["run", "list", "--home", "{}"], ["manual", "{}"], ["{}"], ["data", "{}"], ["init", "{}"], ["demo", "--home", "{}", "--dry-run"],
)  # fmt: skip


def words(draw: Random, place: Place) -> Case:
    """A command line with a word that is a trap."""
    template = draw.choice(OPTIONS)
    word = draw.choice((text(draw), text(draw), str(number(draw)), file_name(draw), "x/" * 3_000, "a" * 4_090 + "/x"))
    word = word.replace("\0", "0").replace("\ud800", "?")[:100_000]
    for name in ("lup", "a.jpg", "videos", "mot", "foreign.pth"):
        if any(name in part for part in template) or (name == "lup" and draw.random() < 0.7):
            place.take(name)
    changes = ("lup/packs", "lup/runs") if "rm" in template else ()
    return Case([part.replace("{}", word) for part in template], changes=changes)


def _plain(name: str) -> str:
    """A name that is UTF-8, cut to what a folder takes."""
    return name.encode("utf-8", "replace")[:230].decode("utf-8", "ignore")
