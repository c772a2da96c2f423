"""Which options of an evaluation go together, and the settings they give."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from lupctl.core.choices import CameraUse, NeighbourSearch, Protocol, RerankBase, SameCamera
from lupctl.core.errors import UsageError

if TYPE_CHECKING:
    from lupctl.core.ranking.reranking.rerank import RerankSettings
    from lupctl.core.ranking.retrieval.expansion import ExpansionSettings


def refuse_with_all(every: bool, others: Mapping[str, object]) -> None:
    """Refuses options for a single report when `--all` is given.

    Args:
        every: whether it is.
        others: the values of these options.

    Raises:
        UsageError: one of them is given.
    """
    for option, value in others.items():
        if every and value not in (None, False):
            raise UsageError(f"{option} has no meaning with --all", hint="lupctl eval --all RUN")


def refuse_cameras(cameras: CameraUse | None, *, compare: bool, every: bool) -> None:
    """Refuses a rule for cameras for several runs, of which some may take no cameras.

    Raises:
        UsageError: there is one, and `--compare` or `--all`.
    """
    if cameras is not None and (compare or every):
        raise UsageError(
            f"--cameras has no meaning with {'--compare' if compare else '--all'}, which takes features as they are",
            hint=f"make them first: lupctl dump RUN --cameras {cameras} --force",
        )


def rerank_settings(
    wanted: bool,
    *,
    k1: int | None,
    k2: int | None,
    weight: float | None,
    base: RerankBase | None,
    neighbours: NeighbourSearch | None,
) -> "RerankSettings | None":
    """The settings that `--rerank` and its options give.

    Raises:
        UsageError: one of them without `--rerank`.
    """
    given = {"--k1": k1, "--k2": k2, "--lambda": weight, "--rerank-base": base, "--neighbours": neighbours}
    if not wanted:
        named = [option for option, value in given.items() if value is not None]
        if named:
            raise UsageError(f"{named[0]} has no meaning without --rerank", hint="add --rerank")
        return None
    from lupctl.core.ranking.reranking.rerank import RerankSettings

    default = RerankSettings()
    return RerankSettings(
        k1=default.k1 if k1 is None else k1,
        k2=default.k2 if k2 is None else k2,
        weight=default.weight if weight is None else weight,
        base=default.base if base is None else base,
        neighbours=neighbours,
    )


def expansion_settings(aqe: int, dba: int, alpha: float | None) -> "ExpansionSettings | None":
    """The settings that `--aqe` and `--dba` give.

    Raises:
        UsageError: `--alpha` without one of them.
    """
    if not (aqe or dba):
        if alpha is not None:
            raise UsageError("--alpha has no meaning without --aqe or --dba", hint="add --aqe 5")
        return None
    from lupctl.core.ranking.retrieval.expansion import ExpansionSettings

    if alpha is None:
        return ExpansionSettings(queries=aqe, gallery=dba)
    return ExpansionSettings(queries=aqe, gallery=dba, alpha=alpha)


def pick_protocol(
    protocol: Protocol | None,
    same_camera: SameCamera | None,
    *,
    draws: int | None,
    seed: int | None,
    persons: str | None,
) -> Protocol | None:
    """The protocol that the options agree on; `--same-camera keep` is another name for `same-camera-allowed`.

    None if no option names one: the data decides.

    Raises:
        UsageError: they contradict each other.
    """
    given = [
        option for option, value in (("--draws", draws), ("--seed", seed), ("--persons", persons)) if value is not None
    ]
    if protocol != "single-shot" and given:
        named = protocol or "market1501"
        raise UsageError(f"{given[0]} has no meaning with --protocol {named}", hint="--protocol single-shot")
    if same_camera is None:
        return protocol
    if protocol in (None, "market1501"):
        return "same-camera-allowed" if same_camera == "keep" else "market1501"
    if (same_camera == "keep") != (protocol == "same-camera-allowed"):
        raise UsageError(
            f"--same-camera {same_camera} contradicts --protocol {protocol}", hint="leave --same-camera out"
        )
    return protocol
