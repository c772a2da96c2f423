"""Loads the networks that SOLIDER's second stage starts from, and refuses those that do not fit."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import torch

from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.file import read_method
from lupctl.core.formats.weights.header import CheckpointHeader, open_tensors, read_header
from lupctl.core.formats.weights.plan import NetworkPlan, describe_trunk
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.solider_sections import SOLIDER_OF_ARCH
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import METHOD_NAME
from lupctl.core.training.methods.build import build_method
from lupctl.core.training.methods.solider import Solider
from lupctl.core.training.nets.foreign.fitting import Difference, MismatchError, difference_rows
from lupctl.core.workspace import CHECKPOINT_NAME

# What is taken of a method's file; its centre restarts, as published.
NETWORKS: Final = ("student.", "teacher.")
# Of a head, what decides its shapes: by recipe key the tensor, and which side of it.
WIDTHS: Final = {
    "dino.outputs": ("student.head.last_layer.weight", 0),
    "dino.hidden": ("student.head.mlp.0.weight", 0),
    "dino.bottleneck": ("student.head.mlp.4.weight", 0),
}
Shapes = Mapping[str, tuple[int, ...]]
PART_HEAD: Final = "student.part_head."
METHODS: Final = ("dino", "solider")
HINT: Final = "lupctl pretrain --method dino --arch {arch} makes a start; or --from scratch"


def check_start(start: Path, recipe: PretrainRecipe, plan: NetworkPlan) -> None:
    """Refuses a start whose networks do not fit, before anything is written.

    Args:
        start: the method file of a run.
        recipe: of SOLIDER.
        plan: of what it keeps of the student.

    Raises:
        UsageError: it is of another method or another trunk.
        MismatchError: its heads or trunks have other tensors.
    """
    header = read_header(start, "method")
    assert isinstance(plan.trunk, SwinPlan)
    check_method(start, header, str(plan.trunk.arch))
    check_trunk(start, header, plan.trunk)
    with open_tensors(start, framework="np") as file:
        found = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    with torch.device("meta"):
        method = build_method(recipe.settings, plan, seed=0, solider=recipe.solider)
    wanted = {key: tuple(value.shape) for key, value in method.state_dict().items()}
    differences = list_differences(found, wanted)
    if differences:
        raise MismatchError(
            f"{start}: {len(differences)} of its tensors do not fit the networks of this recipe, first "
            f"{differences[0].key}",
            hint=name_own_head(found, wanted) or HINT.format(arch=plan.trunk.arch),
            rows=difference_rows(differences),
        )


def name_own_head(found: Shapes, wanted: Shapes) -> str:
    """The widths of a start's head that a recipe has otherwise, as they are typed; empty if there are none.

    Args:
        found, wanted: shapes by key, of the start and of the recipe's networks.
    """
    sides = {
        key: (found[name][side], wanted[name][side])
        for key, (name, side) in WIDTHS.items()
        if len(found.get(name, ())) == len(wanted[name])
    }
    return " ".join(f"--set {key}={own}" for key, (own, other) in sides.items() if own != other)


def check_method(start: Path, header: CheckpointHeader, arch: str) -> None:
    """Refuses a method whose networks are not those of self-distillation, which every converted file has.

    Raises:
        UsageError: names it.
    """
    if header.stage == "convert":
        return
    method = (header.recipe or {}).get("method")
    if method not in METHODS:
        raise UsageError(
            f"{start}: a pre-training by {method}; solider starts from one by dino or solider, with their heads",
            hint=HINT.format(arch=arch),
        )


def check_trunk(start: Path, header: CheckpointHeader, wanted: SwinPlan) -> None:
    """Refuses another trunk than the recipe's, and one without a semantic controller.

    Raises:
        UsageError: names both.
    """
    trunk = header.network.trunk
    if not isinstance(trunk, SwinPlan) or trunk.semantic_weight is None:
        lack = "" if not isinstance(trunk, SwinPlan) else " without a semantic controller"
        raise UsageError(
            f"{start}: networks on {describe_trunk(trunk)}{lack}; solider trains a Swin with a semantic controller",
            hint=HINT.format(arch=wanted.arch),
        )
    plain, own = (plan.model_copy(update={"semantic_weight": None}) for plan in (trunk, wanted))
    if plain != own:
        hint = HINT.format(arch=wanted.arch)
        if trunk.arch != wanted.arch:
            hint = HINT.format(arch=wanted.arch) if trunk.arch is None else f"--recipe {SOLIDER_OF_ARCH[trunk.arch]}"
        raise UsageError(
            f"{start}: networks on {describe_trunk(plain)}; the recipe trains {describe_trunk(own)}", hint=hint
        )


def list_differences(found: Shapes, wanted: Shapes) -> list[Difference]:
    """What does not fit, by key; a start by dino may lack the head for parts, and one by solider may have another."""
    own = {key: shape for key, shape in wanted.items() if key.startswith(NETWORKS) and not key.startswith(PART_HEAD)}
    given = {key: shape for key, shape in found.items() if key.startswith(NETWORKS) and not key.startswith(PART_HEAD)}
    missing = [Difference(key, None, shape) for key, shape in own.items() if key not in given]
    return missing + [Difference(key, shape, own.get(key)) for key, shape in given.items() if shape != own.get(key)]


def load_start(method: Solider, start: Path) -> str:
    """Load student and teacher with their heads into a method; returns a description for the log.

    The head for parts comes with them if the start has one of the same size. The centre stays what it is.

    Args:
        method: modified.
        start: a method file that `check_start` passed.
    """
    tensors, own = read_method(start).tensors, method.state_dict()
    given = {key: value for key, value in tensors.items() if key.startswith(NETWORKS)}
    parts = {key: value for key, value in given.items() if key.startswith(PART_HEAD)}
    is_whole = all(key in parts and parts[key].shape == own[key].shape for key in own if key.startswith(PART_HEAD))
    if not is_whole or not parts:
        given = {key: value for key, value in given.items() if key not in parts}
    method.load_state_dict(given, strict=False)
    head = "" if is_whole else "; new head for parts"
    return f"{len(given)} tensors of student and teacher from {start}{head}; new centre and optimizer"


def begin_from(start: Path | None, method: Solider, *, done: int, progress: Progress) -> dict[str, str]:
    """Load what a run starts from, if anything, and return its fingerprints as the run's parents.

    Args:
        start: a method file that `check_start` passed; None for the random weights there are.
        method: modified, unless the run continues.
        done: steps that the run has taken before; its own state then has all there is to load.
        progress: takes the line about it.
    """
    name = "random weights" if start is None else str(start)
    if done:
        progress.say(f"start: {name}; continued after step {done:,}, with the centre and the optimizer of this run")
    elif start is not None:
        progress.say(f"start: {load_start(method, start)}")
    else:
        progress.say(f"start: {name}")
    if start is None:
        return {}
    # A lineage follows checkpoints; the one of the same run is beside the file. A converted file has none.
    beside, fingerprint = start.with_name(CHECKPOINT_NAME), file_fingerprint(start)
    is_of_run = start.name == METHOD_NAME and beside.is_file()
    return {"start": file_fingerprint(beside) if is_of_run else fingerprint, "start_method": fingerprint}
