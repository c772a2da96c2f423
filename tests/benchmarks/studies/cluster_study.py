"""What training on clusters gives small networks without a label, at their own site and at another; run by hand.

    python tests/benchmarks/studies/cluster_study.py run drawn                       drawn persons
    python tests/benchmarks/studies/cluster_study.py run lup/packs/market1501.h5     a pack with queries
    python tests/benchmarks/studies/cluster_study.py carry drawn lup/packs/market1501.h5     trained there, used here
    python tests/benchmarks/studies/cluster_study.py table                           what there is so far

`run` pre-trains on the images of a pack, trains on clusters of them, and from the same start with all labels; scores
are those of the pack's own queries. small-usl begins from small-moco and small-usl-vit from small-dino; their
partners with labels are small-bot and small-vit. `carry` trains with all labels of the first pack, then on clusters
of the second, which it scores: as it comes, after clusters, and tuned with the labels of the second from the same
start. Labels of a pack never reach the clusters: of metrics.jsonl only `purity` knows them, which is reported here.

Networks are those of the small recipes, on 64 x 32 pixels unless `--shipped` says the recipes' own 128 x 64. Every
finished run is a line of `clusters.jsonl` in the folder `--home`, so the same command goes on where the last one ended.
"""

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from dino_study import LOCAL, SIZE, find_data, pretrain_once
from learn_results import Results, spread
from learn_sweep import CPU, CPU_DEVICE, QUIET
from vit_study import score_with

from lupctl.core.errors import LupError
from lupctl.core.ranking.retrieval.extract import open_encoder
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.workspace import CHECKPOINT_NAME

FILE = "clusters.jsonl"
# By the recipe on clusters: pre-training, its epochs here, and the partner with labels.
PARTNERS = {"small-usl": ("small-moco", 60, "small-bot"), "small-usl-vit": ("small-dino", 30, "small-vit")}
LABELLED_EPOCHS = 20


def learn(home: Path, data: Path, name: str, seed: int, options: argparse.Namespace) -> Path:
    """The checkpoint of the pre-training that a recipe begins from, made where it is not there."""
    method, epochs, _ = PARTNERS[name]
    epochs = options.first or epochs
    size = ("saving.every_epochs=0",) if options.shipped else SIZE
    own = () if options.shipped or method == "small-moco" else LOCAL
    folder = home / f"{data.stem}-{method}-{seed}-{epochs}{'-shipped' if options.shipped else ''}"
    return pretrain_once(folder, data, method, (*size, *own), seed=seed, epochs=epochs)


def tune(folder: Path, data: Path, start: Path, name: str, seed: int, options: argparse.Namespace) -> Path:
    """The checkpoint of a recipe of fine-tuning, made where it is not there."""
    checkpoint = folder / CHECKPOINT_NAME
    if checkpoint.is_file():
        return checkpoint
    epochs = {} if options.tuned is None else {"schedule.epochs": options.tuned}
    overrides: tuple[str, ...] = ("saving.every_epochs=0",) if options.shipped else (*SIZE, "augment.pad=3")
    if name not in PARTNERS:
        overrides = (*overrides, "data.persons=8")
        epochs = epochs or ({} if options.shipped else {"schedule.epochs": LABELLED_EPOCHS})
    elif options.eps is not None:
        overrides = (*overrides, f"clusters.eps={options.eps}")
    recipe = resolve_recipe(
        "finetune", name, overrides=overrides, flags={"seed": seed, "start": str(start)} | epochs
    )  # fmt: skip
    assert isinstance(recipe, FinetuneRecipe)
    job = FinetuneJob(recipe, (data,), start, folder, CPU, 0, ("cluster_study",), force=True, quiet=True)
    finetune(job, QUIET)
    return checkpoint


def score_network(checkpoint: Path, data: Path) -> dict[str, float]:
    """mAP and rank-1 of a pack's queries."""
    return score_with(open_encoder(checkpoint, device=CPU_DEVICE, precision=torch.float32)[0], data)


def found_clusters(folder: Path) -> list[dict[str, float]]:
    """What the first and the last epoch of a run say of their clusters."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if "clusters" in row]
    kinds = ("clusters", "noise", "silhouette", "cameras", "stability", "purity")
    return [{kind: row[kind] for kind in kinds if kind in row} for row in (rows[0], rows[-1])]


def compare(
    home: Path, data: Path, start: Path, name: str, key: Mapping[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    """Scores on a pack: of a start, after clusters, and with all labels from the same start."""
    row: dict[str, Any] = {**key, "before": score_network(start, data)}
    folder = home / "-".join(str(value) for value in key.values())
    began = time.process_time()
    try:
        row["after"] = score_network(tune(folder, data, start, name, key["seed"], options), data)
        row["seen"] = found_clusters(folder)
    except LupError as error:
        row["refused"] = str(error)
    row["cpu_s"] = round(time.process_time() - began)
    labelled = tune(Path(f"{folder}-labels"), data, start, PARTNERS[name][2], key["seed"], options)
    return {**row, "labels": score_network(labelled, data)}


def run(home: Path, options: argparse.Namespace) -> None:
    """Runs every recipe and seed that has no result yet, all with one seed before the next."""
    results, data = Results(home / FILE), find_data(home, options.data[0])
    for seed in options.seeds:
        for name in options.recipes:
            key = key_of("run", data.stem, name, seed, options)
            if not results.has(key):
                start = learn(home, data, name, seed, options)
                results.add(compare(home, data, start, name, key, options))


def carry(home: Path, options: argparse.Namespace) -> None:
    """The same from networks that were trained with all labels of another pack."""
    results = Results(home / FILE)
    there, here = (find_data(home, name) for name in options.data)
    for seed in options.seeds:
        for name in options.recipes:
            key = key_of("carry", f"{there.stem} to {here.stem}", name, seed, options)
            if results.has(key):
                continue
            before = learn(home, there, name, seed, options)
            folder = home / f"{there.stem}-{PARTNERS[name][2]}-{seed}{'-shipped' if options.shipped else ''}"
            start = tune(folder, there, before, PARTNERS[name][2], seed, options)
            results.add(compare(home, here, start, name, key, options))


def key_of(what: str, data: str, name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """What names a result."""
    key: dict[str, Any] = {"what": what, "data": data, "recipe": name, "seed": seed}
    given = {"first": options.first, "tuned": options.tuned, "eps": options.eps, "shipped": options.shipped}
    return key | {kind: value for kind, value in given.items() if value}


# Tables


def show(path: Path) -> None:
    """Means and standard deviations over seeds: scores, and what the clusters looked like."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in Results(path).rows:
        given = [f"{kind} {row[kind]}" for kind in ("first", "tuned", "eps", "shipped") if kind in row]
        groups[row["what"], row["data"], " ".join([row["recipe"], *given])].append(row)
    columns = ("before", "after clusters", "gain", "with labels")
    print(f"| | data | recipe | seeds | {' | '.join(columns)} | CPU s |\n|{'---|' * (5 + len(columns))}")
    for group, rows in groups.items():
        kept = [row for row in rows if "after" in row]
        gains = spread([100 * (row["after"]["map"] - row["before"]["map"]) for row in kept], sign="+")
        scores = [pair_of(rows, "before"), pair_of(kept, "after"), gains, pair_of(rows, "labels")]
        seconds = spread([row["cpu_s"] for row in kept])
        print(f"| {' | '.join([*group, f'{len(kept)} of {len(rows)}', *scores, seconds])} |")
    kinds = ("clusters", "noise", "silhouette", "cameras", "purity", "stability")
    print(f"\n| | data | recipe | epoch | {' | '.join(kinds)} |\n|{'---|' * (4 + len(kinds))}")
    for group, rows in groups.items():
        for place, epoch in enumerate(("first", "last")):
            seen = [row["seen"][place] for row in rows if "seen" in row]
            cells = [spread([one[kind] for one in seen if kind in one]) for kind in kinds]
            print(f"| {' | '.join([*group, epoch, *cells])} |")


def pair_of(rows: Sequence[Mapping[str, Any]], kind: str) -> str:
    """mAP and rank-1 in percent."""
    return " / ".join(spread([100 * row[kind][score] for row in rows]) for score in ("map", "rank1"))


def main() -> None:
    """Runs what the command line names, then prints the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run", "carry", "table"])
    parser.add_argument("data", nargs="*", default=["drawn"], help="packs with queries, or drawn; of carry two")
    parser.add_argument("--home", type=Path, default=Path("lup-clusters"), help="folder of results, packs and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--recipes", nargs="+", default=list(PARTNERS), choices=PARTNERS)
    parser.add_argument("--first", type=int, help="epochs of pre-training")
    parser.add_argument("--tuned", type=int, help="epochs of fine-tuning")
    parser.add_argument("--eps", type=float, help="of the clusters")
    parser.add_argument("--shipped", action="store_true", help="at the recipes' own size")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    match options.what:
        case "run":
            run(options.home, options)
        case "carry":
            carry(options.home, options)
    show(options.home / FILE)


if __name__ == "__main__":
    main()
