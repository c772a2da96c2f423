"""Which labels a fine-tuning command means, and the packs and the recipe that go with them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from lupctl.core.choices import Arch
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import Start
from lupctl.core.resolve.data.packs import pick_pack
from lupctl.core.resolve.training.transformers import family
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

DEFAULT_RECIPE: Final = "mgn-luperson"
# Of training on clusters, by family of networks; that of Swins is nobody's but ours.
CLUSTER_RECIPE: Final = "usl-r50"
CLUSTER_RECIPES: Final[Mapping[str, str]] = {"resnet": CLUSTER_RECIPE, "vit": "usl-vit-s", "swin": "usl-swin-t"}
# The small ones, for a CPU; Swins have none.
SMALL_RECIPES: Final[Mapping[str, str]] = {"resnet": "small-usl", "vit": "small-usl-vit"}


def wanted_labels(recipe: str | None, named: str | None, overrides: Sequence[str]) -> str:
    """What a command takes the images of one person to be: what it names, else what its recipe says."""
    from lupctl.core.recipes.shipped import join_tables

    if named is not None:
        return named
    tables, _ = join_tables("finetune", recipe or DEFAULT_RECIPE, overrides=overrides)
    return str(tables.get("labels", "persons"))


def family_recipe(recipe: str | None) -> str:
    """The recipe of training on clusters for the networks of another recipe; without one, that of ResNets."""
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.recipes.shipped import resolve_recipe

    if recipe is None:
        return CLUSTER_RECIPE
    of_persons = resolve_recipe("finetune", recipe)
    assert isinstance(of_persons, FinetuneRecipe)
    return recipe_of_clusters(of_persons.net.arch)


def recipe_of_clusters(arch: Arch) -> str:
    """The recipe of training on clusters for a network of this family.

    Raises:
        UsageError: there is none.
    """
    recipe = CLUSTER_RECIPES.get(family(arch))
    if recipe is None:
        raise UsageError(
            f"{arch}: no recipe trains it on clusters", hint=f"--recipe {CLUSTER_RECIPE} --arch r50 trains another one"
        )
    return recipe


def cluster_recipe(origin: Start, arch: Arch, progress: Progress) -> str:
    """The recipe of training on clusters when none is named."""
    from lupctl.core.formats.weights.vit_plan import ViTPlan

    trunk = None if origin.header is None else origin.header.network.trunk
    recipe = recipe_of_clusters(arch)
    if isinstance(trunk, ViTPlan) and trunk.stem == "ics":
        recipe += "-ics"
    of_family = SMALL_RECIPES.get(family(arch))
    small = "" if of_family is None else f"; --recipe {of_family} is for a CPU"
    progress.say(f"recipe: {recipe} (the default for clusters{small})")
    return recipe


def find_finetuning_packs(
    space: Workspace,
    names: Sequence[str],
    recipe: str | None,
    overrides: list[str],
    progress: Progress,
    *,
    labels: str | None = None,
) -> tuple[Path, ...]:
    """The packs named on the command line or in the recipe, else the workspace's one pack with what is trained on.

    Args:
        space: the workspace.
        names: from the command line.
        recipe: shipped name or TOML file; None where none was named.
        overrides: `--set` entries.
        progress: takes the line that names the choice.
        labels: persons or clusters, where the command says it.

    Raises:
        DataError: a named pack is missing, or there is not exactly one candidate.
    """
    import numpy as np

    from lupctl.core.choices import ROLE_CODES
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.recipes.shipped import join_tables

    if not names:
        tables, _ = join_tables("finetune", recipe or DEFAULT_RECIPE, overrides=overrides)
        data = tables.get("data")
        written = data.get("packs") if isinstance(data, dict) else None
        names = [str(name) for name in written] if isinstance(written, list) else []
    if names:
        return tuple(pick_pack(space, name, progress) for name in names)
    on_clusters = wanted_labels(recipe, labels, overrides) == "clusters"
    roles_of = {path: open_pack(path).samples.role for path in space.pack_paths()}
    clusterable = [ROLE_CODES["train"], ROLE_CODES["unlabelled"]]
    roles = clusterable if on_clusters else [ROLE_CODES["train"]]
    found = [path for path, role in roles_of.items() if np.isin(role, roles).any()]
    if len(found) == 1:
        progress.say(f"data: {found[0]} (the only {'' if on_clusters else 'labelled '}pack here)")
        return (found[0],)
    if found:
        what, also = ("packs", " --labels clusters") if on_clusters else ("labelled packs", "")
        raise DataError(
            f"{space.packs}: {len(found)} {what} ({', '.join(path.stem for path in found)})",
            hint=f"choose one: lupctl finetune {found[0].stem}{also}",
        )
    unlabelled = [path.stem for path, role in roles_of.items() if np.isin(role, clusterable).any()]
    tests = [path.stem for path in roles_of if path.stem not in unlabelled]
    others = [f"{what}: {', '.join(some)}" for what, some in (("without labels", unlabelled), ("tests", tests)) if some]
    raise DataError(
        f"{space.packs}: no {'' if on_clusters else 'labelled '}pack to fine-tune on"
        + (f" ({'; '.join(others)})" if others else ""),
        hint=f"without labels: lupctl finetune {unlabelled[0]} --labels clusters"
        if unlabelled
        else f"put images under {space.raw / 'NAME'}, then: lupctl data pack",
    )
