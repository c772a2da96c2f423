"""What a dump asks for, and what that amounts to."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from lupctl.core.choices import CameraUse, FeatureType, Pooling, Precision, Role, Runtime
from lupctl.core.errors import UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.runtimes.open import RUNTIME_OF
from lupctl.core.formats.weights.settings import Settings
from lupctl.core.ranking.retrieval.onnx.open import ForeignPixels
from lupctl.core.stages.dump.inputs import is_pack, list_files, select_roles
from lupctl.core.system.examples import count_things
from lupctl.core.system.jobs.device import Placement

# Starting a process takes some seconds, in which a GPU computes about this many chunks.
CHUNKS_WORTH_A_START = 64
# What compiling costs and saves, as measured (tests/benchmarks/RESULTS.md, "Compiled networks").
COMPILING: Final = (
    "about a minute of a core in each process, seconds where the code is kept; with a ResNet-50 on a CPU that is saved "
    "after 3,000 images in float32, after 6,000 to 8,000 in bf16; a Swin in bf16 gets slower"
)
SHARD_RULE = re.compile(r"(\d{1,6})/(\d{1,6})")


@dataclass(frozen=True)
class Shard:
    """One of several dumps that share the chunks of one.

    Args:
        number: from 1.
        of: how many there are.
    """

    number: int
    of: int

    def path(self, out: Path) -> Path:
        """Where the features of this shard are kept until all are there."""
        return out.with_name(f"{out.name}.shard-{self.number}-of-{self.of}")

    def chunks(self, count: int) -> range:
        """Which of `count` chunks are its own."""
        return range((self.number - 1) * count // self.of, self.number * count // self.of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"


@dataclass(frozen=True)
class DumpJob:
    """One command's worth of features.

    Args:
        checkpoint: the network.
        data: a pack, or a folder of images.
        out: the features' file.
        roles: which images of a pack; empty takes queries and gallery, or all where there are none.
        flip: adds the mirrored image's feature.
        pooling: gives the feature of the trunk alone, before any head; None gives the feature of retrieval.
        cameras: the rule for the images' cameras, for a network that takes them; None takes the default.
        settings: what is set of the network.
        foreign: how images are prepared for a network in ONNX or OpenVINO's format that does not say so.
        kind: float32 or float16 on the disk.
        precision: of the forward pass.
        chunk: images per forward pass.
        is_compiled: whether the forward passes are compiled first.
        workers: decoding processes per device; None picks.
        shard: the part of the chunks that this job computes; None takes all.
        force: overwrite.
        command: the command line, for the record.
    """

    checkpoint: Path
    data: Path
    out: Path
    roles: tuple[Role, ...] = ()
    flip: bool = False
    pooling: Pooling | None = None
    cameras: CameraUse | None = None
    settings: Settings = field(default_factory=Settings)
    foreign: ForeignPixels = field(default_factory=ForeignPixels)
    kind: FeatureType = "float32"
    precision: Precision = "auto"
    chunk: int = 128
    is_compiled: bool = False
    workers: int | None = None
    shard: Shard | None = None
    force: bool = False
    command: tuple[str, ...] = ()

    @property
    def is_onnx(self) -> bool:
        """Whether the network is in ONNX or OpenVINO's format."""
        return self.runtime is not None

    @property
    def runtime(self) -> Runtime | None:
        """What runs such a network; None for a checkpoint, which PyTorch runs."""
        return RUNTIME_OF.get(self.checkpoint.suffix)

    @property
    def target(self) -> Path:
        """The file that this job computes: the features, or a shard of them."""
        return self.out if self.shard is None else self.shard.path(self.out)


@dataclass(frozen=True)
class DumpResult:
    """What was written.

    Args:
        path: the file.
        images, dim: its shape.
        network: its description.
        quarantine: files of a folder that are no images, with reasons.
        missing: shards that are not there yet, where the file is a shard.
    """

    path: Path
    images: int
    dim: int
    network: str
    quarantine: tuple[str, ...]
    missing: tuple[int, ...] = ()


def parse_shard(text: str | None) -> Shard | None:
    """From `--shard` to a shard.

    Raises:
        UsageError: it is none.
    """
    if text is None:
        return None
    found = SHARD_RULE.fullmatch(text)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise UsageError(
            f"--shard {text}: a shard's number from 1 and the number of shards were expected", hint="--shard 1/8"
        )
    return Shard(int(found[1]), int(found[2]))


def own_chunks(job: DumpJob, images: int) -> range:
    """The chunks of a job among those of all images.

    Raises:
        UsageError: there are more shards than chunks.
    """
    count = -(-images // job.chunk)
    if job.shard is None:
        return range(count)
    if job.shard.of > count:
        raise UsageError(
            f"--shard {job.shard}: {count_things(images, 'image')} in chunks of {job.chunk} are "
            f"{count_things(count, 'chunk')}, too few for {job.shard.of} shards",
            hint=f"at most {count_things(count, 'shard')}, or a smaller --chunk",
        )
    return job.shard.chunks(count)


def fit_processes(job: DumpJob, placement: Placement, *, is_asked: bool) -> Placement:
    """As many processes as have work: a chunk each where their number was asked for, else enough to be worth a start.

    Raises:
        UsageError: there are more shards than chunks.
    """
    if placement.processes == 1:
        return placement
    chunks = len(own_chunks(job, count_images(job)))
    enough = max(1, chunks // (1 if is_asked else CHUNKS_WORTH_A_START))
    if enough >= placement.processes:
        return placement
    line = f"{placement.line}; {enough} of them for {count_things(chunks, 'chunk')} of {job.chunk} images"
    return replace(placement, processes=enough, line=line)


def count_images(job: DumpJob) -> int:
    """How many images all shards of a job are of; nothing is decoded."""
    if is_pack(job.data):
        return len(select_roles(open_pack(job.data).samples, job.roles))
    return len(list_files(job.data))


def plan_dump(job: DumpJob, *, processes: int) -> dict[str, int | str]:
    """How many images a job will run on; nothing is decoded.

    Raises:
        UsageError: there are more shards than chunks.
    """
    images = count_images(job)
    chunks = own_chunks(job, images)
    own = min(chunks.stop * job.chunk, images) - chunks.start * job.chunk
    plan: dict[str, int | str] = {"images": own}
    if job.shard is not None:
        plan |= {"shard": str(job.shard), "images_of_all_shards": images}
    plan |= {"compile": COMPILING} if job.is_compiled else {}
    if processes > 1:
        plan |= {"processes": processes, "images_per_process": min(own, -(-len(chunks) // processes) * job.chunk)}
    return plan
