"""Fine-tuning with a teacher: what it sees, what is learned, several processes, resuming, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lupctl.core.choices import Pooling
from lupctl.core.errors import StoppedError, UsageError
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import describe_pixels, read_header
from lupctl.core.formats.weights.plan import FcHead, HeadPlan, MgnHead, NetworkPlan, ResNetPlan, TrunkPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.recipes.distil_sections import DistilSettings
from lupctl.core.recipes.sections import Pixels
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.criterion import compared_features, imitate
from lupctl.core.stages.finetune.job import FinetuneJob, describe_setup, plan_finetuning
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.finetune.teacher import Teacher
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.losses.relational import relational_distances
from lupctl.core.training.nets.build import Classifying, build_network
from lupctl.core.training.views.plan import ViewPlan
from tests.tools.networks import jpm_head, make_header, neck, plan_network, tiny_vit
from tests.tools.shell import Shell
from tests.tools.tiny.training import (
    TRANSFORMER,
    compute_in_double,
    finetune_job,
    osnet_job,
    read_state,
    run_forked,
    shrunk_job,
    signal_at,
)

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"
HALF = (0.5, 0.5, 0.5)
# Images of another size than the student's, with other constants and another filter.
PIXELS = Pixels(height=48, width=24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), interpolation="bicubic")


def write_teacher(path: Path, plan: NetworkPlan, *, seed: int = 3, pixels: Pixels = PIXELS) -> Path:
    """A checkpoint of random weights that gives the images of a batch different features."""
    torch.manual_seed(seed)
    network = build_network(plan).eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, network.state_dict(), make_header(plan, preprocessing=describe_pixels(pixels)))
    return path


def taught(job: FinetuneJob, teacher: Path, *, weight: float = 25.0) -> FinetuneJob:
    """The same job with a teacher."""
    distil = DistilSettings(teacher=str(teacher), weight=weight)
    return replace(job, recipe=job.recipe.model_copy(update={"distil": distil}), teacher=teacher)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A residual network whose features are longer than the student's."""
    return write_teacher(tmp_path_factory.mktemp("strong") / CHECKPOINT, plan_network(neck(9), width=20))


@pytest.fixture(scope="module")
def whole(labelled: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneJob:
    """A run of six steps, which nothing disturbed."""
    job = taught(osnet_job(labelled, tmp_path_factory.mktemp("whole") / "run"), teacher)
    finetune(job, QUIET)
    return job


# What it sees and gives


@torch.no_grad()
def test_features_are_those_of_dump(labelled: Path, teacher: Path, lupctl: Shell, tmp_path: Path) -> None:
    """Of views in another network's constants, the size being the teacher's; and of views of half that size."""
    assert lupctl(f"dump {teacher} {labelled} --device cpu --workers 0 --out f.features.h5").code == 0
    dumped = read_features(Path("f.features.h5"))
    pack = open_pack(labelled)
    row_of = {name: row for row, name in enumerate(pack.samples.name)}
    chosen = [row_of[name] for name in dumped.samples.name[:5]]
    view = ViewPlan(48, 24, HALF, (0.3, 0.3, 0.3), "bicubic")
    device = torch.device("cpu")
    own = Teacher(teacher, view, device=device, precision=torch.float32)
    pixels = torch.stack([torch.from_numpy(decode_rgb(pack.read(row)).copy()) for row in chosen])
    images = pixels.permute(0, 3, 1, 2).float() / 255
    resized = torch.nn.functional.interpolate(images, (48, 24), mode="bicubic", antialias=True).clamp(0, 1)
    found = own.embed((resized - 0.5) / 0.3)
    wanted = torch.from_numpy(np.array(dumped.features[:5]))
    assert found.dtype == torch.float32
    assert not found.requires_grad
    similar = torch.nn.functional.cosine_similarity(found, wanted)
    assert float(similar.min()) > 0.9999
    small = Teacher(teacher, replace(view, height=24, width=12), device=device, precision=torch.float32)
    half = torch.nn.functional.interpolate(images, (24, 12), mode="bicubic", antialias=True).clamp(0, 1)
    assert small.embed((half - 0.5) / 0.3).shape == found.shape


def test_it_never_changes_and_its_modes_stay(teacher: Path) -> None:
    own = Teacher(
        teacher, ViewPlan(32, 16, HALF, HALF, "bilinear"), device=torch.device("cpu"), precision=torch.float32
    )
    images = torch.randn(6, 3, 32, 16, generator=torch.Generator().manual_seed(1))
    first = own.embed(images)
    assert torch.equal(own.embed(images), first), "no statistics move"
    assert torch.allclose(own.embed(images[:1]), first[:1], atol=1e-4), "no statistics of the batch"


@pytest.mark.parametrize(
    ("trunk", "head"),
    [
        (ResNetPlan(kind="resnet", arch="r18", width=4, last_stride=1, ibn=False), neck(5)),
        (
            ResNetPlan(kind="resnet", arch="r18", width=4, last_stride=1, ibn=False),
            MgnHead(kind="mgn", classes=0, embedding=8, extra_bn=False),
        ),
        (tiny_vit(), jpm_head(4)),
        (tiny_vit(parts=0), FcHead(kind="fc", classes=0, outputs=12)),
    ],
)
def test_any_network_can_teach(trunk: TrunkPlan, head: HeadPlan, labelled: Path, tmp_path: Path) -> None:
    """By its retrieval feature: that of a multiple granularity network has eight parts."""
    pooling: Pooling = "gem" if isinstance(head, MgnHead) else "token" if isinstance(trunk, ViTPlan) else "avg"
    plan = NetworkPlan(trunk=trunk, pooling=pooling, head=head)
    size = (
        Pixels(height=96, width=48, mean=HALF, std=HALF) if isinstance(head, MgnHead) else Pixels(height=64, width=32)
    )
    path = write_teacher(tmp_path / "net.safetensors", plan, pixels=size)
    job = taught(osnet_job(labelled, tmp_path / "run", "schedule.epochs=1", "schedule.warmup_epochs=0"), path)
    finetune(job, QUIET)
    facts = json.loads((job.run / "run.json").read_text())
    assert facts["distil"] > 0


# What is learned


def test_the_loss_is_part_of_the_run(whole: FinetuneJob, teacher: Path) -> None:
    facts = json.loads((whole.run / "run.json").read_text())
    assert facts["loss"] == pytest.approx(facts["identity"] + 25 * facts["distil"], rel=1e-5)
    assert facts["distil"] > 0.001
    assert facts["teacher"] == str(teacher)
    header = read_header(whole.run / CHECKPOINT)
    assert header.parents["teacher"] == file_fingerprint(teacher) == facts["parents"]["teacher"]
    assert header.recipe is not None
    assert header.recipe["distil"] == {"teacher": str(teacher), "weight": 25.0}
    assert set(load_file(whole.run / CHECKPOINT)) == {
        key for key in load_file(whole.run / CHECKPOINT) if key.startswith(("backbone.", "head."))
    }, "nothing of the teacher is in the checkpoint"


def test_a_teacher_is_imitated(labelled: Path, teacher: Path, tmp_path: Path) -> None:
    """Where nothing else is learned, and images are always the same, its similarities come nearer."""
    settings = ("losses.identity=0", "losses.triplet=0", "schedule.epochs=20", "augment.erase=0", "augment.flip=0")
    job = taught(finetune_job(labelled, tmp_path / "run", *settings, "augment.pad=0", "net.width=8"), teacher)
    finetune(job, QUIET)
    rows = [json.loads(line) for line in (job.run / "metrics.jsonl").read_text().splitlines()]
    found = [row["distil"] for row in rows if "distil" in row]
    assert found[-1] < 0.8 * found[0]


@pytest.mark.parametrize("shipped", ["mgn-imagenet", "transreid-vit-b-s12-sie-jpm"])
def test_networks_of_several_features_learn(shipped: str, labelled: Path, teacher: Path, tmp_path: Path) -> None:
    mgn = shipped.startswith("mgn")
    if mgn:
        settings = ("pixels.height=96", "net.embedding=8", "schedule.epochs=1", "schedule.warmup_epochs=0")
        job = finetune_job(labelled, tmp_path / "run", *settings, shipped=shipped)
    else:
        job = shrunk_job(labelled, tmp_path / "run", shipped, (*TRANSFORMER, "schedule.epochs=1"), start=None)
    job = taught(job, teacher)
    finetune(job, QUIET)
    facts = json.loads((job.run / "run.json").read_text())
    assert facts["distil"] > 0


def test_which_feature_imitates() -> None:
    given = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    network = build_network(plan_network(neck(3)))
    assert isinstance(network, Classifying)
    assert compared_features(network, (given, None)) is given
    theirs = torch.randn(4, 9, generator=torch.Generator().manual_seed(1))
    assert torch.equal(imitate(given, theirs), relational_distances(given, theirs))


# A run


def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, teacher: Path, whole: FinetuneJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = taught(osnet_job(labelled, tmp_path / "run"), teacher)
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 3)
        with pytest.raises(StoppedError, match="stopped on request after step 3"):
            finetune(job, QUIET)
    assert not any("teacher" in key for key in read_state(job.run)["model"])
    torch.manual_seed(99)
    finetune(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole.run / CHECKPOINT).read_bytes()


def test_another_teacher_is_refused_on_resume(
    labelled: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = tmp_path / "strong" / CHECKPOINT
    mine.parent.mkdir()
    shutil.copy(teacher, mine)
    job = taught(osnet_job(labelled, tmp_path / "run"), mine)
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 2)
        with pytest.raises(StoppedError):
            finetune(job, QUIET)
    with pytest.raises(UsageError, match=r"contains a run with recipe\.distil\.weight = 25"):
        finetune(taught(job, mine, weight=3.0), QUIET)
    with pytest.raises(UsageError, match=r"contains a run with recipe\.distil"):
        finetune(osnet_job(labelled, job.run), QUIET)
    write_teacher(mine, plan_network(neck(9), width=20), seed=4)
    with pytest.raises(UsageError, match=r"contains a run with inputs\.teacher = 'sha256:"):
        finetune(job, QUIET)


def test_two_processes_are_one(labelled: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sees the similarities of the whole batch."""
    compute_in_double(monkeypatch, loop, loop, "build_started")
    monkeypatch.setattr(loop, "evaluate_network", lambda *given, **more: {"map": 0.0, "rank1": 0.0})
    embed = Teacher.embed

    def embed_in_double(self: Teacher, pixels: Tensor) -> Tensor:
        self._encoder.network.double()
        return embed(self, pixels)

    monkeypatch.setattr(Teacher, "embed", embed_in_double)
    settings = ("bn_groups=2", "schedule.epochs=1", "optim.name=sgd")
    one, two = (taught(osnet_job(labelled, tmp_path / name, *settings), teacher) for name in ("one", "two"))
    two.run.mkdir()
    finetune(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    for key, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][key], rtol=1e-5, atol=1e-7), key


def test_no_teacher_leaves_recipes_of_earlier_versions_as_they_are(labelled: Path, tmp_path: Path) -> None:
    setup = describe_setup(osnet_job(labelled, tmp_path / "run"))
    assert "distil" not in setup["recipe"]
    assert "teacher" not in setup["inputs"]


# Plans and refusals


def test_a_plan_names_the_teacher_and_its_cost(labelled: Path, teacher: Path, tmp_path: Path) -> None:
    plain = osnet_job(labelled, tmp_path / "run")
    plan = plan_finetuning(taught(plain, teacher))
    assert plan_finetuning(plain).teacher is None
    assert plan.teacher is not None
    assert (plan.teacher.height, plan.teacher.width) == (48, 24)
    assert plan.teacher.description == "r18 width 20, avg pooling, head bnneck (finetune)"
    weights = load_file(teacher)
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    assert plan.teacher.parameters == sum(one.numel() for key, one in weights.items() if not key.endswith(buffers))
    assert plan.memory_bytes - plan_finetuning(plain).memory_bytes == plan.teacher.bytes


def test_teachers_that_are_refused(labelled: Path, teacher: Path, tmp_path: Path) -> None:
    job = osnet_job(labelled, tmp_path / "run")
    sie = NetworkPlan(trunk=tiny_vit(cameras=3, views=1, side_scale=3.0), pooling="token", head=neck(4))
    cameras = write_teacher(tmp_path / "sie.safetensors", sie)
    with pytest.raises(UsageError, match="takes the camera of every image, which a teacher is not told"):
        plan_finetuning(taught(job, cameras))
    own = write_teacher(job.run / CHECKPOINT, plan_network(neck(9)))
    with pytest.raises(UsageError, match="the run's own checkpoint, which it overwrites"):
        plan_finetuning(taught(job, own))


def test_typed(labelled: Path, teacher: Path, lupctl: Shell, tmp_path: Path) -> None:
    line = f"finetune {labelled} --recipe small-osnet --from scratch --gpus 0 --dry-run --set data.persons=4"
    ran = lupctl(f"{line} --teacher {teacher} --json")
    assert ran.code == 0, ran.err
    assert ran.json["teacher"]["parameters"] > 0
    assert ran.json["run"].endswith(f"-osnet-x0.25-from-scratch-taught-by-{teacher.parent.name}")
    ran = lupctl(f"{line} --teacher {teacher}")
    assert "head bnneck (finetune)" in ran.out
    assert lupctl(f"{line} --json").json.get("teacher") is None
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(b"x")
    folder = tmp_path / "lup" / "runs" / "half"
    folder.mkdir(parents=True)
    (folder / "recipe.toml").write_text('stage = "finetune"\n')
    for name, code, message in (
        ("nothing", 3, "no checkpoint 'nothing'"),
        (str(onnx), 3, "an ONNX network, which lupctl dump and lupctl.load take; a run or a checkpoint was expected"),
        (str(labelled), 3, "a pack or features; a run or a checkpoint was expected"),
        (str(folder), 3, "the run is not finished"),
    ):
        ran = lupctl(f"{line} --teacher {name}")
        assert (ran.code, message in ran.err) == (code, True), ran.err
        assert "hint: " in ran.err
    ran = lupctl(f"{line} --set distil.weight=3")
    assert ran.code == 2
    assert "distil.teacher: field required" in ran.err
    ran = lupctl(f"{line} --teacher {teacher} --set distil.weight=0")
    assert (ran.code, "distil.weight: input should be greater than 0" in ran.err) == (2, True)
    ran = lupctl(f"finetune {labelled} --recipe small-usl --from {teacher} --teacher {teacher} --gpus 0 --dry-run")
    assert (ran.code, "labels = 'clusters' looks at none" in ran.err) == (2, True), ran.err
