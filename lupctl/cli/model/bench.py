"""`lupctl model bench`."""

from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.complete import complete_run
from lupctl.cli.options import (
    DebugOption,
    DeviceOption,
    ForceOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
)
from lupctl.cli.output import print_path, print_table
from lupctl.core.flows.machine.bench import BACKENDS, bench, parse_backends, parse_batches
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace, output_path

if TYPE_CHECKING:
    from lupctl.core.ranking.reports.model.speed import Bench

FILE = "bench.json"
NetworksArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[NET]...",
        help="A run, a checkpoint, published weights that are here, or an .onnx or .xml [default: the newest run].",
        show_default=False,
        autocompletion=complete_run,
    ),
]
BatchOption = Annotated[str, typer.Option("--batch", metavar="N,N", help="Images of a pass.")]
BackendOption = Annotated[
    str | None,
    typer.Option(
        "--backend",
        metavar="NAME,NAME",
        help=f"What runs them: {', '.join(BACKENDS)} [default: all that are here].",
        show_default=False,
    ),
]
BenchPixelsOption = Annotated[
    str | None,
    typer.Option(
        "--pixels", metavar="HxW", help="Size of the images of an .onnx or .xml that takes any.", show_default=False
    ),
]
SecondsOption = Annotated[
    float, typer.Option("--seconds", min=0.0, max=3600.0, help="For each network, backend and number of images.")
]


def bench_models(
    networks: NetworksArgument = None,
    batch: BatchOption = "1,32",
    backend: BackendOption = None,
    device: DeviceOption = None,
    pixels: BenchPixelsOption = None,
    seconds: SecondsOption = 2.0,
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Measures how fast networks are, side by side: time of a pass, images per second, memory, parameters, FLOPs.

    A pass goes from resized pixels to the feature, in one thread on a CPU; all take turns, so that other work on the
    machine slows them down alike. A run or a checkpoint is exported to a temporary file for the backends that need
    one. `--out` keeps the figures, and `eval --all` draws mAP against milliseconds from those in `lup/comparisons`.

    Examples:

    `lupctl model bench mine`

    `lupctl model bench mine other.onnx --batch 1,32 --out lup/comparisons`
    """
    from lupctl.cli.data.size import parse_size
    from lupctl.core.ranking.reports.model.speed import bench_text, write_bench
    from lupctl.core.system.disk.atomic import check_absent
    from lupctl.core.system.jobs.device import pick_device

    progress = Progress(quiet=quiet)
    batches, backends, size = parse_batches(batch), parse_backends(backend), parse_size(pixels, "--pixels")
    place = None if out is None else output_path(out, FILE)
    if place is not None:
        check_absent(place, force=force)
    found = bench(
        open_workspace(home),
        networks or [None],
        batches,
        # A GPU is taken where there is one, unless a backend was named that computes on the CPU.
        pick_device(device or (None if backends in (None, ["torch"]) else "cpu")),
        backends,
        pixels=size,
        seconds=seconds,
        progress=progress,
    )
    if place is not None:
        write_bench(place, found)
    if json:
        print(bench_text(found), end="")
        return
    show_bench(found)
    if place is not None:
        print_path(place)


def show_bench(found: "Bench") -> None:
    """Prints a row for each network, backend and number of images."""
    rows = []
    for run in found.runs:
        network = next(one for one in found.networks if one.name == run.name)
        rows.append(
            (
                run.name,
                run.backend,
                run.batch,
                f"{run.median_ms:,.1f}",
                f"{run.p95_ms:,.1f}",
                f"{run.images_per_s:,.1f}",
                None if run.memory_bytes is None else f"{run.memory_bytes / 2**20:,.0f}",
                f"{network.parameters / 1e6:,.2f}",
                "unknown" if network.flops is None else f"{network.flops / 1e9:,.2f}",
            )
        )
    columns = ["network", "backend", "batch", "ms", "95 %", "images/s", "MiB", "parameters, M", "GFLOPs"]
    machine = found.machine
    versions = ", ".join(f"{name} {number}" for name, number in machine.versions.items())
    threads = "one thread each" if machine.device == "cpu" else machine.device
    print_table("", columns, rows, note=f"{threads}, in turns; {versions}; GFLOPs of one image")
