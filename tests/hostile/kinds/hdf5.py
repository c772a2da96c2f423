"""Packs and features in HDF5: records, columns and bytes that lie."""

import json
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import as_json, encodable, mutate_file, spoil

SHAPES = ((0,), (1,), (3,), (10_000,), (2, 2), (0, 4), ())
TYPES = ("i1", "u8", "f2", "f8", ">i4", "S3", "?", "c8")
PACK_COMMANDS = """
data info {name}
data info {name} --sheet s.png
data verify {name}
data verify {name} --deep --workers 1
data verify {name} --fast
data list
data list --long
data pack --merge both crowd labelled --workers 1
data pack {name} --split images:0.5 --out split.h5
dump fine {name} --workers 0 --device cpu --out f.h5
dump fine {name} --role unlabelled --workers 0 --device cpu --out f.h5
pretrain --data {name} --gpus 0 --dry-run
finetune {name} --from scratch --gpus 0 --dry-run
eval fine --no-page --device cpu
search fine a.jpg --device cpu
data score {name} --before pre --after fine --workers 0 --device cpu
data rm {name} --dry-run
"""
FEATURE_COMMANDS = """
eval {name}
eval {name} --no-page
eval {name} --no-page --rerank
eval {name} --no-page --json
eval {name} --no-page --aqe 2
eval {name} --no-page --threshold eer
eval {name} --no-page --sweep k1=5,10
eval {name} {name} --compare
eval {name} --dry-run
eval {name} --no-page --published transreid-vit-b-market1501
eval {name} --explain --device cpu
eval {name} --explain --dry-run --device cpu
search {name} a.jpg
data info {name}
"""


def packs(draw: Random, place: Place) -> Case:
    """A spoiled pack in a workspace."""
    place.take("lup")
    name = draw.choice(("crowd", "labelled"))
    spoil_file(draw, place.work / "lup" / "packs" / f"{name}.h5")
    place.take("a.jpg")
    return Case(pick_command(draw, PACK_COMMANDS, name=name))


def features(draw: Random, place: Place) -> Case:
    """Spoiled features of lupctl, or of another program."""
    name = draw.choice(("lup/fine.features.h5", "bare.h5", "elsewhere.npz"))
    path = place.take(name, f"f{Path(name).suffix}" if name != "lup/fine.features.h5" else "f.features.h5")
    if path.suffix == ".npz":
        _spoil_archive(draw, path)
    else:
        spoil_file(draw, path)
    place.take("a.jpg")
    return Case(pick_command(draw, FEATURE_COMMANDS, name=path.name))


def spoil_file(draw: Random, path: Path) -> None:
    """Spoils an HDF5 file: its record, a column, or any byte."""
    kind = draw.randrange(5)
    if kind == 0:
        mutate_file(draw, path)
        return
    with h5py.File(path, "r+") as file:
        if kind in (1, 2) and "lupctl" in file.attrs:
            record = spoil(draw, json.loads(file.attrs["lupctl"]), times=draw.choice((1, 1, 3)))
            _set_record(file, as_json(record))
        elif kind == 3 and draw.random() < 0.3:
            file.attrs["lupctl"] = draw.choice((3, np.zeros(3), b"\xff\xfe", "", "[]", "null", "{", h5py.Empty("f")))
        else:
            columns: list[str] = []
            file.visititems(lambda name, item: columns.append(name) if isinstance(item, h5py.Dataset) else None)
            name = draw.choice(sorted(columns))
            _replace(draw, file, name)


def _set_record(file: h5py.File, written: str) -> None:
    encoded = written.encode("utf-8", "surrogatepass")[:60_000].replace(b"\0", b"")
    file.attrs.create("lupctl", encoded, dtype=h5py.string_dtype("utf-8"))


def _replace(draw: Random, file: h5py.File, name: str) -> None:
    old = file[name][()]
    kind = draw.randrange(7)
    if kind == 0:
        del file[name]
    elif kind == 6:  # says that it is large, and has nothing
        del file[name]
        file.create_dataset(name, draw.choice(((1 << 40,), (1 << 33, 2))), old.dtype, chunks=True)
    elif kind == 1:
        _write(file, name, np.zeros(draw.choice(SHAPES), draw.choice(TYPES)))
    elif kind == 2 and old.dtype != object and old.size:
        changed = old.copy().reshape(-1)
        with np.errstate(all="ignore"):
            is_whole = old.dtype.kind in "iu"
            ends = np.iinfo(old.dtype) if is_whole else np.finfo(old.dtype)
            more = (0, 1) if is_whole else (np.nan, np.inf)
            changed[draw.randrange(len(changed))] = draw.choice((ends.min, ends.max, *more))
        _write(file, name, changed.reshape(old.shape))
    elif kind == 3 and old.dtype == object:
        names = [one.decode() for one in old]
        names[draw.randrange(len(names))] = encodable(draw).replace("\0", "")
        _write(file, name, np.array(names, object), dtype=h5py.string_dtype("utf-8"))
    elif kind == 4:
        del file[name]
        file.create_group(name)
    else:
        _write(file, name, np.array([draw.choice((1e300, -1.0, np.nan, np.inf, 2.0**60))] * 3))


def _write(file: h5py.File, name: str, values: Any, **more: Any) -> None:
    del file[name]
    file.create_dataset(name, data=values, **more)


def _spoil_archive(draw: Random, path: Path) -> None:
    if draw.random() < 0.4:
        mutate_file(draw, path)
        return
    with np.load(path) as archive:
        arrays: dict[str, Any] = dict(archive)
    key = draw.choice(sorted(arrays))
    match draw.randrange(5):
        case 0:
            del arrays[key]
        case 1:
            arrays[key] = np.zeros(draw.choice(SHAPES), draw.choice(TYPES))
        case 2:
            arrays[key] = np.array([{"a": 1}], object)
        case 3:
            arrays[key] = np.full_like(arrays[key], draw.choice((np.nan, np.inf, 1e300, -1, 0)), dtype="f8")
        case _:
            arrays[encodable(draw).replace("/", "_").replace("\0", "") or "x"] = arrays.pop(key)
    np.savez(path, **arrays)
