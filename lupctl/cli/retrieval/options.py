"""Options of `lupctl eval`, some of them also of other commands."""

from typing import Annotated

import typer

from lupctl.cli.complete import complete_published, complete_run
from lupctl.core.choices import (
    SHOT_DRAWS,
    SHOT_SEED,
    CameraUse,
    NeighbourSearch,
    Protocol,
    RerankBase,
    SameCamera,
    TestedPersons,
)
from lupctl.core.errors import UsageError

TargetsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RUN|FEATURES]...",
        help="A run's name or folder, or features files of one network [default: the newest fine-tuning run].",
        show_default=False,
        autocompletion=complete_run,
    ),
]
PublishedOption = Annotated[
    str | None,
    typer.Option(
        "--published",
        metavar="NAME",
        help="The published network that this one is, to print its published scores beside ours: lupctl model list.",
        show_default=False,
        autocompletion=complete_published,
    ),
]
ExplainOption = Annotated[
    bool,
    typer.Option(
        "--explain",
        help="Evaluate again with each known cause of other scores changed, and name the one that closes the gap.",
    ),
]
RerankOption = Annotated[bool, typer.Option("--rerank", help="Score again after k-reciprocal re-ranking.")]
K1Option = Annotated[
    int | None, typer.Option("--k1", min=1, help="Neighbourhood of re-ranking [default: 20].", show_default=False)
]
K2Option = Annotated[
    int | None, typer.Option("--k2", min=1, help="Neighbours it averages over [default: 6].", show_default=False)
]
LambdaOption = Annotated[
    float | None,
    typer.Option("--lambda", min=0, max=1, help="Share of the original distance [default: 0.3].", show_default=False),
]
BaseOption = Annotated[
    RerankBase | None,
    typer.Option(
        "--rerank-base",
        help="Distance it starts from: d2 as published; d4, or (1 - cos)^2, as in LUPerson's tables [default: d2].",
        show_default=False,
    ),
]
NeighboursOption = Annotated[
    NeighbourSearch | None,
    typer.Option(
        "--neighbours",
        help="How they are found: exact, our own search, or faiss [default: faiss on GPUs that it sees, else exact].",
        show_default=False,
    ),
]
SameCameraOption = Annotated[
    SameCamera | None,
    typer.Option(
        "--same-camera",
        help="Matches from the query's own camera: drop ignores them, as Market-1501 does; keep counts them as right.",
        show_default=False,
    ),
]
CamerasOption = Annotated[
    CameraUse | None,
    typer.Option(
        "--cameras",
        help="For a network trained with cameras: mean gives images from other cameras the row it learned for unknown "
        "ones, else the mean of all rows; known refuses them; none leaves cameras out [default: mean].",
        show_default=False,
    ),
]
SweepOption = Annotated[
    str | None,
    typer.Option(
        "--sweep",
        metavar="KEY=VALUES",
        help="Score one network at several values of what --set sets, as semantic_weight=0:1:0.1 (start:stop:step), "
        "size=256x128,384x128: one table and one curve, with paired intervals against the network's own value. Takes "
        "[RUN|CHECKPOINT] [DATASET|PACK].",
        show_default=False,
    ),
]
ProtocolOption = Annotated[
    Protocol | None,
    typer.Option(
        "--protocol",
        help="market1501 (also CUHK03-NP, MSMT17, DukeMTMC); same-camera-allowed for one-camera data; single-shot, one "
        "drawn gallery image per person (classic CUHK03, VIPeR); multi-query, a person's images of one camera as one "
        "[default: as the split of the data says, else market1501].",
        show_default=False,
    ),
]
DrawsOption = Annotated[
    int | None,
    typer.Option("--draws", min=1, help=f"Gallery draws of single-shot [default: {SHOT_DRAWS}].", show_default=False),
]
SeedOption = Annotated[
    int | None, typer.Option("--seed", min=0, help=f"Seed of these draws [default: {SHOT_SEED}].", show_default=False)
]
PersonsOption = Annotated[
    str | None,
    typer.Option(
        "--persons",
        metavar="half|N",
        help="Persons tested in each draw of single-shot, drawn too: VIPeR half, classic CUHK03 100 [default: all].",
        show_default=False,
    ),
]
AqeOption = Annotated[
    int,
    typer.Option("--aqe", min=0, help="Average query expansion: a query becomes the mean of N nearest images."),
]
DbaOption = Annotated[
    int, typer.Option("--dba", min=0, help="Database-side augmentation: the same for each gallery image.")
]
AlphaOption = Annotated[
    float | None,
    typer.Option("--alpha", min=0, help="Power of the cosine that weights them [default: 3].", show_default=False),
]
ImagesOption = Annotated[
    str | None,
    typer.Option(
        "--images",
        metavar="PACK|FOLDER",
        help="Where the page takes its images from [default: the dataset's pack].",
        show_default=False,
    ),
]
PageOption = Annotated[bool, typer.Option("--page/--no-page", help="Write report.html next to report.json.")]
AttentionOption = Annotated[
    bool,
    typer.Option("--attention", help="Show where a vision transformer's class token looks in each image of the page."),
]
CompareOption = Annotated[
    bool,
    typer.Option("--compare", help="Two or more runs side by side, and which differences are more than luck."),
]
AllOption = Annotated[
    bool,
    typer.Option(
        "--all", help="Runs on every test set of the workspace: one table, a row per run, a column per dataset."
    ),
]
MinMapOption = Annotated[
    float | None,
    typer.Option(
        "--min-map", min=0, max=1, help="Exit with 4 when mAP without re-ranking is lower.", show_default=False
    ),
]
MinRank1Option = Annotated[
    float | None,
    typer.Option(
        "--min-rank1", min=0, max=1, help="Exit with 4 when rank-1 without re-ranking is lower.", show_default=False
    ),
]
DEFAULT_THRESHOLD = "eer"
MOST_DIGITS = 9
ThresholdOption = Annotated[
    str,
    typer.Option(
        "--threshold",
        metavar="eer|RATE",
        help="Decision threshold: eer makes both error rates equal; 0.001 allows one false match in a thousand.",
    ),
]


def parse_persons(text: str | None) -> TestedPersons | int:
    """The number of persons that `--persons` has each draw test.

    Raises:
        UsageError: neither `half` nor a number.
    """
    if text is None:
        return "all"
    if text == "half":
        return "half"
    if not text.isascii() or not text.isdigit() or len(text) > MOST_DIGITS or int(text) == 0:
        raise UsageError(f"--persons {text}: half, or a number of persons, was expected", hint="--persons half")
    return int(text)


def parse_threshold(text: str) -> float | None:
    """The false positive rate that `--threshold` names; None for equal error rates.

    Raises:
        UsageError: neither `eer` nor a rate.
    """
    if text == DEFAULT_THRESHOLD:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < 1:
        raise UsageError(
            f"--threshold {text}: eer, or a false match rate between 0 and 1, was expected", hint="--threshold 0.001"
        )
    return rate
