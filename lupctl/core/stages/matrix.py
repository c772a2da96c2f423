"""Matrix of several networks on several test sets, made from their reports."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lupctl.core.errors import LupError
from lupctl.core.formats.features.file import read_features_head
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.ranking.reports.model.matrix import MatrixCell, MatrixRun, MatrixSet, ScoreMatrix, write_matrix_file
from lupctl.core.ranking.reports.model.single import Report
from lupctl.core.ranking.reports.model.speed import Bench, BenchRun, read_bench
from lupctl.core.ranking.reports.page.matrix import render_matrix
from lupctl.core.system.disk.atomic import check_absent, write_text
from lupctl.core.system.progress.lines import Progress


@dataclass(frozen=True)
class MatrixRow:
    """One network and its reports.

    Args:
        name: the name that the user gave it.
        checkpoint: the file.
        reports: by dataset.
        trained_on: the datasets on whose training images it was fine-tuned.
        speeds: of this network, as measured.
    """

    name: str
    checkpoint: Path
    reports: Mapping[str, Report]
    trained_on: frozenset[str] = frozenset()
    speeds: Sequence[BenchRun] = ()


def is_made_from(features: Path, *, fingerprint: str, pack: Path) -> bool:
    """Whether a features file exists and was made from the network and the pack as they are now.

    Args:
        features: the file.
        fingerprint: of the checkpoint.
        pack: the pack.

    Raises:
        FormatError: the file is not a features file.
    """
    if not features.is_file():
        return False
    opened, parents = open_pack(pack), read_features_head(features).record["parents"]
    return bool(
        parents.get("checkpoint") == fingerprint and parents.get(f"pack:{opened.dataset}") == opened.fingerprint
    )


def read_benches(folder: Path, progress: Progress) -> list[Bench]:
    """What `model bench` left in a folder, the newest first; a file that cannot be read is reported and left out."""
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            bench = read_bench(path)
        except (LupError, OSError) as error:
            progress.warn(f"left out: {error}")
            continue
        if bench is not None:
            found.append(bench)
    return found


def find_speeds(benches: Sequence[Bench], fingerprint: str, path: Path) -> list[BenchRun]:
    """What the newest of some documents that knows a network says of its file; they are of one machine at one time."""
    return next((runs for bench in benches if (runs := bench.runs_of(fingerprint, path))), [])


def write_matrix(rows: Sequence[MatrixRow], out: Path, *, force: bool = False) -> ScoreMatrix:
    """Combine reports and write the matrix as JSON, with a page next to it.

    Args:
        rows: one or more, each with the same datasets.
        out: the JSON file.
        force: overwrite an existing file.

    Raises:
        UsageError: the file exists.
    """
    check_absent(out, force=force)
    first = rows[0].reports
    matrix = ScoreMatrix(
        protocol=next(iter(first.values())).protocol,
        datasets=[
            MatrixSet(name=name, protocol=report.protocol.name, counts=report.counts) for name, report in first.items()
        ],
        runs=[_build_run(row) for row in rows],
    )
    write_text(out.with_suffix(".html"), render_matrix(matrix))
    write_matrix_file(out, matrix)
    return matrix


def _build_run(row: MatrixRow) -> MatrixRun:
    return MatrixRun(
        name=row.name,
        checkpoint=str(row.checkpoint),
        speeds=list(row.speeds),
        cells=[
            MatrixCell(
                dataset=name,
                trained_on=name in row.trained_on,
                scores=report.scores,
                ci95=report.ci95,
                rerank=report.rerank,
                warnings=report.warnings or [],
                fingerprints=report.fingerprints,
            )
            for name, report in row.reports.items()
        ],
    )
