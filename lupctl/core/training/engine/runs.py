"""A run's folder: the state to continue from, the facts of the run, and a lock against a second process."""

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.atomic import atomic_path, disk_errors_named, write_text
from lupctl.core.system.disk.lock import held
from lupctl.core.system.disk.removal import remove_tree
from lupctl.core.system.documents import parse_json, parse_toml
from lupctl.core.workspace import CHECKPOINT_NAME, CLUSTERS_NAME, RECIPE_NAME, RUN_NAME, read_run

RESUME_NAME = "resume.pt"
METHOD_NAME = "method.safetensors"
METRICS_NAME = "metrics.jsonl"
INPUTS_NAME = "inputs.json"
# What is read of a run's files without building its recipe.
RECIPE_SHAPE = {
    "stage": str, "start": str, "method": str, "net": {"arch": str, "head": str}, "data": {"packs": [str]},
}  # fmt: skip
INPUTS_SHAPE = {str: str, "classes": int}
ROW_SHAPE = {"step": int, "steps": int, "epoch": int}
LOCK_NAME = ".lock"
TAIL_BYTES = 1 << 16  # of metrics, some hundred rows
BOARD_NAME = "tensorboard"
STATE_KEYS = ("step", "model", "optimizer", "random", "damaged")


class RunFolder:
    """The files of one training run.

    Args:
        path: the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def checkpoint(self) -> Path:
        """The finished network."""
        return self.path / CHECKPOINT_NAME

    @property
    def method(self) -> Path:
        """All networks of a finished pre-training."""
        return self.path / METHOD_NAME

    @property
    def resume(self) -> Path:
        """The state to continue from."""
        return self.path / RESUME_NAME

    @property
    def recipe(self) -> Path:
        """The resolved recipe."""
        return self.path / RECIPE_NAME

    @property
    def facts(self) -> Path:
        """Written last: a run with this file is finished."""
        return self.path / RUN_NAME

    @property
    def clusters(self) -> Path:
        """The page of a run on clusters."""
        return self.path / CLUSTERS_NAME

    def is_finished(self) -> bool:
        """Whether the run is finished."""
        return self.facts.is_file() and self.checkpoint.is_file()

    def has_begun(self) -> bool:
        """Whether there is a recipe in the folder."""
        return self.recipe.is_file()

    def find_strays(self) -> list[Path]:
        """Weights and states in the folder, whatever run they are from."""
        return [path for path in (self.checkpoint, self.method, self.resume) if path.exists()]

    def clear(self) -> None:
        """Removes the run's own files, for `--force`, and what was computed from its network; nothing else."""
        reports = (self.path / f"report.{kind}" for kind in ("json", "html"))
        remove_tree(self.path / BOARD_NAME)
        for path in (
            *self.path.glob("*.features.h5"),
            *self.path.glob("*.features.h5.shard-*"),
            *self.path.glob("*.onnx"),
            *reports,
        ):
            path.unlink(missing_ok=True)
        for path in (
            self.facts,
            self.checkpoint,
            self.method,
            self.resume,
            self.recipe,
            self.path / INPUTS_NAME,
            self.path / METRICS_NAME,
            self.clusters,
        ):
            path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Removes a run that has done nothing yet, and the folder if nothing else is in it; the folder is locked."""
        metrics = self.path / METRICS_NAME
        if self.find_strays() or (metrics.is_file() and metrics.stat().st_size > 0):
            return
        self.clear()
        self.clear_partials()
        (self.path / LOCK_NAME).unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it
            self.path.rmdir()

    def clear_partials(self) -> None:
        """Removes partial files that a killed process left behind; the folder must be locked."""
        for path in self.path.glob(".*.part"):
            path.unlink(missing_ok=True)

    def write_setup(self, tables: Mapping[str, Any], text: str) -> None:
        """Writes the set-up of the run: the fingerprints of its inputs, then the resolved recipe."""
        write_text(self.path / INPUTS_NAME, json.dumps(tables["inputs"], indent=2, sort_keys=True) + "\n")
        write_text(self.recipe, text)

    def read_setup(self) -> dict[str, Any]:
        """The set-up of the run in this folder: tables `recipe` and `inputs`.

        Raises:
            DataError: one of the files is damaged.
        """
        try:
            recipe = parse_toml(self.recipe.read_text(encoding="utf-8"), RECIPE_SHAPE)
            inputs = parse_json((self.path / INPUTS_NAME).read_text(encoding="utf-8"), INPUTS_SHAPE, is_foreign=False)
        except (OSError, ValueError) as error:
            raise DataError(
                f"{self.path}: the run's recipe is damaged ({error})", hint="start over: add --force"
            ) from error
        return {"recipe": recipe, "inputs": inputs}

    def read_facts(self) -> dict[str, Any]:
        """The facts that a finished run recorded."""
        return read_run(self.path)

    def describe_last_good(self) -> str:
        """The state to continue from, as text."""
        return f"{self.resume}" if self.resume.is_file() else "none yet"

    def write_facts(self, facts: Mapping[str, Any]) -> None:
        """Marks the run as finished."""
        write_text(self.facts, json.dumps(facts, indent=2, sort_keys=True, ensure_ascii=False) + "\n")

    def save_state(self, state: Mapping[str, Any]) -> None:
        """Writes `resume.pt`; the previous one stays until the new one is on the disk."""
        import torch  # slow, and listing runs needs none of it

        with atomic_path(self.resume) as partial, partial.open("wb") as stream:
            torch.save(dict(state), stream)

    def load_state(self) -> dict[str, Any] | None:
        """The state to continue from, or None for a fresh start.

        Raises:
            FormatError: the file is damaged.
        """
        import torch

        if not self.resume.is_file():
            return None
        hint = f"start over: add --force, or remove {self.path}"
        try:
            state = torch.load(self.resume, map_location="cpu", weights_only=True)
        except Exception as error:  # unpickling damaged bytes can raise anything
            raise FormatError(
                f"{self.resume}: damaged ({type(error).__name__}: {str(error).partition(chr(10))[0]})", hint=hint
            ) from error
        missing = [key for key in STATE_KEYS if key not in state] if isinstance(state, dict) else list(STATE_KEYS)
        if missing:
            raise FormatError(f"{self.resume}: not the state of a run ({', '.join(missing)} missing)", hint=hint)
        return dict(state)

    def read_saved(self, key: str) -> object:
        """An entry of the state to continue from, without reading its tensors; None where there is no sound one."""
        import torch

        try:
            return torch.load(self.resume, map_location="cpu", weights_only=True, mmap=True).get(key)
        except Exception:  # unpickling damaged bytes can raise anything; continuing the run says what it is
            return None

    def read_saved_step(self) -> int | None:
        """Steps done in the state to continue from; None where there is no sound one."""
        step = self.read_saved("step")
        return step if isinstance(step, int) else None

    def is_held(self) -> bool:
        """Whether a process is training into the folder; nothing is created."""
        lock = self.path / LOCK_NAME
        if not lock.is_file():
            return False
        try:
            with held(lock) as is_free:
                return not is_free
        except OSError:  # not ours to write to
            return False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Locks the folder against a second process; the system releases the lock when this one dies.

        Raises:
            DataError: another process is using the folder.
        """
        with ExitStack() as stack:
            with disk_errors_named(self.path):
                self.path.mkdir(parents=True, exist_ok=True)
                is_ours = stack.enter_context(held(self.path / LOCK_NAME))
            if not is_ours:
                raise DataError(
                    f"{self.path}: another lupctl is training into this folder",
                    hint="wait for it, or name another --out",
                )
            yield


class Metrics:
    """`metrics.jsonl`: one object per line, in step order; rows after the state that a run resumes from are dropped.

    Args:
        path: the run's folder.
        step: steps done before.
    """

    def __init__(self, path: Path, *, step: int) -> None:
        self._path = path / METRICS_NAME
        kept = []
        if self._path.is_file() and step > 0:
            for line in self._path.read_text(encoding="utf-8").splitlines():
                try:
                    row = parse_json(line, ROW_SHAPE, is_finite=False)
                except ValueError:
                    continue  # the last line of a killed run can be half a line
                if row.get("step", 0) <= step:
                    kept.append(line)
        write_text(self._path, "".join(f"{line}\n" for line in kept))
        self._stream: TextIO = self._path.open("a", encoding="utf-8")

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one row."""
        with disk_errors_named(self._path):
            self._stream.write(json.dumps(dict(row)) + "\n")
            self._stream.flush()

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()


def read_last_row(run: Path) -> dict[str, Any]:
    """The last row of a run's metrics that has a loss; empty where there is none."""
    path = run / METRICS_NAME
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = stream.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    for line in reversed(lines):
        with suppress(ValueError):  # the last line of a killed run can be half a line
            row: dict[str, Any] = parse_json(line, ROW_SHAPE, is_finite=False)
            if "lr" in row:
                return row
    return {}


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics; the last line of a killed run can be half a line, which is none.

    Raises:
        DataError: there are none, or the file is damaged.
    """
    path = run / METRICS_NAME
    if not path.is_file():
        raise DataError(f"{path}: there is no such file", hint="lupctl pretrain or lupctl finetune writes it")
    try:
        whole = path.read_text(encoding="utf-8").rpartition("\n")[0]
        return [parse_json(line, ROW_SHAPE, is_finite=False) for line in whole.splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged ({error})", hint=f"remove it, or train again: remove {run}") from error
