"""Number types of passes: what is asked for, what `auto` makes of it, and what a CPU multiplies fast."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Final

import torch

from lupctl.core.choices import Precision
from lupctl.core.system.jobs.device import computing_threads

# A product in bf16 must be so many times as fast as one in float32: the rest of a step gains nothing.
LEAST_GAIN: Final = 1.5
# Of the product that is timed: of the size of a convolution's, and of a few milliseconds.
SIZE: Final = 512
ROUNDS: Final = 15


@dataclass(frozen=True)
class CpuBf16:
    """How a CPU multiplies numbers in bfloat16.

    Args:
        unit: the instructions it has for it; none where it goes through float32.
        gain: how many times as fast as float32, as measured.
    """

    unit: str
    gain: float

    @property
    def is_fast(self) -> bool:
        """Whether training gains by it much."""
        return bool(self.unit) and self.gain >= LEAST_GAIN

    def describe(self) -> str:
        """In words."""
        fast, long = f"{self.gain:.1f} times as fast as float32", f"takes {1 / self.gain:.2g} times as long as float32"
        speed = fast if self.gain >= 1 else long
        return f"{speed} ({self.unit})" if self.unit else f"no instructions for it, {speed}"


@cache
def measure_cpu() -> CpuBf16:
    """What this processor does with bfloat16; measured once in a process, which takes some hundredths of a second."""
    has = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()  # type: ignore[no-untyped-call]
    amx = bool(getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)())
    wide = bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())
    unit = "AMX" if has and amx else "AVX-512 BF16" if has and wide else ""
    one = torch.linspace(-1, 1, SIZE * SIZE).view(SIZE, SIZE)
    half = one.bfloat16()
    # In turns, in one thread and its own time: what else the machine does is no part of it.
    with computing_threads(1):
        spent = [(_seconds(lambda: one @ one), _seconds(lambda: half @ half)) for _ in range(ROUNDS + 1)][1:]
    wide_s, half_s = (min(times) for times in zip(*spent, strict=True))
    return CpuBf16(unit, wide_s / half_s)


def _seconds(product: Callable[[], object]) -> float:
    began = time.thread_time()
    product()
    return time.thread_time() - began


def pick_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Type of forward passes: bfloat16 where asked for or, with auto, where a GPU has it; else float32."""
    if precision == "bf16":
        return torch.bfloat16
    if precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return torch.float32


def pick_training_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """As `pick_precision`, but auto is bfloat16 on a CPU too where that is fast: training takes half the time."""
    if precision == "auto" and device.type == "cpu" and measure_cpu().is_fast:
        return torch.bfloat16
    return pick_precision(precision, device)


def expect_precision(precision: Precision, kind: str) -> torch.dtype:
    """What training takes on devices of a kind, cuda or cpu; GPUs that are not here are expected to have bfloat16."""
    if precision == "auto" and kind == "cuda" and not torch.cuda.is_available():
        return torch.bfloat16
    return pick_training_precision(precision, torch.device(kind))


def describe_bf16(device: torch.device, asked: Precision, *, begun: bool) -> str:
    """Passes in bfloat16 in words: why, and what they cost where a processor is not made for it.

    Args:
        device: of the passes.
        asked: by the recipe or the option.
        begun: whether the run has begun in it, wherever that was.
    """
    reason = ", as the run began" if begun else ""
    if device.type != "cpu":
        return f"bf16{reason}"
    if not measure_cpu().is_fast:
        return f"bf16{reason}; slow on this processor: {measure_cpu().describe()}"
    if begun or asked == "bf16":
        return f"bf16{reason}"
    return f'bf16, in products {measure_cpu().describe()}; for float32: precision = "float32"'


def evaluation_precision(training: torch.dtype, device: torch.device) -> torch.dtype:
    """Type of the passes that evaluate a network in training: on a CPU that of `dump`, for the scores of `eval`."""
    return torch.float32 if device.type == "cpu" else training


def name_precision(kind: torch.dtype) -> str:
    """As recipes and options call it."""
    return "bf16" if kind == torch.bfloat16 else "float32"


def autocast(device: torch.device, kind: torch.dtype) -> torch.autocast:
    """The context of a forward pass in that type."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=kind == torch.bfloat16)
