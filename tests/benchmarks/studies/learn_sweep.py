"""What pre-training teaches at toy size, and which choices decide it; run by hand.

    python tests/benchmarks/studies/learn_sweep.py sweep lup/packs/market1501.h5    one choice at a time, by the probe
    python tests/benchmarks/studies/learn_sweep.py labels lup/packs/market1501.h5   fine-tuning on few labels
    python tests/benchmarks/studies/learn_sweep.py table                            what there is so far

`drawn` in place of a pack draws one. Every finished run is a line of `results.jsonl` in the folder `--home`, so the
same command goes on behind the last one, and more seeds or settings are added later. Networks are those of the small
recipes at a quarter of R18's width, on 64 x 32 pixels: a run takes about a minute (`OMP_NUM_THREADS=1`).
"""

import argparse
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from learn_results import FILE, SCORES, Results, show_table

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.ranking.retrieval.answerable import gallery_rows, query_rows
from lupctl.core.ranking.retrieval.extract import Encoder, extract_features, open_encoder
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.sections import LUPERSON_MEAN, LUPERSON_STD
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.probe import Probes, probe_backbone
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.stages.pretrain.setup import place_method, set_up
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.views.plan import build_view_plan

DRAWN = SyntheticPlan(
    seed=1, unlabelled_persons=400, scenes=48, train_persons=16, test_persons=40, distractors=40, height=64, width=32
)
TOY = ("net.width=16", "net.last_stride=1", "pixels.height=64", "pixels.width=32", "saving.every_epochs=0")
JITTER = ("augment.jitter.p=0.8",)
CROP_RATIO_OF_MOCO = "augment.crop_ratio=[0.75, 1.3333333333333333]"
# Two baselines, small-moco, what differs from it in one thing, and the views of LUPerson.
SETTINGS: dict[str, tuple[str, ...]] = {
    # A rate that moves no weight; batch norm still gathers the statistics of the data.
    "untrained, with batch-norm statistics": ("optim.lr=1e-12",),
    "base": (),
    "jitter 0.4 0.4 0.4 0.1": JITTER,
    "jitter 0.4 0.4, no saturation, no hue": (*JITTER, "augment.jitter.saturation=0.0", "augment.jitter.hue=0.0"),
    "erasing, p 0.5, up to 0.6": ("augment.erase=0.5",),
    "grey, p 0.2": ("augment.grey=0.2",),
    "blur, p 0.5": ("augment.blur=0.5",),
    "crop from 0.2": ("augment.crop_area=[0.2, 1.0]",),
    "crop from 0.64": ("augment.crop_area=[0.64, 1.0]",),
    "no flip": ("augment.flip=0.0",),
    "temperature 0.07": ("moco.temperature=0.07",),
    "temperature 0.2": ("moco.temperature=0.2",),
    "queue 128": ("moco.queue=128",),
    "queue 1024": ("moco.queue=1024",),
    "last stride 2": ("net.last_stride=2",),
    "1 batch-norm group": ("bn_groups=1",),
    "8 batch-norm groups": ("bn_groups=8",),
    "views of LUPerson": (
        *("augment.crop_area=[0.2, 1.0]", CROP_RATIO_OF_MOCO),
        *("augment.grey=0.2", "augment.blur=0.5", "augment.erase=0.5"),
    ),
}
UNTRAINED = "untrained"
PERSONS = 8  # of a batch of fine-tuning; a quarter of the 60 there are has to fill one
CPU, CPU_DEVICE = Placement("cpu", 1, ""), torch.device("cpu")
QUIET = Progress(quiet=True)


def find_pack(home: Path, name: str) -> Path:
    """A pack by its path, or the drawn one, made where it is not there."""
    if name != "drawn":
        return Path(name)
    path = home / "drawn.h5"
    return path if path.is_file() else pack(SyntheticSource(DRAWN, dataset="drawn"), out=path, progress=QUIET).path


def pretrain_job(home: Path, data: Path, overrides: Sequence[str], *, seed: int, epochs: int) -> PretrainJob:
    """small-moco at toy size, scored by the probe at its end."""
    flags = {"seed": seed, "schedule.epochs": epochs, "probe.every_epochs": epochs}
    recipe = resolve_recipe("pretrain", "small-moco", overrides=(*TOY, *overrides), flags=flags)
    assert isinstance(recipe, PretrainRecipe)
    return PretrainJob(recipe, (data,), home / "sweep", CPU, 0, ("learn_sweep",), probe=data, force=True, quiet=True)


def train_and_look(job: PretrainJob) -> dict[str, float]:
    """Pre-trains; returns what the probe and `camera_shares` say of the result."""
    facts = pretrain(job, QUIET)
    encoder, _ = open_encoder(job.run / "checkpoint.safetensors", device=CPU_DEVICE, precision=torch.float32)
    return {**facts, **camera_shares(encoder, open_pack(job.packs[0]))}


def look_untrained(job: PretrainJob) -> dict[str, float]:
    """The same of the network a run begins with."""
    torch.manual_seed(job.recipe.seed)
    method, data = place_method(job.recipe, CPU_DEVICE), open_pack(job.packs[0])
    scores = probe_backbone(method.kept, job.recipe, set_up(job), Probes(data))
    view = build_view_plan(job.recipe.pixels.model_dump())
    encoder = Encoder(method.kept.eval(), view, CPU_DEVICE, torch.float32)
    return {**scores, **camera_shares(encoder, data)}


def camera_shares(encoder: Encoder, data: Pack) -> dict[str, float]:
    """How much features are of the camera and what it sees behind the person.

    Returns:
        `probe_camera`, the share of queries whose nearest image of another person is from the query's camera, and
        `probe_chance`, what that share is where images of other persons are picked blindly.
    """
    rows = np.concatenate([query_rows(data.samples), gallery_rows(data.samples)])
    samples, queries = data.samples.select(rows), len(query_rows(data.samples))
    images = PackImages([data], rows)
    features = extract_features(encoder, images, chunk=128, workers=0, flip=False, progress=QUIET)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    other = samples.person[:queries, None] != samples.person[None, queries:]
    same_camera = samples.camera[:queries, None] == samples.camera[None, queries:]
    nearest = np.where(other, unit[:queries] @ unit[queries:].T, -np.inf).argmax(axis=1)
    shares = (same_camera & other).sum(axis=1) / other.sum(axis=1)
    return {
        "probe_camera": float(same_camera[np.arange(queries), nearest].mean()),
        "probe_chance": float(shares.mean()),
    }


def sweep(home: Path, data: Path, names: Sequence[str], *, seeds: Sequence[int], epochs: int) -> None:
    """Pre-trains with every setting and seed that has no result yet, all settings with one seed before the next."""
    results = Results(home / FILE)
    dataset = open_pack(data).dataset
    for seed in seeds:
        for name in names:
            key = {"what": "sweep", "data": dataset, "setting": name, "seed": seed, "epochs": epochs}
            if results.has(key):
                continue
            started_at = time.perf_counter()
            job = pretrain_job(home, data, overrides_of(name), seed=seed, epochs=epochs)
            found = look_untrained(job) if name == UNTRAINED else train_and_look(job)
            scores = {score: found[f"probe_{score}"] for score in SCORES}
            results.add({**key, **scores, "seconds": round(time.perf_counter() - started_at)})


def overrides_of(name: str) -> Sequence[str]:
    """The recipe keys of a setting, which may be keys and values itself, with spaces between them."""
    return SETTINGS[name] if name in SETTINGS else [] if name == UNTRAINED else name.split()


def compare_labels(
    home: Path,
    data: Path,
    overrides: Sequence[str],
    *,
    shares: Sequence[str],
    seeds: Sequence[int],
    epochs: int,
    longer: int,
) -> None:
    """Fine-tunes small-bot at toy size on shares of the persons, from scratch and from small-moco at toy size.

    A seed is of the pre-training, the fine-tuning and the choice of persons; both starts have all of it in common.

    Args:
        home: takes results and runs.
        data: the labelled pack; also what is pre-trained on, without its labels.
        overrides: of small-moco.
        shares: of the training persons.
        seeds: of the runs.
        epochs: of pre-training.
        longer: epochs of fine-tuning, times what small-bot has.
    """
    results = Results(home / FILE)
    dataset = open_pack(data).dataset
    title = " ".join(["pre-trained", f"{epochs} epochs", *overrides])
    for seed in seeds:
        for share in shares:
            for start in ("scratch", title):
                key = {"what": "labels", "data": dataset, "setting": start, "share": share, "seed": seed}
                key |= {"epochs": 0 if start == "scratch" else epochs, "longer": longer}
                if results.has(key):
                    continue
                started_at = time.perf_counter()
                backbone = None
                if start != "scratch":
                    backbone = find_backbone(home, data, overrides, seed=seed, epochs=epochs)
                scores = finetune_share(home, data, backbone, share=share, seed=seed, longer=longer)
                results.add({**key, **scores, "seconds": round(time.perf_counter() - started_at)})


def find_backbone(home: Path, data: Path, overrides: Sequence[str], *, seed: int, epochs: int) -> Path:
    """The checkpoint of a pre-training, run now where it is not there."""
    folder = home / "-".join([data.stem, *overrides, str(epochs), str(seed)]).replace(" ", "")
    checkpoint = folder / "checkpoint.safetensors"
    if not checkpoint.is_file():
        pretrain(pretrain_job(home, data, overrides, seed=seed, epochs=epochs), QUIET)
        shutil.move(home / "sweep", folder)
    return checkpoint


def finetune_share(
    home: Path, data: Path, backbone: Path | None, *, share: str, seed: int, longer: int
) -> dict[str, float]:
    """Scores of small-bot at toy size, trained on a share of the persons."""
    overrides = (*TOY, f"data.persons={PERSONS}", f"data.subset=ids:{share}", f"data.subset_seed={seed}")
    flags = {"seed": seed, "start": "scratch" if backbone is None else str(backbone)}
    adopted = {"pixels.mean": LUPERSON_MEAN, "pixels.std": LUPERSON_STD}  # as the command does for such a backbone
    recipe = resolve_recipe("finetune", "small-bot", overrides=overrides, flags=flags, adopted=adopted)
    assert isinstance(recipe, FinetuneRecipe)
    schedule = recipe.schedule.model_copy(update={"epochs": longer * recipe.schedule.epochs})
    recipe = recipe.model_copy(update={"schedule": schedule})
    job = FinetuneJob(recipe, (data,), backbone, home / "labels", CPU, 0, ("learn_sweep",), force=True, quiet=True)
    scores = finetune(job, QUIET)["scores"]
    return {"map": scores["map"], "rank1": scores["rank1"]}


def main() -> None:
    """Runs what the command line names, then prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["sweep", "labels", "table"])
    parser.add_argument("data", nargs="?", default="drawn", help="a labelled pack, or drawn")
    parser.add_argument("--home", type=Path, default=Path("lup-sweep"), help="folder of results and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=20, help="of pre-training")
    parser.add_argument("--only", nargs="+", default=[UNTRAINED, *SETTINGS], help="settings, or KEY=VALUE texts")
    parser.add_argument("--shares", nargs="+", default=["0.25", "1"], help="of the persons that have labels")
    parser.add_argument("--set", nargs="+", default=[], help="KEY=VALUE texts for pre-training, for labels")
    parser.add_argument("--longer", type=int, default=1, help="fine-tune so many times longer than small-bot")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    if options.what != "table":
        data = find_pack(options.home, options.data)
        if options.what == "sweep":
            sweep(options.home, data, options.only, seeds=options.seeds, epochs=options.epochs)
        else:
            compare_labels(
                options.home,
                data,
                options.set,
                shares=options.shares,
                seeds=options.seeds,
                epochs=options.epochs,
                longer=options.longer,
            )
    show_table(options.home / FILE)


if __name__ == "__main__":
    main()
