"""Published networks: listed, fetched once, looked into; and trunks given away under torchvision's names."""

import json
from pathlib import Path
from typing import Any

import gdown
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torchvision.models import resnet18, resnet50

from lupctl.core.data.catalog.weights import PUBLISHED
from lupctl.core.formats.weights.file import read_checkpoint
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from tests.tools.shell import Shell
from tests.tools.tiny.training import pretrain_job


def thin_trunk() -> dict[str, torch.Tensor]:
    """A published backbone's keys, of a network small enough for a test."""
    torch.manual_seed(0)
    return {key: value for key, value in resnet50().state_dict().items() if not key.startswith("fc.")}


@pytest.fixture
def drive(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Google Drive, which gives the same trunk for every number and keeps a list of who asked."""
    asked: list[str] = []

    def download(*, id: str, output: str, use_cookies: bool, **more: Any) -> str:
        assert not use_cookies
        asked.append(id)
        torch.save({"state_dict": {f"module.encoder_q.{key}": value for key, value in thin_trunk().items()}}, output)
        return output

    monkeypatch.setattr(gdown, "download", download)
    return asked


def test_the_list_says_where_each_comes_from(lupctl: Shell) -> None:
    found = {one["name"]: one for one in lupctl("model list --json").json["models"]}
    assert len(found) == len(PUBLISHED) == 10 + 12 + 17 + 10 + 10 + 3 + 9 + 43
    assert {name for name, one in found.items() if one["from"] == "by hand"} == {
        *(f"luperson-nl-{arch}" for arch in ("r50", "r101", "r152")),
        *(f"cion-vit-{width}" for width in "tsb"),
    }
    assert not any(one["here"] for one in found.values())
    printed = lupctl("model list").out
    assert all(name in printed for name in found), "no name is cut or folded"
    assert "TransReID, https://github.com/damo-cv/TransReID: MIT;" in printed
    assert {f"luperson-mgn-r50-{name}" for name in ("market1501", "msmt17", "dukemtmc", "cuhk03-labeled")} < set(found)
    direct = [one.address for one in PUBLISHED if one.is_direct]
    assert len(set(direct)) == len(direct), "no file twice"


def test_a_published_backbone_is_fetched_once_and_becomes_a_checkpoint(
    lupctl: Shell, drive: list[str], tmp_path: Path
) -> None:
    refused = lupctl("model download luperson-r50")
    assert refused.code == 3
    assert "error: luperson-r50: terms of use: research only" in refused.err
    assert drive == []
    ran = lupctl("model download luperson-r50 --accept-terms")
    assert (ran.code, ran.out) == (0, "lup/models/luperson-r50.safetensors\n"), ran.err
    assert drive == ["1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6"]
    made = read_checkpoint(tmp_path / "lup" / "models" / "luperson-r50.safetensors")
    assert torch.equal(made.tensors["backbone.conv1.weight"], thin_trunk()["conv1.weight"])
    assert made.header.network.trunk.arch == "r50"
    note = json.loads((tmp_path / "lup" / "models" / "luperson-r50.pth.json").read_text())
    assert note["sha256"].startswith("sha256:")
    assert "research" in note["terms"]
    again = lupctl("model download luperson-r50")
    assert (again.code, again.out) == (0, ran.out)
    assert "luperson-r50: already here; --force downloads it again" in again.err
    assert len(drive) == 1
    assert [one["here"] for one in lupctl("model list --json").json["models"]].count(True) == 1


def test_another_file_than_the_first_time_is_refused(
    lupctl: Shell, drive: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lupctl("model download luperson-r50 --accept-terms").code == 0
    before = (tmp_path / "lup" / "models" / "luperson-r50.pth").read_bytes()
    monkeypatch.setattr(gdown, "download", lambda *, output, **more: torch.save({"a": torch.ones(2)}, output) or output)
    ran = lupctl("model download luperson-r50 --accept-terms --force")
    assert ran.code == 3
    assert "luperson-r50: the file differs from the first download (sha256:" in ran.err
    assert (tmp_path / "lup" / "models" / "luperson-r50.pth").read_bytes() == before


def test_what_cannot_be_fetched_says_what_to_do(lupctl: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = lupctl("model download luperson-nl-r50 --accept-terms")
    assert ran.code == 3
    assert "open https://pan.baidu.com/s/1aZxpwlZvekA4V-bQgZOM8w (code pr50) in a browser and save it as" in ran.err
    assert "hint: then: lupctl model convert lup/models/luperson-nl-r50.pth" in ran.err

    def refuse(**given: Any) -> str:
        raise gdown.exceptions.FileURLRetrievalError("Too many users have viewed it\nmore")

    monkeypatch.setattr(gdown, "download", refuse)
    ran = lupctl("model download luperson-r50 --accept-terms")
    assert ran.code == 3
    assert "luperson-r50: Google Drive does not deliver 1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6: too many users" in ran.err
    assert "in a browser, save the file as lup/models/luperson-r50.pth, then: lupctl model convert" in ran.err
    assert [path.name for path in tmp_path.rglob("*")] == ["lup"]
    ran = lupctl("model download lupreson-r50")
    assert (ran.code, "hint: did you mean luperson-r50?" in ran.err) == (2, True)


def test_a_dry_run_names_the_address(lupctl: Shell, tmp_path: Path) -> None:
    plan = lupctl("model download luperson-r50 --dry-run --json").json
    assert plan["url"] == "https://drive.google.com/file/d/1pFyAdt9BOZCtzaLiE-W3CsX_kgWABKK6/view"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_trunk_goes_out_and_comes_back(crowd: Path, tmp_path: Path, lupctl: Shell, ending: str) -> None:
    job = pretrain_job(crowd, tmp_path / "run", "net.width=64", "data.batch=8", "schedule.epochs=1", "bn_groups=2")
    pretrain(job, Progress(quiet=True))
    line = f"model convert run/checkpoint.safetensors --to torchvision --out r18.{ending}"
    ran = lupctl(line)
    assert (ran.code, ran.out) == (0, f"r18.{ending}\n"), ran.err
    path = tmp_path / f"r18.{ending}"
    state = torch.load(path, weights_only=True) if ending == "pth" else load_file(path)
    network = resnet18()
    missing, surplus = network.load_state_dict(state, strict=False)
    assert (sorted(missing), surplus) == (["fc.bias", "fc.weight"], [])
    assert len(state) == 120
    made = read_checkpoint(tmp_path / "run" / "checkpoint.safetensors")
    assert all(torch.equal(value, made.tensors[f"backbone.{key}"]) for key, value in state.items())
    if ending == "safetensors":
        story = json.loads(safe_open(path, framework="pt").metadata()["lupctl_source"])
        assert story["data"][0]["dataset"] == "crowd"
    assert lupctl(line).code == 2, "nothing is overwritten"
    assert lupctl(f"model convert r18.{ending} --out back.safetensors").code == 0
    back = read_checkpoint(tmp_path / "back.safetensors")
    assert all(torch.equal(value, made.tensors[key]) for key, value in back.tensors.items())


def test_what_cannot_go_out(crowd: Path, tmp_path: Path, lupctl: Shell) -> None:
    pretrain(pretrain_job(crowd, tmp_path / "run"), Progress(quiet=True))
    ran = lupctl("model convert run/checkpoint.safetensors --to torchvision --out r18.bin")
    assert (ran.code, "r18.bin: expected a name that ends in .pth or .safetensors" in ran.err) == (2, True)
    torch.save(thin_trunk(), tmp_path / "foreign.pth")
    assert lupctl("model convert foreign.pth --to torchvision --out a.pth").code == 3


def test_info_tells_what_is_inside(crowd: Path, tmp_path: Path, lupctl: Shell) -> None:
    pretrain(pretrain_job(crowd, tmp_path / "run"), Progress(quiet=True))
    own = lupctl("model info run/checkpoint.safetensors --json").json
    assert (own["schema"], own["kind"], own["stage"]) == ("lupctl.model-info/1", "checkpoint", "pretrain")
    assert own["network"]["trunk"]["arch"] == "r18"
    assert own["data"][0]["dataset"] == "crowd"
    weights = load_file(tmp_path / "run" / "checkpoint.safetensors")
    assert (own["tensors"], own["values"]) == (len(weights), sum(value.numel() for value in weights.values()))
    assert "r18" in lupctl("model info run/checkpoint.safetensors").out
    torch.save({"model": thin_trunk()}, tmp_path / "lup_moco_r50.pth")
    other = lupctl("model info lup_moco_r50.pth --json").json
    assert (other["kind"], other["network"]["trunk"]["arch"], other["matched"], other["differences"]) == (
        "published",
        "r50",
        318,
        0,
    )
    for name, message in (("gone.pth", "there is no such file"), ("broken.pth", "not a complete torch file")):
        (tmp_path / "broken.pth").write_bytes((tmp_path / "lup_moco_r50.pth").read_bytes()[:100_000])
        ran = lupctl(f"model info {name}")
        assert ran.code == 3
        assert message in ran.err
