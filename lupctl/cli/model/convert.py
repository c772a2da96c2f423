"""`lupctl model convert`."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from lupctl.cli.data.size import parse_size
from lupctl.cli.options import (
    DebugOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
    RecipeOption,
)
from lupctl.cli.output import print_json, print_path, print_plan
from lupctl.core.choices import Encoder, OutwardNames
from lupctl.core.errors import UsageError
from lupctl.core.resolve.checkpoints import find_checkpoint, published_path
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.convert.run import ConvertJob

# What wraps a part of a network, in the keys of a file.
OUTER = ("module", "base")
SourceArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FILE|RUN", help="Published weights: .pth, .pt or .safetensors. With --to, a run or its checkpoint."
    ),
]
ReidOption = Annotated[bool, typer.Option("--reid", help="Refuse a file with only a pre-trained trunk.")]
StartOption = Annotated[bool, typer.Option("--start", help="Refuse a file that was fine-tuned already.")]
ToOption = Annotated[
    Literal["lupctl", OutwardNames],
    typer.Option(
        "--to",
        help="The other way: a lupctl trunk under foreign names. torchvision: a ResNet; timm: a vision transformer; "
        "dino: that, or one with ICS, as fine-tuning after DINO and TransReID-SSL reads it; solider: a Swin; "
        "torchreid: an OSNet.",
    ),
]
BgrOption = Annotated[bool, typer.Option("--bgr", help="The network was trained on BGR; swap its input channels.")]

EncoderOption = Annotated[
    Encoder | None,
    typer.Option(
        "--encoder",
        help="For a training checkpoint with two networks: q or student, the trained one, or k or teacher, its average "
        "[default: q of MoCo and PNL, teacher of DINO, as published].",
        show_default=False,
    ),
]
TrainingOption = Annotated[
    bool,
    typer.Option(
        "--training",
        help="Keep both networks of SOLIDER's training checkpoint, with their heads: a start for pretrain --from.",
    ),
]
ModelSizeOption = Annotated[
    str | None,
    typer.Option(
        "--size",
        metavar="HxW",
        help="Images that a vision transformer's positions are for, as in 256x128 [default: the published size with as "
        "many].",
        show_default=False,
    ),
]
StrideOption = Annotated[
    int | None,
    typer.Option(
        "--stride",
        min=1,
        max=1024,
        help="Stride of a vision transformer's patches in pixels [default: the published one].",
        show_default=False,
    ),
]


def convert_model(
    source: SourceArgument,
    recipe: RecipeOption = None,
    reid: ReidOption = False,
    start: StartOption = False,
    size: ModelSizeOption = None,
    stride: StrideOption = None,
    bgr: BgrOption = False,
    encoder: EncoderOption = None,
    training: TrainingOption = False,
    to: ToOption = "lupctl",
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Converts published weights to a checkpoint; every tensor fits, or the file is refused. Nothing in it is executed.

    With --to it goes the other way: the trunk of a run is written for torchvision, timm, DINO's or SOLIDER's code,
    and an OSNet for torchreid.

    Supported are MGN models as LUPerson's projects publish them; fine-tuned vision transformers of TransReID,
    TransReID-SSL, PASS, PersonViT and CION; Swins of SOLIDER; OSNets of torchreid; and starts for `finetune --from`:
    ResNet trunks, vision transformers of these projects and of ImageNet, DeiT and DINO, and Swins of SOLIDER and of
    ImageNet. If the file has no pixel constants, they are the published ones or come from --recipe.

    Examples:

    `lupctl model convert market.pth --out mgn.safetensors --json`

    `lupctl model convert transformer_120.pth --size 256x128 --stride 12`

    `lupctl model convert lup_moco_r50.pth`

    `lupctl model convert checkpoint.pth --training`

    `lupctl model convert mine --to timm --out vit.pth`
    """
    options = {"--recipe": recipe, "--reid": reid, "--start": start, "--size": size, "--stride": stride}
    given = [name for name, value in {**options, "--bgr": bgr, "--encoder": encoder}.items() if value]
    if to != "lupctl":
        check_outward(to, [*given, *(["--training"] if training else [])])
        checkpoint = find_checkpoint(open_workspace(home), str(source))
        out = out or Path(f"{source.stem}.pth")
        write_outward(checkpoint, out, to, force=force, dry_run=dry_run, json=json, progress=Progress(quiet=quiet))
        return
    from lupctl.core.stages.convert.run import ConvertJob, convert
    from lupctl.core.training.nets.foreign.grids import Asked

    if training:
        refuse_with_training(given)
    progress = Progress(quiet=quiet)
    job = ConvertJob(
        source=source,
        out=out or published_path(open_workspace(home), source.stem),
        recipe=recipe,
        reid=reid,
        start=start,
        bgr=bgr,
        encoder=encoder,
        asked=Asked(parse_size(size), stride),
        force=force,
        command=recorded_command(),
    )
    if training:
        keep_training(job, dry_run=dry_run, json=json, progress=progress)
        return
    with differences_shown():
        facts = convert(job, progress, dry=dry_run)
    show_converted(facts, dry_run=dry_run, json=json, progress=progress)


def show_converted(facts: dict[str, Any], *, dry_run: bool, json: bool, progress: Progress) -> None:
    """Prints what was recognised in a file, or would be converted."""
    if dry_run:
        shown = facts if json else {**facts, "ignored": sum_up(facts["ignored"])}
        print_plan("lupctl.convert-plan/1", "would convert", shown, json=json)
    elif json:
        print_json("lupctl.convert/1", facts)
    else:
        summary = f"{facts['network']} {facts['description']} ({facts['use']}): {facts['matched']} tensors matched"
        progress.say(f"{summary}, {len(facts['ignored'])} ignored, {len(facts['missing'])} optional ones missing")
        if facts["ignored"]:
            used = f"used: {facts['prefix']}*; " if facts["prefix"] else ""
            progress.say(f"{used}left out: {sum_up(facts['ignored'])}")
        if facts["beside"] and facts["network"] == "trunk":
            progress.say(f"taken from {'.'.join(facts['inside'])}, which has beside it: {name_some(facts['beside'])}")
        print_path(Path(facts["path"]))


def keep_training(job: "ConvertJob", *, dry_run: bool, json: bool, progress: Progress) -> None:
    """Converts both networks of a training checkpoint, or says that it would."""
    from lupctl.core.stages.convert.training import convert_training

    with differences_shown():
        facts = convert_training(job, dry=dry_run)
    if dry_run:
        shown = facts if json else {**facts, "ignored": sum_up(facts["ignored"])}
        print_plan("lupctl.convert-plan/1", "would convert", shown, json=json)
        return
    if json:
        print_json("lupctl.convert/1", facts)
        return
    count = f"{facts['matched']} tensors matched, {len(facts['ignored'])} ignored"
    progress.say(f"{' and '.join(facts['networks'])}, {facts['description']} with heads: {count}")
    if facts["beside"]:
        progress.say(f"left out: {name_some(facts['beside'])}; what starts from it has a new centre and optimizer")
    print_path(job.out)


def refuse_with_training(given: list[str]) -> None:
    """Refuses options of one network where both of a training checkpoint are kept.

    Raises:
        UsageError: there is one.
    """
    if given:
        raise UsageError(
            f"{given[0]}: of one network; --training keeps student and teacher as they are",
            hint=f"leave out {' and '.join(given)}",
        )


def sum_up(keys: list[str]) -> str:
    """Tensor keys grouped by prefix, with the number in each group."""
    beginnings = []
    for key in keys:
        words = key.split(".")
        outer = next(number for number, word in enumerate(words) if word not in OUTER or number + 1 == len(words))
        beginnings.append(".".join(words[: outer + 1]))
    counts = Counter(beginnings)
    return ", ".join(name if name in keys else f"{name}.* ({number})" for name, number in counts.items())


@contextmanager
def differences_shown() -> Iterator[None]:
    """Prints the tensors that do not fit before the error leaves the block."""
    from lupctl.core.training.nets.foreign.fitting import MismatchError

    try:
        yield
    except MismatchError as error:
        print_differences(error.rows)
        raise


def print_differences(rows: tuple[tuple[str, str, str], ...]) -> None:
    """Prints the tensors that do not fit, on stderr."""
    table = [("tensor", "in the file", "in the network"), *rows]
    wide = [max(len(row[column]) for row in table) for column in range(3)]
    for row in table:
        cells = (cell.ljust(width) for cell, width in zip(row, wide, strict=True))
        print("  ".join(cells).rstrip(), file=sys.stderr)


def check_outward(names: OutwardNames, given: list[str]) -> None:
    """Refuses options of foreign files where one of ours is written for others.

    Raises:
        UsageError: there is one.
    """
    if given:
        raise UsageError(
            f"{given[0]}: for files of other programs; --to {names} writes one of ours for them",
            hint=f"leave out {' and '.join(given)}",
        )


def write_outward(
    source: Path, out: Path, names: OutwardNames, *, force: bool, dry_run: bool, json: bool, progress: Progress
) -> None:
    """Writes a trunk under foreign names, or says that it would."""
    from lupctl.core.stages.convert.outward import write_trunk

    written = write_trunk(source, out, names, force=force, dry=dry_run)
    facts = {"source": str(source), "to": names, **asdict(written), "pixels": written.pixels.model_dump(mode="json")}
    if dry_run:
        shown = facts if json else {**facts, "left_out": sum_up(list(written.left_out)), "pixels": None}
        plan = {key: value for key, value in shown.items() if json or value}
        print_plan("lupctl.convert-plan/1", f"would write a trunk for {names}", plan, json=json)
        return
    if json:
        print_json("lupctl.convert/1", facts)
        return
    progress.say(f"{written.trunk}: {written.tensors} tensors under the names of {names}")
    if written.left_out:
        progress.say(f"left out: {sum_up(list(written.left_out))}")
    pixels = written.pixels
    progress.say(
        f"images: {pixels.height} x {pixels.width}, {pixels.channels}, mean {list(pixels.mean)}, std {list(pixels.std)}"
    )
    if written.call is not None:
        progress.say(f"network: {written.call}")
    print_path(out)
