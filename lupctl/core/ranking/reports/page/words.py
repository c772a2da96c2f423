"""A run, and the use of cameras, in words, as a page says them."""

from lupctl.core.formats.features.cameras import CameraCounts
from lupctl.core.ranking.reports.model.single import ReportCameraUse
from lupctl.core.ranking.reports.model.training import ReportTraining
from lupctl.core.system.examples import count_things

TRAINED = {"finetune": "Fine-tuned", "pretrain": "Pre-trained"}


def describe_training(training: ReportTraining) -> str:
    """Network, image size, data, start, epochs, duration and device, as far as they are known."""
    network = f"{training.network}; images of {training.height} x {training.width} pixels (height x width)."
    if training.stage == "convert":
        return f"Converted from another program's file: {network}"
    words = [TRAINED[training.stage]]
    if training.method is not None:
        words.append(f"by {training.method}")
    words.append(f"on {' and '.join(training.datasets) or 'unknown data'}{_amount(training)}")
    if training.start is not None:
        words.append(f"from {training.start}")
    if training.epochs is not None:
        words.append(f"for {count_things(training.epochs, 'epoch')}")
    if training.batch is not None:
        words.append(f"in batches of {training.batch:,}")
    return f"{' '.join(words)}: {network}{_effort(training)}"


def describe_use(use: ReportCameraUse) -> str:
    """The rule for cameras, and how many images it gave which row.

    >>> describe_use(ReportCameraUse(rule="known", own_row=647, unknown_row=0, mean_row=0, no_term=0))
    'known (647 images by the row of their own camera)'
    """
    return str(CameraCounts(**use.model_dump()))


def duration(seconds: int) -> str:
    """A duration in the unit that suits it.

    >>> duration(48), duration(300), duration(9000)
    ('48 s', '5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _amount(training: ReportTraining) -> str:
    if training.images is None:
        return ""
    persons = "" if training.persons is None else f" of {count_things(training.persons, 'person')}"
    return f" ({count_things(training.images, 'image')}{persons})"


def _effort(training: ReportTraining) -> str:
    steps = "" if training.steps is None else count_things(training.steps, "step")
    took = "" if training.seconds is None else f"in {duration(training.seconds)}, without scoring and saving"
    where = "" if training.device is None else f"on {'the CPU' if training.device == 'cpu' else training.device}"
    words = " ".join(word for word in (steps, where, took) if word)
    return f" {words[0].upper()}{words[1:]}." if words else ""
