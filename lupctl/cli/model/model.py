"""`lupctl model list`, `download`, `info` and `convert`."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

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
from lupctl.cli.output import print_json, print_path, print_plan, print_table
from lupctl.core.flows.published import fetch_published
from lupctl.core.resolve.checkpoints import find_checkpoint, published_path
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

SourceArgument = Annotated[Path, typer.Argument(metavar="FILE", help="Published weights: .pth, .pt or .safetensors.")]
ReidOption = Annotated[bool, typer.Option("--reid", help="Refuse a file with only a pre-trained trunk.")]
ToOption = Annotated[
    Literal["lupctl", "torchvision"],
    typer.Option("--to", help="torchvision writes a lupctl trunk under torchvision's flat names."),
]
BgrOption = Annotated[bool, typer.Option("--bgr", help="The network was trained on BGR; swap its input channels.")]

EncoderOption = Annotated[
    Literal["q", "k"],
    typer.Option("--encoder", help="For a training checkpoint with two: q, the trained one, or k, its average."),
]


def convert_model(
    source: SourceArgument,
    recipe: RecipeOption = None,
    reid: ReidOption = False,
    bgr: BgrOption = False,
    encoder: EncoderOption = "q",
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

    Supported are MGN models as LUPerson's projects publish them, and pre-trained ResNet trunks, which serve as a start
    for `finetune --from`. If the file has no pixel constants, they come from --recipe.

    Examples:

    `lupctl model convert market.pth --out mgn.safetensors --json`

    `lupctl model convert lup_moco_r50.pth`

    `lupctl model convert lup/runs/mine/checkpoint.safetensors --to torchvision --out r50.pth`
    """
    if to == "torchvision":
        write_torchvision(source, out or Path(f"{source.stem}.pth"), force=force, dry_run=dry_run, json=json)
        return
    from lupctl.core.stages.convert import ConvertJob, convert

    progress = Progress(quiet=quiet)
    job = ConvertJob(
        source=source,
        out=out or published_path(open_workspace(home), source.stem),
        recipe=recipe,
        reid=reid,
        bgr=bgr,
        encoder=encoder,
        force=force,
        command=recorded_command(),
    )
    with differences_shown():
        facts = convert(job, progress, dry=dry_run)
    if dry_run:
        print_plan("lupctl.convert-plan/1", "would convert", facts, json=json)
    elif json:
        print_json("lupctl.convert/1", facts)
    else:
        summary = f"{facts['network']} {facts['arch']} ({facts['use']}): {facts['matched']} tensors matched"
        progress.say(f"{summary}, {len(facts['ignored'])} ignored, {len(facts['missing'])} optional ones missing")
        if facts["ignored"]:
            used = f"used: {facts['prefix']}*; " if facts["prefix"] else ""
            progress.say(f"{used}left out: {sum_up(facts['ignored'])}")
        print_path(job.out)


def sum_up(keys: list[str]) -> str:
    """Tensor keys grouped by prefix, with the number in each group."""
    beginnings = [".".join(key.split(".")[: 2 if key.startswith("module.") else 1]) for key in keys]
    counts = Counter(beginnings)
    return ", ".join(name if name in keys else f"{name}.* ({number})" for name, number in counts.items())


@contextmanager
def differences_shown() -> Iterator[None]:
    """Prints the tensors that do not fit before the error leaves the block."""
    from lupctl.core.stages.convert import MismatchError

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


def write_torchvision(source: Path, out: Path, *, force: bool, dry_run: bool, json: bool) -> None:
    """Writes a trunk under torchvision's names, or says that it would."""
    from lupctl.core.stages.weights import export_trunk

    if dry_run:
        plan = {"source": str(source), "path": str(out)}
        print_plan("lupctl.convert-plan/1", "would write a trunk for torchvision", plan, json=json)
        return
    number = export_trunk(source, out, force=force)
    if json:
        print_json("lupctl.convert/1", {"path": str(out), "to": "torchvision", "tensors": number})
    else:
        print_path(out)


def list_models(
    home: HomeOption = None, json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False
) -> None:
    """Lists the published networks: what each is, its input, its published scores, its terms, and what is downloaded.

    Scores are mAP / rank-1 in percent as their authors publish them, without re-ranking. For an initialisation, which
    `finetune --from` starts from, they are those of networks fine-tuned from it.

    Examples:

    `lupctl model list`

    `lupctl model list --json`
    """
    from lupctl.core.stages.weights import list_weights

    found = list_weights(open_workspace(home).models)
    if json:
        print_json("lupctl.models/1", {"models": found})
        return
    columns = ["name", "what", "use", "size", "mAP / rank-1", "from", "here"]
    for project, page, terms in dict.fromkeys((one["project"], one["page"], one["terms"]) for one in found):
        rows = [
            [one[key] for key in ("name", "what", "use", "size")]
            + [", ".join(_write_score(score) for score in one["scores"]) or None, one["from"], one["here"]]
            for one in found
            if one["project"] == project
        ]
        print_table(f"{project}, {page}: {terms}", columns, rows)


def _write_score(score: dict[str, Any]) -> str:
    return f"{score['dataset']} {score['map']:.1%} / {score['rank1']:.1%}".replace("%", "")


def download_model(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A published network, as in `lupctl model list`.")],
    accept_terms: Annotated[bool, typer.Option("--accept-terms", help="Agree to the terms of use.")] = False,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Downloads a published network and converts it to a checkpoint, for `finetune --from NAME` or `dump NAME`.

    From Google Drive, or from the Hugging Face hub over HTTPS (`HF_ENDPOINT` names a mirror); an interrupted download
    is continued. If there is no direct download, prints the steps to do by hand and exits with 3.

    Examples:

    `lupctl model download luperson-r50 --accept-terms`
    """
    from lupctl.core.stages.weights import convert_line, find_weights

    space = open_workspace(home)
    wanted, out = find_weights(name), published_path(space, name)
    if dry_run:
        plan = {
            "name": name,
            "what": wanted.what,
            "use": wanted.use,
            "url": wanted.url,
            "terms": wanted.project.terms,
            "path": str(out),
            "then": convert_line(wanted, space.models),
        }
        print_plan("lupctl.model-download-plan/1", "would download", plan, json=json)
        return
    with differences_shown():
        facts = fetch_published(
            space,
            wanted,
            accepted=accept_terms,
            force=force,
            command=recorded_command(),
            progress=Progress(quiet=quiet),
        )
    if json:
        print_json("lupctl.model-download/1", {"name": name, "url": wanted.url, **facts})
    else:
        print_path(out)


def show_model(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE|RUN", help="A run or its checkpoint, an exported .onnx, or published weights."),
    ],
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Shows what is in a weights file: the network, its pixels, its data and their terms, its fingerprint.

    Examples:

    `lupctl model info lup/runs/mine/checkpoint.safetensors`
    """
    from lupctl.core.stages.weights import describe_weights

    is_run = file.suffix == ".h5" or not (file.suffix or file.is_file())  # a pack is refused by name
    found = describe_weights(find_checkpoint(open_workspace(home), str(file)) if is_run else file)
    if json:
        print_json("lupctl.model-info/1", found)
        return
    print_table("", ["what", "value"], [(key, _as_text(value)) for key, value in found.items()])


def _as_text(value: Any) -> object:
    match value:
        case dict():
            return ", ".join(f"{key} {_as_text(inner)}" for key, inner in value.items())
        case list() if len(value) > 4:
            return f"{len(value)}: {', '.join(map(str, value[:4]))}, …"
        case list():
            return ", ".join(str(_as_text(inner)) for inner in value)
        case _:
            return value
