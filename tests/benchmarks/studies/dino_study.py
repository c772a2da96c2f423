"""What pre-training without labels is worth to a small transformer, by method and by share of labels; run by hand.

    python tests/benchmarks/studies/dino_study.py run drawn                       drawn persons, most without labels
    python tests/benchmarks/studies/dino_study.py run lup/packs/market1501.h5     images in a pack with labels
    python tests/benchmarks/studies/dino_study.py run lup/packs/market1501.h5 --recipe small-bot --starts
    python tests/benchmarks/studies/dino_study.py table                           what there is so far

A small vision transformer is fine-tuned from scratch, after self-distillation (small-dino) and after momentum contrast
(small-moco-vit) of the same trunk, on the labels of a tenth, a quarter and all of the persons. All starts are
fine-tuned for the same steps on the same persons. Networks are those of the small recipes, on 64 x 32 pixels; another
recipe of fine-tuning, such as small-bot's residual network, is compared from scratch. Every finished run is a line of
`dino.jsonl` in the folder `--home`, so the same command goes on where the last one ended.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learn_results import Results, run_study, spread, study_parser
from learn_sweep import CPU, QUIET

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.workspace import CHECKPOINT_NAME

FILE = "dino.jsonl"
DRAWN = SyntheticPlan(
    seed=1,
    unlabelled_persons=300,
    scenes=48,
    train_persons=60,
    test_persons=40,
    cameras=4,
    shots=2,
    distractors=40,
    height=64,
    width=32,
)
SIZE = ("pixels.height=64", "pixels.width=32", "saving.every_epochs=0")
LOCAL = ("local.height=32", "local.width=16")
SCRATCH = "from scratch"
RECIPE = "small-vit"
STARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "after small-dino": ("small-dino", LOCAL),
    "after small-moco-vit": ("small-moco-vit", ()),
}
# Shares of the persons that have labels: persons of a batch, and epochs.
SHARES = {"0.1": (4, 60), "0.25": (8, 40), "1": (8, 20)}


def find_data(home: Path, name: str) -> Path:
    """A pack by its path, or the drawn one, made where it is not there."""
    if name != "drawn":
        return Path(name)
    path = home / "drawn.h5"
    return path if path.is_file() else pack(SyntheticSource(DRAWN, dataset="drawn"), out=path, progress=QUIET).path


def learn(home: Path, data: Path, start: str, overrides: Sequence[str], *, seed: int, epochs: int) -> Path:
    """The checkpoint of a pre-training with this seed, made where it is not there."""
    name, own = STARTS[start]
    # The seed of `pretrain` is that of everything; runs with other settings have other folders.
    folder = home / "-".join([data.stem, name, str(seed), str(epochs), *overrides]).replace("/", "_")
    return pretrain_once(folder, data, name, (*SIZE, *own, *overrides), seed=seed, epochs=epochs)


def pretrain_once(
    folder: Path, data: Path, name: str, overrides: Sequence[str], *, seed: int, epochs: int, start: Path | None = None
) -> Path:
    """The checkpoint of a run of a recipe in a folder, made where it is not there.

    Args:
        folder: of the run.
        data: pack.
        name: of the recipe.
        overrides: of its keys.
        seed: of everything.
        epochs: of the run.
        start: file of all networks of a run that it begins from.
    """
    checkpoint = folder / CHECKPOINT_NAME
    if not checkpoint.is_file():
        flags = {"seed": seed, "schedule.epochs": epochs} | ({} if start is None else {"solider.start": str(start)})
        recipe = resolve_recipe("pretrain", name, overrides=tuple(overrides), flags=flags)
        assert isinstance(recipe, PretrainRecipe)
        job = PretrainJob(
            recipe, (data,), folder, CPU, 0, ("dino_study",), start=start, force=True, quiet=True
        )  # fmt: skip
        pretrain(job, QUIET)
    return checkpoint


def score_start(home: Path, data: Path, start: Path | None, share: str, *, name: str, seed: int) -> dict[str, float]:
    """Scores of a recipe's network, trained on the labels of a share of the persons."""
    persons, epochs = SHARES[share]
    subset = (f"data.subset=ids:{share}", f"data.subset_seed={seed}") if share != "1" else ()
    overrides = (*SIZE, "augment.pad=3", f"data.persons={persons}", *subset)
    flags = {"seed": seed, "start": "scratch" if start is None else str(start), "schedule.epochs": epochs}
    recipe = resolve_recipe("finetune", name, overrides=overrides, flags=flags)
    assert isinstance(recipe, FinetuneRecipe)
    job = FinetuneJob(recipe, (data,), start, home / "labels", CPU, 0, ("dino_study",), force=True, quiet=True)
    scores = finetune(job, QUIET)["scores"]
    return {"map": scores["map"], "rank1": scores["rank1"]}


def study(home: Path, options: argparse.Namespace) -> None:
    """Runs every start, share and seed that has no result yet, all with one seed before the next."""
    results, data = Results(home / FILE), find_data(home, options.data)
    for seed in options.seeds:
        for start in (SCRATCH, *options.starts):
            for share in options.shares:
                changed = start != SCRATCH and options.set
                key = {"data": data.stem, "start": start, "share": share, "seed": seed}
                key |= {} if start == SCRATCH else {"epochs": options.epochs}
                key |= {"set": " ".join(options.set)} if changed else {}
                key |= {"recipe": options.recipe} if options.recipe != RECIPE else {}
                if results.has(key):
                    continue
                began = time.perf_counter()
                backbone = None
                if start != SCRATCH:
                    backbone = learn(home, data, start, options.set, seed=seed, epochs=options.epochs)
                learned = time.perf_counter()
                scores = score_start(home, data, backbone, share, name=options.recipe, seed=seed)
                ended = time.perf_counter()
                results.add(
                    {**key, **scores, "pretrain_s": round(learned - began), "finetune_s": round(ended - learned)}
                )


def show(path: Path) -> None:
    """Mean and standard deviation over seeds, and the gain over scratch with the same seeds, in points of mAP."""
    groups: dict[tuple[str, str], dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in Results(path).rows:
        name = " ".join([row.get("recipe", ""), row["start"], row.get("set", "")]).strip()
        groups[row["data"], row["share"]][name][row["seed"]] = row
    for (data, share), starts in sorted(groups.items()):
        print(f"\n{data}, labels of {100 * float(share):.0f} % of the persons")
        print("| start | seeds | mAP | rank-1 | gain |\n|---|---|---|---|---|")
        base = starts.get(SCRATCH, {})
        for name, rows in starts.items():
            own = [spread([100 * row[score] for row in rows.values()]) for score in ("map", "rank1")]
            gains = [100 * (row["map"] - base[seed]["map"]) for seed, row in rows.items() if seed in base]
            cells = [name, str(len(rows)), *own, "" if name == SCRATCH else spread(gains, sign="+")]
            print(f"| {' | '.join(cells)} |")


def main() -> None:
    """Runs what the command line names, then prints the table."""
    parser = study_parser("lup-dino", data="a labelled pack, or drawn")
    parser.add_argument("--epochs", type=int, default=30, help="of pre-training")
    parser.add_argument("--starts", nargs="*", default=list(STARTS), choices=STARTS, help="besides scratch")
    parser.add_argument("--recipe", default=RECIPE, help="of fine-tuning")
    parser.add_argument("--shares", nargs="+", default=list(SHARES), choices=SHARES, help="of the persons with labels")
    parser.add_argument("--set", nargs="+", default=[], help="KEY=VALUE texts for pre-training")
    run_study(parser.parse_args(), study, show, FILE)


if __name__ == "__main__":
    main()
