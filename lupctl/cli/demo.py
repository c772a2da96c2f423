"""`lupctl demo`: the whole flow on drawn persons."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lupctl.cli.options import DebugOption, DryRunOption, ForceOption, JsonOption, OutOption, QuietOption
from lupctl.cli.output import print_json, print_plan, print_table
from lupctl.core.choices import TRAINING_SEED
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.flows.demo import DemoResult, Gain

# Standard deviation of the full demo's gain in mAP over five seeds: tests/benchmarks/RESULTS.md.
SPREAD = "over seeds it spreads more: standard deviation 2.5 points of mAP in the full demo"

QuickOption = Annotated[
    bool, typer.Option("--quick", help="The same flow, smaller: half a minute to three, but the scores mean little.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Seed of the drawn persons and of the training.")]


def demo(
    quick: QuickOption = False,
    seed: SeedOption = TRAINING_SEED,
    out: OutOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draws persons, pre-trains on them without labels, fine-tunes with and without pre-training, and compares.

    Runs on a CPU. The same command continues where it was stopped.

    Example: `lupctl demo`
    """
    from lupctl.core.flows.demo import FULL, QUICK, demo_home, plan_demo, run_demo

    scale = QUICK if quick else FULL
    space = Workspace(out or demo_home(quick=quick, seed=seed))
    if dry_run:
        print_plan("lupctl.demo-plan/1", "would run the demo", plan_demo(space, scale, seed), json=json)
        return
    progress = Progress(quiet=quiet)
    show_result(
        space, run_demo(space, scale, seed, force=force, command=recorded_command(), progress=progress), json=json
    )


def show_result(space: Workspace, result: "DemoResult", *, json: bool) -> None:
    """Prints the table at the end."""
    from lupctl.core.ranking.reports.model.single import report_payload

    reports, gain, seconds = result.reports, result.gain, result.seconds
    if json:
        payload: dict[str, Any] = {title: report_payload(report) for title, report in reports.items()}
        gains = {name: one.value for name, one in gain.items()}
        intervals = {name: one.ci95 for name, one in gain.items()}
        facts = {"home": str(space.home), "page": str(result.page), "seconds": seconds}
        print_json("lupctl.demo/1", {**facts, "gain": gains, "gain_ci95": intervals, "reports": payload})
        return
    rows = []
    for title, report in reports.items():
        low, high = report.ci95.map
        assert report.rerank is not None
        for scores, name in ((report.scores, ""), (report.rerank.scores, ", re-ranked")):
            cells = [scores.map, scores.map_official, scores.minp, scores.cmc[1], scores.cmc[5]]
            interval = "" if name else f"{100 * low:.1f} to {100 * high:.1f}"
            rows.append((f"fine-tuned from {title}{name}", *(f"{100 * cell:.2f}" for cell in cells), interval))
    chosen = next(iter(reports.values())).rerank
    assert chosen is not None
    searched = f"neighbours={chosen.neighbours}"
    note = [
        f"Pre-training changed mAP by {_points(gain['map'])},",
        f"rank-1 by {_points(gain['rank1'])}, re-ranked mAP by {_points(gain['map_rerank'])}",
        f"(95 % intervals over the queries of this one seed; {SPREAD}).",
        f"Re-ranking: k1={chosen.k1}, k2={chosen.k2}, lambda={chosen.weight}, base={chosen.base}, {searched}.",
        f"{seconds:.0f} s in all. Packs, runs, features and reports: {space.home}",
    ]
    columns = ["%", "mAP", "mAP official", "mINP", "rank-1", "rank-5", "mAP, 95 %"]
    print_table("Drawn persons, equal fine-tuning budgets", columns, rows, note="\n".join(note))
    print(f"Open this page in a browser: {result.page}")


def _points(gain: "Gain") -> str:
    """A gain in points, with its interval.

    >>> from lupctl.core.flows.demo import Gain
    >>> _points(Gain(0.068, (-0.002, 0.1215)))
    '+6.80 (-0.20 to +12.15)'
    """
    low, high = gain.ci95
    return f"{100 * gain.value:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"
