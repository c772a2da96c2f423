"""The page of clusters: what it counts, that each picture is in it once, and that it stays small."""

import re

import numpy as np

from lupctl.core.formats.images.codec import encode_jpeg
from lupctl.core.ranking.clustering.density import NOISE
from lupctl.core.ranking.reports.build.clusters import ClusteredImages, ClusteredRun, build_cluster_page
from lupctl.core.ranking.reports.page.charts import EpochCurve, draw_epochs

ROWS = [
    {"step": 3 * epoch + 1, "epoch": epoch, "clusters": 9 - epoch, "noise": 0.1, "median_size": 2.5, "largest": 4,
     "silhouette": 0.25, "cameras": 1.5} | ({"stability": 0.5} if epoch else {})
    for epoch in range(3)
]  # fmt: skip
MOST_BYTES = 2_000_000


def build(labels: dict[int, np.ndarray], *, rows: list[dict[str, float]] = ROWS, known: bool = False) -> str:
    count = len(labels[0])
    rng = np.random.default_rng(0)
    newest = labels[max(labels)]

    def read(image: int) -> bytes | None:
        if image == 1:
            return None
        return encode_jpeg(rng.integers(0, 256, (256, 128, 3), dtype=np.uint8), quality=95)

    return build_cluster_page(
        ClusteredRun(name="run", datasets=["site"], queries=0, epochs=3, eps=0.6, rows=rows),
        ClusteredImages(
            name=lambda image: f"image-{image}.jpg",
            camera=np.arange(count).astype(np.int16) % 3,
            cameras=(11, 12, 13),
            person=np.arange(count) if known else np.full(count, -1),
            read=read,
        ),
        labels=labels,
        sureness=np.linspace(0, 1, int(newest.max()) + 1),
    )


def test_clusters_that_merge_are_boxes_that_become_one() -> None:
    before = np.array([0, 0, 1, 1, NOISE, 1, 2, 2, 2])
    now = np.array([0, 0, 0, 0, 0, NOISE, 1, 1, 1])
    page = build({0: before, 2: now})
    assert "The largest: 5 images, 3 cameras, silhouette 0.000" in page
    first = page[page.index("The largest") :]
    first = first[: first.index("</section>")]
    assert re.findall(r"<p>([^<]*)</p>", first) == [
        "all 2 of a cluster", "2 in a cluster of 3", "1 in no cluster", "a cluster of 5",
    ]  # fmt: skip
    assert "in 2 clusters, 1 in none" in first
    assert first.count('class="other"') == 0, "only of the cluster with most of them, none has left"
    assert "cannot be scored" in page
    assert "purity" not in page
    assert "p0 c11" not in page
    assert ">c11<" in page
    assert page.count("<svg ") == 4 + 1
    assert "url(data:image/jpeg" in page
    assert ".i1 {" not in page, "a damaged image has no picture"


def test_persons_are_shown_where_they_are_known() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    rows = [{**row, "purity": 0.5} for row in ROWS]
    page = build({0: labels}, rows=rows[:1], known=True)
    assert "p0 c11" in page
    assert "purity, % (labels, for showing only)" in page
    assert "clusters of epoch 1 of 3" in page


def test_a_single_epoch_has_a_whole_number() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    chart = draw_epochs([EpochCurve("clusters", [1], [2.0])])
    assert re.findall(r">([\d.]+)</text>", chart)[0] == "1"
    assert chart in build({0: labels}, rows=[{**ROWS[0], "clusters": 2}])


def test_a_page_of_many_images_is_small_and_has_each_once() -> None:
    rng = np.random.default_rng(1)
    labels = {epoch: rng.integers(-1, 30, 3000) for epoch in range(3)}
    page = build(labels)
    assert len(page.encode()) < MOST_BYTES
    rules = re.findall(r"\.i(\d+) \{", page)
    assert len(rules) == len(set(rules)) <= 5 * (8 + 2 * 3) + 8
    assert len(re.findall(r'class="small i', page)) > len(rules), "some are shown at several epochs"
