"""`lupctl dump`."""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.complete import complete_dataset, complete_run
from lupctl.cli.options import (
    DebugOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    GpusOption,
    HomeOption,
    JsonOption,
    OutOption,
    ProcessesOption,
    QuietOption,
    SettingOption,
    WorkersOption,
)
from lupctl.cli.output import print_json, print_path, print_plan
from lupctl.cli.retrieval.options import CamerasOption
from lupctl.core.choices import ROLE_CODES, FeatureType, Interpolation, Precision, Role, nearest_name
from lupctl.core.errors import UsageError
from lupctl.core.resolve.checkpoints import RUN_ALONE, pick_network
from lupctl.core.resolve.data.images import default_out, find_images_of_run
from lupctl.core.resolve.training.placement import DumpPlace, Machines, find_machines, place_dump
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.dump.job import DumpJob, DumpResult

RunArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN|CHECKPOINT]",
        help="A run's name or folder, a checkpoint, or an ONNX or OpenVINO file [default: the newest run].",
        show_default=False,
        autocompletion=complete_run,
    ),
]
DataArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[DATASET|PACK|FOLDER]",
        help="A pack, or any folder of images [default: the run's own dataset].",
        show_default=False,
        autocompletion=complete_dataset,
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        metavar="I/N",
        help="Compute part I of N, on any machine; where all parts are there, they become one file.",
        show_default=False,
    ),
]
CompileOption = Annotated[
    bool, typer.Option("--compile", help="Compile the network first: a minute or more, then faster passes.")
]
PixelsOption = Annotated[
    str | None,
    typer.Option(
        "--pixels",
        metavar="HxW",
        help="Of an ONNX network of another program: the size of its images [default: as in the file].",
        show_default=False,
    ),
]
MeanOption = Annotated[
    str | None,
    typer.Option(
        "--mean", metavar="imagenet|R,G,B", help="Of such a network: what is subtracted from RGB in 0 to 1.",
        show_default=False,
    ),
]  # fmt: skip
StdOption = Annotated[
    str | None,
    typer.Option(
        "--std", metavar="imagenet|R,G,B", help="Of such a network: what RGB is divided by.", show_default=False
    ),
]
InterpolationOption = Annotated[
    Interpolation | None,
    typer.Option(
        "--interpolation", help="Of such a network: the filter of the resize [default: bilinear].", show_default=False
    ),
]
RoleOption = Annotated[
    list[str] | None,
    typer.Option(
        "--role",
        help="Only images of this role; repeatable [default: query and gallery, else all].",
        show_default=False,
    ),
]


def dump(
    run: RunArgument = None,
    data: DataArgument = None,
    role: RoleOption = None,
    flip: Annotated[bool, typer.Option("--flip", help="Add the feature of the mirrored image.")] = False,
    cameras: CamerasOption = None,
    set_: SettingOption = None,
    pixels: PixelsOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    interpolation: InterpolationOption = None,
    kind: Annotated[FeatureType, typer.Option("--type", help="Number type in the file.")] = "float32",
    precision: Annotated[Precision, typer.Option("--precision", help="Number type of the forward pass.")] = "auto",
    chunk: Annotated[int, typer.Option("--chunk", min=1, help="Images per forward pass.")] = 128,
    compile_: CompileOption = False,
    device: DeviceOption = None,
    gpus: GpusOption = None,
    processes: ProcessesOption = None,
    shard: ShardOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    workers: WorkersOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Writes the features of a pack, or of any folder of images, to one file.

    Examples:

    `lupctl dump`

    `lupctl dump finetune-market1501-r50-from-imagenet photos/ --out photos.features.h5 --type float16`

    `lupctl dump moco luperson --gpus 8 --shard 2/4`

    `lupctl dump solider market1501 --set semantic_weight=0.5`

    `lupctl dump osnet.onnx market1501 --pixels 256x128 --mean imagenet --std imagenet --out osnet.features.h5`
    """
    from lupctl.core.formats.weights.settings import parse_settings
    from lupctl.core.ranking.retrieval.onnx.open import parse_foreign
    from lupctl.core.stages.dump.job import DumpJob, parse_shard

    machines = find_machines(None, None, None)
    progress = Progress(quiet=quiet or not machines.leads)
    part, settings = parse_shard(shard), parse_settings(set_ or [])
    space = open_workspace(home)
    checkpoint = pick_network(space, run, progress)
    # Runtimes compute on the CPU, where no other device is asked for.
    own = "cpu" if checkpoint.suffix in RUN_ALONE and (gpus, processes, machines.outer) == (None, None, None) else None
    where = place_dump(device or own, gpus, processes, machines, planned=dry_run)
    source = find_images_of_run(space, data, checkpoint, progress)
    job = DumpJob(
        checkpoint=checkpoint,
        data=source,
        out=out or default_out(checkpoint, source, settings.tag()),
        roles=parse_roles(role or []),
        flip=flip,
        cameras=cameras,
        settings=settings,
        foreign=parse_foreign(pixels, mean, std, interpolation, is_typed=True),
        kind=kind,
        precision=precision,
        chunk=chunk,
        is_compiled=compile_,
        workers=workers,
        shard=part,
        force=force,
        command=recorded_command(),
    )
    run_dump(job, where, machines, progress, is_plan=dry_run, json=json)


def run_dump(
    job: "DumpJob", where: "DumpPlace", machines: "Machines", progress: Progress, *, is_plan: bool, json: bool
) -> None:
    """Checks a dump, and runs it or prints its plan."""
    from lupctl.core.stages.dump.head import check_dump
    from lupctl.core.stages.dump.job import fit_processes
    from lupctl.core.stages.dump.run import dump as write
    from lupctl.core.stages.dump.run import spread_dump

    check_dump(job, where.device.type if where.placement is None else where.placement.kind)
    if where.placement is not None and machines.outer is None:
        where = replace(where, placement=fit_processes(job, where.placement, is_asked=where.is_asked))
    if is_plan:
        if machines.leads:
            show_plan(job, where, json=json)
        return
    if where.placement is None:
        show_result(job, write(job, where.device, progress), progress, json=json)
        return
    progress.say(where.placement.line)
    result = spread_dump(job, where.placement, progress)
    if result is not None and machines.leads:
        show_result(job, result, progress, json=json)


def show_plan(job: "DumpJob", where: "DumpPlace", *, json: bool) -> None:
    """Prints what would be written."""
    from lupctl.core.stages.dump.head import plan_cameras
    from lupctl.core.stages.dump.job import plan_dump

    plan: dict[str, object] = {"checkpoint": str(job.checkpoint), "data": str(job.data)}
    plan |= {"out": str(job.target), "device": where.name}
    plan |= plan_dump(job, processes=where.processes)
    plan |= plan_cameras(job)
    plan |= {"set": job.settings.to_json()} if job.settings.to_json() else {}
    print_plan("lupctl.dump-plan/1", "would dump", plan, json=json)


def show_result(job: "DumpJob", result: "DumpResult", progress: Progress, *, json: bool) -> None:
    """Prints what was written."""
    from lupctl.core.system.examples import count_things, name_some

    if result.quarantine:
        some = name_some(result.quarantine, between="; ")
        progress.warn(f"{count_things(len(result.quarantine), 'file')} left out: {some}")
    if job.shard is not None and result.missing:
        some = name_some(result.missing)
        progress.say(f"shard {job.shard} is written; still missing: {some}; the last one makes the features file")
    if json:
        print_json("lupctl.dump/1", asdict(result))
    else:
        progress.say(f"{result.images:,} x {result.dim} {job.kind} from {result.network}")
        print_path(result.path)


def parse_roles(names: list[str]) -> tuple[Role, ...]:
    """Roles from what a user typed (Typer takes no list of literals).

    Raises:
        UsageError: there is no such role.
    """
    for name in names:
        if name not in ROLE_CODES:
            guess = nearest_name(name, ROLE_CODES) or "query"
            raise UsageError(f"--role {name}: expected one of {', '.join(ROLE_CODES)}", hint=f"--role {guess}")
    return tuple(role for role in ROLE_CODES if role in names)
