"""A report as text: all scores, and everything they depend on."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.cli.output import print_table

if TYPE_CHECKING:
    from lupctl.core.ranking.reports.model.details import ReportPairs
    from lupctl.core.ranking.reports.model.single import Report, ReportScores
    from lupctl.core.ranking.reports.model.warnings import ReportWarning

COLUMNS = ["%", "mAP", "mAP official", "mINP", "rank-1", "rank-5", "rank-10", "rank-20"]
DIGEST_SHOWN = len("sha256:") + 12


def show_report(report: "Report", paths: Sequence[Path], *, json: bool) -> None:
    """Prints a report on stdout.

    Args:
        report: what was measured.
        paths: where it was written.
        json: one JSON object instead of the table.
    """
    from lupctl.core.ranking.reports.model.single import report_text, report_title

    if json:
        print(report_text(report), end="")
        return
    expansion = report.protocol.expansion
    name = "as dumped"
    if expansion is not None:
        name = f"expanded: aqe={expansion.queries} dba={expansion.gallery} alpha={expansion.alpha:g}"
    rows = [(name, *_score_cells(report.scores))]
    if report.single_shot is not None:
        rule, tested = report.protocol, report.single_shot.persons
        drawn = f", {tested} drawn persons each" if rule.shot_persons != "all" else ""
        shown = f"single gallery shot: {rule.shot_draws} draws, seed {rule.shot_seed}{drawn}"
        rows.append((shown, None, None, None, *_cmc_cells(report.single_shot.cmc)))
    if report.rerank is not None:
        chosen = report.rerank
        name = f"re-ranked: k1={chosen.k1} k2={chosen.k2} lambda={chosen.weight:g} base={chosen.base}"
        rows.append((name, *_score_cells(chosen.scores)))
    rows += _published_rows(report)
    print_table(report_title(report), COLUMNS, rows, note="\n".join(_notes(report)))
    for path in paths:
        print(f"report: {path}")


def _published_rows(report: "Report") -> list[tuple[object, ...]]:
    """Published scores beside ours: where they are comparable, or where the user asks for them by name."""
    found = report.published
    if found is None or not (found.is_comparable or found.said_by == "user"):
        return []
    name = f"published: {found.name}{'' if found.is_comparable else ' (not comparable)'}"
    rows: list[tuple[object, ...]] = [(name, *_two_cells(found.map, found.rank1))]
    again = found.rerank
    if report.rerank is not None and again is not None and again.map is not None and again.rank1 is not None:
        shown = f"published, re-ranked: k1={again.k1} k2={again.k2} lambda={again.weight:g} base={again.base}"
        rows.append((shown, *_two_cells(again.map, again.rank1)))
    return rows


def _two_cells(mean: float, rank1: float) -> tuple[object, ...]:
    return (f"{100 * mean:.2f}", None, None, f"{100 * rank1:.2f}", None, None, None)


def _notes(report: "Report") -> list[str]:
    from lupctl.core.formats.pack.split import list_remarks, name_split, read_split
    from lupctl.core.formats.weights.settings import read_settings
    from lupctl.core.ranking.reports.model.published import describe_published
    from lupctl.core.ranking.reports.page.words import describe_use

    counts, interval, protocol = report.counts, report.ci95, report.protocol
    queries = f"valid queries {counts.queries_valid:,} / {counts.queries:,}"
    gallery = f"gallery {counts.gallery:,} ({counts.distractors:,} distractors; {counts.junk:,} junk left out)"
    split, settings = read_split(report.provenance.features), read_settings(report.provenance.features).given()
    digests = ", ".join(f"{name} {value[:DIGEST_SHOWN]}" for name, value in sorted(report.fingerprints.items()))
    searched = {"exact": "exact search", "faiss": "faiss"}
    found = [] if report.rerank is None else [f"re-ranking's neighbours: {searched[report.rerank.neighbours]}"]
    origin = ["features: made elsewhere, without a record of network and images"] if _is_foreign(report) else []
    return [
        *map(describe_warning, report.warnings or []),
        f"{queries}, {gallery}",
        f"95 % interval: mAP {_range(interval.map)}, rank-1 {_range(interval.rank1)}",
        *([] if report.published is None else describe_published(report.published)),
        *([] if report.details is None else _decisions(report.details.pairs)),
        *([] if report.camera_use is None else [f"cameras: {describe_use(report.camera_use)}"]),
        *([f"set of the network: {' '.join(settings)}"] if settings else []),
        f"protocol: {protocol.name}, same camera: {protocol.same_camera}, query: {protocol.query}",
        f"mAP: {protocol.map}; official: {protocol.map_official}",
        *([] if split is None else [f"split: {name_split(split)}", *list_remarks(split)]),
        *found,
        *origin,
        f"fingerprints: {digests}",
    ]


def describe_warning(warning: "ReportWarning", *, run: str = "") -> str:
    """One line; notices, terms and the precision are named as what they are.

    Args:
        warning: the warning.
        run: the run it is about, if there are several.
    """
    name = warning.kind if warning.kind in ("notice", "terms", "precision") else "warning"
    return f"{name}: {f'{run}: ' if run else ''}{warning.text}"


def _decisions(pairs: "ReportPairs") -> list[str]:
    """Lines on what a threshold on the distance would do."""
    rates = [
        f"{100 * point.tpr:.2f} at {wanted}" for wanted, point in sorted(pairs.at_fpr.items()) if point is not None
    ]
    lines = [f"same-person pairs found, % at a false match rate: {', '.join(rates)}"] if rates else []
    chosen = pairs.threshold
    if chosen is None:
        return lines
    errors = f"{100 * chosen.held_out.fpr:.2f} % false matches, {100 * (1 - chosen.held_out.tpr):.2f} % missed"
    chosen_on = f"{chosen.rule} on half of the persons"
    return [*lines, f"same person if 1 - cos <= {chosen.chosen.threshold:.3f} ({chosen_on}; on the others {errors})"]


def _is_foreign(report: "Report") -> bool:
    from lupctl.core.formats.features.foreign import is_made_elsewhere

    return is_made_elsewhere(report.provenance.features)


def _score_cells(scores: "ReportScores") -> tuple[object, ...]:
    """Percentages; nothing for a CMC rank beyond the gallery."""
    means = (scores.map, scores.map_official, scores.minp)
    return (*(f"{100 * share:.2f}" for share in means), *_cmc_cells(scores.cmc))


def _cmc_cells(cmc: dict[int, float]) -> tuple[object, ...]:
    shares = [cmc.get(rank) for rank in (1, 5, 10, 20)]
    return tuple(None if share is None else f"{100 * share:.2f}" for share in shares)


def _range(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.2f} to {100 * ends[1]:.2f}"
