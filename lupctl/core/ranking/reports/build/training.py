"""The training section of a report, from the files of the run."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lupctl.core.errors import DataError
from lupctl.core.formats.weights.header import CheckpointHeader, read_header
from lupctl.core.formats.weights.plan import describe_trunk
from lupctl.core.ranking.reports.model.training import ReportTraining, ReportTrainingCurve
from lupctl.core.system.examples import count_things
from lupctl.core.training.engine.runs import read_metrics
from lupctl.core.workspace import CHECKPOINT_NAME, RUN_NAME, read_run

# More points than a chart has columns.
MOST_POINTS = 200


def report_training(checkpoints: Sequence[Path]) -> ReportTraining | None:
    """How a network was trained; None if its checkpoint is not here.

    Args:
        checkpoints: of the network, and of what it started from, and so on.
    """
    if not checkpoints:
        return None
    own, run = read_header(checkpoints[0]), checkpoints[0].parent
    is_run = checkpoints[0].name == CHECKPOINT_NAME
    facts, rows = (_facts_of(run), _metrics_of(run)) if is_run else ({}, [])
    batch = _batch_of(own)
    return ReportTraining(
        run=checkpoint_title(checkpoints[0]),
        stage=own.stage,
        network=_describe(own),
        height=own.preprocessing.height,
        width=own.preprocessing.width,
        datasets=[pack.dataset for pack in own.data],
        start=_describe_start(own, checkpoints[1:]),
        method=_text((own.recipe or {}).get("method")),
        images=_number(facts.get("images")),
        persons=_number(facts.get("persons")),
        batch=batch,
        epochs=_number(_section(own, "schedule").get("epochs")),
        steps=_number(facts.get("steps")),
        seconds=None if batch is None else _seconds(rows, batch),
        device=_text(facts.get("device")),
        curve=training_curve(rows),
    )


def checkpoint_title(checkpoint: Path) -> str:
    """The name of a run by its checkpoint, or that of a single file.

    >>> checkpoint_title(Path("lup/runs/mine/checkpoint.safetensors")), checkpoint_title(Path("models/r50.safetensors"))
    ('mine', 'r50')
    """
    return checkpoint.resolve().parent.name if checkpoint.name == CHECKPOINT_NAME else checkpoint.stem


def training_curve(rows: Sequence[Mapping[str, Any]]) -> ReportTrainingCurve | None:
    """The curve of a run's metrics, in at most 200 points; None if no loss was written.

    Args:
        rows: of `metrics.jsonl`, in the order of their steps.
    """
    losses = [row for row in rows if _has(row, "step", "loss", "lr")]
    if not losses:
        return None
    parts = [part for part in np.array_split(np.arange(len(losses)), min(MOST_POINTS, len(losses))) if len(part)]
    # With several packs, the scores of the first are the run's own.
    all_scored = [row for row in rows if _has(row, "step", "map")]
    scored = [row for row in all_scored if row.get("dataset") == all_scored[0].get("dataset")]
    scored = scored or [row for row in rows if _has(row, "step", "probe_map")]
    return ReportTrainingCurve(
        step=[int(losses[part[-1]]["step"]) for part in parts],
        loss=[float(np.mean([losses[at]["loss"] for at in part])) for part in parts],
        rate=[float(np.mean([losses[at]["lr"] for at in part])) for part in parts],
        scored_at=[int(row["step"]) for row in scored],
        map=[float(row["map"] if "map" in row else row["probe_map"]) for row in scored],
    )


def _has(row: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(row.get(name), int | float) and math.isfinite(row[name]) for name in names)


# A checkpoint may be without the other files of its run, or with damaged ones: they only show how it came about.
def _facts_of(run: Path) -> dict[str, Any]:
    try:
        return read_run(run) if (run / RUN_NAME).is_file() else {}
    except DataError:
        return {}


def _metrics_of(run: Path) -> list[dict[str, Any]]:
    try:
        return read_metrics(run)
    except (DataError, ValueError):
        return []


def _seconds(rows: Sequence[Mapping[str, Any]], batch: int) -> int | None:
    """The time of all steps, from the throughput of each row."""
    total, before = 0.0, 0
    for row in rows:
        if _has(row, "step", "images_per_s") and row["images_per_s"] > 0:
            total += (row["step"] - before) * batch / row["images_per_s"]
            before = row["step"]
    return round(total) or None


def _batch_of(header: CheckpointHeader) -> int | None:
    data = _section(header, "data")
    persons, images = _number(data.get("persons")), _number(data.get("images"))
    if header.stage == "finetune" and persons is not None and images is not None:
        return persons * images
    return _number(data.get("batch"))


def _describe(header: CheckpointHeader) -> str:
    return f"{describe_trunk(header.network.trunk)}, {header.network.pooling} pooling, head {header.network.head.kind}"


def _describe_start(header: CheckpointHeader, starts: Sequence[Path]) -> str | None:
    """In words, with the starts of the start."""
    name = _text((header.recipe or {}).get("start"))
    if header.stage == "pretrain" and name is None:
        return "scratch"
    if not starts:
        return "ImageNet weights" if name == "imagenet" else name and checkpoint_title(Path(name))
    found = read_header(starts[0])
    how = [_text((found.recipe or {}).get("method")) or found.stage]
    if found.data:
        how.append(f"on {' and '.join(pack.dataset for pack in found.data)}")
    epochs = _number(_section(found, "schedule").get("epochs"))
    if epochs is not None:
        how.append(f"for {count_things(epochs, 'epoch')}")
    title, before = checkpoint_title(starts[0]), _describe_start(found, starts[1:])
    return f"{title} ({' '.join(how)}{'' if before in (None, 'scratch') else f', from {before}'})"


def _section(header: CheckpointHeader, name: str) -> Mapping[str, Any]:
    found = (header.recipe or {}).get(name)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
