"""A report as one self-contained HTML page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from lupctl.core.choices import DISTRACTOR, JUNK
from lupctl.core.formats.features.foreign import is_made_elsewhere
from lupctl.core.formats.pack.split import list_remarks, name_split, read_split
from lupctl.core.formats.weights.settings import read_settings
from lupctl.core.ranking.reports.model.details import ReportDetails
from lupctl.core.ranking.reports.model.published import describe_published
from lupctl.core.ranking.reports.model.single import Report, report_title
from lupctl.core.ranking.reports.model.training import ReportTraining
from lupctl.core.ranking.reports.model.warnings import LEAKS
from lupctl.core.ranking.reports.page.charts import draw_cmc, draw_distances, draw_roc, draw_training
from lupctl.core.ranking.reports.page.ranklists import RankList
from lupctl.core.ranking.reports.page.words import describe_training, describe_use
from lupctl.core.system.examples import count_things

TEMPLATES = Path(__file__).parent / "templates"
# A table with more rows makes a browser slow; report.json has them all.
MOST_ROWS = 20_000
# Formats of networks that run without PyTorch.
RUN_ALONE = {"onnx": "ONNX", "openvino": "OpenVINO"}
ATTENTION = (
    "Under an image: where the class token looks in the network's last block (attention over the patches, mean over "
    "heads), from dark for none to yellow for the most in this image."
)


def render_report(report: Report, lists: Sequence[RankList]) -> str:
    """The HTML page of a report with details.

    Args:
        report: has details.
        lists: the queries to show.
    """
    details = report.details
    assert details is not None, "a page is made from a report with details"
    queries = _rows(details.queries.model_dump())
    queries.sort(key=lambda query: (query["ap"] is None, query["ap"] or 0.0))
    return render(
        "report.html.j2",
        {
            "report": report,
            "title": report_title(report),
            "warnings": [("", warning) for warning in report.warnings or []],
            "leaks": LEAKS,
            "training": None if report.training is None else describe_training(report.training),
            "details": details,
            "network": _network(report.provenance.features),
            "protocol": _protocol(report),
            "published": report.published,
            "published_lines": [] if report.published is None else describe_published(report.published),
            "first_row": "as dumped" if report.protocol.expansion is None else "expanded",
            "charts": _charts(details) | {"training": _training_chart(report.training)},
            "points": sorted(details.pairs.at_fpr.items(), key=lambda item: -float(item[0])),
            "lists": lists,
            "attention": ATTENTION if any(one.query.attention for one in lists) else "",
            "persons": _rows(details.persons.model_dump()),
            "queries": queries[:MOST_ROWS],
            "omitted": len(queries) - MOST_ROWS if len(queries) > MOST_ROWS else 0,
            "made_elsewhere": is_made_elsewhere(report.provenance.features),
            "record": json.dumps(report.provenance.features, indent=2, sort_keys=True, ensure_ascii=False),
        },
    )


def render(template: str, values: Mapping[str, object]) -> str:
    """The HTML page of a template, with the style and the script that all pages share."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters.update(
        percent=percent, basename=lambda name: PurePosixPath(name).name, person=person_title, things=count_things
    )
    shared = {name: Markup((TEMPLATES / file).read_text("utf-8")) for name, file in SHARED.items()}
    return environment.get_template(template).render({**values, **shared})


SHARED = {"style": "style.css", "script": "sort.js"}


def percent(share: float | None, digits: int = 2) -> str:
    """A fraction in percent.

    >>> percent(0.56789), percent(1, 1), percent(None)
    ('56.79', '100.0', '-')
    """
    return "-" if share is None else f"{100 * share:.{digits}f}"


def person_title(person: int) -> str:
    """Display name of a person number.

    >>> person_title(7), person_title(0), person_title(-1)
    ('person 7', 'distractor', 'junk')
    """
    return {DISTRACTOR: "distractor", JUNK: "junk"}.get(person, f"person {person}")


def _charts(details: ReportDetails) -> dict[str, Markup | None]:
    drawn = {
        "cmc": draw_cmc(details.curve),
        "roc": draw_roc(details.pairs),
        "distances": draw_distances(details.pairs),
    }
    return {name: Markup(svg) for name, svg in drawn.items()}


def _training_chart(training: ReportTraining | None) -> Markup | None:
    if training is None or training.curve is None:
        return None
    is_known = training.steps is not None and bool(training.epochs)
    per_epoch = (training.steps or 0) / (training.epochs or 1) if is_known else None
    return Markup(draw_training(training.curve, steps_per_epoch=per_epoch))


def _rows(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Columns as one dictionary per row; a column that is absent is missing from every row."""
    length = len(columns["person"])
    present = {name: values for name, values in columns.items() if values is not None}
    return [{name: values[row] for name, values in present.items()} for row in range(length)]


def _network(record: Mapping[str, Any]) -> str:
    network = record.get("network")
    if isinstance(network, Mapping) and network.get("kind") in RUN_ALONE:
        return f"{RUN_ALONE[network['kind']]} network, {network.get('input', '?')}"
    trunk, head = (network.get("trunk"), network.get("head")) if isinstance(network, Mapping) else (None, None)
    if not isinstance(trunk, Mapping) or not isinstance(head, Mapping):
        return "network unknown"
    parts = [str(trunk.get("arch", "?")), f"head {head.get('kind', '?')}"]
    size = record.get("preprocessing")
    if isinstance(size, Mapping) and "height" in size:
        parts.append(f"{size['height']} x {size['width']} pixels")
    parts += [f"{one} set by hand" for one in read_settings(record).given()]
    return ", ".join(parts)


def _protocol(report: Report) -> str:
    rule = report.protocol
    kept = {
        "drop": "the query's person seen by the query's own camera counts neither way",
        "keep": "the query's person seen by the query's own camera counts as right",
    }[rule.same_camera]
    text = f"Protocol {rule.name}: {kept}; junk counts neither way; distractors are wrong; a query is {rule.query}."
    if rule.shot_draws:
        drawn = f"{rule.shot_draws} draws, seed {rule.shot_seed}"
        text += f" Single gallery shot: one image drawn per person, {drawn}; mAP is not defined for it."
        if report.single_shot is not None and rule.shot_persons != "all":
            text += f" Each draw tests {report.single_shot.persons} randomly chosen persons and leaves out the others."
    if rule.expansion is not None:
        grown = f"queries by {rule.expansion.queries}, gallery by {rule.expansion.gallery}"
        text += f" Features are means over their nearest neighbours ({grown}, alpha {rule.expansion.alpha:g})."
    if report.camera_use is not None:
        text += f" Cameras that the network was given: {describe_use(report.camera_use)}."
    split = read_split(report.provenance.features)
    if split is not None:
        text += f" The images were divided by the split {'; '.join([name_split(split), *list_remarks(split)])}."
    return text
