"""Watching the outputs and the features of a run."""

from collections.abc import Mapping

from torch import Tensor

from lupctl.core.training.methods.watching import SAMPLES, read_samples


class Watch:
    """The tensors that the last watched step left, until a row of the metrics is written.

    Args:
        outputs: K of the method's targets; None for a method without any.
    """

    def __init__(self, outputs: int | None) -> None:
        self._outputs = outputs
        self._samples: dict[str, Tensor] = {}

    def keep(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scalars of what `learn` returned; keeps the rest of it."""
        samples = {name: value for name, value in found.items() if name in SAMPLES}
        self._samples = samples or self._samples
        return {name: value for name, value in found.items() if name not in SAMPLES}

    def read(self) -> dict[str, float]:
        """What a row says of the last watched step after the row before, empty without one; all processes call it."""
        samples, self._samples = self._samples, {}
        return read_samples(samples, outputs=self._outputs)
