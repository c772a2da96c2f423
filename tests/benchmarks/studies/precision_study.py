"""What learning loses in bf16 on a CPU: the small recipes in both precisions, seed by seed; run by hand.

    python tests/benchmarks/studies/precision_study.py run lup/packs/market1501.h5   both, seeds 1 to 3
    python tests/benchmarks/studies/precision_study.py run drawn --precisions bf16
    python tests/benchmarks/studies/precision_study.py table                          what there is so far

`small-moco` at its own length, then `small-bot` from it (or from scratch), each whole in one precision. Every finished
run is a line of `precision.jsonl` in the folder `--home`, so the same command goes on where the last one ended.
"""

import argparse
import time
from collections import defaultdict
from pathlib import Path

from dino_study import SCRATCH, find_data, pretrain_once
from learn_results import Results, run_study, spread, study_parser
from learn_sweep import CPU, QUIET

from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.run import finetune

FILE = "precision.jsonl"
PRECISIONS = ("float32", "bf16")
BASE = PRECISIONS[0]
LEARNED = "after small-moco"


def score(home: Path, data: Path, start: Path | None, overrides: tuple[str, ...], *, seed: int) -> dict[str, float]:
    """Scores of `small-bot` from a start."""
    flags = {"seed": seed, "start": "scratch" if start is None else str(start)}
    recipe = resolve_recipe("finetune", "small-bot", overrides=overrides, flags=flags)
    assert isinstance(recipe, FinetuneRecipe)
    run = home / f"labels-{overrides[0]}"  # runs of two precisions may go side by side
    job = FinetuneJob(recipe, (data,), start, run, CPU, 0, ("precision_study",), force=True, quiet=True)
    scores = finetune(job, QUIET)["scores"]
    return {"map": scores["map"], "rank1": scores["rank1"]}


def study(home: Path, options: argparse.Namespace) -> None:
    """Runs what has no result yet, all with one seed before the next."""
    results, data = Results(home / FILE), find_data(home, options.data)
    for seed in options.seeds:
        for precision in options.precisions:
            overrides = (f"precision={precision}", *options.set)
            for start in options.starts:
                key = {"data": data.stem, "start": start, "precision": precision, "seed": seed}
                key |= {"set": " ".join(options.set)} if options.set else {}
                if any(key.items() <= row.items() and row.get("set") == key.get("set") for row in results.rows):
                    continue
                began, checkpoint = time.thread_time(), None
                if start == LEARNED:
                    # Runs with other settings have other folders.
                    folder = home / "-".join([data.stem, str(seed), *overrides]).replace("/", "_")
                    checkpoint = pretrain_once(folder, data, "small-moco", overrides, seed=seed, epochs=options.epochs)
                learned = time.thread_time()
                scores = score(home, data, checkpoint, overrides, seed=seed)
                spent = {"pretrain_s": round(learned - began), "finetune_s": round(time.thread_time() - learned)}
                results.add({**key, **scores, **spent})


def show(path: Path) -> None:
    """Mean and standard deviation over seeds, and what bf16 changes with the same seeds, in points."""
    groups: dict[tuple[str, str], dict[str, dict[int, dict[str, float]]]] = defaultdict(lambda: defaultdict(dict))
    for row in Results(path).rows:
        groups[row["data"], " ".join([row["start"], row.get("set", "")]).strip()][row["precision"]][row["seed"]] = row
    columns = (
        "small-bot",
        "precision",
        "seeds",
        "mAP",
        "against float32",
        "rank-1",
        "pre-training, s",
        "fine-tuning, s",
    )
    print(f"| data | {' | '.join(columns)} |\n|{'---|' * (len(columns) + 1)}")
    for (data, start), precisions in sorted(groups.items()):
        base = precisions.get(BASE, {})
        for precision, rows in precisions.items():
            own = [spread([100 * row[name] for row in rows.values()]) for name in ("map", "rank1")]
            changes = [100 * (row["map"] - base[seed]["map"]) for seed, row in rows.items() if seed in base]
            spent = [spread([row[name] for row in rows.values()]) for name in ("pretrain_s", "finetune_s")]
            change = "" if precision == BASE else spread(changes, sign="+")
            cells = [data, start, precision, str(len(rows)), own[0], change, own[1], *spent]
            print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Runs what the command line names, then prints the table."""
    parser = study_parser("lup-precision", data="a labelled pack, or drawn")
    parser.add_argument("--epochs", type=int, default=60, help="of pre-training")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--starts", nargs="+", default=[LEARNED], choices=[LEARNED, SCRATCH])
    parser.add_argument("--set", nargs="+", default=[], help="KEY=VALUE texts for both stages")
    run_study(parser.parse_args(), study, show, FILE)


if __name__ == "__main__":
    main()
