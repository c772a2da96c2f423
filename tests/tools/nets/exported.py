"""A small network with random weights and the statistics of a trained one, as a checkpoint and as an ONNX file."""

from pathlib import Path

import torch
from torch import nn

from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import describe_pixels
from lupctl.core.recipes.sections import Pixels
from lupctl.core.stages.export.job import ExportJob
from lupctl.core.stages.export.run import export
from lupctl.core.training.nets.build import build_network
from tests.tools.networks import make_header, neck, plan_network


def write_exported(folder: Path) -> Path:
    """Writes `net.safetensors` and `net.onnx`; returns their folder."""
    torch.manual_seed(0)
    plan = plan_network(neck(5), last_stride=1)
    network = build_network(plan)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
    pixels = Pixels(height=64, width=32, interpolation="bilinear", mean=(0.4, 0.3, 0.5), std=(0.2, 0.3, 0.1))
    header = make_header(plan, preprocessing=describe_pixels(pixels))
    write_checkpoint(folder / "net.safetensors", network.state_dict(), header)
    export(ExportJob(folder / "net.safetensors", folder / "net.onnx"))
    return folder
