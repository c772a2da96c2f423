"""What a small vision transformer learns from little, and what its parts and the cameras bring; run by hand.

    python tests/benchmarks/studies/vit_study.py starts lup/packs/market1501.h5    small-vit and small-bot, both starts
    python tests/benchmarks/studies/vit_study.py cameras                           side information and jigsaw patches
    python tests/benchmarks/studies/vit_study.py table                             what there is so far

`starts` trains the small recipes as they are shipped, from scratch and from a momentum contrast of the same trunk on
the same images. `cameras` trains a smaller transformer on drawn persons whose cameras have strong colours of their own,
and scores it with each image's camera, with half of the cameras unknown, and with all of them unknown, by every rule.
Every finished run is a line of `vit.jsonl` in the folder `--home`, so the same command goes on where the last one
ended.
"""

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from learn_results import Results, spread
from learn_sweep import CPU, CPU_DEVICE, QUIET

from lupctl.core.data.sources.records import Source
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.formats.images.codec import decode_rgb, encode_jpeg
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.retrieval.answerable import gallery_rows, query_rows
from lupctl.core.ranking.retrieval.cameras import choose_rows
from lupctl.core.ranking.retrieval.extract import Encoder, extract_features, open_encoder
from lupctl.core.ranking.retrieval.score import score
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pack import pack
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.training.loading.images import PackImages

FILE = "vit.jsonl"
PLAN = SyntheticPlan(seed=1, train_persons=80, test_persons=60, cameras=6, shots=2, distractors=40, height=64, width=32)
# Factors on red, green and blue of each camera.
TINTS = ((1.0, 0.7, 0.5), (0.5, 0.8, 1.0), (0.6, 0.6, 0.6), (1.0, 0.9, 0.6), (0.7, 1.0, 0.7), (0.9, 0.6, 1.0))
TOY = ("pixels.height=64", "pixels.width=32", "vit.depth=4", "saving.every_epochs=0", "data.persons=8", "augment.pad=3")
SIDE = ("sie.cameras=true",)
JIGSAW = ("net.head=jpm",)
VARIANTS: dict[str, tuple[str, ...]] = {
    "neither": (),
    "cameras (SIE)": SIDE,
    "cameras, a tenth hidden": (*SIDE, "sie.unknown=0.1"),
    "jigsaw (JPM)": JIGSAW,
    "both": (*SIDE, *JIGSAW),
}
PARTNERS = {"small-vit": "small-moco-vit", "small-bot": "small-moco"}


class TintedSource:
    """Drawn persons as cameras with colours of their own see them.

    Args:
        source: of the persons.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        samples = source.list_images()
        self._camera = dict(zip(samples.name, samples.camera.tolist(), strict=True))

    @property
    def dataset(self) -> str:
        """That of the source."""
        return self._source.dataset

    @property
    def facts(self) -> dict[str, object]:
        """Those of the source, and the colours."""
        return {**self._source.facts, "tints": TINTS}

    def list_images(self) -> Samples:
        """Those of the source."""
        return self._source.list_images()

    def read(self, name: str) -> bytes:
        """An image in its camera's colours."""
        tint = np.array(TINTS[self._camera[name] - 1])
        return encode_jpeg((decode_rgb(self._source.read(name)) * tint).round().astype(np.uint8), quality=95)


def train(home: Path, data: Path, overrides: Sequence[str], *, recipe: str, start: Path | None, seed: int) -> Path:
    """Fine-tunes with a recipe; returns the run."""
    flags = {"seed": seed, "start": "scratch" if start is None else str(start)}
    resolved = resolve_recipe("finetune", recipe, overrides=tuple(overrides), flags=flags)
    assert isinstance(resolved, FinetuneRecipe)
    job = FinetuneJob(resolved, (data,), start, home / f"run-{seed}", CPU, 0, ("vit_study",), force=True, quiet=True)
    finetune(job, QUIET)
    return job.run


def contrast(home: Path, data: Path, recipe: str, *, seed: int) -> Path:
    """The backbone of a pre-training with this seed, made where it is not there."""
    checkpoint = home / f"{recipe}-{seed}" / "checkpoint.safetensors"
    if not checkpoint.is_file():
        resolved = resolve_recipe("pretrain", recipe, flags={"seed": seed})
        assert isinstance(resolved, PretrainRecipe)
        pretrain(PretrainJob(resolved, (data,), checkpoint.parent, CPU, 0, ("vit_study",), quiet=True), QUIET)
    return checkpoint


def score_run(run: Path, data: Path) -> dict[str, dict[str, float]]:
    """mAP and rank-1 by what the network is told of the cameras; without a table there is one answer."""
    encoder, _ = open_encoder(run / "checkpoint.safetensors", device=CPU_DEVICE, precision=torch.float32)
    table = encoder.cameras
    if table is None:
        return {"own": score_with(encoder, data)}
    # A name of another dataset is no camera of this one.
    half = replace(table, cameras=tuple(f"x/{one}" if row % 2 else one for row, one in enumerate(table.cameras)))
    all_unknown = replace(table, cameras=())
    found = {"own": score_with(encoder, data), "none": score_with(encoder, data, use_none=True)}
    for name, known in (("half", half), ("all", all_unknown)):
        if table.has_unknown:
            found[f"{name} unknown, learned row"] = score_with(replace(encoder, cameras=known), data)
            known = replace(known, has_unknown=False)
        found[f"{name} unknown, mean row"] = score_with(replace(encoder, cameras=known), data)
    return found


def score_with(encoder: Encoder, data: Path, *, use_none: bool = False) -> dict[str, float]:
    """mAP and rank-1 of a pack's queries, as the encoder's table has the cameras."""
    made = open_pack(data)
    rows = np.concatenate([query_rows(made.samples), gallery_rows(made.samples)])
    samples = made.samples.select(rows)
    placed = choose_rows(
        encoder.cameras, samples.camera, dataset=made.dataset, use="none" if use_none else None, network="it"
    )
    given = None if placed is None else placed.rows
    images = PackImages([made], rows)
    features = extract_features(encoder, images, chunk=128, workers=0, flip=False, progress=QUIET, cameras=given)
    scores = score(features, samples, device=CPU_DEVICE, same_camera="drop").scores
    return {"map": scores.map, "rank1": scores.cmc[1]}


def compare_starts(home: Path, data: Path, seeds: Sequence[int]) -> None:
    """Trains what has no result yet, every recipe and start with one seed before the next."""
    results = Results(home / FILE)
    for seed in seeds:
        for recipe, partner in PARTNERS.items():
            for start in ("scratch", partner):
                key = {"what": "starts", "setting": f"{recipe} from {start}", "seed": seed}
                if results.has(key):
                    continue
                started_at = time.perf_counter()
                begun = None if start == "scratch" else contrast(home, data, partner, seed=seed)
                run = train(home, data, (), recipe=recipe, start=begun, seed=seed)
                results.add({**key, **score_run(run, data)["own"], "seconds": round(time.perf_counter() - started_at)})


def compare_cameras(home: Path, names: Sequence[str], seeds: Sequence[int], epochs: int) -> None:
    """Trains every variant that has no result yet on drawn persons, and scores it by every rule."""
    results, data = Results(home / FILE), home / "tinted.h5"
    if not data.is_file():
        pack(TintedSource(SyntheticSource(PLAN, dataset="tinted")), out=data, progress=QUIET)
    for seed in seeds:
        for name in names:
            key = {"what": "cameras", "setting": name, "seed": seed, "epochs": epochs}
            if results.has(key):
                continue
            started_at = time.perf_counter()
            overrides = (*TOY, *VARIANTS[name], f"schedule.epochs={epochs}")
            run = train(home, data, overrides, recipe="small-vit", start=None, seed=seed)
            results.add({**key, "by_rule": score_run(run, data), "seconds": round(time.perf_counter() - started_at)})


def show(path: Path) -> None:
    """Mean and standard deviation over seeds."""
    rows = Results(path).rows
    groups: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        for rule, scores in row.get("by_rule", {"": row}).items():
            groups[row["what"], f"{row['setting']}, {rule}".removesuffix(", ")].append(scores)
    print("| what | setting | seeds | mAP | rank-1 |\n|---|---|---|---|---|")
    for (what, setting), found in groups.items():
        cells = [spread([100 * scores[name] for scores in found]) for name in ("map", "rank1")]
        print(f"| {' | '.join([what, setting, str(len(found)), *cells])} |")


def main() -> None:
    """Runs what the command line names, then prints the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["starts", "cameras", "table"])
    parser.add_argument("data", nargs="?", type=Path, help="a labelled pack, for starts")
    parser.add_argument("--home", type=Path, default=Path("lup-vit"), help="folder of results, packs and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--epochs", type=int, default=30, help="of cameras")
    parser.add_argument("--only", nargs="+", default=list(VARIANTS), choices=VARIANTS, help="of cameras")
    options = parser.parse_args()
    options.home.mkdir(parents=True, exist_ok=True)
    if options.what == "starts":
        compare_starts(options.home, options.data, options.seeds)
    elif options.what == "cameras":
        compare_cameras(options.home, options.only, options.seeds, options.epochs)
    show(options.home / FILE)


if __name__ == "__main__":
    main()
