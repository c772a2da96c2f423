"""A site without labels: whether features are of one, and the report that they then get."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import ROLE_CODES
from lupctl.core.errors import UsageError

if TYPE_CHECKING:
    from lupctl.core.formats.pack.samples import Samples
    from lupctl.core.stages.evaluate import EvaluationJob
    from lupctl.core.stages.site import SiteJob


def find_site(samples: "Samples", packs: Sequence[Path | None]) -> Path | None:
    """The pack of images that have no queries and are cut from videos; None for any others.

    Args:
        samples: the images that have features, or will have.
        packs: what these were made from; None for one that is not here.
    """
    from lupctl.core.formats.pack.crops import read_crops
    from lupctl.core.formats.pack.shards import HINT

    pack = packs[0] if len(packs) == 1 else None
    if pack is None or bool((samples.role == ROLE_CODES["query"]).any()):
        return None
    is_pack = pack.is_file() or any(pack.glob("*.h5"))
    return pack if is_pack and read_crops(pack, hint=HINT) is not None else None


def take_site(job: "EvaluationJob", others: Mapping[str, object]) -> "SiteJob | None":
    """The report on a site that an evaluation amounts to, if its features are of one.

    Args:
        job: with its features and the packs that they were made from.
        others: values of options that the job does not keep.

    Raises:
        UsageError: an option has no meaning without queries.
    """
    from lupctl.core.formats.features.foreign import read_any_head
    from lupctl.core.stages.site import SiteJob

    if len(job.features) != 1:
        return None
    pack = find_site(read_any_head(job.features[0]).samples, [tested.path for tested in job.tested])
    if pack is None:
        return None
    refuse_with_site(job, pack, others)
    return SiteJob(
        features=job.features[0],
        pack=pack,
        out=job.out,
        wanted_fpr=job.wanted_fpr,
        trained_on=any(trained.path == pack for trained in job.lineage.trained),
        force=job.force,
        command=job.command,
    )


def refuse_with_site(job: "EvaluationJob", pack: Path, others: Mapping[str, object]) -> None:
    """Refuses what needs queries.

    Args:
        job: the evaluation as its options describe it.
        pack: without queries.
        others: values of options that it does not keep; None or False for one that is not given.

    Raises:
        UsageError: names the first such option.
    """
    given = {
        "--rerank": job.rerank,
        "--aqe or --dba": job.expansion,
        "--protocol or --same-camera": job.protocol,
        "--attention": job.attention,
        **others,
    }
    for option, value in given.items():
        if value is not None and value is not False:
            raise UsageError(
                f"{option} has no meaning without queries, and {pack} has none", hint=f"leave {option} out"
            )
