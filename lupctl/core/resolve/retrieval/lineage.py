"""What some features were made from, found again in the workspace: the network, its starts, and all of their packs."""

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import RUN_ALONE, WEIGHTLESS, find_checkpoint
from lupctl.core.resolve.data.images import own_folder
from lupctl.core.workspace import CHECKPOINT_NAME, RUN_NAME, Workspace, read_run

if TYPE_CHECKING:
    from lupctl.core.formats.weights.header import CheckpointHeader
    from lupctl.core.ranking.retrieval.lineage import Lineage, ScoredPack, TrainedPack

PACK_PARENT = "pack:"
# What a record calls networks that run without a checkpoint.
RUNTIMES = ("onnx", "openvino")
# Methods of pre-training that learn from the labels of a pack.
WITH_LABELS = ("pnl",)
# A network starts from one that starts from another; a longer chain is taken for a circle.
MOST_STARTS = 20


def find_tested(space: Workspace, features: tuple[Path, ...]) -> "tuple[ScoredPack, ...]":
    """The packs that some features were made from, by their fingerprints; none for features made elsewhere."""
    from lupctl.core.formats.features.foreign import read_any_record
    from lupctl.core.ranking.retrieval.lineage import ScoredPack

    found = {}
    for path in features:
        for name, fingerprint in (read_any_record(path).get("parents") or {}).items():
            if name.startswith(PACK_PARENT):
                dataset = name.removeprefix(PACK_PARENT)
                pack = _find_same_pack(space, dataset, str(fingerprint), near=path.parent)
                found[name, fingerprint] = ScoredPack(dataset, pack)
    return tuple(found.values())


def find_lineage(space: Workspace, features: Path) -> "Lineage":
    """The lineage of the network that made some features."""
    from lupctl.core.formats.features.foreign import read_any_record
    from lupctl.core.ranking.retrieval.inputs import network_of
    from lupctl.core.ranking.retrieval.lineage import Lineage

    record = read_any_record(features)
    wanted = network_of(record)
    if wanted is None:
        return Lineage(unknown=("the features name no network",))
    network = find_network(space, features, record)
    if network is None:
        what = "checkpoint" if runtime_of(record) is None else "file"
        return Lineage(unknown=(f"the network's {what} is not here",))
    return lineage_of(space, network)


def find_network(space: Workspace, features: Path, record: Mapping[str, Any]) -> Path | None:
    """The file of the network that made some features: what was exported, else the checkpoint; None if it is not here.

    Args:
        space: where runs and models are.
        features: beside which it may be, too.
        record: theirs.
    """
    from lupctl.core.ranking.retrieval.inputs import network_of

    exported, wanted, near = find_exported(space, features, record), network_of(record), own_folder(features)
    if exported is not None or wanted is None:
        return exported
    beside = [near / CHECKPOINT_NAME, *sorted(near.glob("*.safetensors"))]
    return _find_file(wanted, [*beside, *_all_networks(space)])


def runtime_of(record: Mapping[str, Any]) -> str | None:
    """The format of a network that ran without a checkpoint to make some features; None of a checkpoint."""
    network = record.get("network")
    kind = network.get("kind") if isinstance(network, Mapping) else None
    return next((known for known in RUNTIMES if known == kind), None)


def _list_exported(space: Workspace, features: Path, record: Mapping[str, Any]) -> Iterator[Path]:
    """Files in ONNX and OpenVINO's format that may have made some features.

    As the command named it, beside the features, and among the models.
    """
    for word in record.get("command") or []:
        path = Path(str(word))
        if path.suffix in RUN_ALONE and path.is_file():
            yield path
    for folder in (own_folder(features), space.models):
        for suffix in RUN_ALONE:
            yield from sorted(folder.glob(f"*{suffix}"))


def find_exported(space: Workspace, features: Path, record: Mapping[str, Any]) -> Path | None:
    """The file in ONNX or OpenVINO's format that made some features; None where it is not here."""
    from lupctl.core.errors import LupError
    from lupctl.core.ranking.reports.build.published import read_pixels
    from lupctl.core.ranking.retrieval.inputs import network_of
    from lupctl.core.ranking.retrieval.onnx.open import foreign_fingerprint
    from lupctl.core.ranking.retrieval.onnx.recorded import recorded_fingerprint

    wanted, pixels = network_of(record), read_pixels(record)
    if runtime_of(record) is None or pixels is None:
        return None
    for path in dict.fromkeys(_list_exported(space, features, record)):
        try:
            if wanted in (foreign_fingerprint(path, pixels), recorded_fingerprint(path)):
                return path
        except UsageError:  # another program's, which has no record
            if wanted == foreign_fingerprint(path, pixels):
                return path
        except (LupError, OSError):
            continue  # damaged, and so not the one
    return None


def lineage_of(space: Workspace, checkpoint: Path) -> "Lineage":
    """The lineage of a checkpoint: its own packs, then those of what it started from or learned from, and so on."""
    from lupctl.core.formats.weights.header import is_method, read_header
    from lupctl.core.ranking.retrieval.lineage import Lineage

    if checkpoint.suffix in RUN_ALONE:
        from lupctl.core.ranking.retrieval.onnx.recorded import recorded_parent

        parent = recorded_parent(checkpoint)
        if parent is None:
            return Lineage(unknown=("the network is of another program, and does not say what it was trained on",))
        source = _find_file(parent, [*sorted(checkpoint.parent.glob("*.safetensors")), *_all_networks(space)])
        if source is None:
            return Lineage(unknown=("the checkpoint that the network was exported from is not here",))
        return lineage_of(space, source)
    checkpoints: list[Path] = []
    trained: list[TrainedPack] = []
    unknown: list[str] = []
    waiting = [checkpoint]
    while waiting and len(checkpoints) < MOST_STARTS:
        current = waiting.pop(0)
        try:
            header = read_header(current, "method" if is_method(current) else "checkpoint")
        except DataError as error:
            unknown.append(f"the network's checkpoint cannot be read ({error.message})")
            continue
        checkpoints.append(current)
        if header.stage == "convert":
            unknown.append(f"{current.stem} was converted from another program's file, which does not list them")
            continue
        trained += _packs_of(space, current, header)
        recipe = header.recipe or {}
        sources = {"start": (_start_name(recipe), "started from"), "teacher": (_teacher_name(recipe), "learned from")}
        for key, (name, how) in sources.items():
            wanted = header.parents.get(key)
            arch = header.network.trunk.arch if key == "start" else None
            found = None if wanted is None else _find_source(space, name, wanted, arch)
            if found is not None:
                waiting.append(found)
            elif wanted is not None:
                unknown.append(f"{name or 'the network'} that it {how} is not here")
    return Lineage(tuple(checkpoints), tuple(dict.fromkeys(trained)), tuple(unknown))


def _start_name(recipe: Mapping[str, Any]) -> str:
    """What a recipe of fine-tuning, or of SOLIDER, names as its start; empty if it names none."""
    solider = recipe.get("solider")
    own = solider.get("start") if isinstance(solider, Mapping) else recipe.get("start")
    return str(own or "")


def _teacher_name(recipe: Mapping[str, Any]) -> str:
    """What a recipe of fine-tuning names as its teacher; empty if it names none."""
    distil = recipe.get("distil")
    return str(distil.get("teacher") or "") if isinstance(distil, Mapping) else ""


def _packs_of(space: Workspace, checkpoint: Path, header: "CheckpointHeader") -> "Iterator[TrainedPack]":
    from lupctl.core.ranking.retrieval.lineage import TrainedPack

    recipe = header.recipe or {}
    is_finetuned = header.stage == "finetune"
    data = recipe.get("data")
    for pack in header.data:
        source = pack.source or {}
        yield TrainedPack(
            dataset=pack.dataset,
            path=_find_same_pack(space, pack.dataset, pack.fingerprint, near=checkpoint.parent, images=pack.images),
            stage="finetune" if is_finetuned else "pretrain",
            is_labelled=is_finetuned or recipe.get("method") in WITH_LABELS,
            subset=str(data.get("subset") or "") if isinstance(data, dict) else "",
            terms=pack.terms or "",
            notice=str(source.get("notice") or ""),
        )


def _find_same_pack(
    space: Workspace, dataset: str, fingerprint: str, *, near: Path, images: int | None = None
) -> Path | None:
    """The pack with a fingerprint: that of its name or of the run's own record first, then any of the workspace."""
    own = _own_pack(near)
    for path in dict.fromkeys([*([own] if own else []), space.pack_path(dataset), *space.pack_paths()]):
        try:
            if path.exists() and _is_pack(path, fingerprint, images):
                return path
        except DataError:
            continue  # damaged, and so not the one
    return None


def _own_pack(run: Path) -> Path | None:
    """The pack that a run's record names, if the folder is a run's."""
    try:
        named = read_run(run).get("pack") if (run / RUN_NAME).is_file() else None
    except DataError:
        return None
    return Path(str(named)) if named else None


def _is_pack(path: Path, fingerprint: str, images: int | None) -> bool:
    from lupctl.core.formats.pack.keys import count_images
    from lupctl.core.formats.pack.verdict import pack_files

    if images is not None and count_images(path) != images:
        return False
    return _fingerprint(path, tuple(map(tuple, pack_files(path)))) == fingerprint


@lru_cache(maxsize=64)
def _fingerprint(path: Path, files: tuple[tuple[str | int, ...], ...]) -> str:
    """The fingerprint of a pack with these files: that of its last check, else computed from its columns."""
    from lupctl.core.formats.pack.read import pack_files, pack_fingerprint
    from lupctl.core.formats.pack.verdict import read_verdict

    verdict = read_verdict(path)
    known = verdict.fingerprint if verdict is not None else ""
    return known or pack_fingerprint(pack_files(path))


def _find_source(space: Workspace, name: str, fingerprint: str, arch: str | None) -> Path | None:
    """The checkpoint that a network started or learned from: the one of its name first, then any of an architecture.

    Args:
        space: where it may be.
        name: that the recipe has for it.
        fingerprint: of the file.
        arch: of its trunk; None for any.
    """
    from lupctl.core.formats.weights.header import read_header

    named: list[Path] = []
    if name and name not in WEIGHTLESS:
        try:
            named = [find_checkpoint(space, name)]
        except DataError:
            named = []
    found = _find_file(fingerprint, named)
    if found is not None:
        return found
    alike = []
    for path in _all_networks(space):
        try:
            if arch in (None, read_header(path).network.trunk.arch):
                alike.append(path)
        except DataError:
            continue
    return _find_file(fingerprint, alike)


def _all_networks(space: Workspace) -> list[Path]:
    return [*sorted(space.runs.glob(f"*/{CHECKPOINT_NAME}")), *sorted(space.models.rglob("*.safetensors"))]


def _find_file(fingerprint: str, candidates: list[Path]) -> Path | None:
    from lupctl.core.system.disk.atomic import file_fingerprint

    for path in dict.fromkeys(candidates):
        if path.is_file() and file_fingerprint(path) == fingerprint:
            return path
    return None
