"""The warnings of a report: each where it is due, and nowhere else."""

from dataclasses import replace
from pathlib import Path

import pytest

from lupctl.core.choices import Role
from lupctl.core.formats.pack.split import PackSplit
from lupctl.core.formats.pack.verdict import note_verdict, pack_files
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.ranking.reports.build.warnings import is_trained_on, overlap_warnings, warned
from lupctl.core.ranking.reports.model.single import (
    Report,
    ReportCounts,
    ReportInterval,
    ReportProtocol,
    ReportProvenance,
    ReportRerank,
    ReportScores,
)
from lupctl.core.ranking.reports.model.warnings import LEAKS, ReportWarning
from lupctl.core.ranking.retrieval.lineage import Lineage, ScoredPack, TrainedPack
from tests.tools.tiny.images import encode_tiny

# Role, persons and seeds of the images of a pack; the same seed gives the same bytes.
Rows = list[tuple[Role, int, int]]
TEST: Rows = [("query", 11, 100), ("query", 12, 101), *(("gallery", 11 + at % 2, 102 + at) for at in range(6))]


def write(path: Path, rows: Rows, *, dataset: str, terms: str = "") -> Path:
    order = {"unlabelled": 0, "train": 1, "query": 2, "gallery": 3}
    images = [
        PackedImage(encode_tiny(seed), 32, 16, f"{at:03d}.jpg", person=person, camera=at % 3, role=role)
        for at, (role, person, seed) in enumerate(sorted(rows, key=lambda row: order[row[0]]))
    ]
    return write_pack(path, images, dataset=dataset, facts={"terms": terms} if terms else None)


def trained(path: Path | None, dataset: str, *, pretrained: bool = False, subset: str = "") -> Lineage:
    stage = "pretrain" if pretrained else "finetune"
    assert stage in ("pretrain", "finetune")
    pack = TrainedPack(dataset, path, stage, is_labelled=not pretrained, subset=subset)  # type: ignore[arg-type]
    return Lineage(trained=(pack,))


def report(dataset: str = "own", *, counts: tuple[int, int] = (2, 6), valid: int = 2, k1: int | None = None) -> Report:
    scores = ReportScores(map=0.5, map_official=0.5, minp=0.5, cmc={1: 0.5})
    rerank = None
    if k1 is not None:
        rerank = ReportRerank(k1=k1, k2=2, weight=0.3, base="d2", scores=scores)
    return Report(
        dataset=dataset,
        counts=ReportCounts(
            queries=counts[0], queries_valid=valid, queries_absent=0, query_persons=2, gallery=counts[1], junk=0,
            distractors=0,
        ),
        scores=scores,
        rerank=rerank,
        ci95=ReportInterval(map=(0.4, 0.6), rank1=(0.4, 0.6), draws=10, seed=0),
        protocol=ReportProtocol(name="market1501", same_camera="drop"),
        fingerprints={},
        provenance=ReportProvenance(version="1", command=[], features={}),
    )  # fmt: skip


def texts(warnings: list[ReportWarning] | None) -> list[tuple[str, str]]:
    assert warnings is not None
    return [(warning.kind, warning.text) for warning in warnings]


@pytest.fixture
def tested(tmp_path: Path) -> ScoredPack:
    return ScoredPack("own", write(tmp_path / "own.h5", [("train", 1, 1), ("train", 2, 2), *TEST], dataset="own"))


def test_images_of_another_pack_are_found_by_their_bytes(tmp_path: Path, tested: ScoredPack) -> None:
    """Other names, persons and roles: only the bytes agree. Test images of the other pack were not trained on."""
    rows: Rows = [("train", 1, 100), ("train", 2, 104), ("train", 3, 105), ("train", 4, 500), ("gallery", 9, 103)]
    path = write(tmp_path / "other.h5", rows, dataset="other")
    found = texts(overlap_warnings([tested], trained(path, "other")))
    what = "3 of 8 test images of own are, byte for byte, among the training images of other"
    assert found == [("overlap", f"{what}: scores are too high")]
    found = texts(overlap_warnings([tested], trained(path, "other", subset="ids:0.5")))
    assert found == [("overlap", f"{what}, of which the run used ids:0.5: scores are too high")]
    assert overlap_warnings([tested], trained(write(tmp_path / "new.h5", rows[3:], dataset="other"), "other")) == []
    assert not is_trained_on(tested, trained(path, "other")), "they share no training images"


def test_pretraining_on_the_test_images_is_said(tmp_path: Path, tested: ScoredPack) -> None:
    path = write(tmp_path / "web.h5", [("unlabelled", -1, seed) for seed in (7, 101)], dataset="web")
    [(kind, text)] = texts(overlap_warnings([tested], trained(path, "web", pretrained=True)))
    assert kind == "pretraining"
    assert text.startswith("1 of 8 test images of own is, byte for byte, among the images of web that the network was")
    assert "without labels: some papers allow it, but say so" in text
    assert overlap_warnings([tested], trained(path, "web")) == [], "fine-tuning reads no unlabelled images"


def test_persons_of_the_same_dataset_are_compared(tmp_path: Path, tested: ScoredPack) -> None:
    path = write(tmp_path / "older.h5", [("train", 11, 900), ("train", 5, 901)], dataset="own")
    [(kind, text)] = texts(overlap_warnings([tested], trained(path, "own")))
    assert kind == "persons"
    assert text.startswith("1 of 2 test persons of own is also among its training persons: ")
    path = write(tmp_path / "else.h5", [("train", 11, 900)], dataset="else")
    assert overlap_warnings([tested], trained(path, "else")) == [], "numbers of another dataset mean other persons"


def test_a_closed_set_is_said_and_is_no_leak(
    tmp_path: Path, tested: ScoredPack, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "closed.h5", [("train", 11, 900), *TEST], dataset="own")
    split = PackSplit(
        kind="images", rule="images:0.5", seed=1, protocol="market1501", closed_set=True, images={}, persons={}
    )
    record = {"source": {"split": split.model_dump(mode="json")}}
    monkeypatch.setattr("lupctl.core.ranking.reports.build.warnings._record_of", lambda pack: record)
    [warning] = overlap_warnings([ScoredPack("own", path)], trained(path, "own"))
    assert (warning.kind, warning.kind in LEAKS) == ("closed set", False)
    assert warning.text.startswith("1 of 2 test persons of own is also among its training persons: ")


def test_what_cannot_be_checked_is_said(tmp_path: Path, tested: ScoredPack) -> None:
    gone = trained(tmp_path / "gone.h5", "staff")
    wanted = [("not checked", "overlap with staff: not checked, its pack is not here")]
    assert (
        texts(overlap_warnings([tested], gone)) == texts(overlap_warnings([tested], trained(None, "staff"))) == wanted
    )
    nowhere = texts(overlap_warnings([ScoredPack("own", None)], gone))
    assert nowhere == [("not checked", "overlap of training and test images: not checked, the pack of own is not here")]
    nothing = texts(overlap_warnings([], gone))
    assert nothing == [("not checked", "overlap of training and test images: not checked, the features name no pack")]
    unknown = texts(overlap_warnings([tested], Lineage(unknown=("the features name no network",))))
    assert unknown == [
        ("not checked", "overlap of training and test images: not checked, the features name no network")
    ]


def test_trained_on_compares_training_images(tmp_path: Path, tested: ScoredPack) -> None:
    """A pack made of the same training images under another name counts; one of the same name alone does not."""
    assert tested.path is not None
    assert is_trained_on(tested, trained(tested.path, "own"))
    copy = write(tmp_path / "copy.h5", [("train", 70, 2), ("train", 71, 800)], dataset="copy")
    assert is_trained_on(tested, trained(copy, "copy"))
    namesake = write(tmp_path / "namesake.h5", [("train", 1, 801)], dataset="own")
    assert not is_trained_on(tested, trained(namesake, "own"))
    assert is_trained_on(tested, trained(None, "own")), "without the pack, its name has to do"
    assert not is_trained_on(tested, trained(copy, "copy", pretrained=True))


def test_the_verification_is_that_of_the_pack_as_it_is(tested: ScoredPack) -> None:
    def found() -> list[tuple[str, str]]:
        return texts(warned(report(), [tested], Lineage()).warnings)

    assert tested.path is not None
    absent = [("verification", "own.h5 has not been verified as it is now: lupctl data verify own")]
    assert found() == absent
    files = pack_files(tested.path)
    note_verdict(tested.path, files=files, sound=True)
    assert found() == []
    note_verdict(tested.path, files=files, sound=False, errors={"published": "counts differ", "names": "2 names twice"})
    assert found() == [("verification", "own.h5 failed its verification: 2 names twice")]
    note_verdict(tested.path, files=files, sound=False, errors={"published": "counts differ"})
    assert found() == [], "the counts have a warning of their own"
    note_verdict(tested.path, files=files, sound=False)
    assert found() == [("verification", "own.h5 failed its verification: see lupctl data verify own")]
    tested.path.touch()
    assert found() == absent, "it may be another pack by now"


def test_a_cut_is_comparable_with_no_paper() -> None:
    cut = report("market1501", counts=(132, 515), valid=132)
    assert texts(warned(cut, [], Lineage()).warnings) == [
        (
            "published",
            "a cut of Market-1501 (query 132 of 3,368 images, gallery 515 of 19,732 images): comparable with no paper",
        ),
        ("terms", "market1501: academic research only (Zheng et al. 2015)"),
    ]
    whole = report("market1501", counts=(3368, 15_913), valid=3368)
    whole = whole.model_copy(update={"counts": whole.counts.model_copy(update={"junk": 3819})})
    assert [kind for kind, _ in texts(warned(whole, [], Lineage()).warnings)] == ["terms"]
    more = report("market1501", counts=(3369, 515), valid=3369)
    assert texts(warned(more, [], Lineage()).warnings)[0][1].startswith("not the published Market-1501 (query 3,369 of")
    pooled = whole.model_copy(update={"protocol": whole.protocol.model_copy(update={"name": "multi-query"})})
    fewer = {"queries": 1000, "queries_valid": 1000}
    pooled = pooled.model_copy(update={"counts": pooled.counts.model_copy(update=fewer)})
    assert [kind for kind, _ in texts(warned(pooled, [], Lineage()).warnings)] == ["terms"]


def test_terms_and_notices_of_everything_it_was_made_from(tmp_path: Path) -> None:
    """Those of the test set and of the training sets, each once; a notice is not repeated as terms."""
    pack = write(tmp_path / "own.h5", TEST, dataset="own", terms="ask the owner")
    note_verdict(pack, files=pack_files(pack), sound=True)
    duke = TrainedPack("dukemtmc", None, "finetune", is_labelled=True, notice="withdrawn", terms="withdrawn")
    market = TrainedPack("market1501", None, "pretrain", is_labelled=False)
    drawn = TrainedPack("synthetic", None, "pretrain", is_labelled=False, terms="drawn by lupctl; free to use")
    lineage = Lineage(trained=(duke, market, market, drawn))
    found = texts(warned(report(), [ScoredPack("own", pack)], lineage).warnings)
    assert [one for one in found if one[0] != "not checked"] == [
        ("notice", "dukemtmc: withdrawn"),
        ("terms", "market1501: academic research only (Zheng et al. 2015)"),
        ("terms", "own: ask the owner"),
    ]
    assert [text.split(":")[0] for kind, text in found if kind == "not checked"] == [
        "overlap with dukemtmc", "overlap with market1501", "overlap with synthetic",
    ]  # fmt: skip


def test_what_scoring_found_is_among_them() -> None:
    found = texts(warned(report(counts=(5, 6), valid=4, k1=7), [], Lineage()).warnings)
    assert [kind for kind, _ in found] == ["queries", "reranking"]
    assert found[0][1].startswith("1 of 5 queries has no right answer (0 show a person absent")
    assert found[1][1].startswith("the gallery has 6 images, fewer than k1 = 7")
    assert texts(warned(report(k1=6), [], Lineage()).warnings) == []


def test_warnings_are_the_same_whatever_the_order(tmp_path: Path, tested: ScoredPack) -> None:
    path = write(tmp_path / "other.h5", [("train", 1, 100)], dataset="other")
    one, two = trained(path, "other").trained[0], trained(None, "staff").trained[0]
    there = warned(report(), [tested], Lineage(trained=(one, two, replace(two, subset="x"))))
    back = warned(report(), [tested, tested], Lineage(trained=(two, one)))
    assert there.warnings == back.warnings
    assert warned(there, [tested], Lineage(trained=(one, two))) == there, "nothing old is kept, nothing is lost"
