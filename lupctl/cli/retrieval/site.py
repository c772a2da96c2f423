"""What `lupctl eval` prints of a site without labels."""

from typing import TYPE_CHECKING

from lupctl.cli.output import print_plan, print_table

if TYPE_CHECKING:
    import torch

    from lupctl.core.ranking.reports.model.site import ReportSitePoint, SiteReport
    from lupctl.core.stages.site import SiteJob, SitePlan

PLAN_SCHEMA = "lupctl.site-plan/1"
COLUMNS = ["rule", "same if 1 - cos <=", "95 % interval", "same-person pairs found, %", "95 % interval"]


def run_site(job: "SiteJob", device: "torch.device", *, json: bool) -> None:
    """Measures a site and prints its report.

    Args:
        job: what to measure.
        device: where.
        json: one JSON object instead of the table.

    Raises:
        DataError, UsageError: as `evaluate_site`.
    """
    from lupctl.core.ranking.reports.model.site import site_text
    from lupctl.core.stages.site import evaluate_site

    report = evaluate_site(job, device)
    if json:
        print(site_text(report), end="")
        return
    wanted = report.wanted_fpr
    named = "equal errors" if wanted is None else f"false matches {wanted:g}, as asked"
    others = [(rate, point) for rate, point in sorted(report.at_fpr.items(), reverse=True) if float(rate) != wanted]
    rows = [_row(named, report.threshold), *(_row(f"false matches {rate}", point) for rate, point in others)]
    title = f"{report.dataset}: no queries; from tracklets, without labels"
    print_table(title, COLUMNS, rows, note="\n".join(_notes(report)))
    print(f"report: {job.report}")


def show_site_plan(plan: "SitePlan", *, json: bool) -> None:
    """Prints what a report on a site would be made from."""
    rows: dict[str, object] = {
        "dataset": plan.dataset,
        "images": plan.images,
        "tracklets": plan.pairs.num_tracklets,
        "pairs_seen_together": plan.pairs.together,
        "pairs_of_images": len(plan.pairs.query),
        "report": str(plan.report),
    }
    print_plan(PLAN_SCHEMA, "would measure tracklets, as there are no queries", rows, json=json)


def _row(name: str, point: "ReportSitePoint | None") -> tuple[str, ...]:
    if point is None:
        return (name, "too few pairs", "-", "-", "-")
    near, found = point.threshold_ci95, point.tpr_ci95
    return (
        name,
        f"{point.threshold:.3f}",
        "-" if near is None else f"{near[0]:.3f} to {near[1]:.3f}",
        f"{100 * point.tpr:.1f}",
        "-" if found is None else f"{100 * found[0]:.1f} to {100 * found[1]:.1f}",
    )


def _notes(report: "SiteReport") -> list[str]:
    counts = report.counts
    shown = {"auc": "AUC", "rank1": "rank-1"}
    scores = ", ".join(f"{shown[name]} {100 * report.scores[name]:.1f} %" for name in shown if name in report.scores)
    across = report.across
    lines = [
        *(f"warning: {text}" for text in report.warnings),
        *(f"assumes: {text}" for text in report.assumes),
        f"{counts.tracklets:,} tracklets, {counts.together:,} pairs of them seen together ({counts.short:,} too short)",
        f"pairs of images: {counts.same:,} of one person, {counts.different:,} of two",
        f"on these pairs: {scores}",
    ]
    if across is not None:
        near = "" if across.near is None else f", {100 * across.near:.1f} % within the threshold"
        lines.append(
            f"across cameras, assumed: {across.pairs:,} pairs of tracklets are each other's nearest, "
            f"{100 * across.found_again:.1f} % of them found again in other images{near}"
        )
    return lines
