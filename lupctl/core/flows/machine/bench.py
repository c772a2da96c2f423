"""`lupctl model bench`: networks by the names that the command line knows, side by side."""

import importlib.util
import re
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, get_args

from lupctl.core.choices import Backend, Runtime
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import RUN_ALONE, pick_network
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.ranking.reports.model.speed import Bench
    from lupctl.core.stages.bench.model import Contender, Runner, Subject

BACKENDS: Final[tuple[Backend, ...]] = get_args(Backend)
RUNTIMES: Final[tuple[Runtime, ...]] = get_args(Runtime)
# What writes ONNX files, and shows that they give the same features.
EXPORTING: Final = ("onnx", "onnxruntime", "onnxscript")
# What a backend needs besides lupctl's own requirements, and the command for it.
PACKAGES: Final[dict[Backend, tuple[tuple[str, ...], str]]] = {
    "torch": ((), ""),
    "onnxruntime": (EXPORTING, "pip install 'lupctl[export]'"),
    "openvino": ((*EXPORTING, "openvino"), "pip install 'lupctl[export,openvino]'"),
}
ONNX_SUFFIX, OPENVINO_SUFFIX = ".onnx", ".xml"
BATCH_RULE: Final = re.compile(r"[1-9]\d{0,6}")


def bench(
    space: Workspace,
    names: Sequence[str | None],
    batches: Sequence[int],
    device: "torch.device",
    backends: Sequence[Backend] | None,
    *,
    pixels: tuple[int, int] | None,
    seconds: float,
    progress: Progress,
) -> "Bench":
    """How fast networks are, each in every backend that can run it.

    Args:
        space: where names are looked up.
        names: runs, checkpoints, published weights or files in ONNX or OpenVINO's format; one None for the newest run.
        batches: images of a pass.
        device: of PyTorch; the others compute on the CPU.
        backends: None for every one that is here.
        pixels: of networks in such files that take images of any size.
        seconds: for each network, backend and number of images.
        progress: reports choices and what is left out.

    Raises:
        UsageError: a network is named twice, or a backend cannot run it or is not installed.
        DataError, FormatError: a network is missing or damaged.
        DeviceError: there is not enough memory.
    """
    from lupctl.core.stages.bench.document import build_document
    from lupctl.core.stages.bench.onnx_file import describe_onnx
    from lupctl.core.stages.bench.run import time_contenders

    chosen, missing = _pick_backends(backends, device)
    paths = _find_networks(space, names, progress)
    if pixels is not None and not any(path.suffix in RUN_ALONE for path in paths.values()):
        raise UsageError("--pixels: a checkpoint says how large its images are", hint="leave --pixels out")
    contenders: list[Contender] = []
    with tempfile.TemporaryDirectory(prefix="lupctl-bench-") as folder:
        for number, (name, path) in enumerate(paths.items()):
            if path.suffix in RUN_ALONE:
                contenders += _of_file(describe_onnx(name, path, pixels), chosen, backends, missing)
            else:
                contenders += _of_checkpoint(name, path, chosen, device, Path(folder, f"{number}{ONNX_SUFFIX}"))
        timed, notes = time_contenders(contenders, batches, device, seconds=seconds, progress=progress)
    notes = list(dict.fromkeys([*missing, *notes]))  # two runtimes have the same to say of a file
    for note in notes:
        progress.say(note)
    return build_document(contenders, timed, notes, device)


def parse_batches(text: str) -> list[int]:
    """The numbers of images that `--batch` names.

    Raises:
        UsageError: something else.
    """
    parts = [part.strip() for part in text.split(",")]
    wrong = [part for part in parts if BATCH_RULE.fullmatch(part) is None]
    if wrong:
        raise UsageError(f"--batch {text}: numbers of images from 1 were expected, not {wrong[0]!r}", "--batch 1,32")
    return list(dict.fromkeys(map(int, parts)))


def parse_backends(text: str | None) -> list[Backend] | None:
    """The backends that `--backend` names.

    Raises:
        UsageError: one is not known, or not installed.
    """
    if text is None:
        return None
    found: list[Backend] = []
    for part in dict.fromkeys(part.strip() for part in text.split(",")):
        known = next((one for one in BACKENDS if one == part), None)
        if known is None:
            raise UsageError(
                f"--backend {text}: {name_some(BACKENDS)} were expected, not {part!r}",
                hint=f"--backend {','.join(BACKENDS)}",
            )
        if lacking := _lacking(known):
            raise UsageError(f"--backend {known}: needs {lacking}, which is not installed", hint=PACKAGES[known][1])
        found.append(known)
    return found


def _lacking(backend: Backend) -> str:
    """The packages of a backend that are not installed."""
    return ", ".join(name for name in PACKAGES[backend][0] if importlib.util.find_spec(name) is None)


def _pick_backends(asked: Sequence[Backend] | None, device: "torch.device") -> tuple[list[Backend], list[str]]:
    """The backends to run, and why others are not.

    Raises:
        UsageError: one that was asked for computes on the CPU alone, and another device was named.
    """
    found, notes = list[Backend](), list[str]()
    for backend in asked or BACKENDS:
        if backend != "torch" and device.type != "cpu":
            if asked:
                raise UsageError(f"--backend {backend}: computes on the CPU, not on {device}", hint="--device cpu")
            notes.append(f"{backend}: left out, it computes on the CPU; --device cpu compares it")
        elif lacking := _lacking(backend):
            notes.append(f"{backend}: left out, {lacking} is not installed; {PACKAGES[backend][1]}")
        else:
            found.append(backend)
    return found, notes


def _find_networks(space: Workspace, names: Sequence[str | None], progress: Progress) -> dict[str, Path]:
    """The files of networks by the names that were typed.

    Raises:
        UsageError: two names mean the same file.
        DataError: there is no such network.
    """
    found: dict[str, Path] = {}
    for name in names:
        if name is not None and name in found:
            raise UsageError(f"{name}: named twice", hint="name every network once")
        path = pick_network(space, name, progress)
        if name is not None and path.suffix not in RUN_ALONE and Path(name).suffix in RUN_ALONE:
            raise DataError(f"{name}: there is no such file", hint="lupctl model export RUN makes one")
        same = next((typed for typed, other in found.items() if other.resolve() == path.resolve()), None)
        if same is not None:
            raise UsageError(f"{same} and {name}: the same file, {path}", hint="name every network once")
        found[path.parent.name if name is None else name] = path
    return found


def _of_file(
    subject: "Subject", chosen: Sequence[Backend], asked: Sequence[Backend] | None, missing: Sequence[str]
) -> "list[Contender]":
    """A network in ONNX or OpenVINO's format, in the backends that read it.

    Raises:
        UsageError: there is none of them.
    """
    from lupctl.core.stages.bench.model import Contender
    from lupctl.core.stages.bench.onnx_file import OnnxRunner

    able = [one for one in RUNTIMES if one == "openvino" or subject.path.suffix != OPENVINO_SUFFIX]
    reading = [runtime for runtime in able if runtime in chosen]
    if not reading:
        why = f"not by {name_some(asked)}" if asked else next(iter(missing), "")
        raise UsageError(f"{subject.path}: run by {' or '.join(able)}, {why}", f"--backend {able[0]} --device cpu")
    size = subject.height, subject.width
    return [Contender(subject, runtime, partial(OnnxRunner, subject.path, size, runtime)) for runtime in reading]


def _of_checkpoint(
    name: str, path: Path, chosen: Sequence[Backend], device: "torch.device", exported: Path
) -> "list[Contender]":
    """A checkpoint's network in all backends; for those that run ONNX it is exported.

    Args:
        name: as the user typed it.
        path: of the checkpoint.
        chosen: the backends.
        device: of PyTorch.
        exported: the file to write, where one is needed.
    """
    from lupctl.core.stages.bench.checkpoint import TorchRunner, describe_checkpoint
    from lupctl.core.stages.bench.model import Contender
    from lupctl.core.stages.bench.onnx_file import OnnxRunner
    from lupctl.core.stages.export.job import ExportJob
    from lupctl.core.stages.export.run import export

    subject = describe_checkpoint(name, path)
    opening: dict[Backend, Callable[[], Runner]] = {"torch": partial(TorchRunner, path, device)}
    for runtime in RUNTIMES:
        opening[runtime] = partial(OnnxRunner, exported, (subject.height, subject.width), runtime)
    if any(backend != "torch" for backend in chosen):
        export(ExportJob(path, exported))
    return [Contender(subject, backend, opening[backend]) for backend in chosen]
