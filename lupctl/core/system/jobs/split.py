"""How many devices can share a batch and its batch-norm groups."""

import math

from lupctl.core.errors import UsageError


def check_split(batch: int, groups: int, processes: int, *, parts: int = 1, spanning: bool = False) -> None:
    """Refuses devices that cannot share a batch and its batch-norm groups evenly.

    Args:
        batch: images per step over all devices.
        groups: batch-norm groups of that batch.
        processes: devices.
        parts: of a device's share, worked through one after the other.
        spanning: whether a group may be that of several devices.

    Raises:
        UsageError: the number of processes does not divide the batch, or the groups.
    """

    def fits(number: int) -> bool:
        return groups % number == 0 or (spanning and number % groups == 0)

    fitting = [str(number) for number in range(1, batch + 1) if batch % number == 0 and fits(number)]
    fewer = f"devices or processes that fit this recipe: {', '.join(fitting)}"
    if batch % processes:
        raise UsageError(
            f"a batch of {batch} does not divide among {processes} devices",
            hint=f"{fewer}; another batch is another recipe: --batch {-(-batch // processes) * processes}",
        )
    if not fits(processes):
        raise UsageError(
            f"bn_groups = {groups} does not divide among {processes} devices; every device needs whole groups"
            + (", or a whole part of one" if spanning else ""),
            hint=f"{fewer}; other groups are another recipe: --set bn_groups={processes}",
        )
    held = max(groups // processes, 1)
    if held % parts:
        raise UsageError(
            f"bn_groups = {groups} does not divide among {processes} devices with {parts} parts each",
            hint=f"--set optim.accumulate={math.gcd(held, parts)}, or other groups: "
            f"--set bn_groups={processes * parts}",
        )
