"""What SOLIDER's two stages give a small Swin transformer: the body parts they find, and scores; run by hand.

    python tests/benchmarks/studies/solider_study.py parts                        pseudo labels beside drawn body parts
    python tests/benchmarks/studies/solider_study.py run drawn                    scores on drawn persons
    python tests/benchmarks/studies/solider_study.py run lup/packs/market1501.h5  scores on a pack with labels
    python tests/benchmarks/studies/solider_study.py sheet out.png                persons, their parts, their labels
    python tests/benchmarks/studies/solider_study.py table                        what there is so far

The networks are those of the small recipes, on 96 x 48 pixels, so that a last map has 6 x 3 tokens: a fresh one, one
after small-dino-swin, and one after small-solider that began from it. Both stages learn from the same images.

`parts` clusters the last maps of test images, cut to the person, with a semantic weight of 1 as in training. The truth
of a token is the body part that most of its pixels show, as the painter knows it. Agreement is counted over the
maps that are kept: the share of tokens that are right, and by part the intersection over the union of both labels'
tokens. Chance is the same with the labels of another image, which knows where parts are in general and nothing of this
person. Tokens are coarse: even with the drawn shares of parts as features, 0.52 of the maps are kept and 0.71 of their
tokens are right (chance 0.59).

`run` fine-tunes small-swin from scratch and from both stages, and tests what has a controller with semantic weights 0,
0.2 (the one it was tuned with) and 1. Every finished run is a line of `solider.jsonl` in the folder `--home`, so the
same command goes on where the last one ended.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from dino_study import DRAWN, pretrain_once
from learn_results import Results, spread
from learn_sweep import CPU, CPU_DEVICE, QUIET
from numpy.typing import NDArray
from vit_study import score_with

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.ranking.retrieval.extract import Encoder, open_encoder
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain.job import student_plan
from lupctl.core.training.clusters.body_parts import Parts, find_parts
from lupctl.core.training.engine.runs import METHOD_NAME
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.pooled import map_trunk
from lupctl.core.training.nets.swin.trunk import set_semantic_weight
from lupctl.core.training.views.plan import ViewPlan
from lupctl.core.workspace import CHECKPOINT_NAME

FILE = "solider.jsonl"
HEIGHT, WIDTH = 96, 48
PLAN = replace(DRAWN, unlabelled_persons=150, height=HEIGHT, width=WIDTH)
SIZE = (f"pixels.height={HEIGHT}", f"pixels.width={WIDTH}", "saving.every_epochs=0")
LOCAL = (f"local.height={HEIGHT // 2}", f"local.width={WIDTH // 2}", "local.count=2", "data.batch=32", "bn_groups=1")
FRESH, FIRST, SECOND = "scratch", "small-dino-swin", "small-solider"
STARTS = (FRESH, FIRST, SECOND)
PARTS = ("background", "upper body", "lower body", "shoes")
COLOURS = np.array([(70, 70, 74), (226, 88, 62), (62, 134, 226), (92, 196, 104)], np.uint8)
WEIGHTS = ("0", "0.2", "1")


def find_data(home: Path, name: str) -> Path:
    """A pack by its path, or the drawn one, made where it is not there."""
    if name != "drawn":
        return Path(name)
    path = home / "drawn.h5"
    return path if path.is_file() else pack(SyntheticSource(PLAN, dataset="drawn"), out=path, progress=QUIET).path


def learn(home: Path, data: Path, start: str, seed: int, options: argparse.Namespace) -> Path | None:
    """The checkpoint of a stage, and of the one before it, made where it is not there; None for a fresh network."""
    if start == FRESH:
        return None
    name = f"{data.stem}-{seed}-{options.first}"
    first = home / f"{name}-dino"
    found = pretrain_once(first, data, "small-dino-swin", (*SIZE, *LOCAL), seed=seed, epochs=options.first)
    if start == FIRST:
        return found
    second = home / f"{name}-{options.second}-solider"
    return pretrain_once(
        second, data, "small-solider", (*SIZE, *LOCAL), seed=seed, epochs=options.second, start=first / METHOD_NAME
    )


# Scores


def tune(home: Path, data: Path, start: Path | None, seed: int, options: argparse.Namespace) -> Path:
    """The checkpoint of small-swin, fine-tuned on a pack."""
    overrides = (*SIZE, "augment.pad=4", "data.persons=8")
    flags = {"seed": seed, "start": "scratch" if start is None else str(start), "schedule.epochs": options.tuned}
    flags |= {"swin.semantic_weight": "none"} if start is None else {}
    recipe = resolve_recipe("finetune", "small-swin", overrides=overrides, flags=flags)
    assert isinstance(recipe, FinetuneRecipe)
    job = FinetuneJob(recipe, (data,), start, home / "tuned", CPU, 0, ("solider_study",), force=True, quiet=True)
    finetune(job, QUIET)
    return job.run / CHECKPOINT_NAME


def score_weights(checkpoint: Path, data: Path, *, has_controller: bool) -> dict[str, dict[str, float]]:
    """Scores by the semantic weight at test; without a controller there is one answer."""
    encoder, _ = open_encoder(checkpoint, device=CPU_DEVICE, precision=torch.float32)
    if not has_controller:
        return {"": score_with(encoder, data)}
    found = {}
    for weight in WEIGHTS:
        set_semantic_weight(encoder.network, float(weight))
        found[weight] = score_with(encoder, data)
    return found


def run(home: Path, options: argparse.Namespace) -> None:
    """Trains and scores every start and seed that has no result yet, all with one seed before the next."""
    results, data = Results(home / FILE), find_data(home, options.data)
    for seed in options.seeds:
        for start in options.starts:
            key = {"what": "scores", "data": data.stem, "start": start, "seed": seed, "tuned": options.tuned}
            key |= {} if start == FRESH else {"first": options.first}
            key |= {"second": options.second} if start == SECOND else {}
            if results.has(key):
                continue
            began = time.process_time()
            backbone = learn(home, data, start, seed, options)
            learned = time.process_time()
            tuned = tune(home, data, backbone, seed, options)
            scores = score_weights(tuned, data, has_controller=start != FRESH)
            spent = {"pretrain_cpu_s": learned - began, "finetune_cpu_s": time.process_time() - learned}
            results.add({**key, "scores": scores, **{name: round(value) for name, value in spent.items()}})


# Body parts


def open_network(home: Path, data: Path, start: str, seed: int, options: argparse.Namespace) -> Encoder:
    """The network of a start, ready for images."""
    checkpoint = learn(home, data, start, seed, options)
    if checkpoint is not None:
        return open_encoder(checkpoint, device=CPU_DEVICE, precision=torch.float32)[0]
    recipe = resolve_recipe("pretrain", "small-dino-swin", overrides=(*SIZE, *LOCAL))
    assert isinstance(recipe, PretrainRecipe)
    torch.manual_seed(seed)
    network = build_network(student_plan(recipe)).eval()
    pixels = recipe.pixels
    view = ViewPlan(pixels.height, pixels.width, pixels.mean, pixels.std, "bilinear")
    return Encoder(network, view, CPU_DEVICE, torch.float32)


def find_labels(encoder: Encoder, images: NDArray[np.uint8]) -> Parts:
    """Pseudo labels of RGB images (N, H, W, 3) of the network's size, as in training."""
    set_semantic_weight(encoder.network, 1.0)
    mean, std = (torch.tensor(numbers)[:, None, None] for numbers in (encoder.view.mean, encoder.view.std))
    prepared = (torch.from_numpy(images).permute(0, 3, 1, 2) / 255 - mean) / std
    with torch.no_grad():
        maps = torch.cat([map_trunk(encoder.network, some).map for some in torch.split(prepared, 64)])
    return find_parts(maps, seeds=torch.arange(len(maps)))


def draw_test(count: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """RGB images (N, H, W, 3) of persons that nothing is trained on, and the body part of each pixel (N, H, W).

    They are cut to what is seen of the person: in a whole drawing the person is rarely more than half of the picture.
    """
    source = SyntheticSource(SyntheticPlan(seed=PLAN.seed + 1, test_persons=count, height=2 * HEIGHT, width=2 * WIDTH))
    images, parts = [], []
    for name in source.list_images().name[:count]:
        part = source.read_parts(name)
        rows, columns = (np.flatnonzero((part > 0).any(axis=axis)) for axis in (1, 0))
        if len(rows) == 0:
            continue
        seen = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        images.append(cv2.resize(decode_rgb(source.read(name))[seen], (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA))
        parts.append(cv2.resize(part[seen], (WIDTH, HEIGHT), interpolation=cv2.INTER_NEAREST))
    return np.stack(images).astype(np.uint8), np.stack(parts).astype(np.uint8)


def truth_of(parts: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.int64]:
    """(N, h, w), the part that most pixels of a token show; of equals the first."""
    cells = parts.reshape(len(parts), rows, parts.shape[1] // rows, columns, parts.shape[2] // columns)
    shares = np.stack([(cells == part).mean(axis=(2, 4)) for part in range(len(PARTS))], axis=-1)
    return np.asarray(shares.argmax(axis=-1), np.int64)


def agreement(labels: NDArray[np.int64], truth: NDArray[np.int64]) -> dict[str, float]:
    """Share of right tokens, and by part the intersection over the union."""
    found = {"tokens": float((labels == truth).mean())}
    for part, name in enumerate(PARTS):
        one, other = labels == part, truth == part
        found[name] = float((one & other).sum() / max(1, (one | other).sum()))
    return found


def compare_parts(home: Path, options: argparse.Namespace) -> None:
    """Measures every network and seed that has no result yet."""
    results, data = Results(home / FILE), find_data(home, "drawn")
    images, parts = draw_test(options.images)
    for seed in options.seeds:
        for start in options.starts:
            key = {"what": "parts", "start": start, "seed": seed, "images": options.images}
            key |= {} if start == FRESH else {"first": options.first}
            key |= {"second": options.second} if start == SECOND else {}
            if results.has(key):
                continue
            found = find_labels(open_network(home, data, start, seed, options), images)
            kept, labels = found.kept.numpy(), found.labels.numpy()
            truth = truth_of(parts, *labels.shape[1:])
            row: dict[str, Any] = {**key, "kept": float(kept.mean())}
            if kept.any():
                row["agreement"] = agreement(labels[kept], truth[kept])
                row["chance"] = agreement(np.roll(labels[kept], 1, axis=0), truth[kept])
            results.add(row)


def draw_sheet(home: Path, options: argparse.Namespace) -> None:
    """A picture: for each person the image, its drawn parts, and the labels that the last network gives, if any."""
    images, parts = draw_test(4 * options.columns)
    encoder = open_network(home, find_data(home, "drawn"), options.starts[-1], options.seeds[0], options)
    found = find_labels(encoder, images)
    shown = np.flatnonzero(found.kept.numpy())[: options.columns]
    tiles = []
    for number in shown:
        labels = np.kron(found.labels[number].numpy(), np.ones((16, 16), np.int64))
        stack = [images[number], COLOURS[parts[number]], COLOURS[labels]]
        tiles.append(np.concatenate([np.pad(one, ((2, 2), (2, 2), (0, 0)), constant_values=255) for one in stack]))
    sheet = np.concatenate(tiles, axis=1)
    large = cv2.resize(sheet, None, fx=options.zoom, fy=options.zoom, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(str(options.data), large[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{options.data}: {len(shown)} persons")


# Tables


def show(path: Path) -> None:
    """Means and standard deviations over seeds."""
    rows = Results(path).rows
    show_parts([row for row in rows if row["what"] == "parts"])
    show_scores([row for row in rows if row["what"] == "scores"])


def show_parts(rows: Sequence[Mapping[str, Any]]) -> None:
    """Agreement by network, chance beside it, in percent."""
    columns = ("tokens", *PARTS)
    print(f"| network | seeds | kept | {' | '.join(columns)} |\n|{'---|' * (3 + len(columns))}")
    for name, found in grouped(rows, ("start", "first", "second")).items():
        cells = [name, str(len(found)), spread([100 * row["kept"] for row in found])]
        seen = [row for row in found if "agreement" in row]
        for column in columns:
            ours, chance = (spread([100 * row[kind][column] for row in seen]) for kind in ("agreement", "chance"))
            cells.append(f"{ours}; chance {chance}")
        print(f"| {' | '.join(cells)} |")


def show_scores(rows: Sequence[Mapping[str, Any]]) -> None:
    """mAP and rank-1 by start and weight, and the gain over scratch with the same seeds."""
    for data, of_data in grouped(rows, ("data",)).items():
        print(f"\n{data}\n| start | weight | seeds | mAP | rank-1 | gain | CPU s |\n|{'---|' * 7}")
        base = {row["seed"]: row["scores"][""]["map"] for row in of_data if row["start"] == FRESH}
        for name, found in grouped(of_data, ("start", "first", "second", "tuned")).items():
            for weight in found[0]["scores"]:
                scores = {row["seed"]: row["scores"][weight] for row in found}
                own = [spread([100 * one[kind] for one in scores.values()]) for kind in ("map", "rank1")]
                gains = [100 * (one["map"] - base[seed]) for seed, one in scores.items() if seed in base]
                spent = spread([row["pretrain_cpu_s"] + row["finetune_cpu_s"] for row in found])
                print(f"| {' | '.join([name, weight, str(len(scores)), *own, spread(gains, sign='+'), spent])} |")


def grouped(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, list[Mapping[str, Any]]]:
    """Rows by what they have in common, as text, in the order in which they came."""
    groups: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[
            ", ".join(f"{row[key]}" if key in ("data", "start") else f"{key} {row[key]}" for key in keys if key in row)
        ].append(row)
    return groups


def main() -> None:
    """Runs what the command line names, then prints the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["parts", "run", "sheet", "table"])
    parser.add_argument("data", nargs="?", default="drawn", help="a labelled pack, or drawn; of sheet the picture")
    parser.add_argument("--home", type=Path, default=Path("lup-solider"), help="folder of results, packs and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--first", type=int, default=6, help="epochs of small-dino-swin")
    parser.add_argument("--second", type=int, default=3, help="epochs of small-solider")
    parser.add_argument("--tuned", type=int, default=10, help="epochs of fine-tuning")
    parser.add_argument("--starts", nargs="+", default=list(STARTS), choices=STARTS)
    parser.add_argument("--images", type=int, default=400, help="of parts, drawn persons")
    parser.add_argument("--columns", type=int, default=7, help="of the sheet, persons")
    parser.add_argument("--zoom", type=int, default=1, help="of the sheet, pixels for each pixel")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    match options.what:
        case "parts":
            compare_parts(options.home, options)
        case "run":
            run(options.home, options)
        case "sheet":
            draw_sheet(options.home, options)
    show(options.home / FILE)


if __name__ == "__main__":
    main()
