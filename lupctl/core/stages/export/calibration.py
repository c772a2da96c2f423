"""Calibration images: those of a pack that nothing is tested on."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.errors import DataError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.weights.onnx import Inputs
from lupctl.core.ranking.retrieval.onnx.encoder import OnnxEncoder
from lupctl.core.system.examples import count_things
from lupctl.core.training.loading.batches import build_batch
from lupctl.core.training.views.pixels import make_view

# Images whose values give the ranges.
IMAGES: Final = 128
# Images of a pass: all tensors of one are in memory together.
BATCH: Final = 8
SEED: Final = 0


@dataclass(frozen=True)
class Calibration:
    """Images that were chosen.

    Args:
        pack: theirs.
        rows: (N) of it.
    """

    pack: Pack
    rows: NDArray[np.int64]

    def to_json(self) -> dict[str, Any]:
        """The part of the record that says which images these are."""
        digest = hashlib.sha256(self.rows.astype("<i8").tobytes()).hexdigest()
        return {
            "dataset": self.pack.dataset,
            "fingerprint": self.pack.fingerprint,
            "images": len(self.rows),
            "rows": f"sha256:{digest}",
        }


def choose_calibration(path: Path, prove: Path | None) -> Calibration:
    """Training images of a pack, else unlabelled ones, drawn evenly; the same ones every time.

    Args:
        path: the pack.
        prove: the pack that the network is tested on after it.

    Raises:
        DataError: there are none, or some are queries or gallery images of the test.
    """
    pack = open_pack(path)
    role = pack.samples.role
    rows = next(
        (rows for name in ("train", "unlabelled") if len(rows := np.flatnonzero(role == ROLE_CODES[name]))), None
    )
    if rows is None:
        raise DataError(
            f"{path}: has no training and no unlabelled images to calibrate with",
            hint="name a pack that has: --calibrate PACK; lupctl data list; or --precision float16, which needs none",
        )
    drawn = np.random.default_rng(SEED).permutation(len(rows))[:IMAGES]
    found = Calibration(pack, np.sort(rows[drawn]).astype(np.int64))
    if prove is not None:
        refuse_tested(found, open_pack(prove))
    return found


def refuse_tested(calibration: Calibration, tested: Pack) -> None:
    """Refuses calibration images that are also queries or gallery images of a test.

    Raises:
        DataError: some are, byte for byte.
    """
    rows = np.flatnonzero(np.isin(tested.samples.role, [ROLE_CODES["query"], ROLE_CODES["gallery"]]))
    same: dict[tuple[int, int], list[int]] = {}
    for row, _, _, length, checksum in tested.find(rows.astype(np.int64)):
        same.setdefault((length, checksum), []).append(row)
    names = []
    for row, _, _, length, checksum in calibration.pack.find(calibration.rows):
        others = same.get((length, checksum), ())
        if any(calibration.pack.read(row) == tested.read(other) for other in others):
            names.append(calibration.pack.samples.name[row])
    if names:
        raise DataError(
            f"{calibration.pack.path}: {count_things(len(names), 'calibration image')} of {len(calibration.rows)} "
            f"{'is' if len(names) == 1 else 'are'} queries or gallery images of {tested.path} ({names[0]}); a test on "
            "them would prove nothing",
            hint="calibrate with a pack of other images: --calibrate PACK",
        )


def prepare_batches(calibration: Calibration, encoder: OnnxEncoder) -> list[Inputs]:
    """The inputs of a network for the calibration images.

    Raises:
        CorruptImageError: one does not decode.
    """
    batches: list[Inputs] = []
    size = encoder.images.batch or BATCH
    for begin in range(0, len(calibration.rows), size):
        rows = calibration.rows[begin : begin + size]
        table = encoder.cameras
        batch = build_batch(
            [decode_rgb(calibration.pack.read(int(row))) for row in rows],
            encoder.view,
            cameras=None if table is None else np.full(len(rows), table.unknown_row, np.int64),
        )
        view = make_view(encoder.view, batch.pixels, batch.views[0])
        batches += [inputs for inputs, _ in encoder.prepare(view, batch.cameras)]
    return batches
