"""What pre-training learns from noisy labels at toy size, by method; run by hand.

    python tests/benchmarks/studies/noise_study.py run drawn                 drawn persons, 20, 40 and 60 % of noise
    python tests/benchmarks/studies/noise_study.py run FOLDER --noise 0.3     images in the layout of Market-1501
    python tests/benchmarks/studies/noise_study.py table                     what there is so far

A share N of noise splits N of the persons in two tracklets and gives N of the tracklets the label of another person, as
`data pack --label-noise split:N,merge:N` does. Every method trains on the same noisy images for the same epochs; its
backbone is then fine-tuned with small-bot on the right labels of a share of the persons and scored on the test persons.
Drawn persons are fine-tuned on others than those of pre-training, real ones on the same. Every finished run is a line
of `noise.jsonl` in the folder `--home`, so the same command goes on where the last one ended. Networks are those of
the small recipes at a quarter of R18's width, on 64 x 32 pixels.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learn_results import Results, run_study, spread, study_parser
from learn_sweep import CPU, QUIET, TOY, finetune_share

from lupctl.core.data.sources.label_noise import LabelNoise, NoisySource
from lupctl.core.data.sources.layouts.market1501 import Market1501Source
from lupctl.core.data.sources.records import Source
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.run import pretrain

FILE = "noise.jsonl"
TRACKED = SyntheticPlan(seed=2, train_persons=128, cameras=4, shots=2, height=64, width=32)
LABELLED = SyntheticPlan(seed=1, train_persons=60, test_persons=60, cameras=4, distractors=40, height=64, width=32)
SCRATCH = "from scratch"
# Views and optimizer of small-pnl, for the methods that have other recipes.
VIEWS = ("crop_area=[0.5, 1.0]", "crop_ratio=[0.4, 0.65]", "grey=0.0", "blur=0.0", "flip=0.5", "erase=0.0")
ELSEWHERE = (
    *(f"augment.{view}" for view in VIEWS),
    *("bn_groups=4", "net.arch=r18", "data.batch=128", "optim.name=sgd", "optim.lr=0.06"),
    *("schedule.unit=step", "schedule.warmup_epochs=2.0"),
)
METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    "plain supervised (ce)": ("small-pnl", ("pnl.variant=ce",)),
    "MoCo (ic)": ("small-pnl", ("pnl.variant=ic",)),
    "SupCon": ("luperson-nl-supcon", (*ELSEWHERE, "supcon.dim=128", "supcon.temperature=0.1")),
    "ce+ic": ("small-pnl", ("pnl.variant=ce+ic",)),
    "ce+pro": ("small-pnl", ("pnl.variant=ce+pro",)),
    "PNL (ce+pro+lgc)": ("small-pnl", ("pnl.variant=ce+pro+lgc",)),
}
ASKED = ("plain supervised (ce)", "MoCo (ic)", "SupCon", "PNL (ce+pro+lgc)")
LAST = ("corrected", "agreement", "purity_given", "purity")


def build_packs(home: Path, data: str, noise: float, seed: int) -> tuple[Path, Path]:
    """The pack with noisy labels and the one with right ones, made where they are not there."""
    if data == "drawn":
        clean: Source = SyntheticSource(LABELLED, dataset="drawn")
        tracked: Source = SyntheticSource(TRACKED, dataset="tracked")
    else:
        clean = tracked = Market1501Source(Path(data), dataset="market1501")
    paths = (home / f"{Path(data).name}-{noise}-{seed}.h5", home / f"{Path(data).name}.h5")
    sources = (NoisySource(tracked, LabelNoise(split=noise, merge=noise, seed=seed)), clean)
    for path, source in zip(paths, sources, strict=True):
        if not path.is_file():
            pack(source, out=path, progress=QUIET)
    return paths


def train(home: Path, data: Path, method: str, overrides: Sequence[str], *, seed: int, epochs: int) -> dict[str, Any]:
    """Pre-trains with a method; returns the facts of the run, with what became of the labels in the last epoch."""
    name, own = METHODS[method]
    recipe = resolve_recipe(
        "pretrain", name, overrides=(*TOY, *own, *overrides), flags={"seed": seed, "schedule.epochs": epochs}
    )
    assert isinstance(recipe, PretrainRecipe)
    job = PretrainJob(recipe, (data,), home / f"run-{seed}", CPU, 0, ("noise_study",), force=True, quiet=True)
    return pretrain(job, QUIET)


def study(home: Path, options: argparse.Namespace) -> None:
    """Runs every method, noise and seed that has no result yet, all with one seed before the next."""
    results = Results(home / FILE)
    for seed in options.seeds:
        for noise in options.noise:
            noisy, clean = build_packs(home, options.data, noise, seed)
            for method in (SCRATCH, *options.methods):
                what = {"data": noisy.stem.split("-0")[0], "method": method, "share": options.share, "seed": seed}
                key = {**what, "set": " ".join(options.set), "epochs": options.epochs}
                key |= {"noise": 0.0} if method == SCRATCH else {"noise": noise}
                if results.has(key):
                    continue
                started_at = time.perf_counter()
                facts: dict[str, Any] = {}
                if method != SCRATCH:
                    facts = train(home, noisy, method, options.set, seed=seed, epochs=options.epochs)
                trained_at = time.perf_counter()
                start = Path(facts["checkpoint"]) if facts else None
                scores = finetune_share(home, clean, start, share=options.share, seed=seed, longer=1)
                seconds = {
                    "pretrain": round(trained_at - started_at),
                    "finetune": round(time.perf_counter() - trained_at),
                }
                results.add({**key, **scores, **{name: facts[name] for name in LAST if name in facts}, **seconds})


def show(path: Path) -> None:
    """Mean and standard deviation over seeds, a table for every dataset and noise."""
    groups: dict[tuple[str, float], dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in Results(path).rows:
        groups[row["data"], row["noise"]][" ".join([row["method"], row["set"]]).strip()][row["seed"]] = row
    for (data, noise), methods in sorted(groups.items()):
        print(f"\n{data}, {100 * noise:.0f} % of noise\n| method | seeds | mAP | rank-1 | {' | '.join(LAST)} |")
        print("|---" * (4 + len(LAST)) + "|")
        for method, rows in methods.items():
            columns = [
                spread([100 * row[name] for row in rows.values() if name in row]) for name in ("map", "rank1", *LAST)
            ]
            print(f"| {' | '.join([method, str(len(rows)), *columns])} |")


def main() -> None:
    """Runs what the command line names, then prints the table."""
    parser = study_parser("lup-noise", data="drawn, or a folder in the layout of Market-1501")
    parser.add_argument("--noise", type=float, nargs="+", default=[0.2, 0.4, 0.6])
    parser.add_argument("--epochs", type=int, default=40, help="of pre-training")
    parser.add_argument("--methods", nargs="+", default=ASKED, choices=METHODS)
    parser.add_argument("--share", default="0.25", help="of the persons that have labels in fine-tuning")
    parser.add_argument("--set", nargs="+", default=[], help="KEY=VALUE texts for pre-training")
    run_study(parser.parse_args(), study, show, FILE)


if __name__ == "__main__":
    main()
