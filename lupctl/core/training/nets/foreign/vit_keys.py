"""The keys of published vision transformers beside ours, and the comparison of their tensors by the published ones.

| published | ours |
|---|---|
| all of a plain trunk, after a prefix | the same after `backbone.` |
| PASS: `part_token1` … | `backbone.part_tokens`, joined |
| PASS: `cls_pos`, `part1_pos` …, `pos_embed` | `backbone.pos_embed`, joined |
| `bottleneck.*`, `classifier.weight` | `head.neck.*`, `head.classifier.weight` |
| JPM: `b1.*`, `b2.*` | `head.b1.*`, `head.b2.*` |
| JPM, PASS: `bottleneck.*`, `bottleneck_1.*` … | `head.necks.0.*`, `head.necks.1.*` … |
| JPM: `classifier.weight`, `classifier_1.weight` … | `head.classifiers.0.weight`, `head.classifiers.1.weight` … |
"""

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.training.nets.foreign.fitting import COUNTER, Difference, Recognised
from lupctl.core.training.nets.meta import build_empty

NUMBERED: Final = {"necks": "bottleneck", "classifiers": "classifier"}
ONE: Final = {"neck": "bottleneck", "classifier": "classifier"}
HEAD_KEY: Final = re.compile(r"(?P<part>necks|classifiers)\.(?P<number>\d+)\.(?P<rest>.+)")
Shape = tuple[int, ...]


def published_keys(key: str, *, parts: int, prefix: str, outer: str) -> tuple[str, ...]:
    """The published keys of one of our tensors; several, where it joins several along the axis of tokens.

    Args:
        key: ours.
        parts: number of part tokens.
        prefix: of the published trunk's keys.
        outer: of the published head's keys.

    >>> published_keys("backbone.pos_embed", parts=1, prefix="base.", outer="")
    ('base.cls_pos', 'base.part1_pos', 'base.pos_embed')
    >>> published_keys("head.necks.2.weight", parts=0, prefix="base.", outer="module.")
    ('module.bottleneck_2.weight',)
    """
    room, _, name = key.partition(".")
    numbers = range(1, parts + 1)
    if room == "backbone":
        if parts and name == "part_tokens":
            return tuple(f"{prefix}part_token{number}" for number in numbers)
        if parts and name == "pos_embed":
            own = ("cls_pos", *(f"part{number}_pos" for number in numbers), "pos_embed")
            return tuple(f"{prefix}{one}" for one in own)
        return (f"{prefix}{name}",)
    if numbered := HEAD_KEY.fullmatch(name):
        end = "" if numbered["number"] == "0" else f"_{numbered['number']}"
        return (f"{outer}{NUMBERED[numbered['part']]}{end}.{numbered['rest']}",)
    part, _, rest = name.partition(".")
    return (f"{outer}{ONE.get(part, part)}.{rest}",)


def split_shape(shape: Shape, count: int) -> list[Shape]:
    """Shapes of tensors that are joined along axis 1: all but the last have one row.

    >>> split_shape((1, 132, 384), 3)
    [(1, 1, 384), (1, 1, 384), (1, 130, 384)]
    """
    if count == 1:
        return [shape]
    return [(shape[0], 1, *shape[2:])] * (count - 1) + [(shape[0], shape[1] - count + 1, *shape[2:])]


def fit_vit(plan: NetworkPlan, own: Mapping[str, Tensor], *, parts: int, prefix: str, outer: str) -> Recognised:
    """Compares the tensors of a file with those of a network by the published keys; absent counters become 0.

    Args:
        plan: the network.
        own: tensors by the keys of the file, without those that have no use.
        parts, prefix, outer: see `published_keys`.
    """
    tensors: dict[str, Tensor] = {}
    differences, missing, used = list[Difference](), list[str](), set[str]()
    for key, value in build_empty(plan).state_dict().items():
        names = published_keys(key, parts=parts, prefix=prefix, outer=outer)
        shapes = split_shape(tuple(value.shape), len(names))
        used |= set(names)
        if key.endswith(COUNTER) and names[0] not in own:
            missing.append(names[0])
            tensors[key] = torch.zeros((), dtype=torch.int64)
            continue
        compared = [Difference(name, shape_of(own.get(name)), shape) for name, shape in zip(names, shapes, strict=True)]
        unlike = [one for one in compared if one.found != one.expected]
        differences += unlike
        if not unlike:
            tensors[key] = own[names[0]] if len(names) == 1 else torch.cat([own[name] for name in names], dim=1)
    differences += [Difference(key, tuple(value.shape), None) for key, value in own.items() if key not in used]
    return Recognised(plan, tensors, len(own), (), tuple(missing), differences=tuple(differences))


def shape_of(tensor: Tensor | None) -> Shape | None:
    """The shape of a tensor, if there is one."""
    return None if tensor is None else tuple(tensor.shape)
