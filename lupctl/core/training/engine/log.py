"""Logging of a training loop: losses, throughput and scores."""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lupctl.core.system.jobs.messages import gather_texts
from lupctl.core.system.progress.lines import Progress, Task
from lupctl.core.training.engine.board import Board
from lupctl.core.training.engine.curves import Epochs
from lupctl.core.training.engine.meters import LoopMeter, Means, check_finite
from lupctl.core.training.engine.runs import Metrics, RunFolder

LOG_EVERY_STEPS = 10
LINE_EVERY_S = 60.0


class LoopLog:
    """Means of losses, throughput, and `metrics.jsonl`, for one process of a run.

    Args:
        folder: the run.
        start: steps done before.
        total: steps of the run.
        batch: images per step over all devices.
        epochs: of the run.
        is_writer: whether this process writes the file.
        progress: warns about damaged images.
        damaged: images skipped before.
        board: also gets every row.
        precision: type of the passes.
    """

    def __init__(
        self,
        folder: RunFolder,
        *,
        start: int,
        total: int,
        batch: int,
        epochs: Epochs,
        is_writer: bool,
        progress: Progress,
        damaged: Iterable[str] = (),
        board: Board | None = None,
        precision: torch.dtype = torch.float32,
    ) -> None:
        self.folder, self._total, self._epochs = folder, total, epochs
        self._metrics = Metrics(folder.path, step=start) if is_writer else None
        self._progress, self._board, self._precision = progress, board, precision
        self._began_at = self._said_at = time.monotonic()
        self._said_step, self._waiting, self._health = start, "", ""
        self._means = Means()
        self.meter = LoopMeter(batch)
        self.values: dict[str, float] = {}
        self.damaged = set(damaged)

    def note_damage(self, damaged: tuple[str, ...]) -> None:
        """Warns about images that could not be read and were skipped, once per image and run."""
        for line in damaged:
            if line not in self.damaged:
                self._progress.warn(f"skipped: {line}")
        self.damaged.update(damaged)

    def share_damage(self) -> None:
        """Shares the list of skipped images among all processes."""
        self.damaged = gather_texts(self.damaged)

    def add(self, **values: Tensor) -> None:
        """Adds the scalars of one finished step."""
        self._means.add(**values)
        self.meter.step()

    def write_step(
        self, done: int, *, rate: float, is_due: bool, bar: Task, more: Callable[[], Mapping[str, float]] = dict
    ) -> None:
        """Writes a row every ten steps, at the end, and when one is due; refuses a loss that is not finite.

        Where stderr is no terminal, a line a minute and one at the end say how far the run is.

        Args:
            done: steps done.
            rate: learning rate of the last one.
            is_due: whether to write a row whatever the step, as before a state is saved.
            bar: shows a short note.
            more: gives what else belongs into a row; called only when one is written, in every process.

        Raises:
            DataError: a number is NaN or infinite.
        """
        if done % LOG_EVERY_STEPS and done != self._total and not is_due:
            bar.advance()
            self._say_now_and_then(done, rate)
            return
        self.values = {**self._means.read(), **more()}
        self._check_finite(self.values, done, rate)
        speed = self.meter.read()
        epoch = self._epochs.of(done - 1)
        self.write_row({"step": done, "steps": self._total, "epoch": epoch, **self.values, "lr": rate, **speed})
        self._waiting = f"waiting for data {speed['data_wait']:.0%}"
        self._health = describe_health(self.values) or self._health
        loss = f"loss {self.values['loss']:.3f}{describe_labels(self.values)}{self._health}, lr {rate:.2g}"
        bar.advance(note=f"{loss}, {speed['images_per_s']:,.0f} images/s, waiting {speed['data_wait']:.0%}")
        self._say_now_and_then(done, rate)

    def _say_now_and_then(self, done: int, rate: float) -> None:
        """Prints a line every minute and at the end if no bar shows the progress, as in the log of a batch system.

        The loss is that of the last row: reading it more often would make a GPU, and the other processes, wait.
        """
        now = time.monotonic()
        passed_s = now - self._said_at
        if sys.stderr.isatty() or done == self._said_step or (passed_s < LINE_EVERY_S and done < self._total):
            return
        images_per_s = (done - self._said_step) * self.meter.batch / max(passed_s, 1e-9)
        self._said_at, self._said_step = now, done
        loss = f"loss {self.values['loss']:.3f}{describe_labels(self.values)}{self._health}, " if self.values else ""
        waiting = f", {self._waiting}" if self._waiting else ""
        if done == self._total:
            left = f"took {_duration(now - self._began_at)}"
        else:
            left = f"{_duration((self._total - done) * self.meter.batch / images_per_s)} left"
        self._progress.say(
            f"step {done} of {self._total}: {loss}lr {rate:.2g}, {images_per_s:,.0f} images/s{waiting}, {left}"
        )

    def write_probe(self, done: int, scores: Mapping[str, float]) -> None:
        """Writes and prints the scores of a probe; does nothing without scores, as in other processes."""
        if scores:
            self.write_row({"step": done, "epoch": self._epochs.of(max(done - 1, 0)), **scores})
            found = ", ".join(f"{name.removeprefix('probe_')} {value:.4f}" for name, value in scores.items())
            self._progress.say(f"probe after step {done}: {found}")

    def write_scores(self, done: int, scores: Mapping[str, float], *, dataset: str | None) -> None:
        """Writes and prints the scores of an evaluation, with the dataset's name if there are several."""
        named = {} if dataset is None else {"dataset": dataset}
        self.write_row({"step": done, "epoch": self._epochs.of(done - 1), **named, **scores})
        where = "" if dataset is None else f" on {dataset}"
        self._progress.say(f"after step {done}{where}: mAP {scores['map']:.4f}, rank-1 {scores['rank1']:.4f}")

    def check_weights(self, network: nn.Module, *, done: int, rate: float) -> None:
        """Refuses to save weights that are not finite; the loss shows them one step too late.

        Raises:
            DataError: one is NaN or infinite.
        """
        worst = torch.stack([weight.detach().abs().max() for weight in network.parameters()]).max()
        self._check_finite({"a weight": float(worst)}, done, rate)

    def _check_finite(self, values: dict[str, float], done: int, rate: float) -> None:
        last_good = self.folder.describe_last_good()
        check_finite(values, step=done, rate=rate, last_good=last_good, precision=self._precision)

    def write_row(self, row: Mapping[str, Any]) -> None:
        """Appends a row to the metrics, in the process that writes the file."""
        if self._metrics is not None:
            self._metrics.write(row)
        if self._board is not None:
            self._board.write(row)

    def close(self) -> None:
        """Closes the metrics."""
        if self._metrics is not None:
            self._metrics.close()
        if self._board is not None:
            self._board.close()


def describe_labels(values: Mapping[str, float]) -> str:
    """What became of the labels, to append to a line; empty for a method that corrects none.

    >>> describe_labels({"loss": 2.0, "corrected": 0.031, "agreement": 0.8, "purity_given": 0.7, "purity": 0.742})
    ', corrected 3.1%, agreement 80.0%, purity 74.2% (given 70.0%)'
    >>> describe_labels({"loss": 2.0})
    ''
    """
    text = "".join(f", {name} {values[name]:.1%}" for name in ("corrected", "agreement", "purity") if name in values)
    return f"{text} (given {values['purity_given']:.1%})" if "purity_given" in values else text


def describe_health(values: Mapping[str, float]) -> str:
    """What is seen of a network's outputs and features, to append to a line; empty for a row that has none of it.

    >>> describe_health({"teacher_entropy": 6.241, "student_entropy": 7.0, "kl": 0.333, "rank": 41.23, "spread": 0.52})
    ', entropy 6.24, kl 0.33, rank 41.2, spread 0.52'
    >>> describe_health({"loss": 2.0})
    ''
    """
    shown = (("teacher_entropy", "entropy", 2), ("kl", "kl", 2), ("rank", "rank", 1), ("spread", "spread", 2))
    return "".join(f", {title} {values[name]:.{places}f}" for name, title, places in shown if name in values)


def _duration(seconds: float) -> str:
    """A length of time, as precise as anyone would ask.

    >>> [_duration(seconds) for seconds in (0.4, 59, 100, 5399, 7200)]
    ['0 s', '59 s', '2 min', '90 min', '2.0 h']
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.0f} min"
