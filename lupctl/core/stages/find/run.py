"""Search for one person among the tracklets of videos, or among images."""

import functools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import get_args

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.features.file import Features, read_features
from lupctl.core.formats.images.files import read_encoded
from lupctl.core.formats.pack.crops import CropColumns, read_crops
from lupctl.core.formats.pack.shards import HINT
from lupctl.core.ranking.reports.build.images import open_images
from lupctl.core.ranking.reports.model.find import FindResult, FindTracklet, FindVideo, Verdict, judge, thousandths
from lupctl.core.ranking.reports.page.find import Crop, render_find
from lupctl.core.ranking.reports.page.images import embed_picture
from lupctl.core.ranking.retrieval.inputs import SHOWN, network_of
from lupctl.core.ranking.retrieval.score import check_directions
from lupctl.core.ranking.retrieval.tracklets import (
    Tracklet,
    group_tracklets,
    sampled_step,
    seen_spans,
    similarities,
    split_rows,
    spread_rows,
    tracklet_similarity,
    video_of,
)
from lupctl.core.stages.find.job import FindJob, Person, check_find, check_links, encode_person
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.progress.lines import Progress

MOST_CROPS = 8  # of a tracklet: more would make the page of a long video heavy without showing more
MOST_LISTED = 200  # of all videos, unless --top asks for more: a page of some megabytes
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)


@dataclass(frozen=True)
class _Footage:
    """Everything that is searched: N images, where they were cut, how like the person each is, which are queries."""

    features: Features
    crops: CropColumns | None
    cosine: NDArray[np.float32]
    is_query: NDArray[np.bool_]


def find(job: FindJob, device: torch.device, progress: Progress) -> FindResult:
    """Compare the person with every tracklet of the footage, and write the page if one is requested.

    Raises:
        DataError: a picture or the footage is missing or damaged, or its features are of another network.
        UsageError: the page exists, or times are asked for that are not known.
    """
    check_find(job)
    features = None if job.features is None else read_features(job.features)
    person = encode_person(job, {} if features is None else features.record, device=device, progress=progress)
    found: list[tuple[Tracklet, float]] = []
    footage = None
    if features is not None:
        footage = _open_footage(job, features, person, device)
        kept = _pick_times(job, footage)
        if itself := int((kept & footage.is_query).sum()):
            progress.say(f"left out, because the pictures of the person are among the images themselves: {itself:,}")
        kept &= ~footage.is_query
        link = None if job.link is False else functools.partial(_rate_for_links, job)
        tracklets = group_tracklets(
            features.samples, footage.crops, kept=kept, link=link, numbered_too=job.link is True and not job.videos
        )
        found = [(tracklet, tracklet_similarity(footage.cosine, tracklet)) for tracklet in tracklets]
    shown = _pick_best(found, job.top)
    result = _describe(job, person, footage, found, shown)
    if job.page is not None:
        strips = [] if footage is None else _cut_strips(job, footage, shown, progress)
        queries = [embed_picture(read_encoded(query)) for query in job.queries]
        write_text(job.page, render_find(result, queries, strips))
    return result


def _open_footage(job: FindJob, features: Features, person: Person, device: torch.device) -> _Footage:
    made_by = network_of(features.record)
    if made_by != person.fingerprint:
        raise DataError(
            f"{job.features}: made by checkpoint {(made_by or 'unknown')[:SHOWN]}, but {job.checkpoint} is "
            f"{person.fingerprint[:SHOWN]}; similarities between features of two networks mean nothing",
            hint=f"remove it, and type the same command again: rm {job.features}",
        )
    check_directions(features.features, features.samples, device=device)
    crops = None
    if job.is_pack and job.images is not None:
        crops = read_crops(job.images, hint=HINT)
    return _Footage(features, crops, *similarities(person.units, features.features, device=device))


def _rate_for_links(job: FindJob, video: str) -> float:
    check_links(job.source)
    return job.clocks.of(video).rate


def _pick_times(job: FindJob, footage: _Footage) -> NDArray[np.bool_]:
    """(N) which images are from the times that were asked for.

    Raises:
        UsageError: the images have no times.
    """
    kept = np.ones(len(footage.features), bool)
    if job.after_s is None and job.before_s is None:
        return kept
    if footage.crops is None:
        raise UsageError(
            f"{job.source}: its images are from no video, so they have no times", hint="leave out --after and --before"
        )
    crops, names = footage.crops, footage.features.samples.name
    for rows in split_rows(np.arange(len(kept)), crops.video):
        clock = job.clocks.of(video_of(names[int(rows[0])]))
        if not clock.rate:
            raise UsageError(
                f"{job.source}: its frames per second are unknown, so --after and --before mean nothing",
                hint="add --fps 25",
            )
        times = (crops.frame[rows] - clock.first) / clock.rate
        kept[rows] &= times >= (job.after_s or 0.0)
        if job.before_s is not None:
            kept[rows] &= times < job.before_s
    return kept


def _pick_best(found: Sequence[tuple[Tracklet, float]], top: int) -> list[tuple[Tracklet, float]]:
    """The most similar ones of each video, videos in order; of many videos, those that are most similar of all.

    Equally similar ones keep their order.
    """
    by_video: dict[str, list[tuple[Tracklet, float]]] = {}
    for one in found:
        by_video.setdefault(one[0].video, []).append(one)
    best = [one for some in by_video.values() for one in sorted(some, key=lambda one: -one[1])[:top]]
    most = max(top, MOST_LISTED)
    if len(best) <= most:
        return best
    kept = sorted(sorted(range(len(best)), key=lambda at: -best[at][1])[:most])
    return [best[at] for at in kept]


def _describe(
    job: FindJob,
    person: Person,
    footage: _Footage | None,
    found: Sequence[tuple[Tracklet, float]],
    shown: Sequence[tuple[Tracklet, float]],
) -> FindResult:
    own: dict[str, list[tuple[Tracklet, float]]] = {name: [] for name in job.videos}
    for one in found:
        own.setdefault(one[0].video, []).append(one)
    videos = [_describe_video(job, name, some) for name, some in own.items()]
    total = None
    if job.limits is not None:
        total = {verdict: sum((video.verdicts or {}).get(verdict, 0) for video in videos) for verdict in VERDICTS}
    parents: Mapping[str, str] = {} if footage is None else footage.features.record.get("parents") or {}
    return FindResult(
        version=version("lupctl"),
        command=list(job.command),
        queries=[str(query) for query in job.queries],
        source=job.source,
        checkpoint=str(job.checkpoint),
        network=person.network,
        fingerprints={**parents, "checkpoint": person.fingerprint},
        after_s=job.after_s,
        before_s=job.before_s,
        limits=job.limits,
        why_no_limits=job.why_no_limits,
        verdicts=total,
        videos=videos,
        tracklets=[] if footage is None else [_describe_tracklet(job, footage, *one) for one in shown],
        page=None if job.page is None else str(job.page),
    )


def _describe_video(job: FindJob, name: str, own: Sequence[tuple[Tracklet, float]]) -> FindVideo:
    clock = job.clocks.of(name)
    verdicts = None
    if job.limits is not None:
        counted = Counter(judge(similarity, job.limits) for _, similarity in own)
        verdicts = {verdict: counted[verdict] for verdict in VERDICTS}
    return FindVideo(
        name=name,
        images=sum(len(tracklet.rows) for tracklet, _ in own),
        tracklets=len(own),
        first_frame=clock.first,
        frames=clock.frames or None,
        rate=clock.rate or None,
        similarities=dict(sorted(Counter(thousandths(similarity) for _, similarity in own).items())),
        verdicts=verdicts,
    )


def _describe_tracklet(job: FindJob, footage: _Footage, tracklet: Tracklet, similarity: float) -> FindTracklet:
    rows = tracklet.rows
    best = int(rows[int(footage.cosine[rows].argmax())])
    spans: list[tuple[int, int]] = []
    times = None
    if tracklet.video and footage.crops is not None:
        clock = job.clocks.of(tracklet.video)
        number = footage.crops.video[rows[0]]
        step = sampled_step(footage.crops.frame[footage.crops.video == number])
        spans = seen_spans(footage.crops.frame[rows].tolist(), rate=clock.rate, step=step)
        if clock.rate:
            times = [tuple(round((frame - clock.first) / clock.rate, 3) for frame in span) for span in spans]
    return FindTracklet(
        video=tracklet.video,
        person=tracklet.person,
        images=len(rows),
        spans=spans,
        times_s=times,
        similarity=similarity,
        best=footage.features.samples.name[best],
        best_similarity=float(footage.cosine[best]),
        verdict=None if job.limits is None else judge(similarity, job.limits),
    )


def _cut_strips(
    job: FindJob, footage: _Footage, shown: Sequence[tuple[Tracklet, float]], progress: Progress
) -> list[list[Crop]]:
    """Crops of each tracklet, spread over its time, the most similar one always among them."""
    samples, crops = footage.features.samples, footage.crops
    read = open_images(job.images, footage.features.record, progress)
    strips = []
    for tracklet, _ in shown:
        best = int(tracklet.rows[int(footage.cosine[tracklet.rows].argmax())])
        rows = spread_rows(tracklet.rows, MOST_CROPS)
        if best not in rows:
            nearest = min(range(len(rows)), key=lambda at: abs(rows[at] - best))
            rows[nearest] = best
        strip = []
        for row in rows:
            encoded = read(samples.name[row])
            frame = int(crops.frame[row]) if crops is not None and tracklet.video else None
            clock = job.clocks.of(tracklet.video)
            strip.append(
                Crop(
                    name=samples.name[row],
                    picture=None if encoded is None else embed_picture(encoded),
                    similarity=float(footage.cosine[row]),
                    frame=frame,
                    time_s=None if frame is None else clock.time(frame),
                    is_best=row == best,
                )
            )
        strips.append(strip)
    return strips
