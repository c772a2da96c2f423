"""Number types of passes: what a device multiplies fast, and what `auto` makes of it."""

import pytest
import torch

from lupctl.core.choices import Precision
from lupctl.core.system.jobs import precision as module
from lupctl.core.system.jobs.precision import CpuBf16, evaluation_precision, measure_cpu, pick_training_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("speed", "is_fast"),
    [(CpuBf16("AMX", 3.0), True), (CpuBf16("AVX-512 BF16", 1.5), True), (CpuBf16("AMX", 1.4), False),
     (CpuBf16("", 3.0), False)],
)  # fmt: skip
def test_auto_trains_in_bf16_where_that_is_faster(
    monkeypatch: pytest.MonkeyPatch, speed: CpuBf16, is_fast: bool
) -> None:
    """Instructions alone are not enough, and neither is one measurement."""
    monkeypatch.setattr(module, "measure_cpu", lambda: speed)
    assert pick_training_precision("auto", CPU) == (torch.bfloat16 if is_fast else torch.float32)
    chosen: tuple[Precision, Precision] = ("float32", "bf16")
    assert [pick_training_precision(asked, CPU) for asked in chosen] == [torch.float32, torch.bfloat16]


def test_tests_train_in_float32_on_every_processor() -> None:
    assert not measure_cpu().is_fast
    assert pick_training_precision("auto", CPU) == torch.float32


def test_a_network_in_training_is_evaluated_as_dump_does() -> None:
    assert evaluation_precision(torch.bfloat16, CPU) == torch.float32
    assert evaluation_precision(torch.bfloat16, torch.device("cuda")) == torch.bfloat16


def test_the_speed_in_words() -> None:
    assert CpuBf16("AMX", 3.04).describe() == "3.0 times as fast as float32 (AMX)"
    assert CpuBf16("", 0.5).describe() == "0.5 times as fast as float32 (no instructions for it)"
