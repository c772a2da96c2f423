"""The tracklets most like a person as one HTML page: a timeline for each video, strips of crops, and a slider."""

import json
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from lupctl.core.ranking.reports.model.find import FindResult, FindTracklet, FindVideo, thousandths
from lupctl.core.ranking.reports.page.single import render

# Distances between the marks of a time axis, in seconds; and of an axis of frames, which are multiples of powers of 10.
TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600, 43200, 86400)
MOST_MARKS = 6
MOST_SPANS = 4  # in one line; the timeline has all of them
MOST_LINKS = 5
LEAST_WIDTH = 0.6  # of a bar, in percent of the axis: a moment has to be seen as well


@dataclass(frozen=True)
class Crop:
    """One crop of a strip.

    Args:
        name: of the image.
        picture: a data URI; None if the image is not available.
        similarity: to the person.
        frame, time_s: when; None if unknown.
        is_best: the most similar one of the tracklet.
    """

    name: str
    picture: str | None
    similarity: float
    frame: int | None
    time_s: float | None
    is_best: bool


@dataclass(frozen=True)
class Bar:
    """A time in which a tracklet was there: its number on the page, its lane, and where it begins, in percent."""

    number: int
    tracklet: FindTracklet
    lane: int
    left: float
    width: float
    when: str


@dataclass(frozen=True)
class Timeline:
    """The axis of one video, with marks at percentages, and the bars on it."""

    marks: list[tuple[float, str]]
    bars: list[Bar]
    lanes: int


@dataclass(frozen=True)
class Card:
    """A tracklet with its number on the page and its crops."""

    number: int
    tracklet: FindTracklet
    strip: Sequence[Crop]
    when: str


def render_find(result: FindResult, queries: Sequence[str | None], strips: Sequence[Sequence[Crop]]) -> str:
    """The HTML page of a search.

    Args:
        result: the search.
        queries: the pictures of the person, as data URIs; None for one that is not available.
        strips: the crops of each of the result's tracklets.
    """
    cards = [
        Card(number, tracklet, strip, describe_times(tracklet))
        for number, (tracklet, strip) in enumerate(zip(result.tracklets, strips, strict=True), start=1)
    ]
    videos = [(video, [card for card in cards if card.tracklet.video == video.name]) for video in result.videos]
    limits = result.limits
    counts = {"videos": [video.similarities for video in result.videos]}
    return render(
        "find.html.j2",
        {
            "result": result,
            "queries": list(zip(result.queries, queries, strict=True)),
            "videos": [(video, own, draw_timeline(result, video, own)) for video, own in videos],
            "total": sum(video.tracklets for video in result.videos),
            "images": sum(video.images for video in result.videos),
            "same_at": None if limits is None else thousandths(limits.same),
            "margin": 0 if limits is None else thousandths(limits.same) - thousandths(limits.other),
            "counts": Markup(json.dumps(counts)),
            "thousandths": thousandths,
            "window": describe_window(result),
            "best": sorted(cards, key=lambda card: -card.tracklet.similarity)[:MOST_LINKS],
            "clock": clock,
        },
    )


def clock(seconds: float) -> str:
    """A time in minutes and seconds, with hours from the first hour on.

    >>> clock(75.4), clock(3725)
    ('1:15', '1:02:05')
    """
    whole = int(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def describe_window(result: FindResult) -> str:
    """Which times were searched, as the end of a sentence; empty for all."""
    if result.after_s is None and result.before_s is None:
        return ""
    until = "on" if result.before_s is None else f"to {clock(result.before_s)}"
    return f" from {clock(result.after_s or 0)} {until}"


def describe_times(tracklet: FindTracklet) -> str:
    """When a tracklet was there: times if they are known, else frames; empty for an image that is from no video."""
    if tracklet.times_s is not None:
        spans = [(clock(start), clock(end)) for start, end in tracklet.times_s]
    else:
        spans = [(f"{start:,}", f"{end:,}") for start, end in tracklet.spans]
    if not spans:
        return ""
    text = ", ".join(start if start == end else f"{start} to {end}" for start, end in spans[:MOST_SPANS])
    more = f" and {len(spans) - MOST_SPANS} more times" if len(spans) > MOST_SPANS else ""
    unit = "" if tracklet.times_s is not None else "frame " if text.isdecimal() else "frames "
    return f"{unit}{text}{more}"


def draw_timeline(result: FindResult, video: FindVideo, cards: Sequence[Card]) -> Timeline | None:
    """The bars of a video's tracklets, in as few lanes as hold them; None for images that are from no video."""
    if not video.name or not any(card.tracklet.spans for card in cards):
        return None
    first, rate = video.first_frame, video.rate
    start: float = first if result.after_s is None or rate is None else first + result.after_s * rate
    last = max(span[1] for card in cards for span in card.tracklet.spans) + 1
    end: float = max(first + (video.frames or 0), last)
    if result.before_s is not None and rate is not None:
        end = min(end, first + result.before_s * rate)
    length = max(end - start, 1)
    ends: list[float] = []  # of the last bar in each lane
    bars = []
    for card in sorted(cards, key=lambda card: card.tracklet.spans[0]):
        begin, until = card.tracklet.spans[0][0], card.tracklet.spans[-1][1] + 1
        lane = next((lane for lane, taken in enumerate(ends) if taken <= begin), len(ends))
        ends[lane : lane + 1] = [until + length * LEAST_WIDTH / 100]
        for low, high in card.tracklet.spans:
            width = max(100 * (high + 1 - low) / length, LEAST_WIDTH)
            left = min(100 * (low - start) / length, 100 - width)
            bars.append(Bar(card.number, card.tracklet, lane, left, width, card.when))
    return Timeline(_mark_axis(start - first, length, rate), bars, len(ends))


def _mark_axis(start: float, length: float, rate: float | None) -> list[tuple[float, str]]:
    """Marks at round times, or at round frame numbers, with their places in percent.

    >>> _mark_axis(0, 100, 10.0)
    [(0.0, '0:00'), (20.0, '0:02'), (40.0, '0:04'), (60.0, '0:06'), (80.0, '0:08'), (100.0, '0:10')]
    """
    scale = rate or 1.0
    low, high = start / scale, (start + length) / scale
    steps = TIME_STEPS if rate else tuple(number * 10**power for power in range(10) for number in (1, 2, 5))
    step = next((step for step in steps if (high - low) / step < MOST_MARKS), steps[-1])
    marks = range(-int(-low // step) * step, int(high) + 1, step)
    return [(100 * (mark - low) / (high - low), clock(mark) if rate else f"{mark:,}") for mark in marks]
