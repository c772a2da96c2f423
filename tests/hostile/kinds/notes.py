"""The small JSON files that lupctl keeps next to data and runs, written by somebody else."""

import json
from random import Random

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import as_json, mutate, spoil, value

NOTES = (
    "lup/runs/fine/run.json", "lup/runs/fine/inputs.json", "lup/runs/fine/metrics.jsonl", "lup/runs/fine/recipe.toml",
    "lup/runs/pre/run.json", "lup/runs/pre/inputs.json", "lup/runs/pre/metrics.jsonl", "lup/raw/crops/.lupctl.json",
)  # fmt: skip
RAW_COMMANDS = """
data list
data list --long
data pack crops --workers 1
data pack crops --dry-run
data verify lup/raw/crops
data rm crops --dry-run
data download crops --dry-run
"""
RUN_COMMANDS = """
run list
run list --json
run show {run}
run show {run} --json
run rm {run} --dry-run
dump --dry-run
dump {run} --dry-run
eval
eval {run} --dry-run
recipe show {run}
model list
finetune labelled --gpus 0 --dry-run
finetune labelled --out lup/runs/fine --from scratch --gpus 0 --dry-run
pretrain --data crowd --out lup/runs/pre --gpus 0 --dry-run
"""


def make(draw: Random, place: Place) -> Case:
    """A note that a command reads."""
    place.take("lup")
    name = draw.choice(NOTES)
    path = place.work / name
    if name.endswith(".toml") or draw.random() < 0.25:
        path.write_bytes(mutate(draw, path.read_bytes()))
    else:
        rows = path.read_text().splitlines() if name.endswith("jsonl") else [path.read_text()]
        rows = [as_json(spoil(draw, json.loads(row), times=draw.choice((1, 1, 3)))) for row in rows]
        path.write_text("\n".join(rows) if draw.random() < 0.95 else as_json(value(draw)))
    run = "fine" if "fine" in name else "pre"
    return Case(pick_command(draw, RAW_COMMANDS if "raw" in name else RUN_COMMANDS, run=run))
