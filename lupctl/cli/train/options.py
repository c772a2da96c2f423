"""Options that pre-training and fine-tuning share."""

from typing import Annotated

import typer

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
