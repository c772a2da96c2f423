"""Scores of a pack end to end: which features are compared, resumed, spread and sharded; and what is refused."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
import torch

from lupctl.core.choices import ROLE_CODES
from lupctl.core.errors import UsageError
from lupctl.core.flows.scoring import score_images
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.scores.file import read_scores, scores_path
from lupctl.core.formats.weights.file import read_checkpoint, write_checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.formats.weights.plan import HeadPlan, JpmHead, MgnHead, NetworkPlan
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.ranking.retrieval import extract
from lupctl.core.ranking.retrieval.extract import open_encoder
from lupctl.core.recipes.sections import Pixels
from lupctl.core.resolve.training.placement import DumpPlace
from lupctl.core.stages.dump.job import Shard
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.stages.score import run as run_module
from lupctl.core.stages.score.job import ScoreJob, compare_networks
from lupctl.core.stages.score.run import ScoreResult
from lupctl.core.stages.score.sheet import pick_bands
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import build_network
from lupctl.core.workspace import Workspace
from tests.tools.networks import jpm_head, make_header, neck, no_head, plan_network, projection, tiny_vit
from tests.tools.shell import Shell
from tests.tools.tiny.training import PRETRAIN, as_options, finetune_job, pretrain_job

QUIET = Progress(quiet=True)
HERE = DumpPlace(torch.device("cpu"))


@pytest.fixture(scope="module")
def home(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a pre-training run, what was fine-tuned from it with a GeM of its own, and another run."""
    home = tmp_path_factory.mktemp("home")
    (home / "packs").mkdir()
    pack = Path(shutil.copy(labelled, home / "packs" / "labelled.h5"))
    pretrain(pretrain_job(pack, home / "runs/pre"), QUIET)
    start = home / "runs/pre/checkpoint.safetensors"
    finetune(finetune_job(pack, home / "runs/fine", "net.pooling=gem", "pixels.height=48", start=start), QUIET)
    pretrain(pretrain_job(pack, home / "runs/other", "seed=2"), QUIET)
    return home


@pytest.fixture
def own(home: Path, tmp_path: Path) -> Path:
    """A copy of the workspace."""
    return Path(shutil.copytree(home, tmp_path / "own"))


def job_of(home: Path, **changes: object) -> ScoreJob:
    pack, runs = home / "packs/labelled.h5", home / "runs"
    job = ScoreJob(
        pack=pack,
        before=runs / "pre/checkpoint.safetensors",
        after=runs / "fine/checkpoint.safetensors",
        out=scores_path(pack),
        chunk=16,
        workers=0,
    )
    return replace(job, **changes)  # type: ignore[arg-type]


def score(job: ScoreJob, where: DumpPlace = HERE) -> ScoreResult:
    result = score_images(job, where, QUIET)
    assert result is not None
    return result


def slow_feature(checkpoint: Path, encoded: bytes) -> np.ndarray:
    """The average of the trunk's last map, one image at a time, prepared as the checkpoint says."""
    found = read_checkpoint(checkpoint)
    network = build_network(found.header.network)
    network.load_state_dict(found.tensors)
    pixels = found.header.preprocessing
    image = torch.from_numpy(decode_rgb(encoded)).permute(2, 0, 1)[None].float() / 255
    size = (pixels.height, pixels.width)
    image = torch.nn.functional.interpolate(image, size, mode="bilinear", antialias=True, align_corners=False)
    mean, std = (torch.tensor(constants)[:, None, None] for constants in (pixels.mean, pixels.std))
    image = (image - mean) / std
    with torch.no_grad():
        return network.eval().backbone(image).map.mean(dim=(2, 3))[0].double().numpy()


def test_scores_are_the_cosines_of_both_trunks_pooled_alike(own: Path) -> None:
    """Before the neck, with the pooling of the network before, and each network's own size of images."""
    job = job_of(own)
    result = score(job)
    pack, found = open_pack(job.pack), read_scores(job.out)
    assert (result.images, len(found)) == (len(pack), len(pack))
    assert set(pack.samples.role.tolist()) == {ROLE_CODES["train"], ROLE_CODES["query"], ROLE_CODES["gallery"]}
    for row in (0, 17, len(pack) - 1):
        first, second = (slow_feature(path, pack.read(row)) for path in (job.before, job.after))
        expected = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
        assert found.score[row] == pytest.approx(expected, abs=2e-4)
    record = found.record
    assert found.fingerprint == pack.fingerprint
    assert (record["distance"], record["pooling"]) == ("cosine", "avg")
    assert [record[side]["name"] for side in ("before", "after")] == ["pre", "fine"]
    assert record["after"]["parents"]["start"] == record["parents"]["before"]
    assert record["after"]["preprocessing"]["height"] == 48
    assert sorted(path.name for path in (own / "packs").iterdir()) == ["labelled.h5", "labelled.scores.h5"]
    assert Workspace(own).pack_paths() == [job.pack]
    assert sum(result.counts) == len(pack)
    assert result.quantiles[0.5] == pytest.approx(float(np.median(found.score)))


def test_the_same_scores_are_read_again_and_others_need_force(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    job = job_of(own)
    first = score(job)
    written = job.out.read_bytes()
    assert score_images(job, HERE, Progress()) == first
    assert "the same scores are there already" in capsys.readouterr().err
    with pytest.raises(UsageError, match="exists already"):
        score(replace(job, distance="raw-l2"))
    with pytest.raises(UsageError, match="exists already"):
        score(replace(job, precision="bf16"))
    assert job.out.read_bytes() == written
    assert score(replace(job, precision="auto")) == first
    assert score(replace(job, distance="raw-l2", force=True)).distance == "raw-l2"
    score(replace(job, force=True))
    assert job.out.read_bytes() == written


def test_a_stopped_scoring_continues(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first network's features are there, and one chunk of the second's."""
    job = job_of(own)
    score(job)
    expected = job.out.read_bytes()
    job.out.unlink()
    computed: list[int] = []
    real = extract._embed_group

    def counted(encoder: extract.Encoder, *given: object, **more: object) -> np.ndarray:
        computed.append(encoder.view.height)
        if computed.count(48) == 2:
            raise KeyboardInterrupt
        return real(encoder, *given, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(extract, "_embed_group", counted)
    with pytest.raises(KeyboardInterrupt):
        score(job)
    assert not job.out.exists()
    count = computed.count(32)
    monkeypatch.setattr(extract, "_embed_group", lambda *given, **more: (computed.append(1), real(*given, **more))[1])
    score(job)
    assert computed.count(32) == count
    assert job.out.read_bytes() == expected
    assert not list((own / "packs").glob(".*scores*"))


def test_features_in_another_precision_are_computed_again(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(own)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "write_scores", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            score(job)
    score(replace(job, precision="bf16"))
    record = read_scores(job.out).record
    assert [record[side]["precision"] for side in ("before", "after")] == ["bfloat16", "bfloat16"]


def test_scores_that_rank_nothing_are_warned_of(own: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A trunk that fine-tuning left as it was: cosines of 1 but for the last bits, which no bin can tell apart."""
    job = job_of(own)
    found = read_checkpoint(job.before)
    header = found.header.model_copy(update={"stage": "finetune"})
    after = tmp_path / "frozen.safetensors"
    write_checkpoint(after, found.tensors, header)
    result = score_images(replace(job, after=after), HERE, Progress())
    assert result is not None
    assert result.is_flat
    assert sum(result.counts) == result.images
    assert result.edges[0] < 1 < result.edges[-1]
    assert "all scores are the same to rounding" in capsys.readouterr().err


def test_shards_become_the_scores_of_one(own: Path) -> None:
    job = job_of(own)
    score(job)
    expected = read_scores(job.out).score
    job.out.unlink()
    for number in (2, 1):
        assert score_images(job, HERE, QUIET, shard=Shard(number, 3)) is None
        assert not job.out.exists()
    result = score_images(job, HERE, QUIET, shard=Shard(3, 3))
    assert result is not None
    assert read_scores(job.out).score.tolist() == expected.tolist()


@pytest.mark.slow
def test_two_processes_give_the_same_scores(own: Path) -> None:
    job = job_of(own)
    score(job)
    expected = read_scores(job.out).score
    score(replace(job, force=True), DumpPlace(torch.device("cpu"), Placement("cpu", 2, "")))
    assert read_scores(job.out).score.tolist() == expected.tolist()


@pytest.mark.parametrize(
    ("head", "arch"),
    [
        (neck(3), "resnet"),
        (projection(8), "resnet"),
        (MgnHead(kind="mgn", classes=3, embedding=4, extra_bn=True), "resnet"),
        (jpm_head(3), "vit"),
        (neck(3), "vit"),
    ],
)
def test_every_head_leaves_the_trunks_own_feature(tmp_path: Path, head: HeadPlan, arch: str) -> None:
    """A network whose trunk has the weights of a bare one gives its feature, whatever its head does."""
    torch.manual_seed(0)
    is_vit = arch == "vit"
    trunk = tiny_vit() if is_vit else plan_network(no_head()).trunk
    bare = NetworkPlan(trunk=trunk, pooling="token" if is_vit else "avg", head=no_head())
    pooling = "gem" if isinstance(head, MgnHead) else bare.pooling
    whole = NetworkPlan(trunk=trunk, pooling=pooling, head=head)
    pixels = Pixels(height=96 if not is_vit else 64, width=32)
    first, second = build_network(bare), build_network(whole)
    tensors = first.backbone.state_dict()
    if isinstance(head, MgnHead):
        from lupctl.core.training.nets.mgn import spread_trunk

        tensors = spread_trunk(tensors)
    elif isinstance(head, JpmHead):
        from lupctl.core.training.nets.jpm import spread_blocks

        tensors = spread_blocks(tensors, depth=2)
    else:
        tensors = {f"backbone.{key}": value for key, value in tensors.items()}
    assert not second.load_state_dict(tensors, strict=False).unexpected_keys
    for name, plan, network in (("first", bare, first), ("second", whole, second)):
        write_checkpoint(
            tmp_path / name, network.state_dict(), make_header(plan, preprocessing=describe_pixels(pixels))
        )
    images = torch.randn(3, 3, pixels.height, pixels.width)
    cpu = torch.device("cpu")
    encoders = [
        open_encoder(tmp_path / name, device=cpu, precision=torch.float32, pooling=bare.pooling)[0]
        for name in ("first", "second")
    ]
    with torch.no_grad():
        torch.testing.assert_close(encoders[1].embed(images), encoders[0].embed(images), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(encoders[0].embed(images), first.eval().embed(images))


def test_networks_that_cannot_be_compared_are_refused(own: Path, tmp_path: Path) -> None:
    job = job_of(own)
    copy = Path(shutil.copy(job.before, tmp_path / "copy.safetensors"))
    with pytest.raises(UsageError, match="the same network twice"):
        compare_networks(replace(job, after=copy))
    for number, plan in enumerate(
        (
            plan_network(neck(3), width=8),
            NetworkPlan(trunk=tiny_vit(), pooling="token", head=neck(3)),
        )
    ):
        path = tmp_path / f"{number}.safetensors"
        write_checkpoint(path, build_network(plan).state_dict(), header_of(plan))
        with pytest.raises(UsageError, match="cannot be compared"):
            compare_networks(replace(job, after=path))


@pytest.mark.parametrize("changes", [{"semantic_weight": 0.2}, {"semantic_weight": None}, {"window": 4}])
def test_a_swin_may_be_tuned_with_another_weight_and_windows(
    own: Path, tmp_path: Path, changes: dict[str, Any]
) -> None:
    """SOLIDER pre-trains with a semantic weight that is drawn, and fine-tunes with 0.2."""
    small: dict[str, Any] = {"depths": (1, 1, 1, 1), "semantic_weight": 0.0}
    for name, own_changes in (("before", {}), ("after", changes), ("deeper", {"depths": (1, 1, 1, 2)})):
        plan = NetworkPlan(trunk=plan_swin("swin-u", **small | own_changes), pooling="avg", head=no_head())
        write_checkpoint(tmp_path / name, build_network(plan).state_dict(), header_of(plan))
    job = replace(job_of(own), before=tmp_path / "before", after=tmp_path / "after")
    assert compare_networks(job).dim == 256
    with pytest.raises(UsageError, match="cannot be compared"):
        compare_networks(replace(job, after=tmp_path / "deeper"))


def header_of(plan: NetworkPlan) -> CheckpointHeader:
    """For images of a size that any of these networks takes."""
    return make_header(plan, preprocessing=describe_pixels(Pixels(height=64, width=32)))


def test_bands_share_no_image() -> None:
    values = np.random.default_rng(0).normal(size=500)
    bands = pick_bands(values)
    shown = np.concatenate(list(bands.values()))
    assert len(set(shown.tolist())) == len(shown) == 72
    ranks = np.argsort(np.argsort(-values))
    assert ranks[bands["best"]].tolist() == list(range(24))
    assert ranks[bands["middle"]].tolist() == list(range(238, 262))
    assert ranks[bands["worst"]].tolist() == list(range(476, 500))
    assert [len(rows) for rows in pick_bands(np.ones(2)).values()] == [1, 1, 1]


def test_the_command_shows_the_distribution_and_a_sheet(lupctl: Shell, own: Path, tmp_path: Path) -> None:
    line = f"data score labelled --home {own} --before pre --after fine --gpus 0 --workers 0"
    planned = lupctl(f"{line} --dry-run --json")
    assert planned.code == 0, planned.err
    assert (planned.json["images"], planned.json["dim"]) == (70, 32)
    assert not (own / "packs/labelled.scores.h5").exists()
    ran = lupctl(f"{line} --sheet best.png")
    assert ran.code == 0, ran.err
    assert "warning" not in ran.err
    assert "70 images, cosine between pre and fine" in ran.out
    assert ran.out.splitlines()[-2:] == ["best.png", str(own / "packs/labelled.scores.h5")]
    picture = cv2.imread(str(tmp_path / "best.png"))
    assert picture is not None
    assert picture.shape[0] > 6 * 128
    found = lupctl(f"{line} --json").json
    assert (found["schema"], found["images"], sum(found["counts"])) == ("lupctl.scores/1", 70, 70)
    tables = as_options(PRETRAIN)
    kept = lupctl(f"pretrain --data labelled --home {own} --gpus 0 --keep 0.6 --dry-run --json {' '.join(tables)}")
    assert kept.json["images"] == 22


@pytest.mark.parametrize(
    ("options", "code", "said", "hint"),
    [
        ("--before pre", 2, "--after is missing", "--before pre --after fine"),
        ("--after fine", 2, "--before is missing", "--before other --after fine"),
        ("--before pre --after pre", 2, "the same network twice", "lupctl finetune"),
        ("--before pre --after nothing", 3, "no checkpoint 'nothing'", "fine"),
        ("--before pre --after fine --shard 4/3", 2, "--shard 4/3", "--shard 1/8"),
        ("--before pre --after fine --sheet best.gif", 2, "must end in one of", "best.gif.png"),
        ("--before pre --after fine --recipe small-moco", 2, "--recipe is of --curve", "--curve"),
        ("--curve 0.5,2", 2, "'2' is no share", "--curve 0.25,0.5,0.75,1"),
        ("--curve 0.5 --shard 1/2", 2, "--curve and --shard", "without --shard"),
        ("--curve 0.5 --recipe small-moco", 3, "there are no scores", "lupctl data score"),
        ("--curve 0.5 --probe {crowd}", 3, "crowd.h5: cannot be a probe: there is no query", "--probe labelled"),
    ],
)
def test_a_wrong_line_is_refused(
    lupctl: Shell, own: Path, crowd: Path, options: str, code: int, said: str, hint: str
) -> None:
    ran = lupctl(f"data score labelled --home {own} --gpus 0 {options.format(crowd=crowd)}")
    assert (ran.code, ran.out) == (code, ""), ran.err
    message, advice = ran.err.splitlines()[-2:]
    assert said in message
    assert hint in advice
    assert sorted(path.name for path in (own / "packs").iterdir()) == ["labelled.h5"]


def test_networks_that_learned_apart_are_warned_of(lupctl: Shell, own: Path) -> None:
    line = f"data score labelled --home {own} --gpus 0 --dry-run"
    assert "did not start from" in lupctl(f"{line} --before pre --after other").err
    ran = lupctl(f"{line} --before fine --after pre")
    assert "was fine-tuned itself" in ran.err
    assert ran.code == 0


def test_a_curve_trains_each_share_for_as_many_steps(lupctl: Shell, own: Path) -> None:
    score(job_of(own))
    line = f"data score labelled --home {own} --gpus 0 --workers 0 --curve 1,0.5 --recipe small-moco"
    line += f" {' '.join(as_options(PRETRAIN))} --set data.batch=8"
    planned = lupctl(f"{line} --dry-run --json")
    assert planned.code == 0, planned.err
    # 36 images are 4 steps an epoch, 18 are 2: two epochs become four.
    assert [(run["share"], run["images"], run["steps"]) for run in planned.json["runs"]] == [(0.5, 18, 8), (1, 36, 8)]
    ran = lupctl(f"{line} --json")
    assert ran.code == 0, ran.err
    points = ran.json["points"]
    assert [(p["share"], p["images"], p["epochs"], p["steps"]) for p in points] == [(0.5, 18, 4, 8), (1.0, 36, 2, 8)]
    assert all(0 < point["probe_map"] <= 1 for point in points)
    assert points[0]["probe_map"] != points[1]["probe_map"]
    again = lupctl(line)
    assert again.err.count("already finished") == 2
    assert "mAP" in again.out
    assert sorted(path.name for path in (own / "runs").glob("curve-*")) == [
        "curve-labelled-small-moco-0.5", "curve-labelled-small-moco-1",
    ]  # fmt: skip


def test_a_curve_is_no_work_for_a_launcher(lupctl: Shell, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    ran = lupctl(f"data score labelled --home {own} --curve 0.5,1")
    assert ran.code == 2
    assert "torchrun started one job" in ran.err
