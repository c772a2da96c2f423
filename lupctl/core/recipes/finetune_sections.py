"""Sections that only a fine-tuning recipe has."""

import re
from typing import Annotated, Literal, get_args

from pydantic import Field, field_validator

from lupctl.core.choices import NeckFeature, PersonOrder, ReidHead, SameCamera, SubsetKind, TripletMining
from lupctl.core.recipes.sections import MisfitError, Net, Positive, Section

SUBSET_KINDS: tuple[SubsetKind, ...] = get_args(SubsetKind)
RATIO = re.compile(r"0?\.\d+|[01](?:\.\d+)?")


class FinetuneNet(Net):
    """The trunk and its head.

    Args:
        head: bnneck (bag of tricks), mgn (three branches, eight heads, their own pooling), jpm (TransReID's jigsaw
            patch module) or fc (torchreid's layer of 512 features, of OSNets).
        feature: of bnneck and jpm: the retrieval feature is the one after the neck, or the one before it.
        ibn: the trunk has IBN-a.
        embedding: features of each head of mgn.
        extra_bn: mgn's batch norm on each branch's map, used in the networks that start from LUPerson.
    """

    head: ReidHead = "bnneck"
    feature: NeckFeature = "after"
    ibn: bool = False
    embedding: Positive = 256
    extra_bn: bool = False


class FinetuneData(Section):
    """Images for fine-tuning.

    Args:
        packs: names in the workspace or paths; with several, persons and cameras are kept apart, and the first one's
            queries are the run's own test set.
        persons: P persons per batch.
        images: K images of each; the batch over all devices is P x K.
        subset: ids:R (a share of the persons), images:R (every person keeps one), a split file, or empty for all.
        subset_seed: another seed picks another subset; separate from `seed`, so that runs can share a subset.
        repeat: passes over the subset per epoch, 1 or more, fractions allowed; full makes an epoch as long
            as on the whole set. (LUPerson's authors suggest 2 or 3 for tiny splits.)
        order: epochs starts a new pass over the persons in each epoch, stream continues from pass to pass as
            fast-reid does, cameras is its other sampler, which takes a person's images from different cameras; once is
            TransReID's, whose epoch ends with the pass: an image comes at most once in it, and lengths differ a little.
            shuffled takes P x K images of whomever, for a loss of classes alone: losses.triplet = 0.
    """

    packs: tuple[str, ...] = ()
    persons: Annotated[int, Field(ge=2)] = 16
    images: Annotated[int, Field(ge=2)] = 4
    subset: str = ""
    subset_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    repeat: float | Literal["full"] = 1.0
    order: PersonOrder = "epochs"

    @field_validator("repeat", mode="before")
    @classmethod
    def _check_repeat(cls, repeat: object) -> object:
        if repeat == "full" or (type(repeat) in (int, float) and 1 <= repeat <= 10_000):  # type: ignore[operator]
            return repeat
        raise ValueError("a number from 1 to 10,000, or full, is expected")

    @field_validator("subset")
    @classmethod
    def _check_subset(cls, subset: str) -> str:
        kind, colon, ratio = subset.partition(":")
        if colon and kind in SUBSET_KINDS and not (RATIO.fullmatch(ratio) and 0 < float(ratio) <= 1):
            raise ValueError(f"{kind}:R takes a share R above 0 and up to 1, as in {kind}:0.1")
        return subset


class Losses(Section):
    """An identity loss and a triplet loss; mgn takes the mean of each over its heads and features.

    Args:
        smoothing: of the labels of the identity loss.
        margin: of the hard triplet loss; 0 is the soft margin.
        mining: hard takes the hardest candidates, weighted weights all of them (AGW) and has no margin.
        identity, triplet: weights.
        circle_scale, circle_margin: of mgn's circle logits.
    """

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    margin: Annotated[float, Field(ge=0)] = 0.3
    mining: TripletMining = "hard"
    identity: Annotated[float, Field(ge=0)] = 1.0
    triplet: Annotated[float, Field(ge=0)] = 1.0
    circle_scale: Annotated[float, Field(gt=0)] = 64.0
    circle_margin: Annotated[float, Field(ge=0, le=1)] = 0.35


class Evaluation(Section):
    """Evaluation during fine-tuning.

    Args:
        every_epochs: 0 evaluates at the end only.
        same_camera: matches from the query's own camera: drop ignores them, keep counts them as right; a pack whose
            split found nobody on two cameras is always scored with keep.
    """

    every_epochs: Annotated[int, Field(ge=0)] = 0
    same_camera: SameCamera = "drop"


def check_order(data: FinetuneData, losses: Losses | None) -> None:
    """Refuses batches in which most persons have one image where images of a person are compared.

    Args:
        data: its order.
        losses: None on clusters.

    Raises:
        MisfitError: they are.
    """
    if data.order == "shuffled" and (losses is None or losses.triplet):
        why = "clusters" if losses is None else f"losses.triplet = {losses.triplet:g}"
        raise MisfitError(
            f"data.order = 'shuffled' has few persons twice in a batch, which {why} cannot do without",
            hint="--set data.order=epochs" + ("" if losses is None else ", or --set losses.triplet=0"),
        )
