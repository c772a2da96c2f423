"""`lupctl eval --attention`: maps beside the images of a page, and where there can be none."""

import base64
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import PackReference
from lupctl.core.ranking.reports.page.images import draw_heat, embed_heat
from lupctl.core.ranking.retrieval.attention import look_at
from lupctl.core.ranking.retrieval.extract import open_encoder
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.nets.vit.attention import attention_maps
from tests.tools.networks import make_header, neck, plan_network
from tests.tools.shell import Shell
from tests.tools.transformers import HEIGHT, WIDTH, transformer_plans, write_transformer

LOOK = re.compile(r'<img class="frame look" src="data:image/jpeg;base64,([^"]+)"')
FRAME = re.compile(r'<img class="frame" src="data:image/jpeg;base64,([^"]+)"')


@pytest.fixture
def dumped(labelled: Path, lupctl: Shell, tmp_path: Path) -> Path:
    """A workspace with a pack, a transformer that takes cameras, and the features it made."""
    (tmp_path / "lup/packs").mkdir(parents=True)
    shutil.copyfile(labelled, tmp_path / "lup/packs/labelled.h5")
    story = PackReference(dataset="labelled", fingerprint="sha256:0", images=1, source=None, terms=None)
    path = tmp_path / "lup/models/net.safetensors"
    write_transformer(path, transformer_plans()["sie"], cameras=(1, 2, 3), data=(story,))
    ran = lupctl("dump net labelled --out toy.features.h5 --device cpu --workers 0")
    assert ran.code == 0, ran.err
    return tmp_path


def decode(text: str) -> NDArray[np.uint8]:
    return decode_rgb(base64.b64decode(text))


def test_heat_is_where_it_is_and_the_rest_is_the_image_in_grey() -> None:
    pixels = np.full((80, 40, 3), 200, np.uint8)
    pixels[40:] = (250, 20, 20)
    heat = np.zeros((8, 4), np.float32)
    heat[2, 1] = 0.03
    drawn = draw_heat(pixels, heat)
    assert drawn.shape == pixels.shape
    brightness = drawn.astype(int) @ (2, 1, -1)
    row, column = divmod(int(brightness.argmax()), brightness.shape[1])
    assert (row // 10, column // 10) == (2, 1)
    grey = drawn[60:, :20].reshape(-1, 3)
    assert np.ptp(grey, axis=1).max() == 0, "no colour without heat"
    assert grey.max() < drawn[5:10, 30:].min(), "the image is seen through it"
    assert np.array_equal(draw_heat(pixels, np.zeros_like(heat)), draw_heat(pixels, np.zeros((1, 1), np.float32)))
    with pytest.raises(CorruptImageError):
        embed_heat(b"no image", heat)


def test_images_of_any_size_and_number_are_looked_at_like_by_themselves(tmp_path: Path) -> None:
    network = write_transformer(tmp_path / "net.safetensors", transformer_plans()["sie"])
    encoder, _ = open_encoder(tmp_path / "net.safetensors", device=torch.device("cpu"), precision=torch.float32)
    rng = np.random.default_rng(0)
    sizes = [(HEIGHT, WIDTH), (HEIGHT, WIDTH), (40, 100), *[(90, 33)] * 17]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]
    rows = np.arange(len(images)) % 5 - 1
    maps = list(look_at(encoder, images, rows))
    assert {one.shape for one in maps} == {(8, 4)}
    for at in (2, 3, 18, 19):
        (alone,) = look_at(encoder, [images[at]], rows[at : at + 1])
        assert np.abs(alone - maps[at]).max() < 1e-6
    view = (torch.from_numpy(np.stack(images[:2])).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    wanted = attention_maps(network, view, torch.tensor([-1, 0])).numpy()
    assert np.abs(np.stack(maps[:2]) - wanted).max() < 1e-6
    (other,) = look_at(encoder, images[:1], np.array([1]))
    assert np.abs(other - maps[0]).max() > 1e-4, "the camera is part of what the network sees"


def test_every_image_of_the_page_has_its_map(dumped: Path, lupctl: Shell) -> None:
    plain = lupctl("eval toy.features.h5 --rerank --device cpu")
    assert plain.code == 0, plain.err
    before, page = (dumped / "report.json").read_bytes(), (dumped / "report.html").read_text()
    assert not LOOK.findall(page)
    assert "class token" not in page
    ran = lupctl("eval toy.features.h5 --rerank --attention --device cpu")
    assert ran.code == 0, ran.err
    page = (dumped / "report.html").read_text()
    assert (dumped / "report.json").read_bytes() == before, "only the page has them"
    frames, looks = FRAME.findall(page), LOOK.findall(page)
    assert len(frames) == len(looks) > 50
    assert "where the class token looks" in page

    pack = open_pack(dumped / "lup/packs/labelled.h5")
    name = re.search(r"AP [\d.]+ %.*?</h4>\n.*?<span class=\"name\">([^<]+)</span></div>", page)
    assert name is not None
    row = next(row for row, full in enumerate(pack.samples.name) if full.endswith(name[1]))
    encoder, _ = open_encoder(
        dumped / "lup/models/net.safetensors", device=torch.device("cpu"), precision=torch.float32
    )
    camera = np.array([int(pack.samples.camera[row]) - 1])
    (heat,) = look_at(encoder, [decode_rgb(pack.read(row))], camera)
    shown, picture = decode(looks[0]), decode(frames[0])
    assert shown.shape == picture.shape
    right, wrong = (np.abs(shown.astype(int) - draw_heat(picture, one)).mean() for one in (heat, heat[::-1, ::-1]))
    assert right < 10, "but for what JPEG loses"
    assert wrong > 1.5 * right
    level = cv2.resize(heat, (shown.shape[1], shown.shape[0]), interpolation=cv2.INTER_CUBIC)
    colour = np.ptp(shown.astype(int), axis=2)
    assert np.corrcoef(level.ravel(), colour.ravel())[0, 1] > 0.6


def test_a_report_that_is_there_gets_its_maps(dumped: Path, lupctl: Shell) -> None:
    assert lupctl("eval toy.features.h5 --device cpu").code == 0
    ran = lupctl("eval toy.features.h5 --attention --device cpu --json")
    assert (ran.code, ran.json["schema"]) == (0, "lupctl.report/1"), ran.err
    assert LOOK.findall((dumped / "report.html").read_text())


def test_where_there_can_be_none(dumped: Path, lupctl: Shell) -> None:
    for options, other in (("--no-page", "--no-page"), ("--compare a b", "--compare"), ("--all", "--all")):
        ran = lupctl(f"eval toy.features.h5 --attention {options} --device cpu")
        assert (ran.code, f"--attention has no meaning with {other}:" in ran.err) == (2, True)
    plan = plan_network(neck(5))
    torch.manual_seed(0)
    write_checkpoint(dumped / "lup/models/res.safetensors", build_network(plan).state_dict(), make_header(plan))
    assert lupctl("dump res labelled --out res.features.h5 --device cpu --workers 0").code == 0
    for more in ("", "--dry-run"):
        ran = lupctl(f"eval res.features.h5 --attention --device cpu {more}")
        assert (ran.code, ran.out) == (2, "")
        assert (
            "res.safetensors is r18 width 4, avg pooling, head bnneck (finetune); only a vision transformer" in ran.err
        )
        assert "hint: leave out --attention" in ran.err
    assert not (dumped / "report.json").exists(), "found out before scoring"

    (dumped / "lup/packs/labelled.h5").rename(dumped / "elsewhere.h5")
    ran = lupctl("eval toy.features.h5 --attention --device cpu")
    assert (ran.code, "--attention: the images that toy.features.h5 were made from are not here" in ran.err) == (
        3,
        True,
    )
    assert "hint: name the pack or the folder with them: --images PACK" in ran.err
    ran = lupctl("eval toy.features.h5 --attention --device cpu --images elsewhere.h5")
    assert ran.code == 0, ran.err
    assert LOOK.findall((dumped / "report.html").read_text())

    (dumped / "empty").mkdir()
    before = (dumped / "report.html").read_bytes()
    ran = lupctl("eval toy.features.h5 --attention --device cpu --images empty")
    assert (ran.code, "--attention: none of the images of the rank lists is in the pack" in ran.err) == (3, True)
    assert (dumped / "report.html").read_bytes() == before

    (dumped / "lup/models/net.safetensors").unlink()
    ran = lupctl("eval toy.features.h5 --attention --device cpu --images elsewhere.h5")
    assert (ran.code, "--attention: the network's checkpoint is not here (toy.features.h5)" in ran.err) == (3, True)


def test_the_record_of_a_report_does_not_name_the_option(dumped: Path, lupctl: Shell) -> None:
    assert lupctl("eval toy.features.h5 --attention --device cpu").code == 0
    assert json.loads((dumped / "report.json").read_text())["provenance"]["command"] == [
        "lupctl",
        "eval",
        "toy.features.h5",
    ]
