"""The page of `find`: timelines, verdicts, and its slider in a browser."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lupctl.core.ranking.reports.model.find import FindLimits, FindResult, FindTracklet, FindVideo, judge, thousandths
from lupctl.core.ranking.reports.page.find import Card, Crop, draw_timeline, render_find
from lupctl.core.ranking.reports.page.images import embed_picture
from tests.tools.tiny.images import encode_tiny

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
LIMITS = FindLimits(
    same=0.7, other=0.5, same_fpr=0.001, false_matches=0.1, missed=0.2, dataset="toy", persons=12, report="report.json"
)
# Of ten tracklets in two videos the first three of each are shown.
SIMILARITIES = {"door": [0.9, 0.7, 0.6999, 0.5, 0.4], "<b>yard": [0.65, 0.55, 0.3, 0.2, -0.1]}


def make_tracklet(video: str, number: int, similarity: float, limits: FindLimits | None) -> FindTracklet:
    first = 1 + 40 * number
    return FindTracklet(
        video=video, person=number + 1, images=9, spans=[(first, first + 19)],
        times_s=[((first - 1) / 10, (first + 18) / 10)], similarity=similarity, best=f"{video}/{number}.jpg",
        best_similarity=min(similarity + 0.05, 1.0), verdict=None if limits is None else judge(similarity, limits),
    )  # fmt: skip


def make_result(limits: FindLimits | None = LIMITS, **more: Any) -> FindResult:
    videos, tracklets = [], []
    totals = dict.fromkeys(("same", "unsure", "other"), 0)
    for name, values in SIMILARITIES.items():
        counts = dict.fromkeys(totals, 0)
        if limits is not None:
            for value in values:
                counts[judge(value, limits)] += 1
                totals[judge(value, limits)] += 1
        videos.append(
            FindVideo.model_validate({
                "name": name, "images": 45, "tracklets": 5, "first_frame": 1, "frames": 200, "rate": 10.0,
                "similarities": {thousandths(value): 1 for value in values},
                "verdicts": None if limits is None else counts,
            })
        )  # fmt: skip
        tracklets += [make_tracklet(name, number, value, limits) for number, value in enumerate(values[:3])]
    fields: dict[str, Any] = {
        "version": "1", "command": ["lupctl", "find"], "queries": ["a.jpg"], "source": "<b>cams", "checkpoint": "x",
        "network": "r18", "fingerprints": {"checkpoint": "sha256:0"}, "after_s": None, "before_s": None,
        "limits": limits, "why_no_limits": "" if limits else "no report; make a report: lupctl eval RUN",
        "verdicts": None if limits is None else totals, "videos": videos, "tracklets": tracklets, "page": None,
    }  # fmt: skip
    return FindResult(**{**fields, **more})


def make_strips(result: FindResult) -> list[list[Crop]]:
    pictures = [embed_picture(encode_tiny(seed)) for seed in range(8)]
    return [
        [Crop(f"{at}.jpg", pictures[at], 0.5, at, at / 10, is_best=at == 3) for at in range(8)]
        for _ in result.tracklets
    ]


def render_made(result: FindResult) -> str:
    return render_find(result, [embed_picture(encode_tiny(0))], make_strips(result))


@pytest.mark.parametrize(
    ("similarity", "verdict"),
    [(0.9, "same"), (0.7, "same"), (0.69999, "unsure"), (0.5, "unsure"), (0.4999, "other"), (-1.0, "other")],
)
def test_verdicts_at_their_edges(similarity: float, verdict: str) -> None:
    assert judge(similarity, LIMITS) == verdict


def test_the_page_says_what_was_found_and_needs_nothing_else() -> None:
    text = render_made(make_result())
    assert "<b>2</b> the same person, 4 unsure, 4 other" in text
    assert text.count("The 3 most similar of 5.") == 2
    assert [re.findall(rf'<article class="found {verdict}"', text) for verdict in ("same", "unsure", "other")] == [
        ['<article class="found same"'] * 2, ['<article class="found unsure"'] * 3, ['<article class="found other"'],
    ]  # fmt: skip
    assert "&lt;b&gt;cams" in text
    assert "<b>cams" not in text
    assert "<b>yard" not in text
    links = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in links)
    assert {link for link in links if link.startswith("#t")} == {f"#t{number}" for number in range(1, 7)}
    best = re.search(r"Most similar: (.*?)</p>", text)
    assert best
    assert re.findall(r'href="#t(\d)"', best[1]) == ["1", "2", "3", "4", "5"]
    assert "(0.650)" in best[1]
    assert "0.10 % are as similar" in text
    assert "10.00 % of the pairs of different persons" in text
    assert "20.00 % of the pairs of one person" in text
    assert "about 0.01 of them would be wrong by chance" in text
    assert "Do not let this list alone decide anything about a person" in text


def test_without_limits_the_page_judges_nothing() -> None:
    text = render_made(make_result(None))
    assert "No verdicts yet" in text
    assert "There are no verdicts: no report; make a report: lupctl eval RUN" in text
    assert 'class="found unjudged"' in text
    assert 'class="found same"' not in text


def test_nobody_is_said() -> None:
    none = {"same": 0, "unsure": 0, "other": 10}
    assert "<b>Nobody</b>: none of 10 is similar enough" in render_made(make_result(verdicts=none))
    some = {"same": 0, "unsure": 4, "other": 6}
    assert "<b>Nobody</b> for certain: 4 unsure, 6 other" in render_made(make_result(verdicts=some))
    empty = [video.model_copy(update={"tracklets": 0, "images": 0}) for video in make_result().videos]
    text = render_find(make_result(videos=empty, tracklets=[]), [None], [])
    assert "No person was found in &lt;b&gt;cams." in text
    assert 'id="threshold"' not in text


def test_bars_are_where_and_when_somebody_was_there() -> None:
    result = make_result()
    cards = [Card(number, one, [], "") for number, one in enumerate(result.tracklets[:3], start=1)]
    line = draw_timeline(result, result.videos[0], cards)
    assert line is not None
    assert [(bar.number, bar.left, bar.width) for bar in line.bars] == [
        (1, 0.0, 10.0), (2, pytest.approx(20.0), 10.0), (3, pytest.approx(40.0), 10.0),
    ]  # fmt: skip
    assert line.lanes == 1, "they follow each other"
    assert line.marks[0] == (0.0, "0:00")
    assert line.marks[-1] == (100.0, "0:20")
    apart = [
        Card(1, make_tracklet("door", 0, 0.9, LIMITS), [], ""),
        Card(2, make_tracklet("door", 0, 0.8, LIMITS), [], ""),
    ]
    both = draw_timeline(result, result.videos[0], apart)
    assert both is not None
    assert [bar.lane for bar in both.bars] == [0, 1], "two at the same time"
    half = result.model_copy(update={"after_s": 4.0, "before_s": 14.0})
    inside = draw_timeline(half, result.videos[0], cards[1:])
    assert inside is not None
    assert [(bar.left, bar.width) for bar in inside.bars] == [(0.0, 20.0), (pytest.approx(40.0), 20.0)]
    assert inside.marks[0] == (0.0, "0:04")
    frames = draw_timeline(result, result.videos[0].model_copy(update={"rate": None}), cards)
    assert frames is not None
    assert [text for _, text in frames.marks] == ["0", "50", "100", "150", "200"]


WATCH = """<script>window.wrong = []; addEventListener("error", (e) => wrong.push(String(e.message)), true);
document.addEventListener("securitypolicyviolation", (e) => wrong.push(e.blockedURI));</script>"""
PROBE = """<script>addEventListener("load", () => {
  const state = () => ({
    answer: document.getElementById("answer").textContent, value: document.getElementById("value").textContent,
    counts: [...document.querySelectorAll(".counts")].map((one) => one.textContent), hash: location.hash,
    cards: [...document.querySelectorAll("article.found")].map((one) => one.classList[1]),
    words: [...document.querySelectorAll("article .verdict")].map((one) => one.textContent),
    bars: [...document.querySelectorAll("a.bar")].map((one) => one.classList[1]),
  });
  const slider = document.getElementById("threshold");
  const move = (value) => { slider.value = value; slider.dispatchEvent(new Event("input")); return state(); };
  const first = state(), low = move(200), high = move(950);
  document.querySelector("#limits button").click();
  const pictures = [...document.images];
  document.body.textContent = JSON.stringify({
    first, low, high, back: state(), wrong, wide: document.documentElement.scrollWidth,
    pictures: pictures.length, drawn: pictures.filter((one) => one.complete && one.naturalWidth > 8).length,
  });
});</script>"""


def browse(page: Path, profile: Path, *, address: str = "", width: int = 1280) -> Any:
    """What the probe reports of a page."""
    ran = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            f"--window-size={width},900", f"--user-data-dir={profile}", "--dump-dom", page.as_uri() + address,
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found = re.search(r"<body>(.*)</body>", ran.stdout, flags=re.DOTALL)
    assert found
    return json.loads(found[1].replace("&amp;", "&"))


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_the_slider_in_a_browser(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    text = render_made(make_result())
    page.write_text(text.replace("<head>", f"<head>{WATCH}").replace("</body>", f"{PROBE}</body>"))
    seen = browse(page, tmp_path / "profile")
    assert seen["wrong"] == []
    assert seen["pictures"] == seen["drawn"] == 49
    assert seen["wide"] <= 1280
    first = seen["first"]
    assert first["answer"] == "2 the same person, 4 unsure, 4 other"
    assert first["cards"] == first["bars"] == ["same", "same", "unsure", "unsure", "unsure", "other"]
    assert (first["value"], first["hash"]) == ("0.700", "")
    low = seen["low"]
    assert low["answer"] == "9 the same person, 0 unsure, 1 other", "also those that are not shown"
    assert low["counts"] == ["5 same, 0 unsure, 0 other", "4 same, 0 unsure, 1 other"]
    assert low["cards"] == low["words"] == low["bars"] == ["same"] * 6
    assert (low["value"], low["hash"]) == ("0.200", "#threshold=0.200")
    high = seen["high"]
    assert high["answer"] == "Nobody for certain: 1 unsure, 9 other", "the margin stays as wide as the report's"
    assert high["cards"] == ["unsure", *["other"] * 5]
    assert {key: value for key, value in seen["back"].items() if key != "words"} == {
        key: value for key, value in first.items() if key != "words"
    }


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_the_threshold_in_the_address(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    for limits, answer in (
        (LIMITS, "4 the same person, 3 unsure, 3 other"),
        (None, "4 the same person, 0 unsure, 6 other"),
    ):
        text = render_made(make_result(limits))
        page.write_text(text.replace("<head>", f"<head>{WATCH}").replace("</body>", f"{PROBE}</body>"))
        seen = browse(page, tmp_path / "profile", address="#threshold=0.6", width=500)
        assert seen["wrong"] == []
        assert seen["first"]["answer"] == answer
        assert seen["first"]["value"] == "0.600"
        assert seen["wide"] <= 500
