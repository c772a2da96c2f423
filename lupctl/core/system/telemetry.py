"""Libraries that report how they are used, or keep numbers of this machine at home, do not do so under lupctl."""

import os
import sys


def forbid_telemetry() -> None:
    """Keeps onnxruntime and OpenVINO from reporting to their makers; called before they are imported.

    onnxruntime (1.32) writes an id of the device to `~/.cache/Microsoft`, OpenVINO one to `~/intel`.
    """
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # OpenVINO imports what it reports with if it is there, and else does without.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
