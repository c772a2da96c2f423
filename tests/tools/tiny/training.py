"""Small training jobs that several tests share, and ways to interrupt them."""

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import pytest
import torch

from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.system.jobs.device import Placement
from lupctl.core.training.views import pixels

# Two steps per epoch on the 36 images of `crowd`; the queue is no multiple of the batch, so that it wraps.
PRETRAIN = (
    "net.arch=r18", "net.width=4", "pixels.height=32", "pixels.width=16", "data.batch=16", "bn_groups=4",
    "moco.dim=16", "moco.queue=40", "moco.momentum=0.99", "optim.lr=0.1", "schedule.epochs=2", "schedule.unit=step",
    "schedule.warmup_epochs=1", "saving.every_epochs=0",
)  # fmt: skip
# Three steps per epoch on the 36 training images of `labelled`.
FINETUNE = (
    "net.arch=r18", "net.width=4", "pixels.height=32", "pixels.width=16", "augment.pad=4", "data.persons=4",
    "data.images=3", "bn_groups=2", "optim.lr=3e-3", "schedule.epochs=2", "schedule.warmup_epochs=1",
    "saving.every_epochs=0",
)  # fmt: skip
# The same for a vision transformer: 7 x 3 overlapping patches, and every random part of it.
TRANSFORMER = (
    "net.arch=vit-t", "vit.patch=8", "vit.stride=4", "vit.depth=2", "vit.drop_path=0.4", "pixels.height=32",
    "pixels.width=16", "augment.pad=4", "data.persons=4", "data.images=3", "optim.lr=3e-3", "schedule.epochs=2",
    "schedule.warmup_epochs=1", "saving.every_epochs=0",
)  # fmt: skip
JPM = "transreid-vit-b-s12-sie-jpm"
# The same for an OSNet, whose last map is 2 x 1.
OSNET = (
    "pixels.height=32", "pixels.width=16", "augment.pad=4", "data.persons=4", "data.images=3", "schedule.epochs=2",
    "schedule.warmup_epochs=1", "saving.every_epochs=0",
)  # fmt: skip
# The same for a Swin: 16 x 8 tokens, the last map 2 x 1.
SWIN = (
    "net.arch=swin-u", "swin.patch=2", "swin.window=4", "swin.depths=[1, 1, 2, 1]", "swin.drop_path=0.4",
    "pixels.height=32", "pixels.width=16", "augment.pad=4", "data.persons=4", "data.images=3", "optim.lr=3e-3",
    "schedule.epochs=2", "schedule.warmup_epochs=1", "saving.every_epochs=0",
)  # fmt: skip

# Pre-training a Swin by itself and by SOLIDER: last maps of 2 x 2 tokens, of views whose person has two of them or
# more, and two parts.
SOLIDER = (
    "swin.depths=[1, 1, 1, 1]", "swin.drop_path=0.3", "pixels.height=32", "pixels.width=32", "local.height=16",
    "local.width=16", "local.count=1", "dino.outputs=40", "dino.hidden=16", "dino.bottleneck=8", "data.batch=16",
    "bn_groups=4", "schedule.epochs=2", "schedule.warmup_epochs=1", "saving.every_epochs=0",
)  # fmt: skip
PARTS = ("solider.parts=2", "solider.part_hidden=12", "solider.part_bottleneck=6", "solider.foreground=0.3")


def as_options(settings: tuple[str, ...]) -> list[str]:
    """The same settings on a command line."""
    return [word for entry in settings for word in ("--set", entry)]


def pretrain_job(pack: Path, run: Path, *settings: str, workers: int = 0, processes: int = 1) -> PretrainJob:
    """Four steps of a tiny network unless the settings say otherwise."""
    recipe = resolve_recipe("pretrain", "luperson-moco", overrides=(*PRETRAIN, *settings))
    assert isinstance(recipe, PretrainRecipe)
    return PretrainJob(
        recipe=recipe, packs=(pack,), run=run, placement=Placement("cpu", processes, ""), workers=workers, command=()
    )


def solider_job(
    pack: Path, run: Path, *settings: str, start: Path | None = None, recipe: str = "small-solider", processes: int = 1
) -> PretrainJob:
    """Four steps of a tiny Swin, two of them with the last layer frozen."""
    own = PARTS if recipe == "small-solider" else ()
    resolved = resolve_recipe("pretrain", recipe, overrides=(*SOLIDER, *own, *settings))
    assert isinstance(resolved, PretrainRecipe)
    placement = Placement("cpu", processes, "")
    return PretrainJob(recipe=resolved, packs=(pack,), run=run, placement=placement, workers=0, command=(), start=start)


def finetune_job(
    pack: Path,
    run: Path,
    *settings: str,
    shipped: str = "bot",
    start: Path | None = None,
    workers: int = 0,
    processes: int = 1,
) -> FinetuneJob:
    """Six steps of a tiny network by a shipped recipe, from scratch unless there is a start."""
    return shrunk_job(pack, run, shipped, (*FINETUNE, *settings), start=start, workers=workers, processes=processes)


def transformer_job(
    pack: Path, run: Path, *settings: str, recipe: str = JPM, start: Path | None = None, processes: int = 1
) -> FinetuneJob:
    """Six steps of a tiny vision transformer by a shipped recipe, from scratch unless there is a start."""
    return shrunk_job(pack, run, recipe, (*TRANSFORMER, *settings), start=start, processes=processes)


def swin_job(pack: Path, run: Path, *settings: str, start: Path | None = None, processes: int = 1) -> FinetuneJob:
    """Six steps of a tiny Swin by SOLIDER's recipe, from scratch unless there is a start."""
    return shrunk_job(pack, run, "solider-swin-t", (*SWIN, *settings), start=start, processes=processes)


def osnet_job(
    pack: Path, run: Path, *settings: str, recipe: str = "small-osnet", start: Path | None = None, processes: int = 1
) -> FinetuneJob:
    """Six steps of the narrowest OSNet by a shipped recipe, from scratch unless there is a start."""
    return shrunk_job(pack, run, recipe, (*OSNET, *settings), start=start, processes=processes)


def shrunk_job(
    pack: Path,
    run: Path,
    shipped: str,
    settings: tuple[str, ...],
    *,
    start: Path | None,
    workers: int = 0,
    processes: int = 1,
) -> FinetuneJob:
    """Fine-tuning by a shipped recipe with settings that make it small, from scratch unless there is a start."""
    name = "scratch" if start is None else start.parent.name
    recipe = resolve_recipe("finetune", shipped, overrides=(f"start={name}", *settings))
    assert isinstance(recipe, FinetuneRecipe)
    placement = Placement("cpu", processes, "")
    return FinetuneJob(
        recipe=recipe, packs=(pack,), start=start, run=run, placement=placement, workers=workers, command=()
    )


def call_at(patch: pytest.MonkeyPatch, module: ModuleType, step: int, action: Callable[[], None]) -> None:
    """Calls something while a loop works on a step, counted from 1 since the loop began.

    Args:
        patch: undoes it.
        module: where the stage sets the rates of its optimizer.
        step: when.
        action: what is called.
    """
    real, seen = module.set_rates, []

    def set_rates(optimizer: torch.optim.Optimizer, **given: Any) -> None:
        seen.append(given)
        if len(seen) == step:
            action()
        real(optimizer, **given)

    patch.setattr(module, "set_rates", set_rates)


def signal_at(patch: pytest.MonkeyPatch, module: ModuleType, step: int, number: int = signal.SIGTERM) -> None:
    """Sends this process a signal while it works on a step; see `call_at`."""
    call_at(patch, module, step, lambda: os.kill(os.getpid(), number))


def compute_in_double(patch: pytest.MonkeyPatch, views: ModuleType, networks: ModuleType, build: str) -> None:
    """Lets a loop compute in float64, from views rounded to multiples of 1/64.

    Batch norm over four pixels blows rounding up a thousand times in a step, so that in float32 two orders of the same
    sums soon give two networks. Here they stay equal to twelve digits, and what differs is wrong.

    Args:
        patch: undoes it.
        views: the module that makes them, one by one or all together.
        networks: the module that builds what is trained.
        build: name of its function for that.
    """
    views = pixels if hasattr(views, "make_views") else views
    make_view, build_network, to_float = views.make_view, getattr(networks, build), torch.Tensor.float

    def view(*given: Any) -> torch.Tensor:
        patch.setattr(torch.Tensor, "float", to_float)
        made: torch.Tensor = (make_view(*given).double() * 64).round() / 64
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        return made

    patch.setattr(views, "make_view", view)
    patch.setattr(networks, build, lambda *given: build_network(*given).double())


def read_state(run: Path) -> dict[str, Any]:
    """What lies in a run's resume.pt."""
    state = torch.load(run / "resume.pt", weights_only=True)
    assert isinstance(state, dict)
    return state


def run_forked(train: Callable[[Any], None], job: Any, *, processes: int) -> list[int]:
    """Runs a training loop in forked processes of one job, as a launcher would; returns their exit codes."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    cv2.setNumThreads(1)  # ends OpenCV's threads, for which a forked process would wait for ever
    context = multiprocessing.get_context("fork")
    group = [context.Process(target=_join_job, args=(train, job, rank, processes, port)) for rank in range(processes)]
    for process in group:
        process.start()
    for process in group:
        process.join(60)
        if process.exitcode is None:
            process.kill()
    return [process.exitcode or 0 for process in group]


def _join_job(train: Callable[[Any], None], job: Any, rank: int, processes: int, port: int) -> None:
    from lupctl.core.system.jobs.messages import joined_job

    torch.set_num_threads(1)
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
        "MASTER_ADDR": "localhost", "MASTER_PORT": str(port),
    }  # fmt: skip
    with joined_job("cpu"):
        train(job)


def name_it(name: str, text: str) -> str:
    """What `torch.testing.assert_close` is to say of a tensor that differs: `msg=partial(name_it, name)`."""
    return f"{name}: {text}"
