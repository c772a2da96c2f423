"""The pairs of a site from its packs, or why there are none."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lupctl.core.formats.pack.crops import read_crops
from lupctl.core.formats.pack.read import Pack
from lupctl.core.formats.pack.shards import HINT
from lupctl.core.ranking.retrieval.tracklets import Tracklet, group_tracklets
from lupctl.core.ranking.site.pairs import FEWEST, SitePairs, pick_pairs
from lupctl.core.system.examples import count_things

HOW_TO_TRACK: Final = "lupctl data build NAME --videos DIR --detector keypointrcnn --track makes a pack with tracklets"
UNKNOWN: Final = -1


@dataclass(frozen=True)
class Site:
    """What a site's images say without labels.

    Args:
        pairs: None if there are none of two persons.
        why_not: then the reason.
        hint: what would give some; empty if nothing that is known here.
    """

    pairs: SitePairs | None
    why_not: str = ""
    hint: str = ""


def gather_site(packs: Sequence[Pack], rows: NDArray[np.int64], camera: NDArray[np.int16]) -> Site:
    """The pairs of the tracklets in some images of packs.

    A tracklet is the crops of one number from one video, as `data build` numbers them: by the tracker, or as the boxes
    are numbered. That a number means the same person in another video, or in another pack, is not used.

    Args:
        packs: in the order in which their rows are numbered.
        rows: (N) of the concatenated packs.
        camera: (N) of these images, apart between packs; -1 unknown.
    """
    place = np.full(sum(map(len, packs)), UNKNOWN)
    place[rows] = np.arange(len(rows))
    frame = np.full(len(rows), UNKNOWN)
    tracklets: list[Tracklet] = []
    begin, has_videos = 0, False
    for number, pack in enumerate(packs):
        own = place[begin : begin + len(pack)]
        begin += len(pack)
        crops, kept = read_crops(pack.path, hint=HINT), own != UNKNOWN
        if crops is None:
            continue
        has_videos |= bool((crops.video[kept] != UNKNOWN).any())
        frame[own[kept]] = crops.frame[kept]
        found = group_tracklets(pack.samples, crops, kept=kept, link=None)
        some = [one for one in found if one.person is not None]
        tracklets += [replace(one, video=f"{number}/{one.video}", rows=own[one.rows]) for one in some]
    if not tracklets:
        why = "their crops are not linked into tracklets" if has_videos else "the images are from no videos"
        return Site(None, why, HOW_TO_TRACK)
    pairs = pick_pairs(tracklets, frame, camera)
    if pairs.num_tracklets == 0:
        return Site(None, f"none of {count_things(len(tracklets), 'tracklet')} has {FEWEST} images")
    if pairs.together == 0:
        tracked = count_things(pairs.num_tracklets, "tracklet")
        return Site(None, f"of {tracked} no two were seen in one frame, so nobody is known to be somebody else")
    return Site(pairs)
