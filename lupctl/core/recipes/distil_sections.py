"""The section of fine-tuning that also learns from a teacher."""

from typing import Annotated

from pydantic import Field

from lupctl.core.recipes.sections import Section


class DistilSettings(Section):
    """A network that has been trained, whose similarities of the images of a batch are learned besides the labels.

    Args:
        teacher: a run, a checkpoint file, or published weights that are here.
        weight: of that loss beside those of the labels; 25 is what its paper has beside a loss of classes.
    """

    teacher: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(gt=0)] = 25.0
