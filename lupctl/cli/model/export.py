"""`lupctl model export`."""

from dataclasses import asdict
from typing import Annotated

import typer

from lupctl.cli.options import (
    DebugOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
)
from lupctl.cli.output import print_json, print_path, print_plan
from lupctl.cli.retrieval.dump import RunArgument
from lupctl.core.choices import CameraUse
from lupctl.core.resolve.checkpoints import pick_checkpoint
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

CamerasOption = Annotated[
    CameraUse | None,
    typer.Option(
        "--cameras",
        help="For a network trained with cameras: mean gives every image the row it learned for unknown ones, else the "
        "mean of all rows; none leaves cameras out; known makes each image's row a second input [default: mean].",
        show_default=False,
    ),
]


def export_model(
    run: RunArgument = None,
    cameras: CamerasOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Exports the network of a run, a checkpoint or downloaded weights as one ONNX file, for deployment.

    Its input is `images`, uint8 RGB (N, height, width, 3) for any N, already resized to the network's size. Its output
    is `features`, float32 (N, D) of unit length: a dot product is the cosine that `eval` and `search` compare by
    (`dump` keeps features as the network gives them). Weights, pixel constants and normalisation are inside; size,
    resize filter, terms and fingerprints are in the metadata (`model info FILE.onnx`). The file is written only if
    onnxruntime gives PyTorch's features to within 1e-4. Needs `pip install 'lupctl[export]'`.

    Examples:

    `lupctl model export mine --out mine.onnx`

    `lupctl model export luperson-r50 --dry-run`
    """
    from lupctl.core.stages.export.job import ExportJob
    from lupctl.core.stages.export.record import describe_cameras
    from lupctl.core.stages.export.run import export, plan_export

    progress = Progress(quiet=quiet)
    space = open_workspace(home)
    checkpoint = pick_checkpoint(space, run, progress)
    job = ExportJob(
        checkpoint, out or checkpoint.with_suffix(".onnx"), cameras=cameras, force=force, command=recorded_command()
    )
    if dry_run:
        print_plan("lupctl.export-plan/1", "would export", plan_export(job), json=json)
        return
    result = export(job)
    if json:
        print_json("lupctl.export/1", asdict(result))
        return
    progress.say(
        f"{result.network}: {result.dim:,} numbers per image of {result.height} x {result.width}, "
        f"{result.bytes / 2**20:,.1f} MiB"
    )
    if "cameras" in result.record:
        progress.say(describe_cameras(result.record["cameras"]))
    progress.say(f"largest difference between onnxruntime and PyTorch: {result.difference:.1e}")
    print_path(result.path)
