"""Which kernel of scaled dot-product attention this machine takes, and whether it is right."""

from collections.abc import Callable
from functools import partial
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend

from lupctl.core.stages.exercise.check import Outcome, Trial, WrongError
from lupctl.core.stages.exercise.trunks import relative
from lupctl.core.system.jobs.precision import name_precision
from lupctl.core.training.engine.stopwatch import time_calls

SEED: Final = 0
TIMED_S: Final = 0.05
# Calls that are timed as one: on a GPU a single one is shorter than the wait for it.
REPEATS: Final = 5
# Images, heads, tokens and length of a head: a ViT-S at 256 x 128, and windows of a Swin-T with their biases.
SHAPES: Final = {"vit-s": (4, 6, 129, 64), "swin-t, with biases": (32, 3, 49, 32)}
LIMITS: Final = {torch.float32: 0.002, torch.bfloat16: 0.02}


def attention_trials(device: torch.device) -> list[Trial]:
    """Attention as the transformers here ask for it, in both types."""
    return [
        Trial(f"attention of {name}, {name_precision(kind)}, {device}", partial(_attend, name, kind, device))
        for name in SHAPES
        for kind in (torch.float32, torch.bfloat16)
    ]


def _attend(name: str, kind: torch.dtype, device: torch.device, left_s: float) -> Outcome:
    """One attention against its definition in float64.

    Raises:
        WrongError: it differs by more than rounding.
    """
    draw = torch.Generator().manual_seed(SEED)
    queries, keys, values = (torch.randn(SHAPES[name], generator=draw).to(device, kind) for _ in range(3))
    tokens = SHAPES[name][2]
    bias = torch.randn(1, SHAPES[name][1], tokens, tokens, generator=draw).to(device, kind) if "bias" in name else None
    call = partial(functional.scaled_dot_product_attention, queries, keys, values, attn_mask=bias)
    with torch.no_grad():
        found, chosen = call(), pick_kernel(queries, keys, values, bias)
        difference = relative(found.cpu(), define_attention(queries, keys, values, bias))
        spent = time_calls(partial(_repeat, call), device, budget_s=TIMED_S) / REPEATS
    if not difference <= LIMITS[kind]:
        raise WrongError(f"{chosen}: {difference:.0e} from its definition; at most {LIMITS[kind]} is rounding")
    numbers = {"difference": difference, "microseconds": spent * 1e6}
    return Outcome(f"{chosen}, {difference:.0e} from its definition", f"{spent * 1e6:,.0f} µs", numbers)


def _repeat(call: Callable[[], Tensor]) -> None:
    for _ in range(REPEATS):
        call()


def pick_kernel(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> str:
    """The name of the kernel that torch takes for this attention: math, flash, efficient or cudnn."""
    number = torch._fused_sdp_choice(queries, keys, values, bias)
    names = {int(one.value): name for name, one in SDPBackend.__members__.items()}
    return names.get(int(number), str(number)).removesuffix("_ATTENTION").lower()


def define_attention(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(Q K^T / sqrt(D) + bias) V in float64 on the CPU (Vaswani et al. 2017, equation 1)."""
    wide = [one.cpu().double() for one in (queries, keys, values)]
    products = wide[0] @ wide[1].transpose(2, 3) / wide[0].shape[3] ** 0.5
    if bias is not None:
        products = products + bias.cpu().double()
    return torch.matmul(products.softmax(dim=3), wide[2])
