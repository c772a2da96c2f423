"""`lupctl model export`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.complete import complete_dataset
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
from lupctl.cli.retrieval.dump import InterpolationOption, MeanOption, PixelsOption, RunArgument, StdOption
from lupctl.core.choices import CalibrationRule, CameraUse, ExportFormat, ExportPrecision
from lupctl.core.errors import UsageError
from lupctl.core.resolve.checkpoints import pick_network
from lupctl.core.resolve.data.packs import pick_pack
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.export.job import ExportJob, ExportResult

CamerasOption = Annotated[
    CameraUse | None,
    typer.Option(
        "--cameras",
        help="For a network trained with cameras: mean gives every image the row it learned for unknown ones, else the "
        "mean of all rows; none leaves cameras out; known makes each image's row a second input [default: mean].",
        show_default=False,
    ),
]


FormatOption = Annotated[
    ExportFormat,
    typer.Option(
        "--format",
        help="One .onnx file; OpenVINO's .xml with its weights in .bin; or an .onnx file for TensorRT, with its "
        ".engine where trtexec is on the PATH, else the command that builds it.",
    ),
]
PrecisionOption = Annotated[
    ExportPrecision, typer.Option("--precision", help="Of weights; int8 also of passes, and it needs --calibrate.")
]
CalibrateOption = Annotated[
    str | None,
    typer.Option(
        "--calibrate", metavar="PACK", help="Take the ranges of int8 from training images of this pack.",
        show_default=False, autocompletion=complete_dataset,
    ),
]  # fmt: skip
RuleOption = Annotated[
    CalibrationRule | None,
    typer.Option(
        "--calibration", help="What these ranges cover: 99.999 % of values, or by entropy [default: percentile].",
        show_default=False,
    ),
]  # fmt: skip
ProveOption = Annotated[
    str | None,
    typer.Option(
        "--prove", metavar="DATASET", help="Score the network before and after on this pack, and say what changed.",
        show_default=False, autocompletion=complete_dataset,
    ),
]  # fmt: skip
DropOption = Annotated[
    float | None,
    typer.Option(
        "--max-drop", metavar="POINTS", min=0, help="Write no file, and exit 4, if --prove finds a larger drop of mAP.",
        show_default=False,
    ),
]  # fmt: skip


def export_model(
    run: RunArgument = None,
    format_: FormatOption = "onnx",
    precision: PrecisionOption = "float32",
    calibrate: CalibrateOption = None,
    calibration: RuleOption = None,
    prove: ProveOption = None,
    max_drop: DropOption = None,
    cameras: CamerasOption = None,
    pixels: PixelsOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    interpolation: InterpolationOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Exports the network of a run, a checkpoint, downloaded weights or an ONNX file, for deployment.

    Its input is `images`, uint8 RGB (N, height, width, 3) for any N, already resized to the network's size. Its output
    is `features`, float32 (N, D) of unit length: a dot product is the cosine that `eval` and `search` compare by
    (`dump` keeps features as the network gives them). Weights, pixel constants and normalisation are inside; size,
    resize filter, terms and fingerprints are in the metadata (`model info FILE.onnx`). In float32 the file is written
    only if the runtime gives PyTorch's features to within 1e-4. Needs `pip install 'lupctl[export]'`, and for
    `--format openvino` `pip install 'lupctl[openvino]'`.

    Examples:

    `lupctl model export mine --out mine.onnx`

    `lupctl model export mine --precision int8 --calibrate market1501 --prove market1501 --max-drop 0.5`

    `lupctl model export luperson-r50 --dry-run`
    """
    from lupctl.core.flows.exporting.proved import export_network
    from lupctl.core.ranking.retrieval.onnx.open import parse_foreign
    from lupctl.core.stages.export.job import ExportJob, default_out
    from lupctl.core.stages.export.run import plan_export

    if max_drop is not None and prove is None:
        raise UsageError("--max-drop: a drop is found by a test", hint="add --prove DATASET")
    progress = Progress(quiet=quiet)
    space = open_workspace(home)
    checkpoint = pick_network(space, run, progress)
    job = ExportJob(
        checkpoint,
        out or default_out(checkpoint, format_, precision),
        cameras=cameras,
        format=format_,
        precision=precision,
        calibrate=None if calibrate is None else pick_pack(space, calibrate, progress),
        rule=calibration,
        prove=None if prove is None else pick_pack(space, prove, progress),
        foreign=parse_foreign(pixels, mean, std, interpolation, is_typed=True),
        force=force,
        command=recorded_command(),
    )
    if dry_run:
        print_plan("lupctl.export-plan/1", "would export", plan_export(job), json=json)
        return
    result, proof = export_network(job, progress, max_drop=max_drop)
    if json:
        print_json("lupctl.export/1", asdict(result) | {"proof": None if proof is None else proof.to_json()})
        return
    show_export(job, result, progress)
    print_path(result.path)


def show_export(job: "ExportJob", result: "ExportResult", progress: Progress) -> None:
    """Says what was written."""
    from lupctl.core.stages.export.record import describe_cameras

    progress.say(
        f"{result.network}: {result.dim:,} numbers per image of {result.height} x {result.width}, "
        f"{result.bytes / 2**20:,.1f} MiB"
    )
    if "cameras" in result.record:
        progress.say(describe_cameras(result.record["cameras"]))
    runtime = "OpenVINO" if job.format == "openvino" else "onnxruntime"
    origin = "onnxruntime" if job.is_foreign else "PyTorch"
    progress.say(f"largest difference between {runtime} and {origin}: {result.difference:.1e}")
    if result.tensorrt is not None:
        progress.say(result.tensorrt.line())
