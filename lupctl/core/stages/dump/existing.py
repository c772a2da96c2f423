"""Whether features that are there are those that a dump would compute."""

from dataclasses import dataclass

import torch

from lupctl.core.formats.features.cameras import DEFAULT_USE, read_counts, same_result
from lupctl.core.formats.features.file import read_features_head
from lupctl.core.formats.features.precision import read_precisions
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.settings import SETTINGS_KEY
from lupctl.core.stages.dump.job import DumpJob, count_images
from lupctl.core.stages.dump.work import COMPILED_KEY, POOLING_KEY
from lupctl.core.system.jobs.precision import name_precision, pick_precision


@dataclass(frozen=True)
class Fault:
    """Why some features are not those that a dump would compute.

    Args:
        text: in words.
        is_chosen: whether somebody asked for features like that, and may need them.
    """

    text: str
    is_chosen: bool


def find_fault(job: DumpJob, checkpoint: str, device: torch.device) -> Fault | None:
    """Why the features that are at a dump's path are not those it would compute; None if they are.

    Args:
        job: of a pack, without options but a rule for cameras and settings.
        checkpoint: fingerprint of its network.
        device: where it would compute, which decides the precision.

    Raises:
        FormatError: there is something else in their place, or they are damaged.
    """
    head, pack = read_features_head(job.out), open_pack(job.data)
    record = head.record
    parents = {"checkpoint": checkpoint, f"pack:{pack.dataset}": pack.fingerprint}
    if record["parents"] != parents:
        return Fault("of an older network, or of other images", is_chosen=False)
    found, here = " and ".join(read_precisions(record)), name_precision(pick_precision(job.precision, device))
    if found != here:
        return Fault(f"computed in {found or 'nobody knows what'}, here in {here}", is_chosen=False)
    if record.get(SETTINGS_KEY, {}) != job.settings.to_json():
        return Fault("with something else set of the network", is_chosen=True)
    counts = read_counts(record)
    is_rounded = COMPILED_KEY in record or "onnx" in (record.get("network") or {}).values()
    is_plain = not (record.get("flip") or is_rounded) and head.type_name == job.kind and POOLING_KEY not in record
    same_rule = counts is None or same_result(counts, job.cameras or DEFAULT_USE)
    if not (is_plain and same_rule and head.shape[0] == count_images(job)):
        return Fault("made with options of lupctl dump", is_chosen=True)
    return None
