"""Sections that only a pre-training recipe has."""

from typing import Annotated

from pydantic import Field

from lupctl.core.recipes.sections import Net, Optim, Positive, Section


class PretrainNet(Net):
    """The trunk, and how pre-training runs it; the last two change memory and speed, the result only by rounding.

    Args:
        compile: lets torch.compile translate both encoders; the first steps then take minutes.
        checkpoint_activations: keeps the outputs of residual blocks alone and computes the rest again in the backward
            pass, a third more work for a fraction of the memory.
    """

    compile: bool = False
    checkpoint_activations: bool = False


class PretrainData(Section):
    """Images for pre-training.

    Args:
        packs: names in the workspace or paths; empty takes the workspace's unlabelled pack.
        batch: images per step over all devices.
    """

    packs: tuple[str, ...] = ()
    batch: Annotated[int, Field(ge=2)] = 2560


class MocoSettings(Section):
    """Momentum contrast.

    Args:
        dim: of the contrastive space.
        queue: negatives kept.
        momentum: of the key encoder.
        temperature: of the loss. LUPerson's released script says 0.1; 0.07 is told second-hand of the paper.
    """

    dim: Positive = 128
    queue: Positive = 65536
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    temperature: Annotated[float, Field(gt=0)] = 0.1


class PretrainOptim(Optim):
    """The optimizer of pre-training.

    Args:
        accumulate: equal parts that a GPU works through one after the other before it updates; `data.batch` stays
            the whole batch, so the update is the same and the memory of activations falls. Divides `bn_groups`. A CPU
            takes one batch-norm group at a time in any case.
    """

    accumulate: Positive = 1


class Probe(Section):
    """A look at the backbone's features while it trains; changes nothing in the training.

    Args:
        pack: labelled pack with queries and gallery, by name in the workspace or path; empty looks at none.
        every_epochs: how often; the end of the run is always looked at.
    """

    pack: str = ""
    every_epochs: Positive = 10
