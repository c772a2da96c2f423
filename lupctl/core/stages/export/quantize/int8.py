"""Static quantisation to int8: ranges of all tensors from calibration images, then scales in the graph."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from lupctl.core.choices import CalibrationRule
from lupctl.core.formats.weights.onnx import Inputs
from lupctl.core.stages.export.quantize.floats import leave_in_float, remove_unused
from lupctl.core.stages.export.quantize.graph import BETWEEN, WEIGHTED, Layers
from lupctl.core.stages.export.quiet import silenced

# Share of the values of a tensor that its range covers, in percent; few values far outside would cost all others bits.
PERCENTILE: Final = 99.999
# Bits of a weight. With eight, processors without VNNI add two products in 16 bits, which overflows: features would
# depend on the processor, and here they lost two points of mAP.
WEIGHT_BITS: Final = 7
# onnxruntime's names for what TensorRT asks for.
SYMMETRIC: Final = {"ActivationSymmetric": True, "OpTypesToExcludeOutputQuantization": list(WEIGHTED)}


@dataclass(frozen=True)
class Ranges:
    """What was measured on calibration images.

    Args:
        model: the folded graph, an `onnx.ModelProto`.
        layers: of it.
        found: onnxruntime's `TensorsData`, the smallest and largest value of each tensor.
    """

    model: Any
    layers: Layers
    found: Any


class _Batches:
    """Batches in the form that onnxruntime's calibration asks for."""

    def __init__(self, batches: Sequence[Inputs]) -> None:
        self._batches: Iterator[Inputs] = iter(batches)

    def get_next(self) -> Inputs | None:
        return next(self._batches, None)


def measure_ranges(model: Any, layers: Layers, batches: Sequence[Inputs], rule: CalibrationRule) -> Ranges:
    """The range of each tensor over batches, one after the other, so that one batch's tensors are in memory.

    Args:
        model: a folded graph.
        layers: of it.
        batches: its inputs by name.
        rule: what of the values the range covers: a percentile, or what keeps most of their distribution (entropy).
    """
    import onnx
    from onnxruntime.quantization import CalibrationMethod
    from onnxruntime.quantization.calibrate import create_calibrator

    method, settings = {
        "percentile": (CalibrationMethod.Percentile, {"percentile": PERCENTILE}),
        "entropy": (CalibrationMethod.Entropy, {}),
    }[rule]
    with tempfile.TemporaryDirectory(prefix="lupctl-") as folder, silenced():
        path = Path(folder) / "folded.onnx"
        onnx.save(model, str(path))
        calibrator = create_calibrator(
            path,
            [*WEIGHTED, *(BETWEEN if layers.between else ())],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=method,
            extra_options=settings,
        )
        for batch in batches:
            calibrator.collect_data(_Batches([batch]))
        return Ranges(model, layers, calibrator.compute_data())


def quantize(ranges: Ranges, *, is_symmetric: bool = False) -> Any:
    """The graph in int8: weights of one scale for each channel, activations of uint8, biases in float.

    A bias in int32 takes three times the bytes, with its scales; runtimes make it of the float when they open the file.

    Args:
        ranges: of its tensors.
        is_symmetric: as TensorRT takes it: activations of int8 around 0, and only those that go into layers with
            weights, so that it can join other operations to them.

    Returns:
        an `onnx.ModelProto` with pairs of QuantizeLinear and DequantizeLinear, which runtimes turn into int8.
    """
    import onnx
    from onnxruntime.quantization import QDQQuantizer, QuantType

    model = onnx.ModelProto()
    model.CopyFrom(ranges.model)
    with silenced():
        quantizer = QDQQuantizer(
            model,
            True,  # per channel
            WEIGHT_BITS == 7,
            QuantType.QInt8,
            QuantType.QInt8 if is_symmetric else QuantType.QUInt8,
            ranges.found,
            [*ranges.layers.weighted, *(() if is_symmetric else ranges.layers.between)],
            [],
            [*WEIGHTED, *BETWEEN],
            {"MatMulConstBOnly": True, "QuantizeBias": False} | (SYMMETRIC if is_symmetric else {}),
        )
        quantizer.quantize_model()
        quantizer.model.topological_sort()  # new nodes were added at the end
    _drop_zero_points(quantizer.model.model)
    # A layer in float would take rounded numbers where another one does, and onnxruntime then rounds its weights, too.
    others = [one for one in ranges.model.graph.node if one.op_type in WEIGHTED]
    kept = [one.name for one in others if one.name not in ranges.layers.weighted]
    return leave_in_float(quantizer.model.model, ranges.model, kept)


def _drop_zero_points(model: Any) -> None:
    """Leaves out those of weights, which are 0 for each channel, as they are where nothing is said."""
    import onnx

    constants = {one.name: one for one in model.graph.initializer}
    for node in model.graph.node:
        kept = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if kept is not None and kept.data_type == onnx.TensorProto.INT8:
            del node.input[2:]
    remove_unused(model)
