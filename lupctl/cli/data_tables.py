"""What the `data` commands print."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from lupctl.cli.datasets import Target
from lupctl.cli.show import print_json, print_table

if TYPE_CHECKING:
    from lupctl.core.stages.info import Summary
    from lupctl.core.stages.pack import PackPlan, PackResult
    from lupctl.core.stages.verify import Verdict

PACK_SCHEMA = "lupctl.pack/1"


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
                    "images": len(plan.listing),
                    "roles": plan.roles,
                    "num_bytes": plan.num_bytes,
                }
            )
    if json:
        print_json(PACK_SCHEMA, {"dry_run": dry_run, "packs": rows})
    elif rows:
        print_table(
            "", ["dataset", "state", "images", "by role", "MiB", "left out", "path"], [_cells(row) for row in rows]
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
        len(left_out),
        row["path"],
    ]


def show_summary(summary: "Summary") -> None:
    """Prints what is inside a pack."""

    def side(pair: tuple[int, int]) -> str:
        return f"{pair[0]} x {pair[1]}"

    by_role = [
        (role, f"{count:,} images of {summary.persons_by_role[role]:,} persons" if role != "unlabelled" else count)
        for role, count in summary.roles.items()
        if count
    ]
    layout = summary.source.get("layout", "unknown")
    rows: list[tuple[str, object]] = [
        ("images", summary.images),
        ("persons", summary.persons),
        ("cameras", summary.cameras),
        *by_role,
        ("distractors (person 0)", summary.distractors),
        ("junk (person -1)", summary.junk),
        (
            "height x width",
            f"{side(summary.median)} in the median, {side(summary.smallest)} to {side(summary.largest)}",
        ),
        (
            "encoded",
            f"{summary.num_bytes / 2**20:,.1f} MiB in {summary.shards:,} {'file' if summary.shards == 1 else 'files'}",
        ),
        ("left out when packed", summary.quarantined),
        ("source", f"layout {layout}, {summary.source.get('root') or summary.source.get('database', 'drawn')}"),
        ("terms", summary.terms or "not known"),
        *((key, summary.source[key]) for key in ("notice", "version") if key in summary.source),
        ("fingerprint", summary.fingerprint),
        ("path", summary.path),
    ]
    print_table(summary.dataset, ["what", "value"], rows)


def show_verdict(verdict: "Verdict") -> None:
    """Prints what was checked and what was found."""
    roles = ", ".join(f"{role} {count:,}" for role, count in verdict.roles.items() if count)
    how = "every image decoded" if verdict.decoded else "every checksum compared"
    judged = f"{verdict.num_errors:,} errors" if verdict.num_errors else "sound"
    print(f"{verdict.path}: {judged} ({verdict.kind}; {verdict.images:,} images, {how}; {roles})")
    for finding in verdict.findings:
        print(f"  {finding.severity}: {finding.message}")
        for example in finding.examples:
            print(f"    {example}")
