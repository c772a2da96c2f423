"""The network whose attention a report shows."""

from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, UsageError

if TYPE_CHECKING:
    from lupctl.core.ranking.retrieval.lineage import Lineage


def refuse_attention(wanted: bool, *, page: bool, compare: bool, every: bool) -> None:
    """Refuses `--attention` where there is no page with rank lists.

    Raises:
        UsageError: it was given with `--no-page`, `--compare` or `--all`.
    """
    given = {"--compare": compare, "--all": every, "--no-page": not page}
    other = next((name for name, value in given.items() if value), None)
    if wanted and other is not None:
        raise UsageError(
            f"--attention has no meaning with {other}: its maps are beside the images of a run's own page",
            hint=f"leave out {other}",
        )


def find_network(features: Path, lineage: "Lineage") -> Path:
    """The checkpoint that made some features, whose attention can be shown.

    Raises:
        DataError: it is not here.
        UsageError: it has no class token.
    """
    if not lineage.checkpoints:
        raise DataError(
            f"--attention: {'; '.join(lineage.unknown)} ({features}); attention is computed by the network that made "
            "the features",
            hint=f"put its checkpoint into {features.parent}, or leave out --attention",
        )
    check_class_token(lineage.checkpoints[0])
    return lineage.checkpoints[0]


def check_class_token(checkpoint: Path) -> None:
    """Refuses a network without a class token.

    Raises:
        UsageError: it has none.
    """
    from lupctl.core.formats.weights.header import describe_network, read_header
    from lupctl.core.formats.weights.vit_plan import ViTPlan

    header = read_header(checkpoint)
    if not isinstance(header.network.trunk, ViTPlan):
        raise UsageError(
            f"--attention: {checkpoint} is {describe_network(header)}; only a vision transformer has a class token "
            "whose attention can be shown",
            hint="leave out --attention",
        )


def check_pictures(images: Path | None, features: Path) -> None:
    """Refuses to show attention without images.

    Raises:
        DataError: there are none.
    """
    if images is None:
        raise DataError(
            f"--attention: the images that {features} were made from are not here",
            hint="name the pack or the folder with them: --images PACK",
        )
