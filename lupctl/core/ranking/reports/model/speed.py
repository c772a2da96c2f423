"""How fast networks are, as `model bench` writes it: JSON that `eval --all` takes along."""

from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from lupctl.core.choices import Backend
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.runtimes.open import RUNTIME_OF
from lupctl.core.ranking.reports.model.details import Part
from lupctl.core.ranking.reports.model.single import lay_out
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.disk.limits import TEXT_BYTES
from lupctl.core.system.disk.reading import read_text
from lupctl.core.system.documents import parse_json

BENCH_SCHEMA: Final = "lupctl.bench/1"


class BenchMachine(Part):
    """What ran it: the device of torch, cores, threads of a pass on a CPU, and versions of the backends."""

    device: str
    cores: int
    threads: int
    versions: dict[str, str]


class BenchNetwork(Part):
    """A network.

    `fingerprint` is that of its checkpoint, for a file of `model export` too; of an ONNX file of another program that
    of the file. `flops` are of one image, two for a multiplication with its addition; null where they are not known.
    """

    name: str
    path: str
    fingerprint: str
    description: str
    height: int
    width: int
    parameters: int
    flops: int | None


class BenchRun(Part):
    """A network in one backend, with so many images at a time; times are of one pass.

    `rounds` passes were timed; half of them took at most `median_ms`, 95 % at most `p95_ms`. `memory_bytes` is the most
    memory above what there was before the network was opened; null where it is not known.
    """

    name: str
    backend: Backend
    batch: int
    rounds: int
    median_ms: float
    p95_ms: float
    images_per_s: float
    memory_bytes: int | None


class Bench(Part):
    """Networks side by side."""

    schema_name: Literal["lupctl.bench/1"] = Field(default="lupctl.bench/1", alias="schema")
    machine: BenchMachine
    networks: list[BenchNetwork]
    runs: list[BenchRun]
    notes: list[str]

    def runs_of(self, fingerprint: str, path: Path) -> list[BenchRun]:
        """Those of a network's file; of another file of the same network, as its export, where it has none of its own.

        Args:
            fingerprint: of the network.
            path: of the file, or of one of that format elsewhere; of two in one backend, the first.
        """
        known = [network for network in self.networks if network.fingerprint == fingerprint]
        same = [network for network in known if Path(network.path) == path]
        alike = [network for network in known if Path(network.path).suffix == path.suffix]
        others = [] if path.suffix in RUNTIME_OF else known
        names = [network.name for network in same or alike or others]
        found: dict[tuple[Backend, int], BenchRun] = {}
        for run in sorted((run for run in self.runs if run.name in names), key=lambda run: names.index(run.name)):
            found.setdefault((run.backend, run.batch), run)
        return list(found.values())


def bench_text(bench: Bench) -> str:
    """The document as JSON, in the layout of reports."""
    return lay_out(bench.model_dump(mode="json", by_alias=True))


def write_bench(path: Path, bench: Bench) -> None:
    """Writes the document completely, or leaves the existing file unchanged.

    Raises:
        DataError: the disk is full or refuses the write.
    """
    write_text(path, bench_text(bench))


def read_bench(path: Path) -> Bench | None:
    """The document in a file; None where that is another JSON document.

    Raises:
        FormatError: it is none, or a damaged one.
    """
    hint = "make it again: lupctl model bench"
    try:
        found = parse_json(read_text(path, TEXT_BYTES), dict)
        return Bench.model_validate(found) if found.get("schema") == BENCH_SCHEMA else None
    except (ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(f"{path}: not a document of model bench ({reason})", hint=hint) from error
