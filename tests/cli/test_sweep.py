"""`dump --set` and `eval --sweep`: the numbers are those of the network that was asked for, and nothing is lost."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.networks import ReidNetwork
from lupctl.core.training.nets.swin.trunk import SwinTrunk
from tests.tools.nets.settable import PIXELS, make_space, networks
from tests.tools.shell import Shell


@pytest.fixture
def space(tmp_path: Path, labelled: Path) -> Path:
    return make_space(tmp_path / "lup", labelled, "swin")


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory, labelled: Path) -> Path:
    """All kinds of networks; shared, so nothing is written there."""
    return make_space(tmp_path_factory.mktemp("kinds") / "lup", labelled, *networks())


CPU = "--device cpu"


def test_features_are_those_of_the_weight_that_is_set(lupctl: Shell, space: Path) -> None:
    ran = lupctl(f"dump swin labelled --set semantic_weight=0.75 --type float32 --workers 0 {CPU}")
    assert ran.code == 0, ran.err
    path = space / "runs" / "swin" / "sweep" / "labelled.semantic_weight-0.75.features.h5"
    assert Path(ran.out.strip()) == path.relative_to(Path.cwd())
    features, pack = read_features(path), open_pack(space / "packs" / "labelled.h5")
    assert features.record["set"] == {"semantic_weight": 0.75}
    assert features.record["network"]["trunk"]["semantic_weight"] == 0.75
    network = build_network(networks()["swin"]).eval()
    assert isinstance(network, ReidNetwork)
    assert isinstance(network.backbone, SwinTrunk)
    network.load_state_dict(load_file(space / "runs" / "swin" / "checkpoint.safetensors"))
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXELS.mean, PIXELS.std))
    found = []
    for row in np.flatnonzero(pack.samples.role >= 2).tolist():
        image = torch.from_numpy(decode_rgb(pack.read(row))).permute(2, 0, 1) / 255
        with torch.no_grad():
            maps = network.backbone(((image - mean) / std)[None], semantic_weight=torch.tensor([0.75]))
            found.append(network.head(maps.map.mean(dim=(2, 3)))[0].numpy())
    np.testing.assert_allclose(features.features, np.stack(found), rtol=1e-4, atol=1e-4)


def test_the_filter_of_the_resize_is_pillows(lupctl: Shell, kinds: Path) -> None:
    features = {}
    for name in ("bilinear", "bicubic"):
        line = f"dump bare --set size=48x24 --set interpolation={name} --out {name}.features.h5 --workers 0"
        assert lupctl(f"{line} --home {kinds} {CPU}").code == 0
        found = read_features(Path(f"{name}.features.h5"))
        assert found.record["preprocessing"]["interpolation"] == found.record["set"]["interpolation"] == name
        features[name] = found.features
    pack = open_pack(kinds / "packs" / "labelled.h5")
    row = int(np.flatnonzero(pack.samples.role >= 2)[0])
    network = build_network(networks()["bare"]).eval()
    network.load_state_dict(load_file(kinds / "runs" / "bare" / "checkpoint.safetensors"))
    mean, std = (torch.tensor(values)[:, None, None] for values in (PIXELS.mean, PIXELS.std))
    for name, resample in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
        resized = Image.fromarray(decode_rgb(pack.read(row))).resize((24, 48), resample)
        image = torch.from_numpy(np.asarray(resized).copy()).permute(2, 0, 1) / 255
        with torch.no_grad():
            expected = network.embed(((image - mean) / std)[None])[0].numpy()
        own = np.linalg.norm(features[name][0] - expected)
        other = np.linalg.norm(features["bilinear" if name == "bicubic" else "bicubic"][0] - expected)
        assert own < 0.5 * other, "of Pillow's filter of that name, but for its rounding to whole grey levels"


@pytest.mark.slow
def test_a_sweep_is_dumps_and_evaluations_one_by_one(lupctl: Shell, space: Path) -> None:
    ran = lupctl(f"eval --sweep semantic_weight=0:1:0.5 {CPU} --json")
    assert ran.code == 0, ran.err
    sweep = ran.json
    assert sweep["schema"] == "lupctl.sweep/1"
    assert [point["value"] for point in sweep["points"]] == [0, 0.2, 0.5, 1]
    assert [point["is_own"] for point in sweep["points"]] == [False, True, False, False]
    reports = {}
    for value in (0, 0.2, 0.5, 1):
        out = f"{value}.features.h5"
        assert lupctl(f"dump swin --set semantic_weight={value} --out {out} --workers 0 {CPU}").code == 0
        reports[value] = lupctl(f"eval {out} --no-page --json --out {value}.json {CPU}").json
    own = ap_of(reports[0.2])
    for point in sweep["points"]:
        alone = reports[point["value"]]
        assert point["scores"] == alone["scores"]
        assert point["ci95"] == alone["ci95"]
        gap = ap_of(alone) - own
        rng = np.random.default_rng(9)
        means = gap[rng.integers(0, len(gap), (4000, len(gap)))].mean(axis=1)
        found = {(one["measure"], one["reranked"]): one for one in point["differences"]}
        if point["is_own"]:
            assert found == {}
            continue
        assert found["map", False]["value"] == pytest.approx(gap.mean())
        assert found["map", False]["ci95"] == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)
    maps = {value: report["scores"]["map"] for value, report in reports.items()}
    assert len(set(maps.values())) == 4, "the controller matters"
    assert sweep["best"] == max(maps, key=lambda value: maps[value])
    assert sweep["chosen_on"] == "test queries"


def ap_of(report: dict[str, object]) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Average precision of each query."""
    details = json.loads(json.dumps(report["details"]))
    return np.array([value for value in details["queries"]["ap"] if value is not None], float)


@pytest.mark.slow
def test_what_is_finished_is_used_again_and_nothing_is_lost(lupctl: Shell, space: Path) -> None:
    first = lupctl(f"eval --sweep semantic_weight=0,1 {CPU}")
    assert first.code == 0, first.err
    folder = space / "runs" / "swin" / "sweep"
    files = {path: path.stat().st_mtime_ns for path in folder.glob("*.features.h5")}
    own = space / "runs" / "swin" / "labelled.features.h5"
    assert sorted(path.name for path in files) == [f"labelled.semantic_weight-{value}.features.h5" for value in (0, 1)]
    assert own.is_file(), "as eval would have made it"
    again = lupctl(f"eval --sweep semantic_weight=0,0.5,1 {CPU}")
    assert again.code == 0, again.err
    assert "features: those of 3 of 4 values are there already" in again.err
    assert {path: path.stat().st_mtime_ns for path in files} == files
    fewer = lupctl(f"eval --sweep semantic_weight=0,1 {CPU}")
    assert fewer.code == 2
    assert "labelled.semantic_weight.sweep.json: exists already" in fewer.err
    ranked = lupctl(f"eval --sweep semantic_weight=0,0.5,1 --rerank --k1 4 --k2 2 {CPU} --json")
    assert ranked.code == 0, ranked.err
    assert "features: those of 4 of 4 values are there already" in ranked.err
    assert [one["reranked"] for one in ranked.json["points"][0]["differences"]] == [False, False, True, True]
    plain = lupctl(f"eval --sweep semantic_weight=0,0.5,1 {CPU}")
    assert plain.code == 2, "it would lose the re-ranked scores"
    assert lupctl(f"eval --sweep semantic_weight=0,0.5,1 {CPU} --force").code == 0
    out = folder / "labelled.semantic_weight.sweep.json"
    other = lupctl(f"eval --sweep semantic_weight=0,0.5,1 --set size=16x16 --out {out} {CPU}")
    assert other.code == 2, "what else is set is not the same"


@pytest.mark.slow
def test_features_that_somebody_made_are_not_overwritten(lupctl: Shell, space: Path) -> None:
    assert lupctl(f"dump swin --set semantic_weight=1 --flip --workers 0 {CPU}").code == 0
    assert lupctl(f"dump swin --flip --workers 0 {CPU}").code == 0
    folder = space / "runs" / "swin"
    ran = lupctl(f"eval --sweep semantic_weight=0,1 {CPU}")
    assert ran.code == 2
    assert "labelled.semantic_weight-1.features.h5: made with options of lupctl dump" in ran.err
    forced = lupctl(f"eval --sweep semantic_weight=0,1 --force {CPU} --json")
    assert forced.code == 0, forced.err
    assert read_features(folder / "labelled.features.h5").record["flip"], "those of the run stay"
    own = Path(forced.json["points"][1]["features"])
    assert own.name == "labelled.semantic_weight-0.2.features.h5"
    assert not read_features(own).record["flip"]


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("swin --sweep semantic_weight", "KEY=START:STOP:STEP, or KEY=VALUE,VALUE, was expected",
         "--sweep semantic_weight=0:1:0.1"),
        ("swin --sweep semantic_weight=0:1", "START:STOP:STEP, three numbers, was expected", "0:1:0.1"),
        ("swin --sweep semantic_weight=0:one:0.1", "START:STOP:STEP, three numbers, was expected", "0:1:0.1"),
        ("swin --sweep semantic_weight=0:1:0", "a step above 0 was expected", "--sweep semantic_weight=0:1:0.1"),
        ("swin --sweep semantic_weight=0:1:-0.1", "a step above 0 was expected", "--sweep semantic_weight=0:1:0.1"),
        ("swin --sweep semantic_weight=1:0:0.5", "starts at 1, after its end, 0", "--sweep semantic_weight=0:1:0.5"),
        ("swin --sweep semantic_weight=0:1:0.001", "1,001 values, each of which costs", "0:1:0.1"),
        ("swin --sweep semantic_weight=0:1:1e-30", "1,000,000,001 values, each of which costs", "0:1:0.1"),
        ("swin --sweep semantic_weight=0:2:1", "semantic_weight=2: a number from 0, for looks, to 1", "=0.5"),
        ("swin --sweep semantic_weight=0,nan", "semantic_weight=nan: a number from 0", "semantic_weight=0.5"),
        ("swin --sweep semantic_weight=0,0.0", "a value is named twice", "--sweep semantic_weight=0"),
        ("swin --sweep semantic_weigth=0,1", "is not semantic_weight, size, position or interpolation",
         "did you mean semantic_weight=0,1?"),
        ("swin --sweep swin.semantic_weight=0,1", "is not semantic_weight", "did you mean semantic_weight=0,1?"),
        ("swin --sweep size=64x32:96x48:8", "a range is of numbers", "--sweep size=256x128,384x128"),
        ("swin --sweep size=64x32,4096x1", "height and width from 1 to 2,048 pixels", "--sweep size=384x128"),
        ("vit --sweep interpolation=cubic", "interpolation=cubic: bilinear or bicubic was expected",
         "--sweep interpolation=bicubic"),
        ("vit --sweep position=cubic", "position=cubic: bilinear or dino was expected", "--sweep position=dino"),
        ("resnet --sweep semantic_weight=0,1", "has no semantic controller", "--sweep size=256x128,384x128"),
        ("bare --sweep semantic_weight=0,1", "has no semantic controller", "--sweep size=256x128,384x128"),
        ("vit --sweep semantic_weight=0,1", "has no semantic controller", "--sweep size=256x128,384x128"),
        ("swin --sweep position=dino,bilinear", "no position embedding to resize", "--sweep size=256x128,384x128"),
        ("vit --sweep position=dino,bilinear", "position=dino would change nothing", "--set size=64x32"),
        ("vit --sweep size=4x4", "no patch of 8 x 8 pixels fits", "--sweep size=32x16"),
        ("jpm --sweep size=8x16", "they have 2 patches, fewer than its 4 parts", "--sweep size=32x16"),
        ("mgn --sweep size=200x32", "its heights are multiples of 96", "--sweep size=192x32"),
        ("swin --sweep size=64x32,17x3", "takes no images of 17 x 3: one window of its attention shows 8 x 8 pixels",
         "--sweep size=17x8"),
        ("swin --sweep size=64x32 --set size=64x32", "both set size", "leave --set out"),
        ("swin --sweep size=64x32 --set position=dino", "no position embedding to resize", "leave --set out"),
        ("swin --sweep size=64x32 --compare", "--compare has no meaning with --sweep", "leave --compare out"),
        ("swin --sweep size=64x32 --all", "--all has no meaning with --sweep", "leave --all out"),
        ("swin --sweep size=64x32 --attention", "--attention has no meaning with --sweep", "leave --attention out"),
        ("swin --sweep size=64x32 --min-map 0.5", "--min-map has no meaning with --sweep", "leave --min-map out"),
        ("swin --sweep size=64x32 --threshold 0.1", "--threshold has no meaning with --sweep", "leave --threshold out"),
        ("swin --set semantic_weight=1", "--set has no meaning without --sweep", "add --sweep semantic_weight=0:1:0.1"),
        ("swin --processes 2", "--processes has no meaning without --sweep", "add --sweep semantic_weight=0:1:0.1"),
        ("a b c --sweep size=64x32", "one network and one dataset, not a b c", "lupctl eval a --sweep size=64x32"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be(lupctl: Shell, kinds: Path, line: str, message: str, hint: str) -> None:
    ran = lupctl(f"eval {line} --home {kinds} --dry-run {CPU}")
    assert (ran.code, ran.out) == (2, "")
    error, hinted = ran.err.rstrip("\n").splitlines()[-2:]
    assert error.startswith("error: ")
    assert message in error
    assert hinted.endswith(hint)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("swin --set semantic_weight=2", "a number from 0, for looks, to 1", "--set semantic_weight=0.5"),
        ("swin --set semantic_weight", "KEY=VALUE was expected", "did you mean semantic_weight=0.5?"),
        ("swin --set pixels.height=64", "'pixels.height' is not semantic_weight, size, position or interpolation",
         "did you mean size=384x128?"),
        ("swin --set size=17x3", "one window of its attention shows 8 x 8 pixels", "--set size=17x8"),
        ("vit --set size=17x3", "no patch of 8 x 8 pixels fits", "--set size=32x16"),
        ("resnet --set semantic_weight=1", "has no semantic controller", "leave --set out"),
        ("swin --set position=dino", "no position embedding to resize", "leave --set out"),
        ("vit --set position=dino", "position=dino would change nothing", "--set size=64x32"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_be(lupctl: Shell, kinds: Path, line: str, message: str, hint: str) -> None:
    ran = lupctl(f"dump {line} --home {kinds} {CPU} --out f.features.h5")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert ran.err.rstrip("\n").endswith(hint)
    assert not Path("f.features.h5").exists()


def test_features_cannot_be_swept(lupctl: Shell, space: Path) -> None:
    assert lupctl(f"dump swin --workers 0 {CPU}").code == 0
    ran = lupctl(f"eval {space}/runs/swin/labelled.features.h5 --sweep semantic_weight=0,1 {CPU}")
    assert ran.code == 3
    assert "in which nothing can be set any more; a run or a checkpoint was expected" in ran.err
    assert "hint: lupctl eval" in ran.err
    assert "swin --sweep semantic_weight=0,1" in ran.err


def test_a_dataset_alone_is_of_the_newest_run(lupctl: Shell, space: Path) -> None:
    ran = lupctl(f"eval labelled --sweep semantic_weight=0,1 --dry-run {CPU} --json")
    assert ran.code == 0, ran.err
    assert ran.json["checkpoint"] == str((space / "runs" / "swin" / "checkpoint.safetensors").relative_to(Path.cwd()))
    assert ran.json["values"] == "0, 0.2, 1"
    assert "the newest fine-tuning run" in ran.err


def test_a_plan_says_what_is_missing(lupctl: Shell, kinds: Path) -> None:
    ran = lupctl(f"eval pre labelled --sweep semantic_weight=0:1:0.1 --home {kinds} --dry-run {CPU} --json")
    assert ran.code == 0, ran.err
    assert (ran.json["features_there"], ran.json["features_missing"]) == (0, 11)
    assert ran.json["missing_bytes"] == 11 * 34 * 256 * 4
    assert not (kinds / "runs" / "pre" / "sweep" / "labelled.semantic_weight.sweep.json").exists()


def test_sizes_and_positions_of_a_transformer(lupctl: Shell, tmp_path: Path, labelled: Path) -> None:
    make_space(tmp_path / "lup", labelled, "vit")
    ran = lupctl(f"eval vit --sweep position=dino --set size=48x24 {CPU} --json")
    assert ran.code == 0, ran.err
    assert [(one["value"], one["is_own"]) for one in ran.json["points"]] == [("bilinear", True), ("dino", False)]
    assert ran.json["base"] == {"size": "48x24"}
    first, second = (read_features(Path(one["features"])) for one in ran.json["points"])
    assert first.record["set"] == {"size": "48x24", "position": "bilinear"}
    assert first.record["preprocessing"]["height"] == 48
    assert not np.array_equal(first.features, second.features)
    page = (tmp_path / "lup/runs/vit/sweep/labelled.size-48x24.position.sweep.html").read_text()
    for text in ("resize of the position embedding, 2 values", "Also set: size=48x24", "chosen on the test queries"):
        assert text in page


def test_what_was_set_goes_on(lupctl: Shell, space: Path) -> None:
    for value in (0, 1):
        out = f"{value}.features.h5"
        assert lupctl(f"dump swin --set semantic_weight={value} --out {out} --workers 0 {CPU}").code == 0
    shown = lupctl(f"eval 1.features.h5 --no-page {CPU}")
    assert "set of the network: semantic_weight=1" in shown.out
    joined = lupctl(f"eval 0.features.h5 1.features.h5 --no-page --out both.json {CPU}")
    assert joined.code == 3
    assert "made with semantic_weight=1 set, but 0.features.h5 with semantic_weight=0" in joined.err
    pack = open_pack(space / "packs" / "labelled.h5")
    row = int(np.flatnonzero(pack.samples.role == 2)[0])
    Path("person.jpg").write_bytes(pack.read(row))
    found = lupctl(f"search 1.features.h5 person.jpg --from swin {CPU} --json")
    assert found.code == 0, found.err
    assert found.json["queries"][0]["left_out"], "the query's own feature is at distance 0 with the same setting alone"


@pytest.mark.slow
def test_processes_make_the_same_features(lupctl: Shell, space: Path) -> None:
    assert lupctl(f"eval --sweep semantic_weight=0,1 {CPU}").code == 0
    folder = space / "runs" / "swin" / "sweep"
    alone = {path.name: read_features(path).features[:] for path in folder.glob("*.features.h5")}
    for path in [*folder.glob("*"), space / "runs" / "swin" / "labelled.features.h5"]:
        path.unlink()
    spread = lupctl("eval --sweep semantic_weight=0,1 --gpus 0 --processes 2")
    assert spread.code == 0, spread.err
    assert len(alone) == 2
    for name, vectors in alone.items():
        assert np.array_equal(read_features(folder / name).features, vectors)
