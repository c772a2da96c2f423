"""A comparison as the document that is printed and kept."""

from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version

import torch

from lupctl.core.ranking.reports.model.speed import Bench, BenchMachine, BenchNetwork, BenchRun
from lupctl.core.stages.bench.model import Contender
from lupctl.core.system.threads.cores import usable_cores


def build_document(
    contenders: Sequence[Contender], timed: Sequence[BenchRun], notes: Sequence[str], device: torch.device
) -> Bench:
    """The document of what was measured.

    Args:
        contenders: the networks in their backends.
        timed: what was measured of them.
        notes: what was left out.
        device: of the torch ones.
    """
    subjects = {one.subject.name: one.subject for one in contenders}
    backends = dict.fromkeys(one.backend for one in contenders)
    name = str(device) if device.type == "cpu" else f"{device}, {torch.cuda.get_device_name(device)}"
    versions = {one: str(torch.__version__) if one == "torch" else version(one) for one in backends}
    return Bench(
        machine=BenchMachine(device=name, cores=usable_cores(), threads=1, versions=versions),
        networks=[BenchNetwork(**{**asdict(one), "path": str(one.path)}) for one in subjects.values()],
        runs=list(timed),
        notes=list(notes),
    )
