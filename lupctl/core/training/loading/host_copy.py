"""Results that travel from the device to the host while it computes on."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


class HostCopy:
    """A tensor being copied from the device to host memory; on a CPU it is there already.

    Args:
        tensor: anywhere.
    """

    def __init__(self, tensor: Tensor) -> None:
        self._event = None
        if tensor.device.type != "cuda":
            self._tensor = tensor.cpu()
            return
        # Queued now, before the next forward pass: a plain copy later would wait for that pass.
        self._tensor = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        self._tensor.copy_(tensor, non_blocking=True)
        self._event = torch.cuda.current_stream(tensor.device).record_event()

    def wait(self) -> NDArray[np.float32]:
        """The numbers, once they have arrived."""
        if self._event is not None:
            self._event.synchronize()
        numbers: NDArray[np.float32] = self._tensor.numpy()
        return numbers
