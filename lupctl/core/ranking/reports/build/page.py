"""The HTML page of an evaluation, with its images."""

from pathlib import Path

import torch

from lupctl.core.choices import SameCamera
from lupctl.core.ranking.reports.build.attention import open_look, with_attention
from lupctl.core.ranking.reports.build.images import Images
from lupctl.core.ranking.reports.build.ranklists import rank_lists
from lupctl.core.ranking.reports.model.single import Report
from lupctl.core.ranking.reports.page.images import embed_picture
from lupctl.core.ranking.reports.page.single import render_report
from lupctl.core.ranking.retrieval.inputs import JoinedFeatures
from lupctl.core.ranking.retrieval.score import Scored
from lupctl.core.system.progress.lines import Progress


def build_page(
    report: Report,
    scored: Scored,
    features: JoinedFeatures,
    images: Images,
    *,
    same_camera: SameCamera,
    device: torch.device,
    network: Path | None,
    progress: Progress,
) -> str:
    """The page of a report.

    Args:
        report: with details.
        scored: the queries, ranked.
        features: that were scored.
        images: gives encoded images by name.
        same_camera: the rule by which the queries were ranked.
        device: where distances and attention are computed.
        network: the checkpoint that made the features, whose attention is shown beside each image; None for no maps.
        progress: shows a bar over those.
    """

    def picture(name: str) -> str | None:
        encoded = images(name)
        return None if encoded is None else embed_picture(encoded)

    lists = rank_lists(features, scored, same_camera=same_camera, device=device, pictures=picture)
    if network is not None:
        lists = with_attention(lists, open_look(network, features, images, device=device, progress=progress))
    return render_report(report, lists)
