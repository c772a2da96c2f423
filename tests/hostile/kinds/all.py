"""Every kind of hostile input by its name."""

from tests.hostile.kinds import (
    archives,
    boxes,
    disks,
    hdf5,
    http,
    lmdb_files,
    names,
    notes,
    onnx_files,
    pickles,
    pictures,
    recipes,
    tables,
    weights,
)
from tests.hostile.runner import Maker

KINDS: dict[str, Maker] = {
    "archives": archives.make,
    "benches": onnx_files.bench,
    "boxes": boxes.make,
    "checkpoints": weights.make,
    "disks": disks.make,
    "features": hdf5.features,
    "files": names.files,
    "http": http.make,
    "images": pictures.images,
    "lmdb": lmdb_files.make,
    "notes": notes.make,
    "onnx": onnx_files.make,
    "openvino": onnx_files.openvino,
    "packs": hdf5.packs,
    "pickles": pickles.make,
    "recipes": recipes.make,
    "tables": tables.make,
    "videos": pictures.videos,
    "weights": weights.foreign,
    "words": names.words,
}
