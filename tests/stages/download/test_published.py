"""Published transformers: their addresses and scores, and the ones that come over HTTPS."""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gdown
import pytest
import torch

from lupctl.core.data.catalog.weights import PUBLISHED
from lupctl.core.formats.weights.file import read_checkpoint
from tests.references.transreid_layouts import TINY, dino_layout, draw_state, reid_layout
from tests.tools.flaky_server import Server, serving
from tests.tools.shell import Shell

# mAP, rank-1 and the beginning of the Drive id, as the projects' READMEs have them.
README = {
    "transreid-vit-b-msmt17": "61.8 81.8 1iF5JNPw", "transreid-vit-b-market1501": "87.1 94.6 1crYsKRr",
    "transreid-vit-b-dukemtmc": "79.6 89.0 17GQqFuT", "transreid-vit-b-occluded-duke": "53.8 61.1 1uHX5j7y",
    "transreid-vit-b-s12-sie-jpm-msmt17": "67.8 85.3 1x6Na97y",
    "transreid-vit-b-s12-sie-jpm-market1501": "89.0 95.1 11p4Rjmp",
    "transreid-vit-b-s12-sie-jpm-dukemtmc": "82.2 90.7 1Bipxoqy",
    "transreid-vit-b-s11-sie-jpm-occluded-duke": "59.5 67.4 1VJg4rTA",
    "transreid-deit-b-s12-sie-jpm-msmt17": "66.3 84.0 1WSUD0gK",
    "transreid-deit-b-s12-sie-jpm-market1501": "88.5 95.1 1cbUK2Ko",
    "transreid-deit-b-s12-sie-jpm-dukemtmc": "81.9 90.7 1ltaX9zG",
    "transreid-deit-b-s11-sie-jpm-occluded-duke": "57.7 65.2 1YJkBiMb",
    "transreid-ssl-vit-s-market1501": "91.2 95.8 1lED8sKk", "transreid-ssl-vit-s-msmt17": "66.3 84.8 11KBWzbg",
    "transreid-ssl-vit-s-ics-market1501": "91.4 96.2 1tdO01aY",
    "transreid-ssl-vit-s-ics-msmt17": "68.3 86.2 1taqdhKG",
    "transreid-ssl-vit-b-ics-market1501": "93.1 96.6 1wELRg_f",
    "transreid-ssl-vit-b-ics-msmt17": "75.1 89.6 1m5a2vG6",
    "transreid-ssl-usl-vit-s-market1501": "88.4 94.6 1lB7OS0h",
    "transreid-ssl-usl-vit-s-msmt17": "40.9 66.4 1YJDixKh",
    "transreid-ssl-usl-vit-s-ics-market1501": "89.5 95.3 1AcZSbEz",
    "transreid-ssl-usl-vit-s-ics-msmt17": "50.6 75.0 1Y32B1Xc",
    "transreid-ssl-uda-vit-s-market1501": "89.2 95.3 1W3SqChw",
    "transreid-ssl-uda-vit-s-msmt17": "47.7 71.2 1FgdyA_V",
    "transreid-ssl-uda-vit-s-ics-market1501": "89.9 95.4 1DYnLuyd",
    "transreid-ssl-uda-vit-s-ics-msmt17": "57.8 79.4 1yHKnhK2",
    "pass-vit-s-market1501": "92.2 96.3 1e7QVo-0", "pass-vit-s-msmt17": "69.1 86.5 1or1Lj7X",
    "pass-vit-s-384-market1501": "92.6 96.8 1201j4ix", "pass-vit-s-384-msmt17": "71.7 87.9 1EV4r3W_",
    "pass-vit-b-market1501": "93.0 96.8 104I1LSt", "pass-vit-b-msmt17": "71.8 88.2 1W18HEwF",
    "pass-vit-b-384-market1501": "93.3 96.9 1dYQjK4y", "pass-vit-b-384-msmt17": "74.3 89.7 1T-EVjOt",
    "personvit-s-msmt17": "74.3 89.2", "personvit-s-market1501": "92.9 96.8", "personvit-s-dukemtmc": "84.7 91.9",
    "personvit-s-occluded-duke": "65.2 73.2", "personvit-b-msmt17": "80.8 92.0",
    "personvit-b-market1501": "95.0 97.6", "personvit-b-dukemtmc": "88.1 93.8",
    "personvit-b-occluded-duke": "72.2 79.8",
    "solider-swin-t-market1501": "91.6 96.1 1YrE_r9Fk5uR0uFFQboBv203vxlOpFXU8",
    "solider-swin-t-msmt17": "67.4 85.9 10YLhMbwvmxZl3gTVo2BN_828SKZHdCjr",
    "solider-swin-s-market1501": "93.3 96.6 14uOCf5yZq0Rt5rRSJI9I7_d5kt2EOyHO",
    "solider-swin-s-msmt17": "76.9 90.8 1C-aIZdFyjFsZX4W4feG-Ex39RU2Qvu3b",
    "solider-swin-b-market1501": "93.9 96.9 1pZ1unW2IwSsqSN2KYHcgBhgjQztQW_fe",
    "solider-swin-b-msmt17": "77.1 90.7 1Y-RFAYdT56vnMjwxH1Ym3DVhZzZuMQZs",
}  # fmt: skip
STARTS = {
    "transreid-ssl-vit-s": "1ODxA7mJ", "transreid-ssl-vit-s-ics": "18FL9JaJ", "transreid-ssl-vit-b-ics": "1ZFMCBZ-",
    "pass-vit-s": "1q7oxT0v", "pass-vit-b": "1sZUrabY", "solider-swin-t": "12UyPVFm", "solider-swin-s": "1oyEgASq",
    "solider-swin-b": "1uh7tO34",
}  # fmt: skip
START = "/lakeAGI/PersonViT/resolve/main/vits.lup.256x128.wopt.csk.4-8.ar.375.n8/checkpoint0220.pth"


def saved(state: object) -> bytes:
    out = io.BytesIO()
    torch.save(state, out)
    return out.getvalue()


@pytest.fixture(scope="module")
def trunk() -> bytes:
    """A pre-training checkpoint as PersonViT and PASS publish it, but for its size."""
    return saved({"teacher": draw_state(dino_layout(TINY, outputs=8, hidden=16))})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url(""))
        yield running


def test_the_fine_tuned_ones_have_the_scores_and_the_files_of_their_readmes(lupctl: Shell) -> None:
    found = {one["name"]: one for one in lupctl("model list --json").json["models"]}
    transformers = {
        one.name for one in PUBLISHED if one.use == "re-id model" and not one.name.startswith(("luperson", "osnet"))
    }
    assert set(README) == transformers
    for name, line in README.items():
        mean, rank1, *drive = line.split()
        (score,) = found[name]["scores"]
        assert name.endswith(f"-{score['dataset']}")
        assert (f"{score['map']:.1%}", f"{score['rank1']:.1%}") == (f"{mean}%", f"{rank1}%"), name
        where = f"file/d/{drive[0]}" if drive else "huggingface.co/lakeAGI/PersonViTReID/resolve/main/"
        assert where in found[name]["url"], name
        tall = "-384-" in name or name.startswith(("transreid-ssl-vit-b-ics-", "solider-"))
        assert found[name]["size"] == ("384x128" if tall else "256x128")
        stride = re.search(r"-s(\d+)-sie-", name)
        is_swin = name.startswith("solider-")  # whose files say it
        assert found[name]["stride"] == (int(stride[1]) if stride else None if is_swin else 16)
    for name, drive_id in STARTS.items():
        assert (found[name]["use"], drive_id in found[name]["url"]) == ("initialisation", True)
    terms = {one["project"]: one["terms"] for one in found.values()}
    assert terms["PersonViT"] == "no licence file: all rights reserved"
    assert "agreement" in terms["CION"]
    ids = [one.drive_id for one in PUBLISHED if one.drive_id is not None]
    assert all(re.fullmatch(r"1[\w-]{32}", drive_id) for drive_id in ids)


def test_a_file_on_the_hub_is_fetched_continued_and_converted(
    lupctl: Shell, hub: Server, trunk: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = hub.add(START, trunk, cuts=[len(trunk) // 3])
    assert "no licence file: all rights reserved" in lupctl("model download personvit-s").err
    assert page.asked == [], "terms come first"
    monkeypatch.setattr("lupctl.core.system.fetch.transfer.Patience.wait_s", lambda self, failures: 0.0)
    ran = lupctl("model download personvit-s --accept-terms")
    assert (ran.code, ran.out) == (0, "lup/models/personvit-s.safetensors\n"), ran.err
    assert [asked.get("Range") for asked in page.asked] == [None, f"bytes={len(trunk) // 3}-"]
    assert (tmp_path / "lup/models/personvit-s.pth").read_bytes() == trunk
    made = read_checkpoint(tmp_path / "lup/models/personvit-s.safetensors")
    teacher = draw_state(dino_layout(TINY, outputs=8, hidden=16))
    assert torch.equal(made.tensors["backbone.blocks.1.attn.qkv.weight"], teacher["backbone.blocks.1.attn.qkv.weight"])
    assert len(made.tensors) == sum(key.startswith("backbone.") for key in teacher)
    note = json.loads((tmp_path / "lup/models/personvit-s.pth.json").read_text())
    assert note["url"] == hub.url(START)
    assert sorted(path.name for path in (tmp_path / "lup/models").iterdir()) == [
        "personvit-s.pth", "personvit-s.pth.json", "personvit-s.safetensors"
    ]  # fmt: skip


def test_a_transfer_that_breaks_keeps_its_beginning(
    lupctl: Shell, hub: Server, trunk: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = hub.add(START, trunk, cuts=[1000, 0, 0, 0, 0])
    monkeypatch.setattr("lupctl.core.system.fetch.transfer.Patience.wait_s", lambda self, failures: 0.0)
    broken = lupctl("model download personvit-s --accept-terms")
    assert broken.code == 3
    assert "error: personvit-s: http://127.0.0.1" in broken.err
    assert "1,000 bytes are kept\nhint: type the same command again later; it continues" in broken.err
    assert not (tmp_path / "lup/models/personvit-s.pth").exists()
    assert lupctl("model download personvit-s --accept-terms").code == 0
    assert page.asked[-1]["Range"] == "bytes=1000-"


def test_a_file_that_is_not_there_leads_to_the_list_of_files(lupctl: Shell, hub: Server, tmp_path: Path) -> None:
    ran = lupctl("model download personvit-b-msmt17 --accept-terms")
    assert ran.code == 3
    assert "the server answers 404 Not Found" in ran.err
    folder = hub.url("/lakeAGI/PersonViTReID/tree/main/msmt.vitb.lup.256x128.wopt.csk.4-8.ar.375.n8.e0260")
    assert f"hint: open {folder} in a browser, save the file as lup/models/personvit-b-msmt17.pth, then:" in ran.err
    assert [path.name for path in tmp_path.rglob("*")] == ["lup"], "nothing is left"


def test_a_file_of_another_kind_than_the_published_one_is_refused(lupctl: Shell, hub: Server, trunk: bytes) -> None:
    folder = "/lakeAGI/PersonViTReID/resolve/main/market.vits.lup.256x128.wopt.csk.4-8.ar.375.n8.e0220"
    hub.add(f"{folder}/transformer_120.pth", trunk)
    ran = lupctl("model download personvit-s-market1501 --accept-terms")
    assert (ran.code, "not a re-id model" in ran.err) == (3, True)
    tuned = saved(draw_state(reid_layout(TINY, classes=5)))
    hub.add(START, tuned)
    ran = lupctl("model download personvit-s --accept-terms")
    assert (ran.code, "fine-tuned" in ran.err) == (3, True)
    hub.add(f"{folder.replace('market', 'msmt')}/transformer_120.pth", tuned)
    assert lupctl("model download personvit-s-msmt17 --accept-terms").code == 0
    assert lupctl("dump personvit-s-msmt17 . --dry-run").code == 3, "no images here, but a network"


def test_a_file_with_another_grid_than_the_published_one_is_refused(
    lupctl: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*, output: str, **more: Any) -> str:
        torch.save(draw_state(reid_layout(TINY, classes=5)), output)
        return output

    monkeypatch.setattr(gdown, "download", download)
    ran = lupctl("model download transreid-ssl-vit-b-ics-msmt17 --accept-terms")
    assert (ran.code, "16 x 8" in ran.err, "--size 384x128 --stride 16 is" in ran.err) == (3, True, True)
    found = {one["name"]: one for one in lupctl("model list --json").json["models"]}
    assert found["transreid-vit-b-s12-sie-jpm-msmt17"]["convert"].endswith(" --size 256x128 --stride 12")
    assert "--size" not in found["luperson-mgn-r50-msmt17"]["convert"]


def test_what_only_a_person_can_fetch_says_the_steps(lupctl: Shell) -> None:
    ran = lupctl("model download cion-vit-b --accept-terms")
    assert ran.code == 3
    assert "open https://drive.google.com/drive/folders/1PSFXdc4Iid7RK3DicTZ3Tfygu00ntrFn (sign" in ran.err
    assert "hint: then: lupctl model convert lup/models/cion-vit-b.pth" in ran.err


def test_an_interrupted_drive_download_is_continued(
    lupctl: Shell, trunk: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def download(*, output: str, resume: bool, **more: Any) -> str:
        part = Path(f"{output}abcdefgh.part")  # gdown appends eight letters
        seen.append(part.stat().st_size if part.exists() else 0)
        if not seen[-1]:
            part.write_bytes(trunk[:5000])
            raise gdown.exceptions.DownloadError("connection reset")
        part.unlink()
        Path(output).write_bytes(trunk)
        assert resume
        return output

    monkeypatch.setattr(gdown, "download", download)
    broken = lupctl("model download pass-vit-s --accept-terms")
    assert (broken.code, "connection reset; what was fetched is kept" in broken.err) == (3, True)
    assert lupctl("model download pass-vit-s --accept-terms").code == 0
    assert seen == [0, 5000]
    assert (tmp_path / "lup/models/pass-vit-s.pth").read_bytes() == trunk
