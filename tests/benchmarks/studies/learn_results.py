"""The results of `learn_sweep.py`: a line of JSON for every finished run, and tables over seeds."""

import argparse
import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

FILE = "results.jsonl"
SCORES = ("map", "rank1", "knn", "camera", "chance")
COLUMNS = ("setting", "seeds", "mAP", "against the base", "rank-1", "k-NN", "same camera")


class Results:
    """The finished runs of a folder.

    Args:
        path: JSON lines, made when the first run is finished.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self.rows: list[dict[str, Any]] = [json.loads(line) for line in lines]

    def has(self, key: Mapping[str, object]) -> bool:
        """Whether a run with these facts is finished."""
        return any(key.items() <= row.items() for row in self.rows)

    def add(self, row: dict[str, Any]) -> None:
        """Keeps a finished run."""
        self.rows.append(row)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def show_table(path: Path) -> None:
    """Mean and standard deviation over seeds, and the difference to the base of the same seeds, in points.

    Args:
        path: the file of the results.
    """
    groups: dict[str, dict[str, dict[int, dict[str, Any]]]] = defaultdict(lambda: defaultdict(dict))
    for row in Results(path).rows:
        groups[describe_group(row)][row["setting"]][row["seed"]] = row
    for group, settings in sorted(groups.items()):
        base = settings.get("base", settings.get("scratch", {}))
        print(f"\n{group}\n| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for name, rows in settings.items():
            gains = [100 * (row["map"] - base[seed]["map"]) for seed, row in rows.items() if seed in base]
            own = [spread([100 * row[score] for row in rows.values() if score in row]) for score in SCORES]
            cells = [name, str(len(rows)), own[0], spread(gains, sign="+"), *own[1:4]]
            print(f"| {' | '.join(cells)} |")


def describe_group(row: Mapping[str, Any]) -> str:
    """What the runs of one table have in common."""
    if row["what"] == "sweep":
        return f"the probe on {row['data']} after {row['epochs']} epochs of pre-training"
    share, longer = 100 * float(row["share"]), row["longer"]
    return f"fine-tuned with the labels of {share:.0f} % of the persons of {row['data']}, {longer} x small-bot's epochs"


def spread(values: Sequence[float], *, sign: str = "") -> str:
    """Mean and standard deviation as text."""
    if not values:
        return "-"
    deviation = f" ({statistics.stdev(values):.2f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.2f}{deviation}"


def study_parser(home: str, *, data: str) -> argparse.ArgumentParser:
    """The words that every study of one data set takes.

    Args:
        home: its folder, unless another one is named.
        data: what its data may be.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["run", "table"])
    parser.add_argument("data", nargs="?", default="drawn", help=data)
    parser.add_argument("--home", type=Path, default=Path(home), help="folder of results, packs and runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    return parser


def run_study(
    options: argparse.Namespace,
    study: Callable[[Path, argparse.Namespace], None],
    show: Callable[[Path], None],
    file: str,
) -> None:
    """Runs what the command line names, then prints the table of a file in the study's folder."""
    options.home.mkdir(parents=True, exist_ok=True)
    if options.what == "run":
        study(options.home, options)
    show(options.home / file)
