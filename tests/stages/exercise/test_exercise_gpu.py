"""The exercise on a machine with CUDA; `pytest -m gpu -s` shows its figures."""

import pytest
import torch

from lupctl.core.flows.machine.exercise import exercise
from lupctl.core.stages.exercise.check import Check
from lupctl.core.system.progress.lines import Progress


@pytest.fixture(scope="module")
def checks() -> list[Check]:
    return exercise(Progress(quiet=True), seconds=300.0)


@pytest.mark.gpu
@pytest.mark.parametrize(
    "start",
    ["decoding", "transforms", "pinned copies", "all-reduce", "ranks", "cosines", "faiss's", "attention", "r18",
     "vit-t", "swin-u", "training", "torch.compile"],
)  # fmt: skip
def test_on_gpus(start: str, checks: list[Check]) -> None:
    found = [check for check in checks if check.what.startswith(start)]
    for check in found:
        print(f"{torch.cuda.get_device_name(0)}: {check.what}: {check.status}: {check.result}; {check.figure}")
    assert found
    assert not [check for check in found if check.status == "failed"]
    if all(check.status == "skipped" for check in found):
        pytest.skip(found[0].result)
