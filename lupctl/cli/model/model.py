"""`lupctl model list`, `download` and `info`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from lupctl.cli.model.convert import differences_shown
from lupctl.cli.options import (
    DebugOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    QuietOption,
)
from lupctl.cli.output import print_json, print_path, print_plan, print_table
from lupctl.core.flows.published import fetch_published
from lupctl.core.resolve.checkpoints import find_checkpoint, published_path
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace


def list_models(
    home: HomeOption = None, json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False
) -> None:
    """Lists the published networks that lupctl knows, where they come from, and which are downloaded.

    Examples:

    `lupctl model list`
    """
    from lupctl.core.stages.weights import list_weights

    found = list_weights(open_workspace(home).models)
    if json:
        print_json("lupctl.models/1", {"models": found})
        return
    print_table("", ["name", "what", "from", "terms", "here"], [list(one.values()) for one in found])


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

    If there is no direct download, prints the steps to do by hand and exits with 3.

    Examples:

    `lupctl model download luperson-r50 --accept-terms`
    """
    from lupctl.core.stages.weights import find_weights

    space = open_workspace(home)
    wanted, out = find_weights(name), published_path(space, name)
    if dry_run:
        plan = {"name": name, "url": wanted.url, "terms": wanted.terms, "path": str(out)}
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
