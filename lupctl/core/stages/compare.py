"""Comparison of several reports."""

from collections.abc import Mapping
from pathlib import Path

from lupctl.core.ranking.reports.build.comparison import compare_reports
from lupctl.core.ranking.reports.model.comparison import Comparison, write_comparison
from lupctl.core.ranking.reports.model.single import Report
from lupctl.core.ranking.reports.page.comparison import render_comparison
from lupctl.core.system.disk.atomic import check_absent, write_text


def compare(reports: Mapping[str, Report], out: Path, *, force: bool = False) -> Comparison:
    """Compare every pair of runs and write the comparison as JSON, with a page next to it.

    Args:
        reports: by the name of the run, at least two.
        out: the JSON file.
        force: overwrite an existing file.

    Raises:
        DataError: the reports rank different queries or use different rules.
        UsageError: the file exists.
    """
    check_absent(out, force=force)
    comparison = compare_reports(reports)
    write_text(out.with_suffix(".html"), render_comparison(comparison))
    write_comparison(out, comparison)
    return comparison
