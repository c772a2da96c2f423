"""A network's graph in the precision that was asked for, and how it was made."""

from pathlib import Path
from typing import Any, Final

import numpy as np

from lupctl.core.formats.weights.onnx import Inputs, write_model
from lupctl.core.ranking.retrieval.onnx.open import open_onnx
from lupctl.core.stages.export.calibration import BATCH, Calibration, prepare_batches
from lupctl.core.stages.export.job import ExportJob
from lupctl.core.stages.export.quantize.bias import correct_biases, measure_means
from lupctl.core.stages.export.quantize.floats import leave_in_float
from lupctl.core.stages.export.quantize.graph import choose_layers, find_layers, fold, shorten_names
from lupctl.core.stages.export.quantize.halves import halve
from lupctl.core.stages.export.quantize.int8 import PERCENTILE, WEIGHT_BITS, measure_ranges, quantize
from lupctl.core.stages.export.quantize.rounding import measure_moments, round_weights
from lupctl.core.stages.export.quantize.search import search_floats
from lupctl.core.stages.export.source import Source
from lupctl.core.system.examples import count_things, name_some
from lupctl.core.system.progress.lines import Progress

# Calibration images that weights are rounded for, and those that layers are tried on.
ROUNDED: Final = 64
TRIED: Final = 32


def change_precision(
    job: ExportJob, source: Source, folder: Path, calibration: Calibration | None, progress: Progress
) -> tuple[Any, dict[str, Any]]:
    """An `onnx.ModelProto` in the precision of a job, and what its record says of that.

    Args:
        job, source: what is exported.
        folder: for files that are needed on the way.
        calibration: images for int8.
        progress: lines and bars.

    Raises:
        DataError: there is no layer that int8 is for.
        CorruptImageError: a calibration image does not decode.
    """
    if job.precision == "float32" or (job.precision == "float16" and job.format == "openvino"):
        return source.model, {}  # OpenVINO's own writer makes float16 of its weights
    path = folder / "source.onnx"
    write_model(path, source.model, source.record, description="")
    model = fold(path, folder)
    layers = find_layers(model, name=str(job.checkpoint))
    if calibration is None:
        path.unlink()
        return halve(model, layers), {}
    every, layers = layers, choose_layers(model, layers, name=str(job.checkpoint))
    progress.say(f"calibration: {len(calibration.rows)} images of {calibration.pack.path} ({job.used_rule})")
    # Opened as what was written: a record says how images are prepared, or the options of the command do.
    network = open_onnx(job.checkpoint if job.is_foreign else path, job.foreign)
    batches = prepare_batches(calibration, network.encoder)
    path.unlink()
    ranges = measure_ranges(model, layers, batches, job.used_rule)
    tried = batches[: max(1, TRIED // BATCH)]
    wanted = np.concatenate([network.encoder.session.run(batch)[0] for batch in tried])
    is_symmetric = job.format == "tensorrt"
    whole = quantize(ranges, is_symmetric=is_symmetric)
    moments = measure_moments(model, layers, batches[: max(1, ROUNDED // BATCH)])
    rounded = round_weights(whole, model, layers, moments, progress)
    corrected = correct_biases(whole, model, layers, measure_means(model, layers, _equal(batches)))
    found = search_floats(whole, ranges, tried, wanted.reshape(len(wanted), -1), progress)
    floats = [layers.weighted[name] for name in found.floats]
    named = f"; in float: {name_some(floats)}" if floats else "; none stays in float"
    small = len(every.weighted) - len(layers.weighted)
    if small:
        progress.say(f"int8: {count_things(small, 'small layer')} would not get smaller, and stay in float")
    progress.say(
        f"int8: features of calibration images keep {1 - found.errors[-1]:.4f} of their cosine (all "
        f"{count_things(len(layers.weighted), 'layer')} in int8 {1 - found.errors[0]:.4f}){named}"
    )
    quantized = leave_in_float(whole, ranges.model, found.floats)
    shorten_names(quantized)
    story = {
        "quantization": {
            "method": "static, QDQ",
            "weights": f"int8 of {WEIGHT_BITS} bits, a scale for each channel",
            "activations": "int8 around 0, inputs of layers alone" if is_symmetric else "uint8",
            "rule": f"percentile {PERCENTILE:g}" if job.used_rule == "percentile" else job.used_rule,
            "calibration": calibration.to_json(),
            "layers": len(layers.weighted),
            "small_layers": small,
            "rounded_layers": rounded,
            "corrected_biases": corrected,
            "float_layers": floats,
            "moved": [round(error, 6) for error in found.errors],
            "trials": found.trials,
        }
    }
    return quantized, story


def _equal(batches: list[Inputs]) -> list[Inputs]:
    """Those that are as large as the first one."""
    count = [len(next(iter(batch.values()))) for batch in batches]
    return [batch for batch, size in zip(batches, count, strict=True) if size == count[0]]
