"""A cross-domain matrix as one HTML page."""

from lupctl.core.formats.crossdomain import CrossDomain
from lupctl.core.pages.report import render


def render_cross(matrix: CrossDomain) -> str:
    """The page of a matrix."""
    return render("crossdomain.html.j2", {"matrix": matrix})
