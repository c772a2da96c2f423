"""OSNets as torchreid publishes and saves them: plain ones and those with IBN, and AIN, which has names of its own.

| ours | plain, IBN | AIN |
|---|---|---|
| `backbone.conv2.0.streams.0.0.*` | `conv2.0.conv2a.*` | `conv2.0.conv2.0.layers.0.*` |
| `backbone.conv2.0.streams.3.2.*` | `conv2.0.conv2d.2.*` | `conv2.0.conv2.3.layers.2.*` |
| `backbone.pool2.*` | `conv2.2.0.*` | `pool2.0.*` |
| `backbone.*`, everything else | the same without `backbone.` | as plain |
| `head.fc.*` | `fc.*` | `fc.*` |

All of it after `module.` where a network was trained on several devices.
"""

import re
from collections.abc import Mapping
from typing import Final

from torch import Tensor

from lupctl.core.choices import OsnetArch
from lupctl.core.formats.weights.osnet_plan import OSNET_SIZES, OsnetKind, OsnetPlan
from lupctl.core.formats.weights.plan import FcHead, NetworkPlan
from lupctl.core.recipes.sections import IMAGENET_MEAN, IMAGENET_STD, Pixels
from lupctl.core.training.nets.foreign.fitting import COUNTER, Difference, Recognised, count_rows
from lupctl.core.training.nets.meta import build_empty

# Every kind has it, and nothing else does.
MARK: Final = "conv2.0.gate.fc1.weight"
PREFIXES: Final = ("module.", "")
BACKBONE: Final = "backbone."
STREAM: Final = re.compile(r"(conv\d\.\d)\.streams\.(\d)\.(\d)\.(.*)")
BETWEEN: Final = re.compile(r"pool(\d)\.(.*)")
CLASSIFIER: Final = ("classifier.weight", "classifier.bias")
# No data set of persons has as many in its training set as ImageNet has classes.
IMAGENET_CLASSES: Final = 1000
PIXELS: Final = Pixels(height=256, width=128, mean=IMAGENET_MEAN, std=IMAGENET_STD, interpolation="bilinear")


def find_osnet(state: Mapping[str, Tensor]) -> str | None:
    """The prefix of an OSNet's keys; None if there is none under a known one."""
    return next((prefix for prefix in PREFIXES if f"{prefix}{MARK}" in state), None)


def recognise_osnet(state: Mapping[str, Tensor], prefix: str) -> Recognised:
    """An OSNet with its layer `fc`; its classifier, of the persons it was trained on, is left out.

    Args:
        state: by the keys of the file.
        prefix: of all keys.
    """
    ignored = tuple(f"{prefix}{key}" for key in CLASSIFIER if f"{prefix}{key}" in state)
    rows = count_rows(state[ignored[0]]) if ignored and ignored[0].endswith("weight") else 0
    own = {key: value for key, value in state.items() if key not in ignored}
    arch = nearest_osnet(own, prefix)
    kind = OSNET_SIZES[arch].kind
    layer = own.get(f"{prefix}fc.0.weight")
    head = FcHead(kind="fc", classes=0, outputs=512 if layer is None else count_rows(layer))
    plan = NetworkPlan(trunk=OsnetPlan(kind="osnet", arch=arch), pooling="avg", head=head)
    tensors, differences, missing, used = dict[str, Tensor](), list[Difference](), list[str](), set[str]()
    for key, value in build_empty(plan).state_dict().items():
        name, shape = f"{prefix}{torchreid_key(key, kind)}", tuple(value.shape)
        found = own.get(name)
        used.add(name)
        if found is None and key.endswith(COUNTER):
            missing.append(name)
            tensors[key] = value.new_zeros((), device="cpu")
        elif found is None or tuple(found.shape) != shape:
            differences.append(Difference(name, None if found is None else tuple(found.shape), shape))
        else:
            tensors[key] = found
    differences += [Difference(key, tuple(value.shape), None) for key, value in own.items() if key not in used]
    return Recognised(
        plan,
        tensors,
        len(own),
        ignored,
        tuple(missing),
        differences=tuple(differences),
        prefix=prefix,
        pixels=PIXELS,
        notes=list_notes(rows),
        is_initial=rows == IMAGENET_CLASSES,
    )


def nearest_osnet(own: Mapping[str, Tensor], prefix: str) -> OsnetArch:
    """The architecture that keys and the width of the stem tell, or the one that comes closest."""
    kind: OsnetKind = "ibn" if f"{prefix}conv2.0.IN.weight" in own else "plain"
    if any(key.startswith((f"{prefix}pool2.", f"{prefix}conv2.0.conv2.0.layers.")) for key in own):
        kind = "ain"
    stem = own.get(f"{prefix}conv1.conv.weight")
    width = 64 if stem is None else count_rows(stem)
    alike = [arch for arch, size in OSNET_SIZES.items() if size.kind == kind]
    return min(alike, key=lambda arch: abs(OSNET_SIZES[arch].widths[0] - width))


def list_notes(rows: int) -> tuple[str, ...]:
    """What became of a classifier of so many rows; 0 for none."""
    if rows == IMAGENET_CLASSES:
        return ("classifier of 1,000 classes left out: ImageNet's number; this is a start, not a re-id model",)
    return (f"classifier of {rows:,} persons left out: features do not need it",) if rows else ()


def torchreid_key(key: str, kind: OsnetKind) -> str:
    """torchreid's key for one of our network's.

    >>> torchreid_key("backbone.conv2.0.streams.1.0.bn.bias", "plain"), torchreid_key("head.fc.1.bias", "plain")
    ('conv2.0.conv2b.0.bn.bias', 'fc.1.bias')
    >>> torchreid_key("backbone.conv3.1.streams.0.0.conv1.weight", "plain")
    'conv3.1.conv2a.conv1.weight'
    >>> torchreid_key("backbone.conv2.0.streams.1.0.bn.bias", "ain"), torchreid_key("backbone.pool3.bn.bias", "ain")
    ('conv2.0.conv2.1.layers.0.bn.bias', 'pool3.0.bn.bias')
    """
    if not key.startswith(BACKBONE):
        return key.removeprefix("head.")
    name = key.removeprefix(BACKBONE)
    stream, between = STREAM.fullmatch(name), BETWEEN.fullmatch(name)
    if between is not None:
        return f"pool{between[1]}.0.{between[2]}" if kind == "ain" else f"conv{between[1]}.2.0.{between[2]}"
    if stream is None:
        return name
    block, number, layer, rest = stream.groups()
    if kind == "ain":
        return f"{block}.conv2.{number}.layers.{layer}.{rest}"
    # A stream of one convolution has no number for it.
    return f"{block}.conv2{'abcd'[int(number)]}.{'' if number == '0' else f'{layer}.'}{rest}"
