"""The header of a checkpoint, read without torch and without the tensors."""

import json
import shlex
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, JsonValue, ValidationError
from safetensors import SafetensorError, safe_open

from lupctl.core.choices import Interpolation
from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.weights.fields import Plan
from lupctl.core.formats.weights.plan import NetworkPlan, describe_trunk
from lupctl.core.recipes.sections import Colour, Pixels
from lupctl.core.system.disk.reading import say_missing
from lupctl.core.system.documents import parse_json
from lupctl.core.workspace import CHECKPOINT_NAME

CHECKPOINT_FORMAT: Final = 2
HEADER_KEY: Final = "lupctl"
# Fields that describe the file itself, next to those of `CheckpointHeader`.
ENVELOPE: Final = ("format", "kind")
# What files from before it existed lack.
LATER_FIELDS: Final = ("cameras", "kept")
# Commands that overwrite their own output with --force.
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
        interpolation: of the single resize, antialiased as in Pillow.
    """

    height: Annotated[int, Field(ge=1, le=2**16)]
    width: Annotated[int, Field(ge=1, le=2**16)]
    channels: Literal["RGB"]
    mean: Colour
    std: Colour
    interpolation: Interpolation


def describe_pixels(pixels: Pixels) -> Preprocessing:
    """A recipe's pixel settings, as needed by users of the network."""
    return Preprocessing(
        height=pixels.height,
        width=pixels.width,
        channels="RGB",
        mean=pixels.mean,
        std=pixels.std,
        interpolation=pixels.test_interpolation or pixels.interpolation,
    )


class PackReference(Plan):
    """What a checkpoint records about a pack it was trained on.

    Args:
        dataset: its name.
        fingerprint: of the pack.
        images: number of images in the pack.
        source: where the pack's images come from, if the pack says so.
        terms: of use, if the pack states any.
    """

    dataset: str
    fingerprint: str
    images: Annotated[int, Field(ge=0)]
    source: dict[str, JsonValue] | None
    terms: str | None


class ListReference(Plan):
    """What a checkpoint records about scores, or a list of names, by which images were kept.

    Args:
        path: as it was named or found.
        fingerprint: SHA-256 of the file.
        made: for scores, by which distance between the features of which two networks; None for a list of names.
    """

    path: str
    fingerprint: str
    made: dict[str, JsonValue] | None


class KeptImages(Plan):
    """The part of the images that a run was trained on.

    Args:
        images: number of images that were kept.
        of: number of images that could have been.
        lists: by which they were chosen: one list of names, or the scores of each pack.
    """

    images: Annotated[int, Field(ge=1)]
    of: Annotated[int, Field(ge=1)]
    lists: tuple[ListReference, ...]


class CheckpointHeader(Plan):
    """Everything needed to use a checkpoint, and how it was made.

    Args:
        stage: the stage that wrote it.
        command: the command line; empty if there was none.
        recipe: resolved, as the stage that wrote it understood it; None for a converted network.
        network: enough to build it again.
        preprocessing: of the images it was trained on.
        classes: of its classifier, in order; empty if it has none.
        parents: fingerprints of the inputs by name.
        data: the packs it was trained on.
        cameras: of each row of the network's table of cameras, in order: the camera's number in the pack it was trained
            on, dataset and number if those were several packs; empty if it has no table, or they are not known. Files
            from before there were such tables lack it.
        kept: the part of the images that it was trained on, if a list chose it.
        version: of the lupctl that wrote it.
    """

    stage: Stage
    command: tuple[str, ...]
    recipe: dict[str, JsonValue] | None
    network: NetworkPlan
    preprocessing: Preprocessing
    classes: tuple[int | str, ...]
    parents: dict[str, str]
    data: tuple[PackReference, ...]
    cameras: tuple[int | str, ...] = ()
    kept: KeptImages | None = None
    version: str = Field(default_factory=lambda: version("lupctl"))


def read_header(path: Path, kind: Kind = "checkpoint") -> CheckpointHeader:
    """The header of a checkpoint, without its tensors.

    Args:
        path: the file.
        kind: what it must be.

    Raises:
        DataError: there is no such file.
        FormatError: not a checkpoint of lupctl, cut short, of another format, or with an invalid header.
    """
    with open_tensors(path, framework="np") as file:
        return parse_header(path, file.metadata(), kind)


def has_header(path: Path) -> bool:
    """Whether a file was written by some version of lupctl, whatever its format and kind."""
    try:
        with open_tensors(path, framework="np") as file:
            return HEADER_KEY in (file.metadata() or {})
    except DataError:
        return False


def is_method(path: Path) -> bool:
    """Whether a file is a method file of lupctl, of whatever format.

    Raises:
        DataError: there is no such file.
        FormatError: not safetensors, or cut short.
    """
    with open_tensors(path, framework="np") as file:
        text = (file.metadata() or {}).get(HEADER_KEY, "")
    try:
        found = parse_json(text, dict)
    except ValueError:
        return False
    return bool(found.get("kind") == "method")


def open_tensors(path: Path, *, framework: Literal["np", "pt"]) -> Any:
    """A safetensors file, open for reading; a context manager.

    Raises:
        DataError: there is no such file.
        FormatError: not safetensors, or cut short.
    """
    if not path.is_file():
        raise DataError(f"{path}: {say_missing(path)}; expected a checkpoint", hint="lupctl finetune DATASET makes one")
    try:
        return safe_open(path, framework=framework)
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(
            f"{path}: not a complete safetensors file ({error})", hint="train again, or copy the file again"
        ) from error


def format_header(header: CheckpointHeader, kind: Kind) -> str:
    """The text stored under `HEADER_KEY`; the same header gives the same text."""
    full = {**header.to_json(), "format": CHECKPOINT_FORMAT, "kind": kind}
    return json.dumps(full, sort_keys=True, ensure_ascii=False)


def parse_header(path: Path, metadata: Mapping[str, str] | None, kind: Kind) -> CheckpointHeader:
    """The header in a safetensors file's metadata, every field checked.

    Args:
        path: the file, for the error.
        metadata: of the file.
        kind: what it must be.

    Raises:
        FormatError: see `read_header`.
    """
    text = (metadata or {}).get(HEADER_KEY)
    if text is None:
        raise FormatError(
            f"{path}: a safetensors file without lupctl's header, so its network is unknown",
            hint=f"lupctl model convert {shlex.quote(str(path))} makes a checkpoint of a published network",
        )
    try:
        found = parse_json(text, dict)
    except ValueError as error:
        raise FormatError(f"{path}: lupctl's header is not JSON ({error})", hint="copy the file again") from error
    again = f"make it again: {command_again(path, found)}"
    if found.get("format") != CHECKPOINT_FORMAT:
        raise FormatError(
            f"{path}: checkpoint format {found.get('format')}; this lupctl reads format {CHECKPOINT_FORMAT}", hint=again
        )
    if found.get("kind") != kind:
        raise FormatError(f"{path}: contains a {found.get('kind')}; a {kind} was expected", hint=_hint_for(kind))
    missing = [name for name in CheckpointHeader.model_fields if name not in found and name not in LATER_FIELDS]
    if missing:
        raise FormatError(f"{path}: lupctl's header lacks {', '.join(missing)}", hint=again)
    fields = {key: value for key, value in found.items() if key not in ENVELOPE}
    try:
        # As JSON, so that arrays become tuples.
        return CheckpointHeader.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        problem = f"{first['msg'][0].lower()}{first['msg'][1:]}"
        raise FormatError(f"{path}: lupctl's header is invalid: {key}: {problem}", hint=again) from error


def command_again(path: Path, found: Mapping[str, Any]) -> str:
    """The command that makes a file again: the one in its header, else the usual one of its stage.

    Args:
        path: the file.
        found: its header, of any format.
    """
    command: Sequence[Any] = found["command"] if isinstance(found.get("command"), list) else ()
    if command and all(isinstance(word, str) for word in command):
        verb, more = "".join(command[1:2]), list[str]()
        # Options that do not affect the result are not recorded, such as where it was written.
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
    """A short description of a checkpoint's network."""
    network = header.network
    trunk, pooling, head = describe_trunk(network.trunk), network.pooling, network.head.kind
    return f"{trunk}, {pooling} pooling, head {head} ({header.stage})"
