"""Tables that the `data` commands print."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from lupctl.cli.output import print_json, print_path, print_table
from lupctl.core.choices import ImageCheck
from lupctl.core.resolve.data.datasets import Target
from lupctl.core.system.examples import count_images_of, count_things, name_some

if TYPE_CHECKING:
    from lupctl.core.data.checking.labels import Count
    from lupctl.core.formats.images.sizes import Sizes
    from lupctl.core.stages.info import Sheet, Summary
    from lupctl.core.stages.pack import PackPlan, PackResult
    from lupctl.core.stages.verify import Verdict

PACK_SCHEMA = "lupctl.pack/1"
CHECKS: dict[ImageCheck, str] = {
    "decode": "every image decoded",
    "header": "headers and ends; lupctl data verify --deep decodes",
}


def show_packs(
    plans: "list[tuple[Target, PackPlan]]", results: "list[PackResult]", *, dry_run: bool, force: bool, json: bool
) -> None:
    """Prints what was packed, is up to date, or would be packed."""
    packed = {result.dataset: result for result in results}
    rows: list[dict[str, object]] = []
    for target, plan in plans:
        result = packed.get(target.dataset)
        if result is not None:
            rows.append({**asdict(result), "state": "packed"})
        elif (dry_run and (force or plan.state == "absent")) or plan.state == "current":
            rows.append(
                {
                    "path": plan.path,
                    "dataset": target.dataset,
                    "state": "up to date" if plan.state == "current" and not force else "would be packed",
                    "images": plan.images,
                    "roles": plan.roles,
                    "num_bytes": plan.num_bytes,
                }
            )
    if json:
        print_json(PACK_SCHEMA, {"dry_run": dry_run, "packs": rows})
    elif rows:
        print_table(
            "",
            ["dataset", "state", "images", "by role", "MiB", "check", "left out", "path"],
            [_cells(row) for row in rows],
        )


def _cells(row: dict[str, object]) -> list[object]:
    roles, num_bytes, left_out = row["roles"], row["num_bytes"], row.get("quarantined", [])
    assert isinstance(roles, dict)
    assert isinstance(left_out, list)
    return [
        row["dataset"],
        row["state"],
        row["images"],
        ", ".join(f"{role} {count:,}" for role, count in roles.items() if count),
        round(num_bytes / 2**20, 1) if isinstance(num_bytes, int) else None,
        row.get("check"),
        len(left_out),
        row["path"],
    ]


def show_summary(summary: "Summary") -> None:
    """Prints what is inside a pack."""
    by_role = [
        (role, count_images_of(count, summary.persons_by_role[role]) if role != "unlabelled" else count)
        for role, count in summary.roles.items()
        if count
    ]
    rows: list[tuple[str, object]] = [
        ("images", summary.images),
        ("persons", summary.persons),
        ("cameras", summary.cameras),
        *by_role,
        ("distractors (person 0)", summary.distractors),
        ("junk (person -1)", summary.junk),
        ("height x width", _range(summary)),
        (
            "encoded",
            f"{summary.num_bytes / 2**20:,.1f} MiB in {summary.shards:,} {'file' if summary.shards == 1 else 'files'}",
        ),
        ("left out when packed", summary.quarantined),
        ("check when packed", CHECKS[summary.check]),
        ("source", _origin(summary.source)),
        *_names(summary.source),
        *(("split", line) for line in summary.split),
        ("terms", summary.terms or "not known"),
        *((key, summary.source[key]) for key in ("notice", "version") if key in summary.source),
        ("fingerprint", summary.fingerprint),
        ("path", summary.path),
    ]
    print_table(summary.dataset, ["what", "value"], rows)


def show_sheet(sheet: "Sheet") -> None:
    """Prints where a contact sheet is, and what part of the pack it shows if that is not all of its persons."""
    if sheet.persons_shown < sheet.persons:
        print(
            f"sheet: {sheet.persons_shown:,} of {sheet.persons:,} persons are shown, evenly spaced over their numbers"
        )
    print_path(sheet.path)


def _names(source: dict[str, object]) -> list[tuple[str, object]]:
    """What persons and cameras with names are called, and their numbers."""
    rows: list[tuple[str, object]] = []
    for key, title in (("person_names", "names of persons"), ("camera_names", "names of cameras")):
        names = source.get(key)
        if isinstance(names, dict):
            rows.append((title, name_some(f"{name} = {number}" for name, number in names.items())))
    return rows


def _origin(source: dict[str, object]) -> str:
    parts = source.get("parts")
    if isinstance(parts, list):
        return "merged: " + ", ".join(f"{part['dataset']} ({part['images']:,} images)" for part in parts)
    return f"layout {source.get('layout', 'unknown')}, {source.get('root') or source.get('database', 'drawn')}"


def show_verdicts(verdicts: "Sequence[Verdict]") -> None:
    """Prints verdicts, and what raw data and its pack have in common only once."""
    for number, verdict in enumerate(verdicts):
        alike = (
            other for other in verdicts[:number] if (other.dataset, other.counts) == (verdict.dataset, verdict.counts)
        )
        _show_verdict(verdict, next(alike, None))


def _show_verdict(verdict: "Verdict", twin: "Verdict | None") -> None:
    """Prints what was checked, the counts of every split next to the published ones, and what was found.

    Args:
        verdict: what was checked.
        twin: a verdict with the same counts that was printed before.
    """
    how = {"counts": "counts only", "checksums": "every checksum compared", "decoded": "every image decoded"}
    judged = count_things(verdict.num_errors, "error") if verdict.num_errors else "sound"
    checked = f"{verdict.kind}; {count_things(verdict.images, 'image')}, {how[verdict.depth]}"
    print(f"{verdict.path}: {judged} ({checked})")
    if twin is None:
        kinds = ["images", "persons", "cameras", "distractors", "junk"]
        rows = [[split, *(_counted(counts.get(kind)) for kind in kinds)] for split, counts in verdict.counts.items()]
        print_table("", ["split", *kinds], rows)
        if verdict.cameras:
            shown = ", ".join(f"{camera}: {count:,}" for camera, count in verdict.cameras.items())
            print(f"  images per camera: {shown}")
    if verdict.sizes and (twin is None or twin.sizes != verdict.sizes):
        print(f"  height x width: {_range(verdict.sizes)}")
    known = [] if twin is None else twin.findings
    if twin is not None:
        print(f"  counts{' and findings' if any(one in known for one in verdict.findings) else ''} as in {twin.path}")
    for finding in verdict.findings:
        if finding in known:
            continue
        print(f"  {finding.severity}: {finding.message}")
        # The table above has the counts that differ.
        for example in [] if finding.what == "published" else finding.examples:
            print(f"    {example}")


def _counted(count: "Count | None") -> str | None:
    if count is None:
        return None
    if count.expected is None or count.expected == count.found:
        return f"{count.found:,}"
    return f"{count.found:,} of {count.expected:,}"


def _range(sizes: "Sizes | Summary") -> str:
    median, smallest, largest = (
        f"{height} x {width}" for height, width in (sizes.median, sizes.smallest, sizes.largest)
    )
    return f"median {median}, {smallest} to {largest}"
