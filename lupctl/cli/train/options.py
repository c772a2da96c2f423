"""Options that pre-training and fine-tuning share."""

from typing import Annotated, Any

import typer

from lupctl.cli.complete import complete_dataset

EpochsOption = Annotated[
    int | None,
    typer.Option("--epochs", min=1, help="Length of the training [default: the recipe's].", show_default=False),
]
BatchOption = Annotated[
    int | None,
    typer.Option(
        "--batch",
        min=1,
        metavar="IMAGES",
        help="Images in one step over all devices [default: the recipe's].",
        show_default=False,
    ),
]
RateOption = Annotated[
    float | None,
    typer.Option("--lr", metavar="RATE", help="Learning rate [default: the recipe's].", show_default=False),
]
TensorboardOption = Annotated[bool, typer.Option("--tensorboard", help="Write the metrics as curves too (an extra).")]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="Pack to train on, by name or path; repeatable, after those named first.",
        show_default=False,
        autocompletion=complete_dataset,
    ),
]
NodesOption = Annotated[
    int | None,
    typer.Option(
        "--nodes", min=1, help="Machines, each of which runs this same command [default: 1].", show_default=False
    ),
]
EndpointOption = Annotated[
    str | None,
    typer.Option(
        "--rdzv-endpoint",
        metavar="HOST:PORT",
        help="Where several machines meet: a free port of one of them.",
        show_default=False,
    ),
]
NodeRankOption = Annotated[
    int | None,
    typer.Option(
        "--node-rank",
        min=0,
        help="Number of this machine, 0 on HOST [default: in the order they come].",
        show_default=False,
    ),
]


def common_flags(arch: str | None, *, epochs: int | None, batch: int | None, lr: float | None) -> dict[str, Any]:
    """The named options of both stages, by recipe key.

    >>> common_flags("vit-s-ics", epochs=None, batch=64, lr=None)
    {'net.arch': 'vit-s', 'vit.stem': 'ics', 'schedule.epochs': None, 'data.batch': 64, 'optim.lr': None}
    """
    size, dash, stem = (arch or "").rpartition("-")
    trunk = {"net.arch": size, "vit.stem": stem} if dash and stem == "ics" else {"net.arch": arch}
    return {**trunk, "schedule.epochs": epochs, "data.batch": batch, "optim.lr": lr}


def join_names(named: list[str] | None, data: list[str] | None) -> list[str]:
    """The packs of a command line: those named first, then those of `--data` that are not among them.

    >>> join_names(["a"], ["a", "b"])
    ['a', 'b']
    """
    first = named or []
    return [*first, *(name for name in data or [] if name not in first)]
