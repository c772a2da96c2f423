"""Where a workspace keeps its files, and what is newest in it."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from lupctl.core.choices import SYNTHETIC, Dataset, nearest_name
from lupctl.core.errors import DataError
from lupctl.core.system.documents import parse_json

HOME_VARIABLE = "LUPCTL_HOME"
CHECKPOINT_NAME = "checkpoint.safetensors"
RECIPE_NAME = "recipe.toml"
RUN_NAME = "run.json"
# The page of a run on clusters.
CLUSTERS_NAME = "clusters.html"
# Of the scores that `data score` writes beside a pack, which is no pack itself.
SCORES_SUFFIX = ".scores.h5"
# What is read of the facts of a run.
RUN_SHAPE = {
    "command": str, "dataset": str, "pack": str, "packs": [str], "arch": str, "method": str, "images": int,
    "persons": int, "steps": int, "scores": {str: float}, "parents": {str: str}, "device": str, "start": str,
}  # fmt: skip
KNOWN: tuple[str, ...] = get_args(Dataset)
# DukeMTMC-reID was withdrawn, and drawn persons need no download.
DOWNLOADED = frozenset(KNOWN) - {SYNTHETIC, "dukemtmc"}


@dataclass(frozen=True)
class Workspace:
    """A folder with raw data, packs, models and runs.

    Args:
        home: the folder; it need not exist until something is written.
    """

    home: Path

    @property
    def raw(self) -> Path:
        """Datasets as downloaded or placed by hand."""
        return self.home / "raw"

    @property
    def packs(self) -> Path:
        """One file, or one folder of shards, per dataset."""
        return self.home / "packs"

    @property
    def models(self) -> Path:
        """Downloaded or converted weights."""
        return self.home / "models"

    @property
    def runs(self) -> Path:
        """One folder per training run."""
        return self.home / "runs"

    def pack_path(self, dataset: str) -> Path:
        """The path of a dataset's pack: the folder of shards if there is one, else the single file."""
        folder = self.packs / dataset
        return folder if folder.is_dir() else self.packs / f"{dataset}.h5"

    def pack_paths(self) -> list[Path]:
        """All packs, sorted by name."""
        if not self.packs.is_dir():
            return []
        return sorted(
            path
            for path in self.packs.iterdir()
            if not path.name.startswith(".")
            and not path.name.endswith(SCORES_SUFFIX)
            and (path.suffix == ".h5" or (path.is_dir() and any(path.glob("*.h5"))))
        )

    def named_pack(self, name: str) -> Path | None:
        """The workspace's pack of a name, if there is one; what contains a `/` is a path and no name."""
        if name in ("", ".", "..") or "/" in name or os.sep in name:
            return None
        path = self.pack_path(name)
        return path if path.exists() else None

    def find_pack(self, name: str) -> Path:
        """The pack or folder a user means: a dataset's name, or a path that exists; a name comes first.

        Raises:
            DataError: neither exists, or it is a run.
        """
        path = self.named_pack(name)
        if path is not None:
            return path
        for folder in (Path(name), self.runs / name):
            if (folder / RUN_NAME).is_file():
                meant = read_run(folder).get("dataset")
                hint = f"did you mean {meant}?" if meant else "lupctl data list"
                raise DataError(f"{name}: a run; a pack or a folder of images was expected", hint=hint)
        if Path(name).exists():
            return Path(name)
        packed = [pack.stem for pack in self.pack_paths()]
        there = ", ".join(packed) or "no packs"
        raise DataError(
            f"no pack of {name!r}: neither a file of that name nor {self.pack_path(name)} exists "
            f"({self.packs} holds {there})",
            hint=self._hint_for_missing(name, packed),
        )

    def _hint_for_missing(self, name: str, packed: list[str]) -> str:
        """What leads to the pack of a name: packing it, another spelling, a download, or a folder under `raw/`."""
        home = find_home(self.home)
        if home is not None:
            return f"--home {home}"
        if name == SYNTHETIC or (self.raw / name).exists():
            return f"lupctl data pack {name}"
        meant = name if name in KNOWN else nearest_name(name, {*packed, *KNOWN})
        if meant in packed:
            return f"did you mean {meant}?"
        folder = self.raw / (meant or name)
        place = f"put the images under {folder}, then: lupctl data pack {folder.name}"
        if meant in DOWNLOADED:
            spelling = "" if meant == name else f"did you mean {meant}? "
            return f"{spelling}lupctl data download {meant} gets it or says how; or {place}"
        return place if meant in (None, name) else f"did you mean {meant}? otherwise {place}"

    def finished_runs(self, command: str) -> list[Path]:
        """Folders of finished runs of `pretrain` or `finetune`, newest first."""
        if not self.runs.is_dir():
            return []
        found = []
        for marker in self.runs.glob(f"*/{RUN_NAME}"):
            if (marker.parent / CHECKPOINT_NAME).is_file() and read_run(marker.parent).get("command") == command:
                found.append((marker.stat().st_mtime_ns, marker.parent))
        return [path for _, path in sorted(found, reverse=True)]


def find_home(missing: Path) -> Path | None:
    """The workspace that was probably meant where there is none: one spelled alike, or the one we are in.

    Args:
        missing: the folder that is not there, or is not a workspace.
    """
    if _is_home(missing):
        return None
    if not missing.exists() and missing.parent.is_dir():
        around = {path.name: path for path in missing.parent.iterdir() if _is_home(path)}
        meant = nearest_name(missing.name, around)
        if meant is not None:
            return around[meant]
    here = Path.cwd()
    above = next((folder for folder in (here, *here.parents) if _is_home(folder)), None)
    return None if above is None else Path(os.path.relpath(above))


def _is_home(folder: Path) -> bool:
    """Whether a folder looks like a workspace."""
    return sum((folder / name).is_dir() for name in ("raw", "packs", "models", "runs")) > 1


def open_workspace(home: Path | None = None) -> Workspace:
    """The workspace of a command: `home`, else `$LUPCTL_HOME`, else `./lup`."""
    if home is not None:
        return Workspace(home)
    named = os.environ.get(HOME_VARIABLE)
    return Workspace(Path(named) if named else Path("lup"))


def output_path(out: Path, name: str) -> Path:
    """The file that `--out` means: a file, or the one of a name in a folder that exists or has no ending.

    >>> output_path(Path("scores.json"), "report.json").as_posix(), output_path(Path("new"), "report.json").as_posix()
    ('scores.json', 'new/report.json')
    """
    return out / name if out.is_dir() or not (out.suffix or out.exists()) else out


def read_run(run: Path) -> dict[str, Any]:
    """The facts that a finished training run recorded next to its checkpoint.

    Raises:
        DataError: the file cannot be read, or is not a JSON object.
    """
    path = run / RUN_NAME
    try:
        facts: dict[str, Any] = parse_json(
            path.read_text(encoding="utf-8"), RUN_SHAPE, is_finite=False, is_foreign=False
        )
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: not readable as JSON ({error})", hint=f"train again: remove {run}") from error
    return facts
