"""Computes retrieval features from images."""

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.choices import Pooling
from lupctl.core.formats.weights.applied import apply_settings
from lupctl.core.formats.weights.file import Checkpoint, load_strictly, read_checkpoint
from lupctl.core.formats.weights.header import Preprocessing
from lupctl.core.formats.weights.settings import Settings
from lupctl.core.ranking.retrieval.cameras import CameraTable, camera_table
from lupctl.core.system.jobs.compiling import CompiledPasses
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.host_copy import HostCopy
from lupctl.core.training.loading.images import FileImages, PackImages
from lupctl.core.training.loading.loaders import Batch, ChunkDataset
from lupctl.core.training.loading.prefetch import load_on_device
from lupctl.core.training.nets.build import Network
from lupctl.core.training.nets.meta import build_empty
from lupctl.core.training.nets.pooled import map_trunk, pool_as
from lupctl.core.training.nets.pooling import Pool
from lupctl.core.training.views.drawn import DrawTensors
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import ViewPlan

# Images per pass on a CPU: as fast as larger passes, and networks of any depth round as in a pass over the chunk.
GROUP = 16


class ImageEncoder(Protocol):
    """Whatever gives features of prepared images: a network of ours, or one that another program runs."""

    @property
    def view(self) -> ViewPlan:
        """Resize and constants."""

    @property
    def device(self) -> torch.device:
        """Where images have to be."""

    @property
    def precision(self) -> torch.dtype:
        """Type of the forward pass."""

    @property
    def cameras(self) -> CameraTable | None:
        """Those that it was trained on; None if it takes no cameras."""

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) and rows of cameras (B), where needed, to features (B, D); threads may call it together."""


@dataclass(frozen=True)
class Encoder:
    """A network ready to give features, and how its input is prepared.

    Args:
        network: in evaluation mode.
        view: resize and constants.
        device: where the network is.
        precision: type of the forward pass.
        cameras: those that the network was trained on; None if it takes no cameras.
        pool: gives the feature of the trunk alone, from its maps; None for the feature of retrieval.
        compiled: passes of one size as compiled code; None where nothing is compiled.
    """

    network: Network
    view: ViewPlan
    device: torch.device
    precision: torch.dtype
    cameras: CameraTable | None = None
    pool: Pool | None = None
    compiled: CompiledPasses | None = None

    def embed(self, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        """(B, 3, H, W) and rows of cameras (B), where needed, to features (B, D), not normalised."""
        return (self.compiled or self._embed_plainly)(images, cameras)

    def compile(self, chunk: int) -> "Encoder":
        """The same with its passes over chunks of so many images as compiled code, but for the last one of a chunk."""
        size = min(chunk, GROUP) if self.device.type == "cpu" else chunk
        return replace(self, compiled=CompiledPasses(self._embed_plainly, size))

    def _embed_plainly(self, images: Tensor, cameras: Tensor | None) -> Tensor:
        if self.pool is None:
            return self.network.embed(images, cameras)
        return self.pool(map_trunk(self.network, images, cameras))  # type: ignore[no-any-return]


def open_encoder(
    path: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    pooling: Pooling | None = None,
    settings: Settings | None = None,
) -> tuple[Encoder, Checkpoint]:
    """The network of a checkpoint, with every tensor accounted for.

    Args:
        path: the checkpoint.
        device: where it computes.
        precision: type of the forward pass.
        pooling: gives the feature of the trunk alone, before any head; None gives the feature of retrieval.
        settings: what is set of the network; the header that comes back has them.

    Raises:
        FormatError: the file is damaged, or its tensors are not those of the network it describes.
        UsageError: the network has nothing of the kind to set.
    """
    checkpoint = read_checkpoint(path)
    if settings is not None:
        checkpoint = replace(checkpoint, header=apply_settings(checkpoint.header, settings, origin=str(path)))
    view = build_evaluation_view(checkpoint.header.preprocessing)
    network = build_empty(checkpoint.header.network)
    load_strictly(network, checkpoint.tensors, origin=str(path))
    cameras = camera_table(checkpoint.header, origin=str(path))
    pool = None if pooling is None else pool_as(network.to(device), pooling).to(device)
    return Encoder(network.to(device).eval(), view, device, precision, cameras, pool), checkpoint


def build_evaluation_view(pixels: Preprocessing) -> ViewPlan:
    """How an image is prepared for a network trained on such images: resized and normalised."""
    return ViewPlan(pixels.height, pixels.width, pixels.mean, pixels.std, pixels.interpolation)


def extract_features(
    encoder: ImageEncoder,
    images: PackImages | FileImages,
    *,
    chunk: int,
    workers: int,
    flip: bool,
    progress: Progress,
    cameras: NDArray[np.int64] | None = None,
) -> NDArray[np.float32]:
    """Features of all images in their order, each computed once.

    Args:
        encoder: the network.
        images: what to run it on.
        chunk: images per forward pass; does not change the result beyond rounding.
        workers: decoding processes.
        flip: adds the feature of the mirrored image, as some published evaluations do; off by default there and here.
        progress: shows a bar.
        cameras: (N) rows of the network's camera table, where it has one.

    Returns:
        (N, D) float32, not normalised.

    Raises:
        CorruptImageError: an image cannot be decoded; evaluation never leaves one out.
    """
    dataset = ChunkDataset(images, encoder.view, chunk=chunk, cameras=cameras)
    with progress.task("features", total=len(images), unit="images") as bar:
        parts = []
        for _, vectors in embed_chunks(encoder, dataset, range(len(dataset)), workers=workers, flip=flip):
            parts.append(vectors)
            bar.advance(len(vectors))
    return np.concatenate(parts)


def embed_steadily(
    encoder: ImageEncoder, dataset: ChunkDataset, items: Sequence[int], *, workers: int, flip: bool
) -> Generator[tuple[tuple[str, ...], NDArray[np.float32]], None, None]:
    """Like `embed_chunks`, but a CPU gives the same bits however many cores or processes share the work.

    Rounding in a network depends on the number of threads that compute a pass, and on the images in it. Here every pass
    takes `GROUP` images of a chunk in one thread, and as many passes run in parallel as there would be threads.
    """
    if encoder.device.type != "cpu":
        yield from embed_chunks(encoder, dataset, items, workers=workers, flip=flip)
        return
    threads = torch.get_num_threads()
    waiting = deque[tuple[tuple[str, ...], list[Future[NDArray[np.float32]]]]]()

    def arrived() -> tuple[tuple[str, ...], NDArray[np.float32]]:
        damaged, parts = waiting.popleft()
        return damaged, np.concatenate([part.result() for part in parts])

    # The loader forks its workers first: a forked process would wait forever for the threads of the pool.
    with (
        closing(load_on_device(dataset, items, workers=workers, device=encoder.device)) as batches,
        parallel_passes() as pool,
    ):
        for batch in batches:
            groups = range(0, len(batch.pixels), GROUP)
            parts = [pool.submit(_embed_group, encoder, batch, begin, flip=flip) for begin in groups]
            waiting.append((batch.damaged, parts))
            if len(waiting) * len(parts) > threads + len(parts):
                yield arrived()
        while waiting:
            yield arrived()


@contextmanager
def parallel_passes() -> Iterator[ThreadPoolExecutor]:
    """As many threads as torch computes in, each for passes of its own."""
    threads = torch.get_num_threads()
    pool = ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)  # new threads would inherit the pool's setting of 1


@torch.no_grad()
def _embed_group(encoder: ImageEncoder, batch: Batch, begin: int, *, flip: bool) -> NDArray[np.float32]:
    """Features of `GROUP` images of a chunk, starting at `begin`, in the calling thread."""
    some = slice(begin, begin + GROUP)
    draws = batch.views[0].part(begin, begin + GROUP)
    cameras = None if batch.cameras is None else batch.cameras[some]
    return _embed(encoder, batch.pixels[some], draws, cameras, flip=flip).numpy()


@torch.no_grad()
def embed_batch(encoder: ImageEncoder, batch: Batch, *, flip: bool) -> Tensor:
    """Features of a batch in one pass, (B, D) float32 on its device, not normalised.

    Args:
        encoder: the network.
        batch: on its device; the first view is taken.
        flip: adds the feature of the mirrored image.
    """
    return _embed(encoder, batch.pixels, batch.views[0], batch.cameras, flip=flip)


def _embed(encoder: ImageEncoder, pixels: Tensor, draws: DrawTensors, cameras: Tensor | None, *, flip: bool) -> Tensor:
    view = make_view(encoder.view, pixels, draws)
    given = () if cameras is None else (cameras,)
    with autocast(encoder.device, encoder.precision):
        features = encoder.embed(view, *given).float()
        if flip:
            features = features + encoder.embed(view.flip(3), *given).float()
    return features


def embed_chunks(
    encoder: ImageEncoder, dataset: ChunkDataset, items: Sequence[int], *, workers: int, flip: bool
) -> Iterator[tuple[tuple[str, ...], NDArray[np.float32]]]:
    """Features chunk by chunk; while the caller writes one, the device computes the next.

    Args:
        encoder: the network.
        dataset: the chunks.
        items: which of them, in this order.
        workers: decoding processes.
        flip: adds the feature of the mirrored image.

    Yields:
        errors of images that could not be decoded, and (B, D) float32.
    """
    with closing(load_on_device(dataset, items, workers=workers, device=encoder.device)) as batches:
        yield from embed_batches(encoder, batches, flip=flip)


def embed_batches(
    encoder: ImageEncoder, batches: Iterable[Batch], *, flip: bool
) -> Iterator[tuple[tuple[str, ...], NDArray[np.float32]]]:
    """As `embed_chunks`, of batches that are on the device."""
    last: tuple[tuple[str, ...], HostCopy] | None = None
    for batch in batches:
        copy = HostCopy(embed_batch(encoder, batch, flip=flip))
        if last is not None:
            yield last[0], last[1].wait()
        last = batch.damaged, copy
    if last is not None:
        yield last[0], last[1].wait()
