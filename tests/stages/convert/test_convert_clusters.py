"""Vision transformers that TransReID-SSL trained on clusters, without labels: converted, used, and refused in part."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lupctl.core.formats.weights.header import describe_network
from lupctl.core.stages.finetune.checks import check_start
from lupctl.core.stages.finetune.network import build_started
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.foreign.recognise import recognise
from tests.references.transreid import Said, slow_clusters_feature
from tests.references.transreid_layouts import (
    BASE,
    SMALL,
    TINY,
    Size,
    clusters_layout,
    count_elements,
    draw_state,
    trunk_layout,
)
from tests.tools.converted import draw_images, restore, widened
from tests.tools.shell import Shell
from tests.tools.tiny.training import TRANSFORMER, shrunk_job

SIZES = {"plain": TINY, "ics": replace(TINY, ics=True)}
State = dict[str, Tensor]


def published(state: State) -> dict[str, object]:
    """What Cluster Contrast saves."""
    return {"state_dict": state, "epoch": 50, "best_mAP": 0.895}


@pytest.mark.parametrize("stem", SIZES)
@pytest.mark.parametrize("prefix", ["module.", ""])
def test_a_file_gives_its_published_feature(lupctl: Shell, tmp_path: Path, stem: str, prefix: str) -> None:
    state = draw_state(clusters_layout(SIZES[stem], prefix=prefix))
    torch.save(published(state), tmp_path / "model_best.pth.tar")
    ran = lupctl("model convert model_best.pth.tar --out a.safetensors --json --reid")
    assert ran.code == 0, ran.err
    assert (ran.json["matched"], ran.json["ignored"], ran.json["missing"]) == (len(state), [], [])
    assert (ran.json["use"], ran.json["classes"], ran.json["inside"]) == ("re-id model", 0, ["state_dict"])
    assert ran.json["beside"] == ["epoch", "best_mAP"]
    assert "feature: after the neck, as trained and tested on clusters" in ran.err
    network, header = restore("a.safetensors")
    ics = "" if stem == "plain" else " ics"
    assert describe_network(header) == f"vit 128/3/2{ics}, token pooling, head bnneck (convert)"
    pixels = header.preprocessing
    assert (pixels.height, pixels.width, pixels.mean, pixels.std) == (256, 128, (0.5,) * 3, (0.5,) * 3)
    assert pixels.interpolation == "bicubic"
    images = draw_images((256, 128))
    wanted = slow_clusters_feature(widened(state), images.double(), Said(heads=2), prefix=prefix)
    with torch.no_grad():
        found = F.normalize(network.embed(images).double())
    assert (found - wanted).abs().max() < 2e-6


@pytest.mark.parametrize(
    ("size", "arch", "tensors"), [(SMALL, "vit-s", 155), (replace(SMALL, ics=True), "vit-s", 177), (BASE, "vit-b", 155)]
)
def test_published_sizes_are_told_by_shapes(size: Size, arch: str, tensors: int) -> None:
    """The trunk of a fine-tuned file, which has a classifier of persons and one of ImageNet besides."""
    layout = clusters_layout(size)
    assert len(layout) == tensors
    assert count_elements(layout) == count_elements(trunk_layout("", size)) + 4 * size.dim + 1
    found = recognise({key: torch.empty(shape) for key, shape in layout.items()}, origin="file")
    assert (found.plan.trunk.arch, found.plan.head.kind, found.differences) == (arch, "bnneck", ())


Change = Callable[[State], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("module.norm.bias"), "1 missing (module.norm.bias)"),
        (lambda state: state.pop("module.bottleneck.weight"), "1 missing (module.bottleneck.weight)"),
        (lambda state: state.pop("module.blocks.1.attn.qkv.bias"), "1 missing (module.blocks.1.attn.qkv.bias)"),
        (lambda state: state.update({"module.extra": torch.zeros(2)}), "1 not in the network (module.extra)"),
        (
            lambda state: state.update({"module.classifier.weight": torch.zeros(5, 128)}),
            "1 not in the network (module.classifier.weight)",
        ),
        (lambda state: state.update({"module.fc.bias": torch.zeros(5)}), "1 not in the network (module.fc.bias)"),
        (
            lambda state: state.update({"module.bottleneck.bias": torch.zeros(64)}),
            "1 of another shape (module.bottleneck.bias)",
        ),
        (
            lambda state: state.update({"module.blocks.2.mlp.fc2.weight": torch.zeros(128, 255)}),
            "1 of another shape (module.blocks.2.mlp.fc2.weight)",
        ),
    ],
    ids=["norm", "neck", "bias", "extra", "classifier", "fc", "shape of the neck", "shape of a block"],
)
def test_a_file_that_fits_in_part_is_refused(lupctl: Shell, tmp_path: Path, change: Change, message: str) -> None:
    state = draw_state(clusters_layout(TINY))
    change(state)
    torch.save(published(state), tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors")
    assert (ran.code, ran.out) == (3, "")
    assert f"nearest is vit 128/3/2 with head bnneck, but {message}" in ran.err
    assert not Path("a.safetensors").exists()


@pytest.mark.parametrize(("shipped", "said"), [("usl-vit-s", "new head"), ("transreid-ssl-vit-s", "neck included")])
def test_a_file_is_a_start(
    lupctl: Shell, labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], shipped: str, said: str
) -> None:
    """On clusters the trunk alone is taken, as published; on persons the neck comes with it."""
    size = Size(dim=192, depth=2, hidden=768, tokens=128)
    state = draw_state(clusters_layout(size))
    torch.save(published(state), tmp_path / "a.pth")
    start = tmp_path / "a" / "a.safetensors"
    assert lupctl(f"model convert a.pth --out {start}").code == 0
    job = shrunk_job(labelled, tmp_path / "run", shipped, (*TRANSFORMER, "vit.patch=16", "vit.stride=16"), start=start)
    check_start(start, job.recipe, ())
    capsys.readouterr()
    own = build_started(job, 0 if said == "new head" else 6, Progress()).state_dict()
    line = capsys.readouterr().err
    assert said in line
    assert line.endswith("; positions resized from 16 x 8 to 2 x 1\n")
    for key, value in state.items():
        if "pos_embed" not in key and "bottleneck" not in key:
            assert torch.equal(own[f"backbone.{key.removeprefix('module.')}"], value), key
    neck = own["head.neck.running_mean"]
    assert torch.equal(neck, state["module.bottleneck.running_mean"]) == (said == "neck included")


def test_a_file_is_named_by_a_short_command(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    """Its stem chooses the recipe; the run of another site says where it started from."""
    torch.save(published(draw_state(clusters_layout(replace(SMALL, ics=True)))), tmp_path / "usl.pth")
    assert lupctl("model convert usl.pth").code == 0
    ran = lupctl(f"finetune {labelled} --labels clusters --from usl --gpus 0 --dry-run --json")
    assert ran.code == 0, ran.err
    assert "recipe: usl-vit-s-ics (the default for clusters" in ran.err
    assert ran.json["start"] == "usl"
