"""Recipes as TOML, and the overrides of a command line."""

import difflib
import json
from collections.abc import Iterable, Mapping
from shlex import quote
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from lupctl.core.choices import nearest_name
from lupctl.core.errors import UsageError
from lupctl.core.recipes.sections import MisfitError
from lupctl.core.system.documents import MOST_DEPTH, parse_toml

R = TypeVar("R", bound=BaseModel)
# What comes after the name of a recipe that a command line changed.
CHANGED = " with --set"
# A recipe of each stage, for hints; the files that they are about are not shown, as there is something wrong with them.
SHOWN = {"pretrain": "small-moco", "finetune": "bot"}
# In such a short name two swapped letters are half of it or more.
SHORT = 3
# Names of the keys in other code of the field, without underscores.
ELSEWHERE = {
    "learningrate": "lr", "baselr": "lr", "rate": "lr", "wd": "weight_decay", "decay": "weight_decay",
    "batchsize": "batch", "imsperbatch": "batch", "numinstances": "images", "numinstance": "images",
    "instances": "images", "maxepoch": "epochs", "maxepochs": "epochs", "steps": "milestones", "temp": "temperature",
    "queuesize": "queue", "k": "queue", "t": "temperature", "m": "momentum", "backbone": "arch", "depth": "arch",
    "amp": "precision", "fp16": "precision", "labelsmooth": "smoothing", "labelsmoothing": "smoothing",
    "gradclip": "clip", "clipgrad": "clip", "lr0": "lr", "initlr": "lr", "numepochs": "epochs", "nepochs": "epochs",
    "warmup": "warmup_epochs", "optimizer": "name", "optim": "name", "opt": "name", "scheduler": "kind",
    "eps": "smoothing", "imgheight": "height", "imgwidth": "width", "numpersons": "persons", "numids": "persons",
}  # fmt: skip


def parse_recipe(text: str, *, origin: str) -> dict[str, Any]:
    """The tables of a recipe's text.

    Raises:
        UsageError: it is not TOML.
    """
    try:
        return parse_toml(text)
    except ValueError as error:
        raise UsageError(
            f"{origin}: not valid TOML: {error}", hint=f"lupctl recipe show {SHOWN['finetune']} prints a valid one"
        ) from error


def recipe_tables(recipe: BaseModel) -> dict[str, Any]:
    """A recipe as nested tables of plain values, without the sections of other methods."""
    return recipe.model_dump(mode="json", exclude_none=True)


def dump_recipe(recipe: BaseModel) -> str:
    """A recipe as TOML with every key, so that it can be read back to the same recipe.

    >>> from lupctl.core.recipes.sections import Saving
    >>> print(dump_recipe(Saving(every_epochs=3)))
    every_epochs = 3
    <BLANKLINE>
    """
    lines: list[str] = []
    _write_table(recipe_tables(recipe), "", lines)
    return "\n".join(lines).strip("\n") + "\n"


def _write_table(table: Mapping[str, Any], prefix: str, lines: list[str]) -> None:
    for key, value in table.items():
        if not isinstance(value, Mapping):
            lines.append(f"{key} = {_format_value(value)}")
    for key, value in table.items():
        if isinstance(value, Mapping):
            lines.extend(["", f"[{prefix}{key}]"])
            _write_table(value, f"{prefix}{key}.", lines)


def _format_value(value: Any) -> str:
    # JSON's strings, numbers, booleans and arrays are valid TOML, except for one character that TOML needs escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def parse_override(text: str) -> tuple[str, Any]:
    """One `key=value` of `--set`; the value is parsed as TOML if possible, else a string.

    >>> parse_override("optim.lr=0.1")
    ('optim.lr', 0.1)
    >>> parse_override("net.arch=r18")
    ('net.arch', 'r18')

    Raises:
        UsageError: there is no `=`.
    """
    key, equals, value = text.partition("=")
    hint = "for example --set optim.lr=0.1"
    if not equals or not key.strip():
        raise UsageError(f"--set {text}: expected KEY=VALUE", hint=hint)
    if key.count(".") > MOST_DEPTH:
        raise UsageError(f"--set {text}: a key of more than {MOST_DEPTH} parts; recipes have no such key", hint=hint)
    try:
        return key.strip(), parse_toml(f"value = {value}")["value"]
    except (ValueError, KeyError):
        return key.strip(), value.strip()


def override(tables: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of nested tables with one dotted key replaced."""
    head, _, rest = key.partition(".")
    copy = dict(tables)
    if rest:
        below = copy.get(head, {})
        copy[head] = override(below if isinstance(below, Mapping) else {}, rest, value)
    else:
        copy[head] = value
    return copy


def build_recipe(model: type[R], tables: Mapping[str, Any], *, origin: str) -> R:
    """Checks tables against a recipe's model.

    Raises:
        UsageError: an unknown key (with the one that was probably meant) or a value of the wrong kind.
    """
    known = list(recipe_keys(model))
    for key in _flat_keys(tables):
        if key not in known and not any(name.startswith(f"{key}.") for name in known):
            raise _unknown_key(model, tables, key, known, origin)
    try:
        # Strict: TOML has types, and a batch of `true` or "16" is a mistake. Only arrays become tuples.
        return model.model_validate(_freeze_arrays(tables), strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(str(part) for part in first["loc"] if part not in ("tuple[float, float]", "tuple[]"))
        message = first["msg"].removeprefix("Value error, ")
        # A rule that concerns several keys of a table names them itself.
        is_of_table = first["type"] == "value_error" and isinstance(first["input"], Mapping)
        got = f", got {first['input']!r}" if location and not is_of_table else ""
        cause = first.get("ctx", {}).get("error")
        raise UsageError(
            f"{origin}: {location + ': ' if location else ''}{message[0].lower()}{message[1:]}{got}",
            hint=cause.hint
            if isinstance(cause, MisfitError)
            else f"{show_command(model, origin)} shows a valid value for every key",
        ) from error


def show_command(model: type[BaseModel], origin: str) -> str:
    """The command that shows a valid recipe: the one that was changed, if lupctl ships it, else one of its stage.

    >>> from lupctl.core.recipes.models import PretrainRecipe
    >>> show_command(PretrainRecipe, "small-pnl with --set"), show_command(PretrainRecipe, "runs/mine/recipe.toml")
    ('lupctl recipe show small-pnl --stage pretrain', 'lupctl recipe show small-moco --stage pretrain')

    Args:
        model: of the recipe.
        origin: a shipped name or a file; may say that there is more.
    """
    stage, name = str(model.model_fields["stage"].default), origin.removesuffix(CHANGED)
    is_name = name.replace("-", "").isalnum()
    return f"lupctl recipe show {name if is_name else SHOWN[stage]} --stage {stage}"


def _unknown_key(
    model: type[BaseModel], tables: Mapping[str, Any], key: str, known: list[str], origin: str
) -> UsageError:
    """The error for a key that there is not; its hint sets the one that was probably meant, if it takes that value."""
    guess = nearest_key(key, known)
    if guess is None:
        return UsageError(
            f"{origin}: unknown recipe key {key!r}", hint=f"{show_command(model, origin)} lists every key"
        )
    value: Any = tables
    for part in key.split("."):
        value = value[part]
    namesakes = [name for name in known if name.rpartition(".")[2] == key.rpartition(".")[2]]
    meant = next((name for name in (guess, *namesakes) if _takes(model, tables, name, value)), None)
    shown = quote(value if isinstance(value, str) else _format_value(value).replace(" ", ""))
    return UsageError(
        f"{origin}: unknown recipe key {key!r}; did you mean {meant or guess!r}?",
        hint=f"{show_command(model, origin)} shows a valid value for every key"
        if meant is None
        else f"--set {meant}={shown}",
    )


def _takes(model: type[BaseModel], tables: Mapping[str, Any], key: str, value: Any) -> bool:
    """Whether a key may have a value in a recipe, as far as that depends on this key."""
    try:
        model.model_validate(_freeze_arrays(override(tables, key, value)), strict=True)
    except ValidationError as error:
        at = tuple(key.split("."))
        problems = [one for one in error.errors(include_url=False) if one["type"] != "extra_forbidden"]
        return all(one["loc"] and one["loc"][: len(at)] != at for one in problems)
    return True


def nearest_key(key: str, known: list[str]) -> str | None:
    """The key that was most likely meant: in the right section first, also by its name in other code.

    A name without a section is looked for in `optim` first.

    >>> nearest_key("batchsize", ["data.batch", "data.packs"])
    'data.batch'
    """
    head, _, last = key.rpartition(".")
    named = ELSEWHERE.get(last.replace("_", "").lower(), last)
    for name in (f"{head or 'optim'}.{named}", *(other for other in known if other.rpartition(".")[2] == named)):
        if name in known:
            return name
    own = [name for name in known if name.rpartition(".")[0] == head]
    for names in (own, known):
        near = nearest_name(last, [name.rpartition(".")[2] for name in names])
        if near is not None:
            return next(name for name in names if name.rpartition(".")[2] == near)
    return nearest_name(key, own) if len(last) <= SHORT else None


def likeness(name: str, key: str) -> float:
    """How much a name is like the last part of a key, from 0 to 1; 1 if it is that key's name in other code."""
    last = key.rpartition(".")[2].lstrip("-").replace("-", "_")
    named = ELSEWHERE.get(name.replace("_", ""), name)
    return 1.0 if named == last else difflib.SequenceMatcher(None, name, last).ratio()


def _freeze_arrays(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _freeze_arrays(inner) for key, inner in value.items()}
    return tuple(_freeze_arrays(inner) for inner in value) if isinstance(value, list | tuple) else value


def recipe_keys(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    """Every dotted key of a recipe."""
    for name, info in model.model_fields.items():
        section = _section_of(info.annotation)
        if section is not None:
            yield from recipe_keys(section, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, or may hold."""
    for kind in (annotation, *get_args(annotation)):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None


def _flat_keys(tables: Mapping[str, Any], prefix: str = "") -> Iterable[str]:
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _flat_keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"
