"""Where the fine-tuning of a vision transformer starts: what is kept, what is resized, what is new, what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torchvision.models.vision_transformer import VisionTransformer

from lupctl.core.errors import FormatError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import PackReference
from lupctl.core.formats.weights.plan import HeadPlan, NetworkPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.stages.finetune.checks import check_start
from lupctl.core.stages.finetune.job import network_plan, plan_finetuning
from lupctl.core.stages.finetune.network import build_started
from lupctl.core.stages.finetune.run import check_fit, finetune
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.vit.imagenet import rename_torchvision
from lupctl.core.training.nets.vit.trunk import ViTTrunk
from tests.tools.networks import jpm_head, make_header, neck, no_head, plan_network, plan_vit, projection
from tests.tools.tiny.training import transformer_job

QUIET = Progress(quiet=True)
CAMERAS = (1, 2, 3)
BASELINE = "transreid-vit-b"


def vit(**changes: Any) -> ViTPlan:
    """The trunk of `transformer_job`, but pre-trained without overlap: 4 x 2 patches."""
    plain = plan_vit("vit-t", height=64, width=32).model_dump()
    return ViTPlan.model_validate({**plain, "depth": 2, "patch": 8, "stride": 8, "rows": 4, "columns": 2, **changes})


def write_start(path: Path, head: HeadPlan, trunk: ViTPlan | None = None, **header: Any) -> dict[str, torch.Tensor]:
    """A checkpoint with random weights; returns its tensors."""
    torch.manual_seed(7)
    plan = NetworkPlan(trunk=trunk or vit(), pooling="token", head=head)
    tensors = build_network(plan).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, tensors, make_header(plan, **header))
    return tensors


def started(labelled: Path, start: Path, *settings: str, recipe: str, cameras: tuple[int, ...] = ()) -> Any:
    job = transformer_job(labelled, start.parent / "run", *settings, recipe=recipe, start=start)
    check_start(start, job.recipe, cameras)
    torch.manual_seed(0)
    return build_started(job, 6, Progress(), cameras).state_dict()


def test_a_trunk_gives_the_jigsaw_module_both_of_its_last_blocks(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "pre" / "trunk.safetensors"
    given = write_start(start, projection(16), stage="pretrain")
    found = started(labelled, start, recipe="transreid-vit-b-s12-sie-jpm", cameras=CAMERAS)
    line = capsys.readouterr().err
    assert line.startswith(f"start: 30 trunk tensors from {start}; 4 of its head not used, new head; ")
    assert line.endswith("; new table of 3 cameras; positions resized from 4 x 2 to 7 x 3\n")
    for key, value in given.items():
        name = key.removeprefix("backbone.")
        if name.startswith("blocks.1."):
            for branch in ("b1", "b2"):
                assert torch.equal(found[f"head.{branch}.0.{name.removeprefix('blocks.1.')}"], value), key
        elif name.startswith("norm."):
            for branch in ("b1", "b2"):
                assert torch.equal(found[f"head.{branch}.1.{name.removeprefix('norm.')}"], value), key
        elif key.startswith("backbone.") and name != "pos_embed":
            assert torch.equal(found[key], value), key
    position = given["backbone.pos_embed"]
    image = position[:, 1:].reshape(1, 4, 2, 192).permute(0, 3, 1, 2)
    resized = F.interpolate(image, size=(7, 3), mode="bilinear", align_corners=False)
    assert torch.equal(found["backbone.pos_embed"][:, :1], position[:, :1])
    assert torch.allclose(
        found["backbone.pos_embed"][:, 1:], resized.permute(0, 2, 3, 1).reshape(1, 21, 192), atol=2e-6
    )
    assert found["backbone.sie_embed"].std() > 0.01


def test_the_resize_is_the_recipes(labelled: Path, tmp_path: Path) -> None:
    start = tmp_path / "pre" / "trunk.safetensors"
    given = write_start(start, no_head(), stage="pretrain")
    found = started(labelled, start, "vit.position=dino", recipe=BASELINE)
    image = given["backbone.pos_embed"][:, 1:].reshape(1, 4, 2, 192).permute(0, 3, 1, 2)
    resized = F.interpolate(image, scale_factor=((7 + 0.1) / 4, (3 + 0.1) / 2), mode="bicubic")
    assert resized.shape[2:] == (7, 3)
    assert torch.allclose(
        found["backbone.pos_embed"][:, 1:], resized.permute(0, 2, 3, 1).reshape(1, 21, 192), atol=2e-6
    )


@pytest.mark.parametrize("head", ["bnneck", "jpm"])
def test_a_network_like_it_keeps_its_neck(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], head: str
) -> None:
    start = tmp_path / "tuned" / "reid.safetensors"
    trunk = vit(stride=4, rows=7, columns=3)
    if head == "jpm":
        given = write_start(start, jpm_head(9), trunk.model_copy(update={"cameras": 3}), cameras=CAMERAS)
        found = started(labelled, start, recipe="transreid-vit-b-s12-sie-jpm", cameras=CAMERAS)
    else:
        given = write_start(start, neck(9), trunk)
        found = started(labelled, start, recipe=BASELINE)
    new = {
        key
        for key, value in found.items()
        if not torch.equal(value, given[key][: len(value)] if value.dim() else value)
    }
    assert new == {key for key in found if "classifier" in key}


def test_a_table_of_other_cameras_is_refused_and_can_be_left_out(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = tmp_path / "tuned" / "reid.safetensors"
    trunk = vit(stride=4, rows=7, columns=3, cameras=5)
    write_start(start, jpm_head(9), trunk, cameras=(1, 2, 3, 4, 5))
    job = transformer_job(labelled, tmp_path / "run", start=start)
    with pytest.raises(UsageError, match=r"of other cameras: 5 \(1, 2, 3, 4, 5\) there, 3 \(1, 2, 3\)") as caught:
        finetune(job, QUIET)
    assert caught.value.hint.startswith("--set sie.cameras=false")
    assert not (tmp_path / "run").exists()
    found = started(labelled, start, "sie.cameras=false", recipe="transreid-vit-b-s12-sie-jpm")
    assert "backbone.sie_embed" not in found
    assert capsys.readouterr().err.endswith("; its table of 5 cameras not used\n")
    write_start(start, jpm_head(9), vit(stride=4, rows=7, columns=3, cameras=3), cameras=(1, 2, 4))
    with pytest.raises(UsageError, match=r"3 \(1, 2, 4\) there, 3 \(1, 2, 3\)"):
        plan_finetuning(transformer_job(labelled, tmp_path / "run", start=start))


@pytest.mark.parametrize("numbers", [CAMERAS, (1, 2, 3, 4, 5)])
def test_cameras_of_another_dataset_are_other_cameras_whatever_their_numbers(
    labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], numbers: tuple[int, ...]
) -> None:
    start, own = tmp_path / "tuned" / "reid.safetensors", open_pack(labelled).dataset
    trunk, rows = vit(stride=4, rows=7, columns=3, cameras=len(numbers)), len(numbers)
    job = transformer_job(labelled, tmp_path / "run", start=start)

    def begin(*datasets: str) -> tuple[bool, str]:
        """Whether the table is that of the start, and the line about it."""
        packs = tuple(
            PackReference(dataset=name, fingerprint="", images=1, source=None, terms=None) for name in datasets
        )
        given = write_start(start, jpm_head(9), trunk, cameras=numbers, data=packs)
        assert plan_finetuning(job).cameras == CAMERAS
        check_fit(job, 6, CAMERAS)
        torch.manual_seed(0)
        found = build_started(job, 6, Progress(), CAMERAS).state_dict()
        assert torch.equal(found["backbone.pos_embed"], given["backbone.pos_embed"])
        table = found["backbone.sie_embed"]
        assert len(table) == 3
        return torch.equal(table, given["backbone.sie_embed"][:3]), capsys.readouterr().err

    said = f"; new table of 3 cameras, as its own {rows} are of"
    for others, names in ((["elsewhere"], "elsewhere"), ([own, "elsewhere"], f"{own}, elsewhere")):
        kept, line = begin(*others)
        assert not kept
        assert line.endswith(f"{said} {names}\n")
    if numbers == CAMERAS:
        kept, line = begin(own)
        assert kept
        assert line.endswith("; its table of 3 cameras kept\n")
        kept, line = begin()
        assert kept
        assert line.endswith(
            "; its table of 3 cameras kept, by their numbers: it does not say of which dataset they are\n"
        )
    else:
        with pytest.raises(UsageError, match="its table is of other cameras"):
            begin(own)


@pytest.mark.parametrize(
    ("head", "trunk", "recipe", "message", "hint"),
    [
        (no_head(), vit(depth=3), BASELINE, "vit-t depth 3; the recipe says vit-t depth 2", "--set vit.depth=3"),
        (no_head(), vit(patch=16), BASELINE, "patches of 16 pixels; the recipe says .* patches of 8", "vit.patch=16"),
        (no_head(), vit(stem="ics", patch=16, stride=16), BASELINE, "vit-t depth 2 ics", "--set vit.stem=ics"),
        (no_head(), vit(parts=3), BASELINE, "3 part tokens", "--set vit.parts=3"),
        (no_head(), vit(dim=768, heads=8, hidden=2304, qkv_bias=False), BASELINE,
         "768 features, 8 heads and an MLP of 2304, without bias in qkv, which is none of vit-t", "lupctl dump"),
        (jpm_head(5), vit(), BASELINE, r"in two copies \(jpm\); the recipe's net.head is bnneck", "net.head"),
        (jpm_head(5).model_copy(update={"parts": 2}), vit(), "transreid-vit-b-s12-sie-jpm",
         "a jpm with 2 parts; the recipe says 4", "--set jpm.parts=2"),
    ],
)  # fmt: skip
def test_another_transformer_is_refused(
    labelled: Path, tmp_path: Path, head: HeadPlan, trunk: ViTPlan, recipe: str, message: str, hint: str
) -> None:
    start = tmp_path / "pre" / "trunk.safetensors"
    write_start(start, head, trunk)
    with pytest.raises(UsageError, match=message) as caught:
        finetune(transformer_job(labelled, tmp_path / "run", recipe=recipe, start=start), QUIET)
    assert hint in caught.value.hint
    assert not (tmp_path / "run").exists()


def test_a_residual_start_and_a_transformer_do_not_go_together(labelled: Path, tmp_path: Path) -> None:
    start = tmp_path / "pre" / "trunk.safetensors"
    start.parent.mkdir()
    plan = plan_network(projection(16))
    write_checkpoint(start, build_network(plan).state_dict(), make_header(plan, stage="pretrain"))
    with pytest.raises(UsageError, match=r"a residual network \(r18 width 4\); the recipe trains a vision transformer"):
        plan_finetuning(transformer_job(labelled, tmp_path / "run", recipe=BASELINE, start=start))


def test_positions_that_are_not_finite_are_refused(labelled: Path, tmp_path: Path) -> None:
    start = tmp_path / "pre" / "trunk.safetensors"
    given = write_start(start, no_head(), stage="pretrain")
    given["backbone.pos_embed"][0, 3, 5] = torch.nan
    plan = NetworkPlan(trunk=vit(), pooling="token", head=no_head())
    write_checkpoint(start, given, make_header(plan, stage="pretrain"))
    with pytest.raises(FormatError, match="its position embedding is not finite"):
        finetune(transformer_job(labelled, tmp_path / "run", recipe=BASELINE, start=start), QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("missing", ["backbone.blocks.0.attn.qkv.bias", "backbone.pos_embed", "backbone.norm.weight"])
def test_a_lacking_tensor_is_named(labelled: Path, tmp_path: Path, missing: str) -> None:
    start = tmp_path / "pre" / "trunk.safetensors"
    given = write_start(start, no_head(), stage="pretrain")
    plan = NetworkPlan(trunk=vit(), pooling="token", head=no_head())
    write_checkpoint(start, {key: value for key, value in given.items() if key != missing}, make_header(plan))
    with pytest.raises(FormatError, match=r"1 missing \(" + missing.removeprefix("backbone.")):
        finetune(transformer_job(labelled, tmp_path / "run", recipe=BASELINE, start=start), QUIET)


def test_torchvisions_names_are_mapped_to_ours() -> None:
    """Its network and ours with the same weights give the same feature."""
    torch.manual_seed(5)
    theirs = VisionTransformer(32, 8, 2, 3, 192, 768, num_classes=10).eval()
    torch.nn.init.normal_(theirs.class_token)
    torch.nn.init.normal_(theirs.encoder.layers[0].mlp[0].bias)
    images = torch.randn(3, 3, 32, 32)
    theirs.heads = torch.nn.Identity()
    state = theirs.state_dict()
    for old, new in (("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2.")):  # as in the published file
        state = {key.replace(old, new): value for key, value in state.items()}
    state["heads.head.weight"] = torch.empty(10, 192)
    ours = ViTTrunk(vit(rows=4, columns=4)).eval()
    ours.load_state_dict(rename_torchvision(state), strict=True)
    ours.load_state_dict(rename_torchvision(theirs.state_dict()), strict=True)
    with torch.no_grad():
        token = ours(images).token
        assert token is not None
        assert torch.allclose(token, theirs(images), atol=2e-5)


def test_imagenet_has_one_transformer(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = transformer_job(labelled, tmp_path / "run", "start=imagenet", recipe=BASELINE)
    with pytest.raises(UsageError, match=r"net\.arch = vit-t: torchvision has ImageNet weights of the plain ViT-B/16"):
        plan_finetuning(job)
    whole = ("net.arch=vit-b", "vit.patch=16", "vit.stride=16", "vit.depth=0", "pixels.height=48", "start=imagenet")
    for setting, key in (("vit.stem=ics", "vit.stem"), ("vit.depth=11", "vit.depth"), ("vit.parts=2", "vit.parts")):
        with pytest.raises(UsageError, match=f"{key} = "):
            plan_finetuning(transformer_job(labelled, tmp_path / "run", *whole, setting, recipe=BASELINE))
    job = transformer_job(labelled, tmp_path / "run", *whole, recipe=BASELINE)
    check_start(None, job.recipe)
    trunk = network_plan(job.recipe, 6).trunk
    assert isinstance(trunk, ViTPlan)
    torch.manual_seed(2)
    given = ViTTrunk(trunk.model_copy(update={"rows": 14, "columns": 14})).state_dict()
    monkeypatch.setattr("lupctl.core.stages.finetune.network.imagenet_vit", lambda *, progress: given)
    found = build_started(job, 6, QUIET).state_dict()
    assert torch.equal(found["backbone.blocks.11.mlp.fc2.weight"], given["blocks.11.mlp.fc2.weight"])
    image = given["pos_embed"][:, 1:].reshape(1, 14, 14, 768).permute(0, 3, 1, 2)
    resized = F.interpolate(image, size=(3, 1), mode="bilinear", align_corners=False).flatten(2).transpose(1, 2)
    assert torch.allclose(found["backbone.pos_embed"][:, 1:], resized, atol=2e-6)
