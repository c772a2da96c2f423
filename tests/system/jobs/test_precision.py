"""Number types of passes: what is asked for, and what a CPU multiplies fast."""

import pytest
import torch

from lupctl.core.choices import Precision
from lupctl.core.system.jobs import precision
from lupctl.core.system.jobs.precision import (
    CpuBf16,
    evaluation_precision,
    expect_precision,
    measure_cpu,
    pick_precision,
    pick_training_precision,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("speed", "is_fast"),
    [(CpuBf16("AMX", 3.0), True), (CpuBf16("AVX-512 BF16", 1.5), True), (CpuBf16("AMX", 1.4), False),
     (CpuBf16("", 3.0), False)],
)  # fmt: skip
def test_instructions_alone_are_not_enough_and_neither_is_one_measurement(speed: CpuBf16, is_fast: bool) -> None:
    assert speed.is_fast == is_fast


def test_tests_have_no_fast_bf16_on_any_processor() -> None:
    """`conftest.py` takes the instructions away, and the measurement sees it."""
    assert measure_cpu().gain < 1.5


@pytest.mark.parametrize(("speed", "auto"), [(3.0, torch.bfloat16), (0.5, torch.float32)])
def test_auto_on_a_cpu(monkeypatch: pytest.MonkeyPatch, speed: float, auto: torch.dtype) -> None:
    """In training it is what is fast; features stay those of every other machine."""
    monkeypatch.setattr(precision, "measure_cpu", lambda: CpuBf16("AMX", speed))
    chosen: tuple[Precision, ...] = ("auto", "float32", "bf16")
    assert [pick_training_precision(asked, CPU) for asked in chosen] == [auto, torch.float32, torch.bfloat16]
    assert [pick_precision(asked, CPU) for asked in chosen] == [torch.float32, torch.float32, torch.bfloat16]
    assert expect_precision("auto", "cpu") == auto


def test_gpus_that_are_not_here_are_expected_to_have_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert expect_precision("auto", "cuda") == torch.bfloat16
    assert expect_precision("float32", "cuda") == torch.float32


def test_a_network_in_training_is_evaluated_as_dump_does() -> None:
    assert evaluation_precision(torch.bfloat16, CPU) == torch.float32
    assert evaluation_precision(torch.bfloat16, torch.device("cuda")) == torch.bfloat16


def test_the_speed_in_words() -> None:
    assert CpuBf16("AMX", 3.04).describe() == "3.0 times as fast as float32 (AMX)"
    assert CpuBf16("AVX-512 BF16", 0.4).describe() == "takes 2.5 times as long as float32 (AVX-512 BF16)"
    assert CpuBf16("", 0.5).describe() == "no instructions for it, takes 2 times as long as float32"
