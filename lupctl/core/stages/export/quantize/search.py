"""Which layers are left in float: those that hurt most, found by trial."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.formats.weights.onnx import ERRORS_ONLY, Inputs
from lupctl.core.stages.export.quantize.floats import leave_in_float
from lupctl.core.stages.export.quantize.int8 import Ranges
from lupctl.core.system.progress.lines import Progress

# Mean of 1 - cosine between a feature in int8 and in float32 that is good enough to end the search.
GOOD: Final = 0.01
# Layers that are left in float at most; each is found in four trials for every factor of four in their number.
MOST_FLOATS: Final = 4
# Share of the error that a layer has to bring for it to stay in float.
WORTH: Final = 0.2
# Parts that a group of layers is divided into, of which the one that hurts most is divided further.
PARTS: Final = 4


@dataclass(frozen=True)
class Search:
    """What was found.

    Args:
        floats: names of nodes that stay in float, the one that hurt most first.
        errors: mean of 1 - cosine with all layers in int8, and after each of these.
        trials: networks that were tried.
    """

    floats: tuple[str, ...]
    errors: tuple[float, ...]
    trials: int


def find_floats(layers: Sequence[str], error_without: Callable[[tuple[str, ...]], float], progress: Progress) -> Search:
    """The layers whose quantisation moves features most: of groups, then of parts of the worst group, to one layer.

    >>> hurts = {"a": 0.1, "b": 0.001, "c": 0.03, "d": 0.001}
    >>> found = find_floats(list(hurts), lambda kept: sum(hurts[one] for one in hurts if one not in kept), Progress())
    >>> found.floats, [round(error, 3) for error in found.errors]
    (('a', 'c'), [0.132, 0.032, 0.002])

    Args:
        layers: names in the order of the network.
        error_without: the error if these stay in float.
        progress: a bar over trials.
    """
    floats, trials = tuple[str, ...](), 1
    errors = [error_without(floats)]
    with progress.task("layers that hurt", total=1, unit="trials") as bar:
        bar.advance()
        while errors[-1] > GOOD and len(floats) < min(MOST_FLOATS, len(layers)):
            group, error = [name for name in layers if name not in floats], 0.0
            # A layer brings no more than the group that it is in.
            while len(group) > 1 and error < errors[-1] * (1 - WORTH):
                parts = [group[at * len(group) // PARTS : (at + 1) * len(group) // PARTS] for at in range(PARTS)]
                parts = [part for part in parts if part]
                bar.grow(len(parts))
                found = []
                for part in parts:
                    found.append(error_without((*floats, *part)))
                    bar.advance()
                trials += len(parts)
                best = int(np.argmin(found))
                group, error = parts[best], found[best]
            if len(group) > 1 or not error < errors[-1] * (1 - WORTH):
                break
            floats, errors = (*floats, *group), [*errors, error]
    return Search(floats, tuple(errors), trials)


def search_floats(
    quantized: Any, ranges: Ranges, batches: Sequence[Inputs], wanted: NDArray[np.float32], progress: Progress
) -> Search:
    """The layers of a network that are left in float.

    Args:
        quantized: the network with all layers in int8.
        ranges: that it was made with.
        batches: images that it is tried on.
        wanted: (N, D) their features in float32.
        progress: a bar.
    """

    def error_without(floats: tuple[str, ...]) -> float:
        found = compute(leave_in_float(quantized, ranges.model, floats), batches)
        return 1 - float(cosines(found, wanted).mean())

    return find_floats(list(ranges.layers.weighted), error_without, progress)


def compute(model: Any, batches: Sequence[Inputs]) -> NDArray[np.float32]:
    """Features of a graph in memory, (N, D)."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    # Several times 64 images are not worth its search for the fastest layout.
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    found = [session.run(None, batch)[0] for batch in batches]
    return np.concatenate([one.reshape(len(one), -1) for one in found]).astype(np.float32, copy=False)


def cosines(first: NDArray[np.float32], second: NDArray[np.float32]) -> NDArray[np.float64]:
    """(N) cosines of the rows of two (N, D); 0 where one has no direction."""
    one, two = first.astype(np.float64), second.astype(np.float64)
    length = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found: NDArray[np.float64] = np.nan_to_num((one * two).sum(axis=1) / length)
    return found
