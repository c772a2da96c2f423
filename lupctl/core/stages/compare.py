"""Comparison of several reports."""

from collections.abc import Mapping
from pathlib import Path

from lupctl.core.files import check_absent, write_text
from lupctl.core.formats.comparison import Comparison, write_comparison
from lupctl.core.formats.report import Report
from lupctl.core.pages.compare import render_comparison
from lupctl.core.retrieval.comparing import compare_reports


def compare(reports: Mapping[str, Report], out: Path, *, force: bool = False) -> Comparison:
    """Compares every pair of runs and writes the comparison as JSON and as a page beside it.

    Args:
        reports: by the name of the run, at least two.
        out: the JSON file.
        force: overwrite what is there.

    Raises:
        DataError: the reports ranked other queries or by another rule.
        UsageError: the file exists.
    """
    check_absent(out, force=force)
    comparison = compare_reports(reports)
    write_text(out.with_suffix(".html"), render_comparison(comparison))
    write_comparison(out, comparison)
    return comparison
