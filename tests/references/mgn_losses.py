"""The losses of MGN's heads as loops written from their definitions."""

import math

from torch import Tensor


def slow_circle(cosine: float, is_own: bool, scale: float, margin: float) -> float:
    if is_own:
        return scale * max(0.0, 1 + margin - cosine) * (cosine - (1 - margin))
    return scale * max(0.0, cosine + margin) * (cosine - margin)


def slow_smoothed(logits: list[float], own: int, smoothing: float) -> float:
    log_sum = math.log(sum(math.exp(value) for value in logits))
    loss = 0.0
    for place, value in enumerate(logits):
        weight = 1 - smoothing if place == own else smoothing / (len(logits) - 1)
        loss -= weight * (value - log_sum)
    return loss


def slow_head_loss(features: Tensor, weight: Tensor, label: Tensor) -> float:
    """Sum over the heads of 0.125 times the sum over the batch by the number of losses that are not 0."""
    total = 0.0
    for head in range(8):
        losses = []
        for row in range(len(label)):
            feature = features[row, head].tolist()
            logits = []
            for name in range(weight.shape[1]):
                other = weight[head, name].tolist()
                cosine = sum(a * b for a, b in zip(feature, other, strict=True))
                cosine /= math.hypot(*feature) * math.hypot(*other)
                logits.append(slow_circle(cosine, name == int(label[row]), 64, 0.35))
            losses.append(slow_smoothed(logits, int(label[row]), 0.1))
        total += 0.125 * sum(losses) / sum(loss != 0 for loss in losses)
    return total
