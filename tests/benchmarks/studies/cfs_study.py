"""Whether scores of how little fine-tuning moved a feature tell whole images from spoiled ones; run by hand.

    python tests/benchmarks/studies/cfs_study.py run                   both methods, seeds 1 to 3
    python tests/benchmarks/studies/cfs_study.py run --methods dino    one of them
    python tests/benchmarks/studies/cfs_study.py table                 what there is so far

Persons without labels are drawn, and every second image is spoiled: blurred beyond recognition, a piece of the person
in the whole frame, or the street with nobody in it, in turn. A small network is pre-trained on all of them, fine-tuned
on whole images of a few other persons with labels, and `data score` compares the two. Stated is the area under the
curve (AUC): how often a whole image has a better score than a spoiled one, of all pairs, 0.5 by chance; and how many of
the better half of the images are whole. Every finished run is a line of `cfs.jsonl` in the folder `--home`.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from learn_results import Results, spread
from learn_sweep import CPU, QUIET
from numpy.typing import NDArray

from lupctl.core.choices import JUNK, ROLE_CODES, UNKNOWN_CAMERA, MovementDistance
from lupctl.core.data.drawing.chance import SHOT, Chance
from lupctl.core.data.drawing.street.camera import take_picture
from lupctl.core.data.drawing.street.scene import draw_scene
from lupctl.core.data.sources.records import Source
from lupctl.core.data.sources.synthetic import FIRST_UNLABELLED_SCENE, SyntheticPlan, SyntheticSource
from lupctl.core.flows.scoring import score_images
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.scores.file import best_first, read_scores
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.resolve.training.placement import DumpPlace
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.stages.score.job import ScoreJob
from lupctl.core.system.strings import build_column

FILE = "cfs.jsonl"
HEIGHT, WIDTH = 64, 32
SCENES = 32
WHOLE = "whole"
KINDS = ("blur", "piece", "empty")
DISTANCES: tuple[MovementDistance, ...] = ("cosine", "raw-l2")
SIZE = (f"pixels.height={HEIGHT}", f"pixels.width={WIDTH}", "saving.every_epochs=0")
# By method: recipes of pre-training and fine-tuning, with what makes both as small as the images.
METHODS: dict[str, tuple[str, str, tuple[str, ...], tuple[str, ...]]] = {
    "moco": ("small-moco", "small-bot", ("net.width=16", "net.last_stride=1", "moco.queue=256"), ("net.width=16",)),
    "dino": ("small-dino", "small-vit", ("local.height=32", "local.width=16"), ()),
}  # fmt: skip


class SpoiledSource:
    """Drawn persons without labels, every second image of them spoiled; its kind is the folder in its name.

    Args:
        plan: of the persons.
    """

    def __init__(self, plan: SyntheticPlan) -> None:
        self._seed = plan.seed
        self._whole = SyntheticSource(plan)
        names = list(self._whole.list_images().name)
        kinds = [WHOLE if row % 2 == 0 else KINDS[row // 2 % len(KINDS)] for row in range(len(names))]
        self._rows = {f"{kind}/{name}": (row, name) for row, (kind, name) in enumerate(zip(kinds, names, strict=True))}

    @property
    def dataset(self) -> str:
        """The name to store in the pack."""
        return "spoiled"

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from."""
        return {**self._whole.facts, "layout": "spoiled"}

    def list_images(self) -> Samples:
        """Every image, sorted by name."""
        names = sorted(self._rows)
        return Samples(
            name=build_column(names),
            person=np.full(len(names), JUNK, np.int64),
            camera=np.full(len(names), UNKNOWN_CAMERA, np.int16),
            role=np.full(len(names), ROLE_CODES["unlabelled"], np.uint8),
        )

    def read(self, name: str) -> bytes:
        """The JPEG of an image."""
        row, own = self._rows[name]
        kind, whole = name.partition("/")[0], self._whole.read(own)
        if kind == WHOLE:
            return whole
        chance = Chance(self._seed, SHOT, 77, row)  # a crowd of their own
        pixels = spoil(decode_rgb(whole)[:, :, ::-1], kind, chance, seed=self._seed)
        return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def spoil(pixels: NDArray[np.uint8], kind: str, chance: Chance, *, seed: int) -> NDArray[np.uint8]:
    """An image (H, W, 3) blurred, cut to a piece of itself, or of the street alone."""
    height, width = pixels.shape[:2]
    match kind:
        case "blur":
            return np.asarray(cv2.GaussianBlur(pixels, (0, 0), chance.between(0.05, 0.08) * height))
        case "piece":
            share = chance.between(0.25, 0.4)
            rows, columns = round(share * height), round(share * width)
            top, left = chance.integer(0, height - rows), chance.integer(0, width - columns)
            piece = np.ascontiguousarray(pixels[top : top + rows, left : left + columns])
            return np.asarray(cv2.resize(piece, (width, height), interpolation=cv2.INTER_CUBIC))
        case _:
            scene = draw_scene(seed, FIRST_UNLABELLED_SCENE + chance.integer(0, SCENES))
            where = {"x": chance.unit(), "foot": chance.between(0.12, 0.85), "zoom": chance.between(0.8, 1.35)}
            street = scene.cut(2 * height, 2 * width, down=1.9 * height, **where)
            small = np.asarray(cv2.resize(street, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
            return take_picture(small, scene.camera, chance, exposure=1.0)


def area_under_curve(whole: NDArray[np.float64], spoiled: NDArray[np.float64]) -> float:
    """Share of pairs in which the whole image has the better score; equal ones count half."""
    difference = whole[:, None] - spoiled[None, :]
    return float((difference > 0).mean() + 0.5 * (difference == 0).mean())


def rank_images(data: Path, scores: Path, distance: str) -> dict[str, float]:
    """AUC of each kind and of all, and the share of whole images in the better half."""
    score = read_scores(scores).score
    kind = np.array([name.partition("/")[0] for name in open_pack(data).samples.name])
    whole = kind == WHOLE
    found = {one: area_under_curve(score[whole], score[kind == one]) for one in KINDS}
    found["all"] = area_under_curve(score[whole], score[~whole])
    found["kept"] = float(whole[best_first(score)[: len(score) // 2]].mean())
    return {f"{distance} {name}": value for name, value in found.items()}


def build_packs(home: Path, options: argparse.Namespace, seed: int) -> tuple[Path, Path]:
    """Persons without labels, half of their images spoiled, and a few others with labels; made where missing."""
    size = SyntheticPlan(seed=seed, height=HEIGHT, width=WIDTH)
    crowd = replace(size, unlabelled_persons=options.persons, scenes=SCENES)
    labelled = replace(size, train_persons=options.labelled, test_persons=2, cameras=4, shots=2)
    paths = home / f"spoiled-{options.persons}-{seed}.h5", home / f"labelled-{options.labelled}-{seed}.h5"
    sources: tuple[Source, ...] = (SpoiledSource(crowd), SyntheticSource(labelled))
    for path, source in zip(paths, sources, strict=True):
        if not path.is_file():
            pack(source, out=path, progress=QUIET)
    return paths


def run_one(home: Path, method: str, options: argparse.Namespace, *, seed: int) -> dict[str, Any]:
    """Pre-trains, fine-tunes and scores; returns how well the scores tell the images apart, and the CPU's seconds."""
    data, labelled = build_packs(home, options, seed)
    first, second, own, tuned = METHODS[method]
    started_at = time.process_time()
    before = resolve_recipe(
        "pretrain",
        first,
        overrides=(*SIZE, *own, "data.batch=64", *options.set),
        flags={"seed": seed, "schedule.epochs": options.epochs},
    )
    assert isinstance(before, PretrainRecipe)
    job = PretrainJob(before, (data,), home / f"before-{method}", CPU, 0, ("cfs_study",), force=True, quiet=True)
    facts = pretrain(job, QUIET)
    start = Path(facts["checkpoint"])
    after = resolve_recipe(
        "finetune",
        second,
        overrides=(*SIZE, *tuned, "data.persons=8"),
        flags={"seed": seed, "start": str(start), "schedule.epochs": options.tuned},
        adopted={"pixels.mean": before.pixels.mean, "pixels.std": before.pixels.std},
    )
    assert isinstance(after, FinetuneRecipe)
    tuning = FinetuneJob(
        after, (labelled,), start, home / f"after-{method}", CPU, 0, ("cfs_study",), force=True, quiet=True
    )
    finetune(tuning, QUIET)
    found: dict[str, Any] = {"loss": facts["loss"]}
    for distance in DISTANCES:
        scoring = ScoreJob(
            pack=data,
            before=start,
            after=tuning.run / "checkpoint.safetensors",
            out=home / f"{method}-{seed}-{distance}.scores.h5",
            distance=distance,
            sheet=home / f"{method}-{seed}-{distance}.png",
            workers=0,
            force=True,
        )
        score_images(scoring, DumpPlace(torch.device("cpu")), QUIET)
        found |= rank_images(data, scoring.out, distance)
    return {**found, "images": facts["images"], "cpu": round(time.process_time() - started_at)}


def show(path: Path) -> None:
    """Mean and standard deviation over seeds."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in Results(path).rows:
        groups[row["method"], row["persons"], row["epochs"], row["tuned"], row["labelled"], row["set"]].append(row)
    columns = [*KINDS, "all", "kept"]
    print(f"| method | images | epochs | distance | seeds | {' | '.join(columns)} | CPU s |")
    print("|---" * (6 + len(columns)) + "|")
    for (method, _, epochs, tuned, _, changes), rows in groups.items():
        for distance in DISTANCES:
            cells = [spread([row[f"{distance} {name}"] for row in rows]) for name in columns]
            took = spread([row["cpu"] for row in rows if "cpu" in row])
            name = f"{method} {changes}".strip()
            first = [
                name,
                f"{np.mean([row['images'] for row in rows]):.0f}",
                f"{epochs} + {tuned}",
                distance,
                str(len(rows)),
            ]
            print(f"| {' | '.join([*first, *cells, took])} |")


def study(home: Path, options: argparse.Namespace, methods: Sequence[str]) -> None:
    """Runs every method and seed that has no result yet."""
    results = Results(home / FILE)
    for seed in options.seeds:
        for method in methods:
            key = {"method": method, "seed": seed, "set": " ".join(options.set)}
            key |= {name: getattr(options, name) for name in ("persons", "labelled", "epochs", "tuned")}
            if not results.has(key):
                results.add({**key, **run_one(home, method, options, seed=seed)})


def main() -> None:
    """Runs what the command line names, then prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("--home", type=Path, default=Path("lup-cfs"), help="folder of results, packs and runs")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--persons", type=int, default=160, help="without labels, about three images each")
    parser.add_argument("--labelled", type=int, default=24, help="persons to fine-tune on")
    parser.add_argument("--epochs", type=int, default=10, help="of pre-training")
    parser.add_argument("--tuned", type=int, default=10, help="epochs of fine-tuning")
    parser.add_argument("--set", nargs="+", default=[], help="KEY=VALUE texts for pre-training")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    if options.what == "run":
        study(options.home, options, options.methods)
    show(options.home / FILE)


if __name__ == "__main__":
    main()
