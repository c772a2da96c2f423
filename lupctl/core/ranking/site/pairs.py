"""Pairs of images that show one person, or surely two, by the tracklets of a site's videos alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.ranking.retrieval.tracklets import Tracklet, spread_rows

# Images of the first third of a tracklet, and of its last. Those of one third look alike.
PER_THIRD: Final = 8
# A shorter tracklet has no two images with one between them.
FEWEST: Final = 3
# Tracklets, and pairs of tracklets seen together, beyond which a part is drawn: rates of 1 in 1,000 need no more.
MOST_TRACKLETS: Final = 2000
MOST_TOGETHER: Final = 3000
SEED: Final = 0


@dataclass(frozen=True)
class SitePairs:
    """Images of tracklets, and the pairs of an image of a first third and one of a last third.

    A pair of one tracklet shows one person. A pair of two tracklets is here only if they were seen together, in one
    frame of one video: they surely show two. Of other tracklets nothing is known.

    Args:
        rows: (K) the images, among those that tracklets were found in.
        tracklet: (K) the tracklet of each, 0 to T - 1.
        is_late: (K) bool, whether it is of the last third.
        camera: (T) of each tracklet, -1 unknown.
        query, gallery: (M) positions in `rows` of the images of each pair; the query is of a first third.
        together: pairs of tracklets that were seen together.
        short: tracklets that are left out, because they have too few images.
    """

    rows: NDArray[np.int64]
    tracklet: NDArray[np.int64]
    is_late: NDArray[np.bool_]
    camera: NDArray[np.int16]
    query: NDArray[np.int64]
    gallery: NDArray[np.int64]
    together: int
    short: int

    @property
    def num_tracklets(self) -> int:
        """T."""
        return len(self.camera)

    @property
    def is_same(self) -> NDArray[np.bool_]:
        """(M) bool, the pairs of one person."""
        same: NDArray[np.bool_] = self.tracklet[self.query] == self.tracklet[self.gallery]
        return same


def pick_pairs(
    tracklets: Sequence[Tracklet], frame: NDArray[np.int64], camera: NDArray[np.int16], *, seed: int = SEED
) -> SitePairs:
    """The pairs of some tracklets: images far apart in time, up to eight of each first and of each last third.

    Of many tracklets those of some videos are taken, of the last of these the earliest. Two tracklets are seen
    together wherever both have a crop, whether it is among those taken or not.

    Args:
        tracklets: of persons in videos, each with its rows in the order of their frames.
        frame: (N) of each image in its video.
        camera: (N).
        seed: of the draws.

    >>> rows = np.arange(6)
    >>> two = [Tracklet("door", 1, rows[:3]), Tracklet("door", 2, rows[3:])]
    >>> apart = pick_pairs(two, np.array([0, 1, 2, 7, 8, 9]), np.ones(6, np.int16))
    >>> apart.rows[apart.query].tolist(), apart.rows[apart.gallery].tolist()
    ([0, 3], [2, 5])
    >>> both = pick_pairs(two, np.array([0, 1, 2, 2, 3, 4]), np.ones(6, np.int16))
    >>> both.rows[both.query].tolist(), both.rows[both.gallery].tolist(), both.is_same.tolist()
    ([0, 3, 0, 3], [2, 5, 5, 2], [True, True, False, False])
    """
    random = np.random.default_rng(seed)
    long = [one for one in tracklets if len(one.rows) >= FEWEST]
    kept = _draw_videos(long, frame, random)
    together = seen_together(kept, frame)
    if len(together) > MOST_TOGETHER:
        together = together[np.sort(random.permutation(len(together))[:MOST_TOGETHER])]
    thirds = [pick_thirds(one.rows) for one in kept]
    parts = [part for both in thirds for part in both]  # first and last third of one tracklet after the other
    sizes = np.array([len(part) for part in parts], np.int64)
    begins = np.cumsum(sizes) - sizes
    own = np.repeat(np.arange(len(kept))[:, None], 2, axis=1)
    pairs = [
        (begins[2 * first] + query, begins[2 * last + 1] + gallery)
        for first, last in np.concatenate([own, together, together[:, ::-1]]).tolist()
        for query in range(sizes[2 * first])
        for gallery in range(sizes[2 * last + 1])
    ]
    query, gallery = np.array(pairs, np.int64).reshape(-1, 2).T
    return SitePairs(
        rows=np.array([row for part in parts for row in part], np.int64),
        tracklet=np.repeat(np.arange(2 * len(kept)) // 2, sizes),
        is_late=np.repeat(np.arange(2 * len(kept)) % 2 == 1, sizes),
        camera=np.array([camera[one.rows[0]] for one in kept], np.int16),
        query=query,
        gallery=gallery,
        together=len(together),
        short=len(tracklets) - len(long),
    )


def pick_thirds(rows: NDArray[np.int64]) -> tuple[list[int], list[int]]:
    """Images of the first third of a tracklet and of its last, spread evenly.

    >>> pick_thirds(np.arange(10, 20))
    ([10, 11, 12], [17, 18, 19])
    """
    third = len(rows) // 3
    return spread_rows(rows[:third], PER_THIRD), spread_rows(rows[-third:], PER_THIRD)


def seen_together(tracklets: Sequence[Tracklet], frame: NDArray[np.int64]) -> NDArray[np.int64]:
    """(P, 2) pairs of tracklets with a crop in the same frame of the same video; the smaller number first, ascending.

    >>> three = [Tracklet(video, 1, np.array([row])) for row, video in enumerate("aab")]
    >>> seen_together(three, np.array([5, 5, 5])).tolist()
    [[0, 1]]
    """
    from scipy.sparse import csr_array

    if not tracklets:
        return np.zeros((0, 2), np.int64)
    videos = np.unique([one.video for one in tracklets], return_inverse=True)[1]
    tracklet = np.repeat(np.arange(len(tracklets)), [len(one.rows) for one in tracklets])
    frames = np.concatenate([frame[one.rows] for one in tracklets])
    moment = np.unique(np.stack([videos[tracklet], frames]), axis=1, return_inverse=True)[1].reshape(-1)
    seen = csr_array((np.ones(len(tracklet), np.int32), (tracklet, moment)))
    first, second = (seen @ seen.T).nonzero()
    pairs: NDArray[np.int64] = np.stack([first, second], axis=1).astype(np.int64)[first < second]
    return pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]


def _draw_videos(
    tracklets: Sequence[Tracklet], frame: NDArray[np.int64], random: np.random.Generator
) -> list[Tracklet]:
    """All tracklets, or of too many those of videos in a drawn order; in the order in which they came."""
    if len(tracklets) <= MOST_TRACKLETS:
        return list(tracklets)
    names, video = np.unique([one.video for one in tracklets], return_inverse=True)
    begin = np.array([frame[one.rows[0]] for one in tracklets])
    chosen = np.lexsort((begin, random.permutation(len(names))[video]))[:MOST_TRACKLETS]
    return [tracklets[at] for at in np.sort(chosen).tolist()]
