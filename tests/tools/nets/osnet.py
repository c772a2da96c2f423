"""A published network in ONNX, in the place of a checkpoint's: for tests on real images."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor

from lupctl.core.choices import Pooling
from lupctl.core.formats.weights.settings import Settings
from lupctl.core.ranking.retrieval.extract import Encoder
from lupctl.core.stages.dump.job import DumpJob
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.training.views.plan import ViewPlan
from tests.tools.networks import make_header

HEIGHT, WIDTH = 256, 128
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class OnnxNetwork:
    """OSNet as it was exported: (B, 3, 256, 128) normalised RGB to (B, 512)."""

    def __init__(self, path: Path) -> None:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def embed(self, pixels: Tensor, cameras: Tensor | None = None) -> Tensor:
        """Features of normalised pixels; it takes no cameras."""
        assert cameras is None
        (features,) = self._session.run(None, {"input": pixels.float().numpy()})
        return torch.from_numpy(features)


def use_osnet(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Whoever opens the checkpoint `path` gets OSNet, in dumps and in searches."""

    def open_osnet(
        found: Path,
        *,
        device: torch.device,
        precision: torch.dtype,
        pooling: Pooling | None = None,
        settings: Settings | None = None,
    ) -> tuple[Any, Any]:
        assert (found, pooling, settings or Settings()) == (path, None, Settings())
        view = ViewPlan(HEIGHT, WIDTH, MEAN, STD, "bilinear")
        network: Any = OnnxNetwork(path)
        checkpoint = SimpleNamespace(fingerprint=file_fingerprint(path), header=make_header())
        return Encoder(network, view, device, torch.float32), checkpoint

    monkeypatch.setattr(DumpJob, "is_onnx", False)
    for module in ("lupctl.core.stages.dump.work", "lupctl.core.stages.find.job"):
        monkeypatch.setattr(f"{module}.open_encoder", open_osnet)
