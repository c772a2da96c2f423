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
    TimeoutOption,
)
from lupctl.cli.output import as_text, print_json, print_path, print_plan, print_table
from lupctl.core.flows.published import fetch_published
from lupctl.core.resolve.checkpoints import find_checkpoint, published_path
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace


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
    timeout: TimeoutOption = None,
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
            timeout_s=timeout,
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
    print_table("", ["what", "value"], [(key, as_text(value)) for key, value in found.items()])
