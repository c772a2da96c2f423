"""Packs and features in HDF5: records, columns and bytes that lie."""

import json
from pathlib import Path
from random import Random
from typing import Any

import h5py
import numpy as np

from tests.hostile.runner import Case, Place
from tests.hostile.values import as_json, mutate_file, number, spoil, text

SHAPES = ((0,), (1,), (3,), (10_000,), (2, 2), (0, 4), ())
TYPES = ("i1", "u8", "f2", "f8", ">i4", "S3", "?", "c8")
DIRECT = ["--workers", "0", "--device", "cpu"]
TRAIN = ["--gpus", "0", "--dry-run"]


def packs(draw: Random, place: Place) -> Case:
    """A spoiled pack in a workspace."""
    place.take("lup")
    name = draw.choice(("crowd", "labelled"))
    spoil_file(draw, place.work / "lup" / "packs" / f"{name}.h5")
    words = draw.choice(
        (
            ["data", "info", name], ["data", "info", name, "--sheet", "s.png"], ["data", "verify", name], ["data", "verify", name, "--deep", "--workers", "1"], ["data", "verify", name, "--fast"], ["data", "list"], ["data", "list", "--long"],
            ["data", "pack", "--merge", "both", "crowd", "labelled", "--workers", "1"], ["data", "pack", name, "--split", "images:0.5", "--out", "split.h5"],
            ["dump", "fine", "--data", name, *DIRECT, "--out", "f.h5"], ["dump", "fine", "--data", name, "--role", "unlabelled", *DIRECT, "--out", "f.h5"],
            ["pretrain", "--data", name, *TRAIN], ["finetune", name, "--from", "scratch", *TRAIN],
            ["eval", "fine", "--data", name, "--no-page", "--device", "cpu"] if False else ["eval", "fine", "--no-page", "--device", "cpu"],
            ["search", "fine", "a.jpg", "--device", "cpu"], ["data", "score", name, "--before", "pre", "--after", "fine", *DIRECT], ["data", "rm", name, "--dry-run"],
        )
    )  # fmt: skip
    place.take("a.jpg")
    return Case(words)


def features(draw: Random, place: Place) -> Case:
    """Spoiled features of lupctl, or of another program."""
    name = draw.choice(("lup/fine.features.h5", "bare.h5", "elsewhere.npz"))
    path = place.take(name, f"f{Path(name).suffix}" if name != "lup/fine.features.h5" else "f.features.h5")
    if path.suffix == ".npz":
        _spoil_archive(draw, path)
    else:
        spoil_file(draw, path)
    words = draw.choice((["eval", path.name, "--no-page"], ["eval", path.name, "--no-page", "--rerank"], ["eval", path.name, "--no-page", "--json"], ["eval", path.name, "--aqe", "2", "--no-page"], ["search", path.name, "a.jpg"], ["eval", path.name, "--threshold", "eer", "--no-page"], ["eval", path.name, path.name, "--compare"], ["eval", path.name, "--dry-run"], ["eval", path.name, "--sweep", "k1=5,10", "--no-page"], ["data", "info", path.name], ["eval", path.name]))
    place.take("a.jpg")
    return Case(words)


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
    kind = draw.randrange(6)
    if kind == 0:
        del file[name]
    elif kind == 1:
        _write(file, name, np.zeros(draw.choice(SHAPES), draw.choice(TYPES)))
    elif kind == 2 and old.dtype != object and old.size:
        changed = old.copy().reshape(-1)
        with np.errstate(all="ignore"):
            limits = np.iinfo(old.dtype) if old.dtype.kind in "iu" else np.finfo(old.dtype)
            changed[draw.randrange(len(changed))] = draw.choice((limits.min, limits.max, 0, *([np.nan, np.inf] if old.dtype.kind == "f" else [1])))
        _write(file, name, changed.reshape(old.shape))
    elif kind == 3 and old.dtype == object:
        names = [one.decode() for one in old]
        names[draw.randrange(len(names))] = text(draw).replace("\0", "").replace("\ud800", "?").replace("\udcff", "?")
        _write(file, name, np.array(names, object), dtype=h5py.string_dtype("utf-8"))
    elif kind == 4:
        del file[name]
        file.create_group(name)
    else:
        _write(file, name, np.array([float(number(draw)) if abs(number(draw)) < 1e300 else 0.0] * 3))


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
            arrays[key] = np.full_like(arrays[key], draw.choice((0, 127)), dtype="f8") * draw.choice((np.nan, np.inf, 1e300, -1))
        case _:
            arrays[text(draw).replace("/", "_").replace("\0", "").replace("\ud800", "").replace("\udcff", "") or "x"] = arrays.pop(key)
    np.savez(path, **arrays)
