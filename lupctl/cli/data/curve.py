"""The options and tables of `lupctl data score --curve`."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.cli.output import print_json, print_path, print_table
from lupctl.core.errors import UsageError
from lupctl.core.resolve.training.placement import Machines
from lupctl.core.resolve.training.probes import check_probe, pick_probe
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.flows.score_curve import CurvePoint, CurveRequest
    from lupctl.core.stages.pretrain.job import PretrainJob

CURVE_RECIPE: Final = "small-dino"

CurveOption = Annotated[
    str | None,
    typer.Option(
        "--curve",
        metavar="SHARES",
        help="Pre-train on each of these shares of the best, as in 0.25,0.5,0.75,1, and compare probes.",
        show_default=False,
    ),
]
ProbeOption = Annotated[
    str | None,
    typer.Option(
        "--probe",
        metavar="DATASET",
        help="Of --curve: a labelled pack to look at the features with [default: the pack itself].",
        show_default=False,
        autocompletion=complete_dataset,
    ),
]


@dataclass(frozen=True)
class CurveOptions:
    """The options of `--curve`."""

    curve: str | None
    recipe: str | None
    probe: str | None
    overrides: tuple[str, ...]

    def check(self, machines: Machines, *, device: str | None, shard: str | None) -> None:
        """Refuses options that do not go together.

        Args:
            machines: the processes of a job that a launcher started can meet once, and a curve is several runs.
            device, shard: of the scoring.

        Raises:
            UsageError: some do not.
        """
        from lupctl.core.flows.score_curve import parse_shares

        if self.curve is None:
            for name, given in (("--recipe", self.recipe), ("--probe", self.probe), ("--set", self.overrides)):
                if given:
                    raise UsageError(f"{name} is of --curve, which is missing", hint="--curve 0.25,0.5,0.75,1")
            return
        parse_shares(self.curve)
        if shard is not None:
            raise UsageError(
                "--curve and --shard cannot be combined", hint="score first, then: --curve without --shard"
            )
        if machines.outer is not None:
            raise UsageError(
                f"--curve is several runs, each a job of its own, and {machines.outer.launcher} started one job",
                hint="type it without a launcher, on one machine: --gpus N",
            )
        if device is not None:
            raise UsageError("--curve and --device cannot be combined", hint="--gpus 1, or --gpus 0 for the CPU")

    def request(
        self,
        space: Workspace,
        pack: Path,
        scores: Path,
        progress: Progress,
        *,
        workers: int | None,
        force: bool,
        quiet: bool,
    ) -> "CurveRequest":
        """The same with its packs found."""
        from lupctl.core.flows.score_curve import CurveRequest, parse_shares

        if self.recipe is None:
            progress.say(f"recipe: {CURVE_RECIPE} (the default of --curve)")
        if self.probe is None:
            check_probe(space, pack)
        return CurveRequest(
            pack=pack,
            scores=scores,
            shares=parse_shares(self.curve or ""),
            recipe=self.recipe or CURVE_RECIPE,
            overrides=self.overrides,
            probe=pack if self.probe is None else pick_probe(space, self.probe, progress),
            workers=workers,
            force=force,
            quiet=quiet,
            command=recorded_command(),
        )


def show_curve_plan(jobs: "Sequence[tuple[float, PretrainJob]]", *, json: bool) -> None:
    """Prints the runs that a curve would need."""
    from lupctl.core.stages.pretrain.job import plan_pretraining

    plans = [(share, job, plan_pretraining(job)) for share, job in jobs]
    if json:
        found = [{"share": share, "run": job.run, "images": p.images, "steps": p.steps} for share, job, p in plans]
        print_json("lupctl.score-curve-plan/1", {"runs": found})
        return
    rows = [(share, plan.images, job.recipe.schedule.epochs, plan.steps, job.run) for share, job, plan in plans]
    print_table("would pre-train", ["share", "images", "epochs", "steps", "run"], rows)


def show_curve(points: "Sequence[CurvePoint]", scores: Path, *, json: bool) -> None:
    """Prints the share of the images against the probe."""
    if json:
        print_json("lupctl.score-curve/1", {"scores": scores, "points": [asdict(point) for point in points]})
        return
    rows = [
        (
            point.share,
            point.images,
            point.epochs,
            point.steps,
            *(f"{100 * value:.1f}" for value in (point.probe_map, point.probe_rank1, point.probe_knn)),
        )
        for point in points
    ]
    columns = ["share", "images", "epochs", "steps", "mAP", "rank-1", "kNN"]
    print_table("frozen features after pre-training on the best images", columns, rows)
    for point in points:
        print_path(point.run)
