"""Features of a pack or of a plain folder of images, computed by one process or shared among several."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import timedelta
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.formats.features.chunk_file import ChunkFile
from lupctl.core.formats.features.chunks import FeatureChunks, open_chunks, open_own_chunks
from lupctl.core.formats.features.file import write_blocks
from lupctl.core.ranking.retrieval.extract import embed_steadily
from lupctl.core.stages.dump.job import DumpJob, DumpResult
from lupctl.core.stages.dump.join import find_missing, find_shards, is_finished, join_shards, same_shard
from lupctl.core.stages.dump.work import Work, build_features_record, open_work
from lupctl.core.system.disk.atomic import check_absent
from lupctl.core.system.examples import describe_special
from lupctl.core.system.jobs.device import Placement, computing_threads, pick_threads
from lupctl.core.system.jobs.launch import launch
from lupctl.core.system.jobs.messages import (
    decide_first,
    local_processes,
    own_device,
    rank,
    wait_for_all,
    world_size,
)
from lupctl.core.system.jobs.precision import describe_bf16
from lupctl.core.system.jobs.stopping import StopRequest, stop_on_request
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import FileImages
from lupctl.core.training.loading.loaders import ChunkDataset, default_workers

# A process that has done its share waits for the others as long as they need; one that dies ends the job at once.
TIMEOUT = timedelta(days=30)


def spread_dump(job: DumpJob, placement: Placement, progress: Progress) -> DumpResult | None:
    """As `dump`, with the images spread over devices or processes of a CPU; the bytes are those of one process.

    Returns:
        what was written; None where process 0 of the job ran on another machine.

    Raises:
        UsageError, DataError: as `dump`.
        StoppedError: a request to stop, or a process was killed; finished chunks are kept.
    """
    results = spread_dumps((job,), placement, progress)
    return None if results is None else results[0]


def spread_dumps(jobs: tuple[DumpJob, ...], placement: Placement, progress: Progress) -> tuple[DumpResult, ...] | None:
    """Several dumps, one after the other, by the same processes.

    Processes that torchrun or srun started can meet once; a second time they find each other's first addresses.

    Returns, raises:
        as `spread_dump`.
    """
    # Little is said between the processes, and none of it needs a GPU: they meet as those of a CPU do.
    return launch(_dump_part, (jobs, placement, progress), processes=placement.processes, kind="cpu", timeout=TIMEOUT)


def _dump_part(given: tuple[tuple[DumpJob, ...], Placement, Progress]) -> tuple[DumpResult, ...]:
    """One process of the job."""
    jobs, placement, progress = given
    device = own_device(placement.kind)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    with computing_threads(pick_threads(placement, shares=local_processes())):
        return tuple(dump(job, device, progress) for job in jobs)


def dump(job: DumpJob, device: torch.device, progress: Progress) -> DumpResult:
    """Computes and writes the features; continues after the last finished chunk of the same dump that was stopped.

    In a job of several processes each computes its part of the chunks that are missing, and the first one writes. A
    shard is kept as a file of its own; the job that finds all of them there joins them.

    Raises:
        UsageError: the output exists and is of something else, or there is a rule for cameras and the network takes
            none.
        DataError: another process writes the output, no images of the wanted roles, an image of a pack that cannot be
            decoded, one from none of the network's cameras where the rule refuses that, or shards that are of
            something else, or missing.
        StoppedError: a request to stop; finished chunks are kept.
    """
    work = open_work(job, device)
    progress = Progress(quiet=progress.quiet or rank() > 0)
    if decide_first(lambda: is_finished(work)):
        progress.say(f"{job.out}: already finished; --force computes it again")
        return decide_first(lambda: work.describe(job.out))
    if work.inputs.left_out:
        progress.warn(describe_special(work.inputs.left_out))
    if work.encoder.precision == torch.bfloat16:
        progress.say(f"precision: {describe_bf16(device, job.precision, begun=False)}")
    if work.cameras is not None and work.cameras.line:
        progress.say(work.cameras.line)
    is_there = decide_first(lambda: _is_computed(work))
    if is_there and job.shard is not None:
        progress.say(f"{job.target}: already finished; --force computes it again")
    elif not is_there:
        _compute_file(work, progress)
    return decide_first(lambda: _finish(work, progress, is_computed=not is_there))


def _is_computed(work: Work) -> bool:
    """Whether nothing is left to compute: this shard is there, or all of them are.

    Raises:
        DataError: some shards are there and others are missing.
        UsageError: this shard is there and of something else.
    """
    job = work.job
    if job.force:
        return False
    if job.shard is None:
        return len(find_shards(job.out)) > 0
    if not job.target.exists():
        return False
    if not same_shard(work, job.shard):
        check_absent(job.target, force=False)
    return True


def _compute_file(work: Work, progress: Progress) -> None:
    """Computes the chunks that are missing, shared among the processes, and writes the file."""
    job, count = work.job, len(work.chunks)
    with ExitStack() as held:
        opened = list[FeatureChunks]()

        def begin() -> NDArray[np.int64]:
            chunks = held.enter_context(open_chunks(job.target, work.story, job.kind, count=count))
            opened.append(chunks)
            if chunks.is_other:
                progress.say(f"{chunks.own.path}: of another network, other images or options; started again")
            elif chunks.done:
                progress.say(f"{chunks.own.path}: {chunks.done:,} of {count:,} chunks are done; continuing")
            return chunks.missing()

        missing = decide_first(begin)
        own = missing[rank() * len(missing) // world_size() : (rank() + 1) * len(missing) // world_size()]
        sink: FeatureChunks | ChunkFile
        if rank() == 0:
            sink = opened[0]
        else:
            sink = held.enter_context(open_own_chunks(job.target, work.story, job.kind, number=rank()))
        with stop_on_request() as stop:
            _compute(work, own, sink, stop, progress)
            if not wait_for_all(unless=lambda: stop.wanted):
                raise stop.error(len(own), len(own), unit="chunk", work="dump")
            decide_first(lambda: _write(work, opened[0], stop))


def _compute(
    work: Work, numbers: NDArray[np.int64], sink: FeatureChunks | ChunkFile, stop: StopRequest, progress: Progress
) -> None:
    """Adds the chunks of these numbers, counted from the job's own first one.

    Raises:
        StoppedError: a request to stop came.
    """
    if len(numbers) == 0:
        return
    job, encoder, images = work.job, work.encoder, work.inputs.images
    cameras = None if work.cameras is None else work.cameras.rows
    lenient = isinstance(images, FileImages)
    dataset = ChunkDataset(images, encoder.view, chunk=job.chunk, lenient=lenient, cameras=cameras)
    workers = default_workers(encoder.device) if job.workers is None else job.workers
    # One chunk is decoded while it is waited for, wherever that happens; a process would only have to be started.
    workers = workers if len(numbers) > 1 else 0
    items = [work.chunks.start + number for number in numbers.tolist()]
    total = min((items[-1] + 1) * job.chunk, len(images)) - items[-1] * job.chunk + (len(items) - 1) * job.chunk
    with (
        progress.task("features", total=total, unit="images") as bar,
        # Closed here: an error that is still held would keep the generator, and its decoding workers, alive.
        closing(embed_steadily(encoder, dataset, items, workers=workers, flip=job.flip)) as found,
    ):
        for done, (number, (damaged, vectors)) in enumerate(zip(numbers.tolist(), found, strict=True), start=1):
            sink.append(number, vectors, list(damaged))
            bar.advance(len(vectors))
            if stop.wanted and done < len(items):
                raise stop.error(done, len(items), unit="chunk", work="dump")


def _write(work: Work, chunks: FeatureChunks, stop: StopRequest) -> None:
    """Writes the features of all chunks, without the files that are no images.

    Raises:
        DataError: none of them is an image.
    """
    chunks.find_others(verified=False)
    job, names = work.job, work.inputs.samples.name
    first, last = work.rows.start, work.rows.stop
    kept, quarantine = np.ones(last - first, np.bool_), []
    for _, lines in sorted(chunks.left_out.items()):
        for line in lines:
            row, _, reason = line.partition(": ")
            kept[int(row) - first] = False
            quarantine.append(f"{names[int(row)]}: {reason}")
    if not kept.any() and job.shard is None:
        chunks.forget()
        raise work.no_images()
    samples = work.inputs.samples
    if not kept.all() or len(kept) < len(samples):
        samples = samples.select(np.flatnonzero(kept) + first)

    def blocks() -> Iterator[NDArray[Any]]:
        row = 0
        for vectors in chunks.each():
            if stop.wanted:
                raise stop.error(len(work.chunks), len(work.chunks), unit="chunk", work="dump")
            yield vectors[kept[row : row + len(vectors)]]
            row += len(vectors)

    record = build_features_record(work, quarantine, shard=job.shard)
    write_blocks(job.target, blocks(), samples, record, dim=chunks.dim, type_name=job.kind)


def _finish(work: Work, progress: Progress, *, is_computed: bool) -> DumpResult:
    """What there is now: the features, or a shard of them where others are missing."""
    job = work.job
    if job.shard is None and is_computed:
        for path in find_shards(job.out).values() if job.force else ():
            path.unlink(missing_ok=True)
        return work.describe(job.out)
    if job.shard is not None and (missing := find_missing(job.out, job.shard.of)):
        return work.describe(job.target, missing=missing)
    return join_shards(work, progress)
