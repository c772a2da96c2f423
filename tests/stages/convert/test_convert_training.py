"""Training checkpoints of SOLIDER, converted whole: its second stage begins from them, to the bit; what is refused."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lupctl.core.formats.weights.file import read_method, write_method
from lupctl.core.formats.weights.header import read_header
from lupctl.core.resolve.retrieval.lineage import lineage_of
from lupctl.core.stages.pretrain.job import plan_pretraining, student_plan
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace
from tests.references.solider import SHORT, State, draw_state, teacher_layout, trunk_layout
from tests.references.transreid_layouts import TINY, dino_layout
from tests.references.transreid_layouts import draw_state as draw_vit
from tests.tools.networks import make_header
from tests.tools.shell import Ran, Shell
from tests.tools.tiny.training import solider_job

CONVERT = "model convert a.pth --training --out a.safetensors"
DEAD = 2 * 3 + 2 * 2 + 8  # norms of three maps, the controller after the last stage, and an index of every block
GAIN = "head.last_layer.weight_g"


def network(seed: int, prefix: str = "") -> State:
    """One of the two, with the published gains."""
    state = draw_state(teacher_layout(SHORT, outputs=40, hidden=16, prefix=prefix), seed=seed)
    return {**state, f"{prefix}{GAIN}": torch.ones(40, 1)}


def published(student: State | None = None, teacher: State | None = None) -> dict[str, object]:
    """A training checkpoint as DINO's code saves it; the student is wrapped by distributed training."""
    return {
        "student": student or network(2, "module."),
        "teacher": teacher or network(1),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-6}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="swin_tiny", out_dim=40),
        "dino_loss": {"center": torch.full((1, 40), 3.0)},
        "fp16_scaler": {"scale": 65536.0},
    }


def ours(state: State, name: str) -> dict[str, Tensor]:
    """A network's tensors by the keys that a run has them under, written down by hand."""
    found = {}
    for key, value in state.items():
        plain = key.removeprefix("module.")
        if plain == GAIN or plain.endswith("relative_position_index"):
            continue
        if plain.startswith(("backbone.norm0", "backbone.norm1", "backbone.norm2", "backbone.semantic_embed_w.3")):
            continue
        if plain.startswith("backbone.semantic_embed_b.3"):
            continue
        room, _, rest = plain.partition(".")
        rest = "last_layer.weight" if rest == "last_layer.weight_v" else rest
        found[f"{name}.embedding.backbone.{rest}" if room == "backbone" else f"{name}.head.{rest}"] = value
    return found


def test_both_networks_and_their_heads_are_kept(lupctl: Shell, tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "a.pth")
    plan = lupctl(f"{CONVERT} --dry-run --json")
    assert (plan.code, (tmp_path / "a.safetensors").exists()) == (0, False), plan.err
    ran = lupctl(f"{CONVERT} --json")
    assert ran.code == 0, ran.err
    assert ran.json["networks"] == ["student", "teacher"]
    assert (ran.json["arch"], ran.json["description"]) == ("swin-u", "swin-u semantic weight 0")
    assert ran.json["head"] == {"outputs": 40, "hidden": 16, "bottleneck": 256}
    assert ran.json["beside"] == ["optimizer", "epoch", "args", "dino_loss", "fp16_scaler"]
    assert ran.json["matched"] + len(ran.json["ignored"]) == 2 * len(network(1))
    assert len(ran.json["ignored"]) == 2 * DEAD
    found = read_method(tmp_path / "a.safetensors")
    wanted = ours(network(2), "student") | ours(network(1), "teacher")
    assert found.tensors.keys() == wanted.keys()
    assert all(torch.equal(value, wanted[key]) for key, value in found.tensors.items())
    assert (found.header.stage, found.header.recipe, found.header.network.head.kind) == ("convert", None, "none")
    said = lupctl(f"{CONVERT} --force")
    assert "student and teacher, swin-u semantic weight 0 with heads: " in said.err
    assert "what starts from it has a new centre and optimizer" in said.err
    info = lupctl("model info a.safetensors --json").json
    assert (info["kind"], info["tensors"]) == ("method", len(wanted))
    assert "contains a method; a checkpoint was expected" in lupctl("dump a.safetensors .").err


SIZES = ("swin.depths=[]", "swin.patch=4", "swin.window=7", "pixels.height=64", "pixels.width=64", "local.height=32",
         "local.width=32", "dino.bottleneck=256", "dino.frozen_epochs=0", "schedule.epochs=1")  # fmt: skip


@pytest.mark.slow
def test_the_second_stage_from_it_is_that_from_an_own_run(lupctl: Shell, crowd: Path, tmp_path: Path) -> None:
    """Both networks are trained by the same steps as those of a run with such weights; only the centre is another."""
    torch.save(published(), tmp_path / "a.pth")
    assert lupctl(CONVERT).code == 0
    own = tmp_path / "own" / "method.safetensors"
    own.parent.mkdir()
    job = solider_job(crowd, tmp_path / "one", *SIZES, start=tmp_path / "a.safetensors")
    plan = student_plan(job.recipe)
    header = make_header(plan, stage="pretrain").model_copy(update={"recipe": {"method": "dino"}})
    states = ours(network(2), "student") | ours(network(1), "teacher") | {"centre": torch.full((40,), 5.0)}
    write_method(own, states, header)
    pretrain(job, Progress(quiet=True))
    pretrain(solider_job(crowd, tmp_path / "two", *SIZES, start=own), Progress(quiet=True))
    for name in ("checkpoint.safetensors", "method.safetensors"):
        one, two = (load_file(tmp_path / run / name) for run in ("one", "two"))
        assert one.keys() == two.keys()
        assert all(torch.equal(value, two[key]) for key, value in one.items())
    before, after = states["student.embedding.backbone.norm3.weight"], load_file(tmp_path / "one/method.safetensors")
    assert not torch.equal(before, after["student.embedding.backbone.norm3.weight"])
    parents = read_header(tmp_path / "one" / "checkpoint.safetensors").parents
    assert parents["start"] == parents["start_method"] == read_method(tmp_path / "a.safetensors").fingerprint


def test_a_short_command_begins_from_it(lupctl: Shell, tmp_path: Path) -> None:
    """By the name under which it was converted; widths of a head that the recipe has otherwise are named."""
    torch.save(published(), tmp_path / "stage-a.pth")
    plan = "pretrain --method solider --recipe small-solider --gpus 0 --dry-run --json --set swin.patch=4"
    raw = lupctl(f"{plan} --from stage-a.pth")
    assert (raw.code, raw.err.splitlines()[-1]) == (3, "hint: lupctl model convert --training stage-a.pth")
    assert lupctl("model convert --training stage-a.pth").code == 0
    sizes = "--set swin.window=7 --set swin.depths=[]"
    wide = lupctl(f"{plan} {sizes} --from stage-a")
    assert wide.code == 3
    hint = wide.err.splitlines()[-1].removeprefix("hint: ")
    assert "--set dino.outputs=40" in hint
    ran = lupctl(f"{plan} {sizes} --from stage-a {hint}")
    assert ran.code == 0, ran.err
    assert ran.json["start"] == "stage-a"
    alone = lupctl("model convert stage-a.pth --out teacher.safetensors")
    assert alone.code == 0
    refused = lupctl(f"{plan} --from teacher.safetensors")
    assert "teacher.safetensors: a converted network alone; solider starts from student and teacher" in refused.err
    assert "lupctl model convert --training FILE.pth makes of a training checkpoint" in refused.err


def test_its_lineage_ends_there(lupctl: Shell, tmp_path: Path) -> None:
    torch.save(published(), tmp_path / "a.pth")
    assert lupctl(CONVERT).code == 0
    lineage = lineage_of(Workspace(tmp_path / "lup"), tmp_path / "a.safetensors")
    assert lineage.unknown == ("a was converted from another program's file, which does not list them",)


def refuse(lupctl: Shell, content: object, options: str = "", *, code: int = 3) -> Ran:
    """The command on a file with such content, which must fail and leave nothing."""
    torch.save(content, "a.pth")
    ran = lupctl(f"{CONVERT} {options}")
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert not Path("a.safetensors").exists()
    return ran


Change = Callable[[State], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("module.head.mlp.2.bias"), "1 missing (module.head.mlp.2.bias)"),
        (lambda state: state.pop("module.head.last_layer.weight_g"), "1 missing (module.head.last_layer.weight_g)"),
        (lambda state: state.pop("module.backbone.norm3.bias"), "1 missing (module.backbone.norm3.bias)"),
        (
            lambda state: state.update({"module.head.mlp.1.weight": torch.ones(16)}),
            "1 not in the network (module.head.mlp.1.weight)",
        ),
        (
            lambda state: state.update({"module.part.weight": torch.ones(2)}),
            "1 not in the network (module.part.weight)",
        ),
        (
            lambda state: state.update({"module.head.mlp.2.weight": torch.ones(16, 8)}),
            "1 of another shape (module.head.mlp.2.weight)",
        ),
    ],
    ids=["head", "gain", "trunk", "batch norm of the head", "extra", "shape"],
)
def test_a_partial_fit_is_refused_by_name(lupctl: Shell, tmp_path: Path, change: Change, message: str) -> None:
    student = network(2, "module.")
    change(student)
    teacher = network(1)
    if "another shape" in message:
        teacher["head.mlp.2.weight"] = torch.ones(16, 8)
    ran = refuse(lupctl, published(student, teacher))
    assert f"a.pth: student: nearest is swin-u semantic weight 0, but {message}" in ran.err


def test_what_is_no_training_of_solider_is_refused(lupctl: Shell, tmp_path: Path) -> None:
    alone = refuse(lupctl, network(1))
    assert "a.pth: has no student and no teacher; a training checkpoint of self-distillation has" in alone.err
    assert "a.pth: has no student; " in refuse(lupctl, {"teacher": network(1), "epoch": 3}).err
    vit = draw_vit(dino_layout(TINY, outputs=8, hidden=16))
    ran = refuse(lupctl, {"student": vit, "teacher": vit})
    assert "a.pth: student: not a Swin with DINO's head; --training is for a start of solider" in ran.err
    plain = trunk_layout("backbone.", SHORT, controller=False)
    head = {key: value for key, value in network(1).items() if key.startswith("head.")}
    bare = {**draw_state(plain), **head}
    ran = refuse(lupctl, {"student": bare, "teacher": bare})
    assert "a.pth: student: swin-u without a semantic controller, which solider trains" in ran.err
    gains = {**network(2, "module."), f"module.{GAIN}": torch.full((40, 1), 1.5)}
    assert f"a.pth: student: module.{GAIN} has gains other than 1" in refuse(lupctl, published(gains)).err
    rounded = {**network(1), GAIN: torch.full((40, 1), 1 + 1e-5)}
    torch.save(published(teacher=rounded), "a.pth")
    assert lupctl(f"{CONVERT} --dry-run").code == 0
    broken = {**network(1), "head.mlp.0.bias": torch.full((16,), float("nan"))}
    assert "1 tensor with numbers that are not finite (head.mlp.0.bias)" in refuse(
        lupctl, published(teacher=broken)
    ).err  # fmt: skip


def test_options_of_one_network_have_no_meaning(lupctl: Shell, tmp_path: Path) -> None:
    for option in ("--encoder teacher", "--reid", "--start", "--bgr", "--recipe bot", "--size 256x128"):
        ran = refuse(lupctl, published(), option, code=2)
        assert (
            f"{option.partition(' ')[0]}: of one network; --training keeps student and teacher as they are" in ran.err
        )
    assert "--training: for files of other programs" in refuse(lupctl, published(), "--to timm", code=2).err


def test_nothing_in_it_is_executed(lupctl: Shell, tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path("ran"),)  # type: ignore[return-value]

    ran = refuse(lupctl, {**published(), "args": Harmful()})
    assert "contains more than tensors and plain values" in ran.err
    assert not Path("ran").exists()


def test_a_plan_of_it_is_checked(lupctl: Shell, crowd: Path, tmp_path: Path) -> None:
    """The stage refuses the file for another size of trunk as it refuses a run."""
    torch.save(published(), tmp_path / "a.pth")
    assert lupctl(CONVERT).code == 0
    job = solider_job(crowd, tmp_path / "run", *SIZES, start=tmp_path / "a.safetensors")
    assert plan_pretraining(job).images == 36
