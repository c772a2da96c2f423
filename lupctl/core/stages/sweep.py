"""A sweep as files: its JSON, and a page next to it."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from lupctl.core.choices import SettingKey
from lupctl.core.errors import DataError
from lupctl.core.ranking.reports.build.sweep import Measured, build_sweep
from lupctl.core.ranking.reports.model.single import ReportProtocol
from lupctl.core.ranking.reports.model.sweep import Sweep, SweepRerank, Value, read_sweep, write_sweep_file
from lupctl.core.ranking.reports.page.sweep import render_sweep
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.system.disk.atomic import check_absent, write_text


def check_sweep_replaceable(
    path: Path,
    *,
    parents: Mapping[str, str],
    base: Mapping[str, Value],
    values: Collection[Value],
    protocol: ReportProtocol,
    rerank: RerankSettings | None,
) -> None:
    """Lets a sweep replace one that it includes: the same network, images and rule, its values, and its re-ranking.

    Args:
        path: of the sweep.
        parents: fingerprints of the network and the images.
        base: what else is set.
        values: of the new sweep.
        protocol: its rules.
        rerank: its re-ranking.

    Raises:
        UsageError: another one exists.
    """
    if not path.exists():
        return
    try:
        old = read_sweep(path)
    except DataError:
        check_absent(path, force=False)
        return
    wanted = None if rerank is None else SweepRerank(k1=rerank.k1, k2=rerank.k2, weight=rerank.weight, base=rerank.base)
    is_included = (
        all(parents.items() <= point.fingerprints.items() for point in old.points)
        and old.base == base
        and {point.value for point in old.points} <= set(values)
        and old.protocol == protocol
        and old.rerank in (None, wanted)
    )
    check_absent(path, force=is_included)


def write_sweep(
    key: SettingKey, measured: Sequence[Measured], out: Path, *, network: str, base: Mapping[str, Value], page: bool
) -> Sweep:
    """Builds a sweep and writes it as JSON, with a page next to it.

    Args:
        key, measured, network, base: as `build_sweep` takes them.
        out: the JSON file.
        page: also writes the page.

    Raises:
        DataError: the reports cannot be compared, or the disk is full or refuses the write.
    """
    sweep = build_sweep(key, measured, network=network, base=base)
    if page:
        write_text(out.with_suffix(".html"), render_sweep(sweep))
    write_sweep_file(out, sweep)
    return sweep
