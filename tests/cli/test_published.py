"""`eval` beside published scores, and `eval --explain`: the cause that was planted is the one that is named."""

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lupctl.core.choices import ROLE_NAMES
from lupctl.core.data.catalog.published import Score
from lupctl.core.data.catalog.testing import TRANSREID_TESTING
from lupctl.core.data.catalog.weights import PUBLISHED
from lupctl.core.formats.features.file import Features, read_features, write_features
from lupctl.core.formats.images.codec import decode_rgb, encode_jpeg
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.verdict import note_verdict, pack_files
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from tests.tools.nets.camera_networks import plan_camera_network
from tests.tools.nets.known import NAME, SOURCE, WAY, Known, write_known
from tests.tools.nets.settable import make_space, swin_network
from tests.tools.shell import Ran, Shell

CPU = "--device cpu"


@pytest.fixture
def known(tmp_path: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    """A workspace with the network and the pack, which is as large as its benchmark."""
    home = make_space(tmp_path / "lup", labelled)
    write_known(home)
    found = Known(home, monkeypatch)
    found.count()
    found.publish(0.5, 0.5)
    return found


def dump(lupctl: Shell, more: str = "", out: str = "own.features.h5") -> Path:
    ran = lupctl(f"dump {NAME} labelled --out {out} --workers 0 {more} {CPU}")
    assert ran.code == 0, ran.err
    return Path(out)


def scores_of(lupctl: Shell, features: Path) -> tuple[float, float]:
    """mAP and rank-1, rounded as published ones are."""
    ran = lupctl(f"eval {features} --no-page --json --out {features.stem}.json {CPU}")
    assert ran.code == 0, ran.err
    return round(ran.json["scores"]["map"], 4), round(ran.json["scores"]["cmc"]["1"], 4)


def show(lupctl: Shell, more: str = "") -> Ran:
    page = "" if "--explain" in more else "--no-page"
    ran = lupctl(f"eval own.features.h5 {page} --force {more} {CPU}")
    assert ran.code == 0, ran.err
    return ran


def test_published_scores_are_beside_ours(lupctl: Shell, known: Known) -> None:
    own = scores_of(lupctl, dump(lupctl, "--flip --set interpolation=bicubic"))
    known.publish(own[0], 0.99)
    text = show(lupctl).out
    assert f"published: {NAME} " in text.splitlines()[5]
    assert f"{100 * own[0]:.2f}" in text.splitlines()[5]
    where = f"mAP {100 * own[0]:.2f} is inside our interval, rank-1 99.00 is outside our interval"
    remark = "as many images as Drawn-12, not verified (lupctl data verify labelled)"
    for line in (
        f"published: {NAME} of Planet (by the name of its file): {where}; {remark}",
        "not the published way: filter: bicubic; published: bilinear",
        "not the published way: flip: with mirrored images; published: without mirrored images",
    ):
        assert line in text.splitlines()
    found = show(lupctl, "--json").json["published"]
    assert (found["map"], found["rank1"], found["said_by"]) == (own[0], 0.99, "file name")
    assert (found["map_inside"], found["rank1_inside"]) == (True, False)
    assert [one["what"] for one in found["differences"]] == ["filter", "flip"]
    assert found["not_known"] == []


def test_the_page_has_them_too(lupctl: Shell, known: Known) -> None:
    dump(lupctl, "--flip")
    known.publish(0.4321, 0.5)
    assert lupctl(f"eval own.features.h5 {CPU}").code == 0
    page = Path("report.html").read_text(encoding="utf-8")
    assert f'<th scope="row">published: {NAME}</th><td data-key="published.map" data-value="0.4321">43.21</td>' in page
    assert "Not the published way: flip: with mirrored images; published: without mirrored images." in page


def test_a_verified_pack_needs_no_remark(lupctl: Shell, known: Known) -> None:
    dump(lupctl)
    pack = known.home / "packs" / "labelled.h5"
    note_verdict(pack, files=pack_files(pack), sound=True)
    found = show(lupctl, "--json").json["published"]
    assert (found["benchmark"], found["remark"], found["differences"]) == ("verified", "", [])
    note_verdict(pack, files=pack_files(pack), sound=False)
    assert show(lupctl, "--json").json["published"]["benchmark"] == "not verified"


def test_a_part_of_a_benchmark_is_not_comparable(lupctl: Shell, known: Known) -> None:
    dump(lupctl)
    known.count(more=4)
    text = show(lupctl).out
    (line,) = (one for one in text.splitlines() if "published" in one)
    assert f"published: {NAME} of Planet (by the name of its file): not comparable: a part of Drawn-12, " in line
    assert "10 of 14 queries" in line or " queries, " in line
    asked = show(lupctl, f"--published {NAME}")
    assert f"published: {NAME} (not comparable)" in asked.out
    found = show(lupctl, "--json").json["published"]
    assert (found["benchmark"], found["map_inside"], found["rank1_inside"]) == ("a part", None, None)


def test_a_download_says_what_a_file_is(lupctl: Shell, known: Known) -> None:
    dump(lupctl)
    models = known.home / "models"
    note = {"name": NAME, "terms": "free", "sha256": SOURCE}
    (models / "elsewhere.pth.json").write_text(json.dumps(note))
    (models / f"{NAME}.safetensors").rename(models / "mine.safetensors")
    assert show(lupctl, "--json").json["published"]["said_by"] == "download"
    (models / "elsewhere.pth.json").write_text(json.dumps({**note, "sha256": "sha256:0"}))
    assert show(lupctl, "--json").json["published"] is None, "of another file"
    assert show(lupctl, f"--published {NAME} --json").json["published"]["said_by"] == "user"
    (models / "elsewhere.pth.json").write_text(json.dumps({**note, "name": "another"}))
    ran = lupctl(f"eval own.features.h5 --published {NAME} --no-page --force {CPU}")
    assert (ran.code, ran.out) == (0, ran.out), "a name that the catalogue has not is no contradiction"


def test_a_trained_network_is_not_the_published_one(lupctl: Shell, tmp_path: Path, known: Known) -> None:
    make_space(tmp_path / "other", known.home / "packs" / "labelled.h5", "resnet")
    ran = lupctl(f"eval resnet --no-page --json --home other {CPU}")
    assert ran.json["published"] is None
    start = lupctl(f"eval resnet --no-page --json --force --home other --published {NAME} {CPU}")
    assert start.json["published"]["of"] == "this network"
    known.publish(0.5, 0.5, use="initialisation", size=None)
    start = lupctl(f"eval resnet --no-page --force --home other --published {NAME} {CPU}")
    assert f"published: {NAME} of Planet, what fine-tuning from it gave its authors (as --published says)" in start.out
    assert "not known of the published way: size" in start.out


def test_reranking_has_its_constants(lupctl: Shell, known: Known) -> None:
    dump(lupctl)
    known.publish(0.5, 0.5, scores=(Score("labelled", 0.5, 0.5, (0.7, 0.6)),))
    text = show(lupctl, "--rerank --k1 4 --k2 2").out
    assert "published, re-ranked: k1=20 k2=6 lambda=0.3 base=d4" in text
    assert "not the published way: re-ranking: k1=4 k2=2 lambda=0.3 base=d2; published: k1=20 k2=6" in text
    kept = lupctl(f"eval own.features.h5 --no-page {CPU}")
    assert "published, re-ranked" in kept.out, "of the report that is there"


def test_the_filter_that_was_planted_is_named(lupctl: Shell, known: Known) -> None:
    target = scores_of(lupctl, dump(lupctl, out="right.features.h5"))
    own = scores_of(lupctl, dump(lupctl, "--set interpolation=bicubic"))
    assert abs(own[0] - target[0]) > 0.002, "the filter matters"
    known.publish(*target)
    ran = show(lupctl, "--explain --json")
    found = ran.json
    assert found == json.loads(Path("own.explanation.json").read_text())
    assert (found["verdict"], found["closed_by"]) == ("explained", "filter")
    trials = {one["cause"]: one for one in found["trials"]}
    assert set(trials) == {"filter", "flip"}
    assert (trials["filter"]["ours"], trials["filter"]["tried"]) == ("bicubic", "bilinear")
    assert trials["filter"]["is_published"]
    assert not trials["flip"]["is_published"]
    assert abs(trials["filter"]["map_left"]) < 1e-4
    assert found["map_gap"] == pytest.approx(target[0] - own[0], abs=1e-4)
    assert trials["filter"]["map_difference"]["value"] == pytest.approx(found["map_gap"], abs=1e-4)
    command = trials["filter"]["command"].removeprefix("lupctl ")
    assert lupctl(f"{command} {CPU}").code == 0
    made = read_features(Path("filter.features.h5")).features
    assert np.array_equal(made, read_features(Path("right.features.h5")).features)
    text = show(lupctl, "--explain").out
    assert f"closes the gap: filter, bicubic to bilinear; lupctl {command}" in text
    assert not [path for path in Path().iterdir() if path.name.startswith(".own")], "nothing is left of the trials"


def test_two_things_together(lupctl: Shell, known: Known) -> None:
    target = scores_of(lupctl, dump(lupctl, out="right.features.h5"))
    dump(lupctl, "--set interpolation=bicubic --set size=32x16 --flip")
    known.publish(*target)
    found = show(lupctl, "--explain --json").json
    assert [one["cause"] for one in found["trials"]] == ["size", "filter", "flip", "all of these"]
    last = found["trials"][-1]
    assert last["tried"] == "size 48 x 24, filter bilinear, flip without mirrored images"
    assert abs(last["map_left"]) < 1e-4
    assert found["closed_by"] == "all of these"


def test_the_distance_of_features_as_they_come(lupctl: Shell, known: Known) -> None:
    features = read_features(dump(lupctl))
    is_query = features.samples.role == 2
    target = euclidean_scores(features, is_query)
    known.publish(*target, testing=replace(WAY, distance="euclidean"))
    found = show(lupctl, "--explain --json").json
    trial = found["trials"][-1]
    assert trial["cause"] == "distance"
    assert (trial["map_left"], trial["rank1_left"]) == (pytest.approx(0, abs=1e-3), pytest.approx(0, abs=1e-3))
    assert trial["command"] is None
    assert "distance" in [one["what"] for one in found["published"]["differences"]]


def euclidean_scores(features: Features, is_query: np.ndarray) -> tuple[float, float]:
    """mAP and rank-1 by Market-1501's rule and the Euclidean distance, query by query."""
    samples, precisions, firsts = features.samples, [], []
    gallery = np.flatnonzero(~is_query)
    for row in np.flatnonzero(is_query):
        same = samples.person[gallery] == samples.person[row]
        counts = ~(same & (samples.camera[gallery] == samples.camera[row]))
        distance = np.linalg.norm(features.features[gallery].astype(np.float64) - features.features[row], axis=1)
        right = same[counts][np.argsort(distance[counts], kind="stable")]
        ranks = np.flatnonzero(right) + 1
        if len(ranks):
            precisions.append((np.arange(1, len(ranks) + 1) / ranks).mean())
            firsts.append(ranks[0] == 1)
    return float(np.mean(precisions)), float(np.mean(firsts))


def test_no_gap_and_no_cause(lupctl: Shell, known: Known) -> None:
    own = scores_of(lupctl, dump(lupctl))
    known.publish(*own)
    assert "no gap to close: the scores are the published ones" in show(lupctl, "--explain").out
    known.publish(0.999, 0.999)
    ran = show(lupctl, "--explain")
    assert "no cause closes the gap" in ran.out
    assert json.loads(Path("own.explanation.json").read_text())["closed_by"] is None
    known.count(more=2)
    assert "no cause is named: the published scores are of other images" in show(lupctl, "--explain").out


def test_causes_without_a_published_score(lupctl: Shell, tmp_path: Path, labelled: Path) -> None:
    make_space(tmp_path / "lup", labelled, "resnet")
    ran = lupctl(f"eval resnet --explain {CPU}")
    assert ran.code == 0, ran.err
    assert "filter: bi" in ran.out
    assert "no published score to compare with: say which published network it is with --published NAME" in ran.out
    assert "mAP left" not in ran.out
    assert (tmp_path / "lup/runs/resnet/labelled.explanation.json").is_file()
    again = lupctl(f"eval resnet --explain {CPU}")
    assert again.code == 2
    assert "labelled.explanation.json: exists already" in again.err


def test_causes_of_networks_that_have_more_of_them(lupctl: Shell, known: Known) -> None:
    def causes(plan: object, more: str) -> dict[str, str]:
        write_known(known.home, network=plan)  # type: ignore[arg-type]
        dump(lupctl, f"{more} --force")
        ran = lupctl(f"eval own.features.h5 --explain --dry-run --json {CPU}")
        assert ran.code == 0, ran.err
        assert not Path("own.explanation.json").exists()
        return dict(one.split(": ") for one in ran.json["trials"].split("; "))

    known.publish(0.5, 0.5, size=(32, 16))
    plain = causes(plan_camera_network(3), "--set size=64x32")
    assert plain["resize of positions"] == "dino"
    assert plain["cameras"] == "none"
    assert plain["size"] == "32 x 16"
    assert causes(plan_camera_network(3), "--cameras none --set size=64x32")["cameras"] == "mean"
    known.publish(0.5, 0.5, testing=replace(WAY, semantic_weight=0.2))
    assert causes(swin_network(weight=0.5), "")["semantic weight"] == "0.2"
    assert "semantic weight" not in causes(swin_network(weight=0.2), "")


@pytest.mark.parametrize(
    ("line", "code", "message", "hint"),
    [
        ("--published planet-r18", 2, "no published model 'planet-r18'", f"did you mean {NAME}?"),
        ("--published market", 2, "no published model 'market'", "lupctl model list"),
        (f"--published {NAME} --all", 2, "--published has no meaning with --all", "leave --published out"),
        (f"--published {NAME} --compare", 2, "--published has no meaning with --compare", "leave --published out"),
        (f"--published {NAME} --sweep size=32x16", 2, "--published has no meaning with --sweep", "--published out"),
        ("--explain --all", 2, "--all has no meaning with --explain", "leave --all out"),
        ("--explain --compare", 2, "--compare has no meaning with --explain", "leave --compare out"),
        ("--explain --sweep size=32x16", 2, "--explain has no meaning with --sweep", "leave --explain out"),
        ("--explain --rerank", 2, "--rerank has no meaning with --explain", "leave --rerank out"),
        ("--explain --aqe 3", 2, "--aqe has no meaning with --explain", "leave --aqe out"),
        ("--explain --no-page", 2, "--no-page has no meaning with --explain", "leave --no-page out"),
        ("--explain --min-map 0.5", 2, "--min-map has no meaning with --explain", "leave --min-map out"),
    ],
)
def test_what_cannot_be(lupctl: Shell, known: Known, line: str, code: int, message: str, hint: str) -> None:
    dump(lupctl)
    ran = lupctl(f"eval own.features.h5 {line} {CPU}")
    assert (ran.code, ran.out) == (code, "")
    assert message in ran.err
    assert ran.err.rstrip("\n").endswith(hint)


def test_a_network_without_a_score_on_this_dataset(lupctl: Shell, known: Known) -> None:
    dump(lupctl)
    known.publish(0.5, 0.5, dataset="msmt17")
    for more in ("", "--dry-run"):
        ran = lupctl(f"eval own.features.h5 --published {NAME} {more} {CPU}")
        assert ran.code == 2
        assert f"--published {NAME}: nothing is published for it on labelled; its scores are on msmt17" in ran.err
    assert show(lupctl, "--json").json["published"] is None


def test_what_is_needed_to_explain_is_not_there(lupctl: Shell, known: Known) -> None:
    path = dump(lupctl)
    made = read_features(path)
    arrays: dict[str, Any] = {}
    for side, role in (("query", 2), ("gallery", 3)):
        some = made.samples.role == role
        arrays |= {
            f"{side}_features": made.features[some],
            f"{side}_persons": made.samples.person[some],
            f"{side}_cameras": made.samples.camera[some],
        }
    np.savez("foreign.npz", **arrays)
    (known.home / "models" / f"{NAME}.safetensors").rename("gone.safetensors.bak")
    for line, message, hint in (
        ("foreign.npz", "foreign.npz was made elsewhere, and its network and images are not recorded", "--explain out"),
        ("own.features.h5", "the network's checkpoint is not here (own.features.h5); --explain runs", "--explain out"),
    ):
        ran = lupctl(f"eval {line} --explain {CPU}")
        assert (ran.code, ran.out) == (3, "")
        assert message in ran.err
        assert ran.err.rstrip("\n").endswith(hint)
    Path("gone.safetensors.bak").rename(known.home / "models" / f"{NAME}.safetensors")
    (known.home / "packs" / "labelled.h5").rename("gone.h5.bak")
    ran = lupctl(f"eval own.features.h5 --explain {CPU}")
    assert ran.code == 3
    assert "the images that own.features.h5 was made from are not in" in ran.err


def test_a_record_that_does_not_say_how_images_were_prepared(lupctl: Shell, known: Known) -> None:
    made = read_features(dump(lupctl))
    whole = {key: value for key, value in made.record.items() if key not in ("preprocessing", "network")}
    spoilt: list[dict[str, Any]] = [
        {},
        {"preprocessing": []},
        {"network": {"kind": "onnx"}, "preprocessing": {"height": "tall"}},
    ]
    for more in spoilt:
        record = {**whole, **more}
        write_features(Path("own.features.h5"), Features(made.features, made.samples, record))
        assert "not the published way: size: not known; published: 48 x 24" in show(lupctl).out
        ran = lupctl(f"eval own.features.h5 --explain {CPU}")
        assert (ran.code, ran.out) == (3, "")
        assert "own.features.h5 does not say how its images were prepared" in ran.err


def test_several_files(lupctl: Shell, known: Known) -> None:
    dump(lupctl)
    made = read_features(Path("own.features.h5"))
    write_features(Path("more.features.h5"), Features(made.features, made.samples, {**made.record, "dataset": "more"}))
    ran = lupctl(f"eval own.features.h5 more.features.h5 --explain {CPU}")
    assert (ran.code, ran.out) == (2, "")
    assert "--explain: 2 features files" in ran.err
    ran = lupctl(f"eval own.features.h5 more.features.h5 --published {NAME} {CPU}")
    assert ran.code == 2
    assert "nothing is published for it on labelled + more" in ran.err


def test_a_run_without_features_is_not_planned(lupctl: Shell, tmp_path: Path, labelled: Path) -> None:
    make_space(tmp_path / "lup", labelled, "resnet")
    ran = lupctl(f"eval resnet --explain --dry-run {CPU}")
    assert ran.code == 3
    hint = ran.err.rstrip("\n").splitlines()[-1].removeprefix("hint: make it first: lupctl ")
    assert lupctl(f"{hint} {CPU}").code == 0, shlex.split(hint)
    assert lupctl(f"eval resnet --explain --dry-run {CPU}").code == 0


def test_versions_of_msmt17(lupctl: Shell, known: Known) -> None:
    """Only what the packs record tells them apart."""
    known.publish(0.5, 0.5, dataset="msmt17", testing=TRANSREID_TESTING)
    made = read_features(dump(lupctl))
    for version, shown in (("v2", "V2"), ("unknown", "not known"), (None, "not known")):
        record = {**made.record, "dataset": "msmt17"} | ({} if version is None else {"dataset_version": version})
        write_features(Path("own.features.h5"), Features(made.features, made.samples, record))
        ways = {one["what"]: one["ours"] for one in show(lupctl, "--json").json["published"]["differences"]}
        assert ways == {"version": shown}
        plan = lupctl(f"eval own.features.h5 --explain --dry-run --json {CPU}")
        assert plan.code == 0, plan.err
        reason = "the pack is V2, and no pack of V1 is" if version == "v2" else "nothing in the pack tells V1 and V2"
        assert plan.json["not_tried"].startswith(f"version: {reason}")


def test_the_other_version_of_msmt17(lupctl: Shell, known: Known) -> None:
    """The same lists, under other folders, with faces that are blurred in one of them."""
    packs = known.home / "packs"
    found = open_pack(packs / "labelled.h5")
    rows = np.flatnonzero(found.samples.role >= 2).tolist()
    for version, folder in (("v2", "mask_test_v2"), ("v1", "test")):
        images = []
        for row in rows:
            data, (height, width) = found.read(row), found.size[row].tolist()
            if version == "v2":
                image = decode_rgb(data)
                image[: height // 2] = image[: height // 2].mean(axis=(0, 1))
                data = encode_jpeg(image)
            person, camera = int(found.samples.person[row]), int(found.samples.camera[row])
            role = ROLE_NAMES[int(found.samples.role[row])]
            name = f"{folder}/{found.samples.name[row]}"
            images.append(PackedImage(data, height, width, name, person=person, camera=camera, role=role))
        facts = {"source": {"version": version}}
        write_pack(packs / f"msmt17{version}.h5", images, dataset="msmt17", facts=facts)
    assert lupctl(f"dump {NAME} {packs}/msmt17v1.h5 --out right.features.h5 --workers 0 {CPU}").code == 0
    target = scores_of(lupctl, Path("right.features.h5"))
    known.publish(*target, dataset="msmt17", testing=replace(WAY, msmt17="v1"))
    assert lupctl(f"dump {NAME} {packs}/msmt17v2.h5 --out own.features.h5 --workers 0 {CPU}").code == 0
    found_cause = show(lupctl, "--explain --json").json
    trial = found_cause["trials"][-1]
    assert (trial["cause"], trial["ours"], trial["tried"], trial["is_published"]) == ("version", "V2", "V1", True)
    assert abs(trial["map_left"]) < 1e-4
    assert trial["map_difference"]["value"] == pytest.approx(found_cause["map_gap"], abs=1e-4)
    assert found_cause["closed_by"] == "version"


def test_features_in_bf16_are_tried_in_float32(lupctl: Shell, known: Known) -> None:
    dump(lupctl, "--precision bf16")
    plan = lupctl(f"eval own.features.h5 --explain --dry-run --json {CPU}").json
    assert "precision: float32" in plan["trials"].split("; ")


def test_every_known_score_says_how_it_was_measured() -> None:
    for one in PUBLISHED:
        if one.scores:
            assert one.testing.interpolation is not None, one.name
            assert one.testing.distance is not None, one.name
            assert one.tested_size is not None, one.name
        for score in one.scores:
            assert 0 < score.map < 1
            if score.reranked is not None:
                assert score.reranked[0] > score.map, "re-ranking raises every published mAP"


@pytest.mark.real
@pytest.mark.slow
def test_a_real_network_on_a_part_of_its_benchmark(lupctl: Shell, real_data: Path, tmp_path: Path) -> None:
    raw = tmp_path / "lup" / "raw"
    raw.mkdir(parents=True)
    (raw / "market1501").symlink_to(real_data / "market1501-mini")
    assert lupctl("data pack market1501 --workers 1").code == 0
    network = real_data / "models" / "osnet_x0_25_msmt17.onnx"
    line = f"dump {network} market1501 --mean imagenet --std imagenet --out own.features.h5"
    assert lupctl(line).code == 0
    found = show(lupctl, "--explain --published osnet-x0.25-msmt17-all --json").json
    assert found["verdict"] == "not compared"
    assert "132 of 3,368 queries" in found["published"]["remark"]
    trials = {one["cause"]: one for one in found["trials"]}
    assert set(trials) == {"filter", "flip", "distance"}
    features = read_features(Path("own.features.h5"))
    expected = euclidean_scores(features, features.samples.role == 2)
    assert trials["distance"]["scores"]["map"] == pytest.approx(expected[0], abs=1e-3)
    assert trials["distance"]["map_difference"]["exceeds"], "torchreid's own distance is another ranking"
