"""report.html: what stands on it, and how it behaves in a browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from lupctl.core.formats.features.file import Features, write_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.record import build_record
from lupctl.core.ranking.reports.model.single import read_report
from lupctl.core.ranking.reports.model.training import ReportTraining, ReportTrainingCurve
from lupctl.core.ranking.reports.model.warnings import ReportWarning
from lupctl.core.ranking.reports.page.charts import draw_cmc, draw_distances, draw_roc, draw_training
from lupctl.core.ranking.reports.page.images import embed_picture
from lupctl.core.ranking.reports.page.single import render_report
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.stages.evaluate import EvaluationJob, evaluate
from lupctl.core.system.progress.lines import Progress
from tests.tools.shell import Shell
from tests.tools.tiny.images import draw_tiny

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), ""
)
QUERY, GALLERY = 2, 3


class Cells(HTMLParser):
    """Every element that carries a key: {key: (exact value, text)}; and what the page would fetch."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: dict[str, tuple[str, str]] = {}
        self.links: list[str] = []
        self._key = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.links += [given[name] for name in ("src", "href", "xlink:href") if name in given]
        self._key = given.get("data-key", "")
        if self._key:
            self.found[self._key] = (given["data-value"], "")

    def handle_data(self, data: str) -> None:
        if self._key:
            self.found[self._key] = (self.found[self._key][0], data)
            self._key = ""


def at(report: Any, key: str) -> Any:
    """The value under `a.b.0`; a rate such as 0.001 is one key. A rank behind the gallery has none."""
    head, _, rate = key.partition(".at_fpr.")
    words = [*head.split("."), *(["at_fpr", *rate.rsplit(".", 1)] if rate else [])]
    for word in words:
        report = report[int(word)] if isinstance(report, list) else report.get(word)
    return report


def write_toy(path: Path, pack: Path, *, noise: float = 1.2) -> Samples:
    """Features of a drawn pack, some of them junk and distractors."""
    made = open_pack(pack)
    rows = np.flatnonzero(np.isin(made.samples.role, [QUERY, GALLERY]))
    samples = made.samples.select(rows)
    rng = np.random.default_rng(0)
    numbers, label = np.unique(samples.person, return_inverse=True)
    vectors = rng.standard_normal((len(numbers), 8))[label] + noise * rng.standard_normal((len(rows), 8))
    parents = {"pack:labelled": made.fingerprint, "checkpoint": "sha256:" + "c" * 64}
    record = build_record("features", 1, command=["lupctl", "dump"], parents=parents, facts={"dataset": "<b>drawn</b>"})
    write_features(path, Features(vectors.astype(np.float32), samples, record))
    return samples


@pytest.fixture(scope="module")
def page(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an evaluation of drawn persons, with its images. Shared: only read."""
    folder = tmp_path_factory.mktemp("page")
    write_toy(folder / "toy.features.h5", labelled)
    job = EvaluationJob((folder / "toy.features.h5",), rerank=RerankSettings(k1=4), images=labelled)
    evaluate(job, [torch.device("cpu")], Progress(quiet=True))
    return job.html


def test_the_numbers_are_those_of_the_report(page: Path) -> None:
    report = json.loads((page.parent / "report.json").read_text())
    cells = Cells(page.read_text()).found
    assert {"scores.map", "scores.minp", "rerank.scores.cmc.1", "details.cameras.map.0.1"} <= set(cells)
    assert len(cells) > 20
    for key, (value, text) in cells.items():
        stored = at(report, key)
        assert (None if value == "" else float(value)) == stored, key
        digits = 3 if key.endswith("threshold") else 1 if ".cameras." in key else 2
        share = None if stored is None else stored if key.endswith("threshold") else 100 * stored
        assert text == ("-" if share is None else f"{share:.{digits}f}"), key
    body = page.read_text()
    for name, ap in zip(report["details"]["queries"]["name"], report["details"]["queries"]["ap"], strict=True):
        assert re.search(rf"<td>{re.escape(name)}</td>.*?data-value=\"{ap}\">{100 * ap:.2f}<", body), name


def test_the_page_names_the_search_for_neighbours(page: Path) -> None:
    assert "base distance d2, neighbours by exact search.</p>" in page.read_text()
    report = read_report(page.parent / "report.json")
    assert report.rerank is not None
    by_faiss = report.model_copy(update={"rerank": report.rerank.model_copy(update={"neighbours": "faiss"})})
    assert "base distance d2, neighbours by faiss.</p>" in render_report(by_faiss, [])


def test_the_page_needs_nothing_beside_itself(page: Path) -> None:
    text = page.read_text()
    cells = Cells(text)
    assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in cells.links)
    assert sum(link.startswith("data:") for link in cells.links) > 40
    assert "default-src 'none'" in text
    assert "url(" not in re.sub(r"url\(#\w+\)", "", text)
    assert "&lt;b&gt;drawn&lt;/b&gt;" in text
    assert "<b>drawn" not in text
    targets = set(re.findall(r'href="#([a-z]+)"', text))
    assert targets
    assert targets <= set(re.findall(r'id="([^"]+)"', text))


def test_lists_show_what_ranks_first(page: Path) -> None:
    text = page.read_text()
    lists = re.findall(r'<section class="list">.*?</section>', text, flags=re.DOTALL)
    lists = [one.partition('<p class="by">re-ranked</p>')[0] for one in lists]
    report = json.loads((page.parent / "report.json").read_text())
    ap = [value for value in report["details"]["queries"]["ap"] if value is not None]
    shown = [float(re.search(r"AP ([\d.]+) %", one)[1]) for one in lists]  # type: ignore[index]
    hardest = shown[: min(12, len(ap))]
    assert hardest == [round(100 * value, 2) for value in sorted(ap)[:12]]
    first = lists[0]
    ranks = [int(rank) for rank in re.findall(r"&#100(?:03|07); (\d+)<", first)]
    name = re.findall(r'class="name">([^<]+)<', first)[0]
    row = next(i for i, given in enumerate(report["details"]["queries"]["name"]) if given.endswith(name))
    right = [int(rank) for rank in re.findall(r"&#10003; (\d+)<", first)]
    assert right[0] == report["details"]["queries"]["first_rank"][row]
    assert ranks[:10] == list(range(1, len(ranks[:10]) + 1))
    person, camera = (report["details"]["queries"][column][row] for column in ("person", "camera"))
    assert re.findall(r"ignored</span>.*?<br>(.*?)\n", first) == [f"person {person}, cam {camera}"] * first.count(
        '<li class="ignored">'
    )
    for verdict, same in (("right", True), ("wrong", False)):
        found = re.findall(rf'<li class="{verdict}">.*?<br>(?:person )?([-\w]+), cam', first, flags=re.DOTALL)
        assert found
        assert {shown_person == str(person) for shown_person in found} == {same}


def test_lists_are_shown_again_after_reranking(page: Path) -> None:
    """Below the plain row of each query, the first images by the re-ranked distances, which differ."""
    lists = re.findall(r'<section class="list">.*?</section>', page.read_text(), flags=re.DOTALL)
    queries = json.loads((page.parent / "report.json").read_text())["details"]["queries"]
    of_name = {name.rpartition("/")[2]: row for row, name in enumerate(queries["name"])}
    moved = 0
    for one in lists:
        plain, title, again = one.partition('<p class="by">re-ranked</p>')
        assert title
        row = of_name[re.findall(r'class="name">([^<]+)<', plain)[0]]
        ap = queries["ap_reranked"][row]
        assert f"re-ranked {100 * ap:.2f} %" in plain
        ranks = {int(rank): mark for mark, rank in re.findall(r"&#100(03|07); (\d+)<", again)}
        assert list(ranks)[: min(10, len(ranks))] == list(range(1, min(10, len(ranks)) + 1))
        assert min(rank for rank, mark in ranks.items() if mark == "03") == queries["first_rank_reranked"][row]
        assert "ignored" not in again
        # Every right answer is among the first ten here, or the first of them follows: AP by hand where all are.
        right = sorted(rank for rank, mark in ranks.items() if mark == "03")
        if len(right) == queries["right"][row] and right[-1] <= 10:
            assert ap == pytest.approx(sum((at + 1) / rank for at, rank in enumerate(right)) / len(right))
        shown = [re.findall(r'class="name">([^<]+)<', part) for part in (plain, again)]
        moved += shown[0][1:] != shown[1]
    assert moved
    report = read_report(page.parent / "report.json")
    assert "re-ranked</p>" not in render_report(report, [])


def test_a_page_says_what_it_is_of_and_what_to_mind(page: Path) -> None:
    """Features without a run: the dataset is the title; with one, the run too, its curve and recipe in words."""
    report = read_report(page.parent / "report.json")
    text = render_report(report, [])
    assert "<h1>&lt;b&gt;drawn&lt;/b&gt;</h1>" in text
    assert 'id="training"' not in text
    assert report.warnings is not None
    assert 'class="warnings"' not in render_report(report.model_copy(update={"warnings": []}), [])
    warnings = [ReportWarning(kind="overlap", text="3 < 4"), ReportWarning(kind="terms", text="mine")]
    curve = ReportTrainingCurve(step=[10, 20], loss=[2.0, 1.0], rate=[0.1, 0.2], scored_at=[20], map=[0.25])
    training = ReportTraining(
        run="mine", stage="finetune", network="r50, avg pooling, head bnneck", height=256, width=128,
        datasets=["market1501"], start="pre (moco on crowd for 1 epoch)", method=None, images=1, persons=2, batch=64,
        epochs=2, steps=20, seconds=600, device="2 x H100", curve=curve,
    )  # fmt: skip
    text = render_report(report.model_copy(update={"warnings": warnings, "training": training}), [])
    assert "<h1>mine on &lt;b&gt;drawn&lt;/b&gt;</h1>" in text
    assert "<title>mine on &lt;b&gt;drawn&lt;/b&gt;: mAP " in text
    box = re.search(r'<section class="warnings".*?</section>', text, flags=re.DOTALL)
    assert box is not None
    assert text.index("<h1>") < box.start() < text.index("<main")
    assert '<li class="leak"><strong>overlap</strong> 3 &lt; 4</li>' in box[0]
    assert "<li><strong>terms</strong> mine</li>" in box[0]
    words = (
        "Fine-tuned on market1501 (1 image of 2 persons) from pre (moco on crowd for 1 epoch) for 2 epochs in batches "
        "of 64: r50, avg pooling, head bnneck; images of 256 x 128 pixels (height x width). 20 steps on 2 x H100 in "
        "10 min, without scoring and saving."
    )
    assert words in text
    assert 'aria-label="Training curve"' in text
    converted = training.model_copy(update={"stage": "convert", "curve": None})
    text = render_report(report.model_copy(update={"training": converted}), [])
    assert "Converted from another program&#39;s file: r50" in text
    assert 'aria-label="Training curve"' not in text


def test_pictures_are_left_out_where_they_are_not_those(
    lupctl: Shell, labelled: Path, crowd: Path, tmp_path: Path
) -> None:
    samples = write_toy(tmp_path / "toy.features.h5", labelled)
    ran = lupctl(f"eval toy.features.h5 --images {crowd} --device cpu")
    assert ran.code == 0
    assert f"no pictures: {crowd} is not the pack the features were made from" in ran.err
    assert "data:image" not in (tmp_path / "report.html").read_text()
    assert "no image" in (tmp_path / "report.html").read_text()
    photos = tmp_path / "photos"
    made = open_pack(labelled)
    for name in samples.name:
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        (photos / name).write_bytes(made.read(list(made.samples.name).index(name)))
    assert lupctl("eval toy.features.h5 --images photos --force --device cpu").code == 0
    assert (tmp_path / "report.html").read_text().count("data:image") > 40
    assert "report: report.html" in lupctl(f"eval toy.features.h5 --images {labelled} --force --device cpu").out
    (tmp_path / "report.html").unlink()
    ran = lupctl("eval toy.features.h5 --no-page --force --device cpu")
    assert "report.html" not in ran.out
    assert not (tmp_path / "report.html").exists()
    assert lupctl("eval toy.features.h5 --images nowhere --force --device cpu").code == 3


def test_a_picture_is_small_and_damage_gives_none() -> None:
    done, encoded = cv2.imencode(".png", draw_tiny(1, 640, 160))
    assert done
    uri = embed_picture(encoded.tobytes())
    assert uri is not None
    import base64

    pixels = cv2.imdecode(np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    assert pixels.shape == (144, 36, 3)
    assert embed_picture(b"no image") is None


def test_charts_draw_what_is_measured(page: Path) -> None:
    details = read_report(page.parent / "report.json").details
    assert details is not None
    cmc = draw_cmc(details.curve)
    assert cmc == draw_cmc(details.curve)
    assert cmc.startswith("<svg ")
    assert "re-ranked" in cmc
    assert "re-ranked" not in draw_cmc(details.curve.model_copy(update={"reranked": None}))
    assert "var(--first)" in cmc
    assert "#000" not in cmc
    chosen = details.pairs.threshold
    assert chosen is not None
    assert f"threshold {chosen.chosen.threshold:.3f}" in draw_distances(details.pairs)
    assert "threshold" not in draw_distances(details.pairs.model_copy(update={"threshold": None}))
    assert "false match rate" in draw_roc(details.pairs)
    curve = ReportTrainingCurve(step=[10, 20], loss=[2.0, 1.0], rate=[0.1, 0.2], scored_at=[20], map=[0.25])
    drawn = draw_training(curve, steps_per_epoch=10)
    assert drawn == draw_training(curve, steps_per_epoch=10)
    assert ">epoch<" in drawn
    assert "mAP, %" in drawn
    assert "#000" not in drawn
    bare = draw_training(curve.model_copy(update={"scored_at": [], "map": []}), steps_per_epoch=None)
    assert ">step<" in bare
    assert "mAP" not in bare


def test_a_long_table_ends_and_says_so(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lupctl.core.ranking.reports.page.single.MOST_ROWS", 30)
    report = read_report(page.parent / "report.json")
    assert report.details is not None
    columns = report.details.queries.model_dump()
    times = 30 // len(columns["name"]) + 1
    many = {name: values * times for name, values in columns.items()}
    queries = type(report.details.queries)(**many)
    longer = report.model_copy(update={"details": report.details.model_copy(update={"queries": queries})})
    text = render_report(longer, [])
    assert text.count("<td>query/") == 30
    assert f"the {len(many['name']) - 30:,} easiest are only in report.json" in text


WATCH = """<script>window.wrong = []; addEventListener("error", (e) => wrong.push(String(e.message)), true);
document.addEventListener("securitypolicyviolation", (e) => wrong.push(e.blockedURI));</script>"""
PROBE = """<script>addEventListener("load", () => {
  const rows = () => [...document.querySelectorAll("#query-table tbody tr")];
  const column = (index) => rows().map((row) => row.cells[index].textContent);
  const buttons = document.querySelectorAll("#query-table button.sort");
  const press = (index) => { buttons[index].focus(); buttons[index].click(); return column(index); };
  const pictures = [...document.images];
  document.body.textContent = JSON.stringify({
    wrong, pictures: pictures.length, drawn: pictures.filter((one) => one.complete && one.naturalWidth > 8).length,
    charts: [...document.querySelectorAll("figure svg")].map((one) => one.getBoundingClientRect().height),
    ap: press(5), down: press(5), names: press(0), ranks: press(4),
    sorted: document.querySelectorAll("th[aria-sort]").length, focused: document.activeElement.className,
    wide: document.documentElement.scrollWidth,
  });
});</script>"""


def browse(page: Path, folder: Path, *options: str) -> str:
    """The body of a page after its scripts have run, in a window of 1280 x 900 pixels."""
    ran = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,900",
            f"--user-data-dir={folder / 'profile'}", *options, "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return re.search(r"<body>(.*)</body>", ran.stdout, flags=re.DOTALL)[1].replace("&amp;", "&")  # type: ignore[index]


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_in_a_browser(page: Path, tmp_path: Path, scheme: str) -> None:
    probed = tmp_path / "probed.html"
    text = page.read_text().replace("<head>", f"<head>{WATCH}").replace("</body>", f"{PROBE}</body>")
    probed.write_text(text.replace("<details>", "<details open>"))
    options = ["--force-dark-mode"] if scheme == "dark" else []
    seen = json.loads(browse(probed, tmp_path, *options))
    assert seen["wrong"] == []
    assert seen["pictures"] == seen["drawn"] > 40
    assert len(seen["charts"]) == 3
    assert min(seen["charts"]) > 150
    queries = json.loads((page.parent / "report.json").read_text())["details"]["queries"]
    assert seen["ap"] == [f"{100 * ap:.2f}" for ap in sorted(queries["ap"])]
    assert seen["down"] == seen["ap"][::-1]
    assert seen["names"] == sorted(queries["name"])
    assert seen["ranks"] == [str(rank) for rank in sorted(queries["first_rank"])]
    assert (seen["sorted"], seen["focused"]) == (1, "sort")
    assert seen["wide"] <= 1280


NARROW = """<script>addEventListener("load", () => {
  const boxes = [...document.querySelectorAll(".scroll, .tall")];
  parent.postMessage(JSON.stringify({
    width: innerWidth, wide: document.documentElement.scrollWidth,
    boxes: boxes.map((one) => [one.clientWidth, one.scrollWidth, getComputedStyle(one).overflowX, one.tabIndex]),
    shades: boxes.map((one) => getComputedStyle(one).backgroundAttachment),
  }), "*");
});</script>"""
OUTSIDE = """<!doctype html><meta charset="utf-8"><body><script>
addEventListener("message", (event) => { document.body.textContent = event.data; });
</script><iframe style="width: 375px; height: 700px; border: 0" srcdoc="PAGE"></iframe></body>"""


@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_on_a_phone_tables_scroll_and_the_page_does_not(page: Path, tmp_path: Path) -> None:
    """375 px wide, in a frame: a window of a headless browser is never that narrow."""
    text = page.read_text().replace("<details>", "<details open>").replace("</body>", f"{NARROW}</body>")
    framed = tmp_path / "framed.html"
    framed.write_text(OUTSIDE.replace("PAGE", html.escape(text)))
    seen = json.loads(browse(framed, tmp_path))
    assert seen["width"] == 375
    assert seen["wide"] <= 375, "nothing makes the page itself scroll sideways"
    assert all(clipped <= 375 and overflow == "auto" for clipped, _, overflow, _ in seen["boxes"])
    assert sum(whole > clipped for clipped, whole, _, _ in seen["boxes"]) >= 3, "the scores and both long tables"
    assert all(index == 0 for *_, index in seen["boxes"]), "they can be scrolled with the keyboard"
    assert set(seen["shades"]) == {"local, local, scroll, scroll"}, "a shade shows that there is more"
