"""The recipes that come with lupctl, and finding the one that a name means."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from lupctl.core.choices import nearest_name
from lupctl.core.errors import DataError, UsageError
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe, Recipe
from lupctl.core.recipes.text import CHANGED, build_recipe, override, parse_override, parse_recipe
from lupctl.core.system.disk.limits import TEXT_BYTES
from lupctl.core.system.disk.reading import read_text

MODELS: dict[str, type[PretrainRecipe] | type[FinetuneRecipe]] = {
    "pretrain": PretrainRecipe,
    "finetune": FinetuneRecipe,
}


@dataclass(frozen=True)
class Shipped:
    """One shipped recipe.

    Args:
        name: what a user types.
        stage: pretrain or finetune.
        text: the file.
        header: its opening comment, by label: What, Paper, Command, Cost, Score.
    """

    name: str
    stage: str
    text: str
    header: Mapping[str, str]


def shipped_recipes() -> list[Shipped]:
    """All shipped recipes, sorted by stage and name."""
    found = []
    for stage in MODELS:
        for path in sorted((_folder() / stage).glob("*.toml")):
            text = path.read_text(encoding="utf-8")
            found.append(Shipped(path.stem, stage, text, dict(_read_header(text))))
    return found


def find_text(name: str, stage: str | None) -> tuple[str, str]:
    """The text of a recipe and where it comes from: a file that exists, or a shipped name.

    Args:
        name: of a file, or of a shipped recipe; those of both stages may share a name.
        stage: pretrain or finetune; None for any, and fine-tuning where both stages have one of this name.

    Raises:
        UsageError: neither exists.
    """
    if name.endswith(".toml") or "/" in name:
        path = Path(name)
        if not path.exists():
            raise UsageError(f"{name}: no such recipe file", hint="lupctl recipe list")
        try:
            return read_text(path, TEXT_BYTES), name
        except DataError as error:  # too large
            raise UsageError(error.message, hint=error.hint) from error
        except OSError as error:
            raise UsageError(f"{name}: cannot be read ({error.strerror})", hint=f"ls -l {name}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{name}: not a text file ({error})", hint="lupctl recipe list") from error
    candidates = [recipe for recipe in shipped_recipes() if stage in (None, recipe.stage)]
    for recipe in reversed(candidates):
        if recipe.name == name:
            return recipe.text, recipe.name
    for recipe in shipped_recipes():
        if recipe.name == name:
            raise UsageError(
                f"no {stage} recipe {name!r}: it is a recipe for lupctl {recipe.stage}",
                hint=f"lupctl {recipe.stage} --recipe {name}",
            )
    guess = nearest_name(name, [recipe.name for recipe in candidates])
    raise UsageError(
        f"no {stage + ' ' if stage else ''}recipe {name!r}" + (f"; did you mean {guess!r}?" if guess else ""),
        hint="lupctl recipe list" if guess is None else f"--recipe {guess}" if stage else f"lupctl recipe show {guess}",
    )


def resolve_recipe(
    stage: str,
    name: str,
    *,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    adopted: Mapping[str, Any] | None = None,
) -> Recipe:
    """A recipe with everything filled in: defaults < adopted < recipe < facts < `--set` < named flags.

    Args:
        stage: pretrain or finetune.
        name: shipped name or TOML file.
        overrides: `key=value` texts, later ones win.
        flags: dotted keys from named flags; None values were not given.
        facts: dotted keys that an input fixes, whatever the recipe's text says, such as the width of a trunk.
        adopted: dotted keys that an input sets where the recipe's text does not.

    Raises:
        UsageError: unknown name or key, or a value that is not allowed.
    """
    tables, origin = join_tables(stage, name, overrides=overrides, flags=flags, facts=facts, adopted=adopted)
    return build_recipe(MODELS[stage], tables, origin=origin)


def join_tables(
    stage: str,
    name: str,
    *,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    adopted: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], str]:
    """The tables of `resolve_recipe`, without defaults and not checked yet, and where they come from.

    Raises:
        UsageError: unknown name, or an entry without a value.
    """
    text, origin = find_text(name, stage)
    tables = parse_recipe(text, origin=origin)
    check_stage(tables, stage, origin=origin)
    for key, value in (adopted or {}).items():
        if not _has_key(tables, key):
            tables = override(tables, key, value)
    for key, value in (facts or {}).items():
        tables = override(tables, key, value)
    for entry in overrides:
        key, value = parse_override(entry)
        tables = override(tables, key, value)
        origin = f"{name}{CHANGED}"
    for key, value in (flags or {}).items():
        if value is not None:
            tables = override(tables, key, value)
    return tables, origin


def _has_key(tables: Mapping[str, Any], key: str) -> bool:
    head, _, rest = key.partition(".")
    below = tables.get(head)
    return head in tables and (not rest or not isinstance(below, Mapping) or _has_key(below, rest))


def check_stage(tables: Mapping[str, Any], stage: str, *, origin: str) -> None:
    """Refuses a recipe of the other stage."""
    found = tables.get("stage", stage)
    if found != stage:
        raise UsageError(f"{origin}: a recipe for {found}, not for {stage}", hint=f"lupctl {found} --recipe {origin}")


def read_resolved(path: Path) -> Recipe:
    """The recipe of a run folder, or of a TOML file that names its stage.

    Raises:
        DataError: there is none.
    """
    file = path / "recipe.toml" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file}: no such file; expected a run's recipe", hint="lupctl recipe list")
    tables = parse_recipe(file.read_text(encoding="utf-8"), origin=str(file))
    stage = tables.get("stage")
    if stage not in MODELS:
        raise UsageError(f"{file}: stage = {stage!r}, expected pretrain or finetune", hint='add stage = "finetune"')
    return build_recipe(MODELS[stage], tables, origin=str(file))


def _folder() -> Path:
    """The recipes are inside an installed package, and next to it in a checkout."""
    package = Path(str(files("lupctl")))
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parent / "recipes"


def _read_header(text: str) -> Iterator[tuple[str, str]]:
    label, value = "", ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        content = line.lstrip("# ").strip()
        head, colon, rest = content.partition(": ")
        if colon and head in ("What", "Paper", "Command", "Cost", "Score", "Quirks"):
            if label:
                yield label, value
            label, value = head, rest
        else:
            value = f"{value} {content}".strip()
    if label:
        yield label, value
