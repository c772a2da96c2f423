"""Runs hostile cases by hand: `python -m tests.hostile KIND SEED [COUNT]`, or `all` kinds.

Prints what each that fails did, and with a single case everything.
"""

import sys
import tempfile
from collections import Counter
from pathlib import Path
from random import Random

from tests.hostile.kinds.all import KINDS
from tests.hostile.runner import Ran, running


def show(kind: str, seed: int, ran: Ran, *, whole: bool) -> None:
    """Prints a case."""
    print(f"{kind} {seed}: {' '.join(word[:100] for word in ran.case.words)!a}: {'; '.join(ran.wrong) or 'right'}")
    if whole:
        print(f"   {ran.outcome}")
        print("".join(f"   | {line[:300]!a}\n" for line in [*ran.out.splitlines(), *ran.err.splitlines()]))
    else:
        ours = [line.strip() for line in ran.err.splitlines() if "/lupctl/" in line and line.startswith("  File ")]
        print("".join(f"   | {line[:300]!a}\n" for line in [*ours[-2:], *ran.err.splitlines()[-2:]]), end="")


def main() -> None:
    """Runs what the command line says."""
    kind, first, *more = sys.argv[1:]
    count = int(more[0]) if more else 1
    failures = Counter[str]()
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as runner:
        for name in KINDS if kind == "all" else kind.split(","):
            seconds, codes = list[float](), Counter[int]()
            for seed in range(int(first), int(first) + count):
                ran = runner.run(KINDS[name], Random(f"{name} {seed}"))
                seconds.append(ran.outcome.seconds)
                codes[ran.outcome.code] += 1
                if ran.wrong or count == 1:
                    failures[name] += bool(ran.wrong)
                    show(name, seed, ran, whole=count == 1)
            each = f"{sum(seconds) / count:.2f} s each, {max(seconds):.1f} s at most; exit codes {dict(codes)}"
            print(f"== {name}: {failures[name]} of {count} wrong; {each}", flush=True)


if __name__ == "__main__":
    main()
