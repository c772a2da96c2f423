"""What a checkpoint's header says, read without torch and without its tensors."""

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError
from pydantic_core import from_json
from safetensors import SafetensorError, safe_open

from lupctl.core.choices import Interpolation
from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.weights.plan import NetworkPlan, Plan, describe_trunk
from lupctl.core.recipes.sections import Colour, Pixels
from lupctl.core.workspace import CHECKPOINT_NAME

CHECKPOINT_FORMAT: Final = 2
HEADER_KEY: Final = "lupctl"
# What a file says of itself before its story.
ENVELOPE: Final = ("format", "kind")
# Commands that overwrite what they made when they are told --force.
RUN_COMMANDS: Final = ("pretrain", "finetune")
FORCEABLE: Final = (*RUN_COMMANDS, "model")

Kind = Literal["checkpoint", "method"]
Stage = Literal["pretrain", "finetune", "convert"]


class Preprocessing(Plan):
    """How images become a network's input.

    Args:
        height, width: in pixels.
        channels: their order.
        mean, std: of these channels in [0, 1]; subtracted and divided by.
        interpolation: of the one resize, antialiased as in Pillow.
    """

    height: Annotated[int, Field(ge=1, le=2**16)]
    width: Annotated[int, Field(ge=1, le=2**16)]
    channels: Literal["RGB"]
    mean: Colour
    std: Colour
    interpolation: Interpolation


def describe_pixels(pixels: Pixels) -> Preprocessing:
    """What a recipe's pixels are for whoever uses the network."""
    return Preprocessing(
        height=pixels.height,
        width=pixels.width,
        channels="RGB",
        mean=pixels.mean,
        std=pixels.std,
        interpolation=pixels.interpolation,
    )


class PackStory(Plan):
    """What a checkpoint keeps of a pack it was trained on.

    Args:
        dataset: its name.
        fingerprint: of the pack.
        images: in the pack.
        source: what the pack says of where its images come from, if anything.
        terms: of use, if the pack says any.
    """

    dataset: str
    fingerprint: str
    images: Annotated[int, Field(ge=0)]
    source: dict[str, JsonValue] | None
    terms: str | None


class CheckpointHeader(Plan):
    """All that is needed to use a checkpoint, and all that led to it.

    Args:
        stage: that wrote it.
        command: the command line; empty where there was none.
        recipe: resolved, as the stage that wrote it understood it; None of a converted network.
        network: enough to build it again.
        preprocessing: of the images it was trained on.
        classes: what its classifier tells apart, in its order; empty where there is none.
        parents: fingerprints of the inputs by name.
        data: the packs it was trained on.
        version: of the lupctl that wrote it.
    """

    stage: Stage
    command: tuple[str, ...]
    recipe: dict[str, JsonValue] | None
    network: NetworkPlan
    preprocessing: Preprocessing
    classes: tuple[int | str, ...]
    parents: dict[str, str]
    data: tuple[PackStory, ...]
    version: str = Field(default_factory=lambda: version("lupctl"))


def read_header(path: Path, kind: Kind = "checkpoint") -> CheckpointHeader:
    """The header of a checkpoint, without its tensors.

    Args:
        path: the file.
        kind: what it has to be.

    Raises:
        DataError: there is no such file.
        FormatError: not a checkpoint of lupctl, cut short, of another format, or with a header that is none.
    """
    with open_tensors(path, framework="np") as file:
        return parse_header(path, file.metadata(), kind)


def has_header(path: Path) -> bool:
    """Whether a file is one that some lupctl wrote, of whatever format and kind."""
    try:
        with open_tensors(path, framework="np") as file:
            return HEADER_KEY in (file.metadata() or {})
    except DataError:
        return False


def open_tensors(path: Path, *, framework: Literal["np", "pt"]) -> Any:
    """A safetensors file, open for reading; a context manager.

    Raises:
        DataError: there is no such file.
        FormatError: no safetensors, or cut short.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: there is no such file; expected a checkpoint", hint="lupctl finetune DATASET makes one"
        )
    try:
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(
            f"{path}: not a whole safetensors file ({error})", hint="train again, or copy the file again"
        ) from error


def format_header(header: CheckpointHeader, kind: Kind) -> str:
    """The text that a file keeps under `HEADER_KEY`; the same header gives the same text."""
    full = {**header.to_json(), "format": CHECKPOINT_FORMAT, "kind": kind}
    return json.dumps(full, sort_keys=True, ensure_ascii=False)


def parse_header(path: Path, metadata: Mapping[str, str] | None, kind: Kind) -> CheckpointHeader:
    """The header in a safetensors file's metadata, every field checked.

    Args:
        path: the file, for the error.
        metadata: of the file.
        kind: what it has to be.

    Raises:
        FormatError: see `read_header`.
    """
    text = (metadata or {}).get(HEADER_KEY)
    if text is None:
        raise FormatError(
            f"{path}: a safetensors file without lupctl's header; the network inside is unknown",
            hint="name a checkpoint that lupctl pretrain or lupctl finetune wrote",
        )
    try:
        found = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise FormatError(f"{path}: lupctl's header is no JSON ({error})", hint="copy the file again") from error
    if not isinstance(found, dict):
        raise FormatError(f"{path}: lupctl's header is no JSON object", hint="copy the file again")
    again = f"make it again: {command_again(path, found)}"
    if found.get("format") != CHECKPOINT_FORMAT:
        raise FormatError(
            f"{path}: checkpoint format {found.get('format')}; this lupctl reads format {CHECKPOINT_FORMAT}", hint=again
        )
    if found.get("kind") != kind:
        raise FormatError(f"{path}: holds a {found.get('kind')}; a {kind} was expected", hint=_hint_for(kind))
    missing = [name for name in CheckpointHeader.model_fields if name not in found]
    if missing:
        raise FormatError(f"{path}: lupctl's header lacks {', '.join(missing)}", hint=again)
    story = {key: value for key, value in found.items() if key not in ENVELOPE}
    try:
        # As JSON, whose arrays are our tuples.
        return CheckpointHeader.model_validate_json(json.dumps(story))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise FormatError(f"{path}: lupctl's header does not make sense: {place}: {problem}", hint=again) from error


def command_again(path: Path, found: Mapping[str, Any]) -> str:
    """The command that makes a file again: the one its header has, else the one of its stage.

    Args:
        path: the file.
        found: its header, of whatever format.
    """
    command: Sequence[Any] = found["command"] if isinstance(found.get("command"), list) else ()
    if command and all(isinstance(word, str) for word in command):
        verb, more = "".join(command[1:2]), list[str]()
        # What leaves the result as it is is not recorded, such as the place it went to.
        if verb in RUN_COMMANDS and path.name == CHECKPOINT_NAME and "--out" not in command:
            more += ["--out", str(path.parent)]
        if verb in FORCEABLE and "--force" not in command:
            more += ["--force"]
        return shlex.join([*command, *more])
    match found.get("stage"):
        case "convert":
            return f"lupctl model convert FILE --out {shlex.quote(str(path))} --force"
        case "finetune":
            return "lupctl finetune DATASET --force"
        case _:
            return "lupctl pretrain --force"


def _hint_for(kind: Kind) -> str:
    match kind:
        case "checkpoint":
            return "name the checkpoint.safetensors of a run, or a network of lupctl model convert"
        case "method":
            return "name the method.safetensors of a pre-training run"


def describe_network(header: CheckpointHeader) -> str:
    """A checkpoint's network in a few words."""
    network = header.network
    trunk, pooling, head = describe_trunk(network.trunk), network.pooling, network.head.kind
    return f"{trunk}, {pooling} pooling, head {head} ({header.stage})"
