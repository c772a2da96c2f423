"""Dumping: the features are those of the network, of the right images, and nothing is lost silently."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from lupctl.core.formats.features.file import Features, read_features
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import read_checkpoint
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import build_network
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import finetune_job, pretrain_job

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def home(crowd: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a pre-training run at 40 x 20 pixels and, newer, a fine-tuning run at 32 x 16."""
    space = tmp_path_factory.mktemp("space")
    pretrain(pretrain_job(crowd, space / "runs" / "pre", "pixels.height=40", "pixels.width=20"), QUIET)
    finetune(finetune_job(labelled, space / "runs" / "fine"), QUIET)
    for age, name in ((100, "pre"), (10, "fine")):
        os.utime(space / "runs" / name / "run.json", (1_700_000_000 - age,) * 2)
    return space


def plain_features(checkpoint: Path, images: list[NDArray[np.uint8]], *, flip: bool = False) -> NDArray[np.float32]:
    """Features by the book: Pillow resizes, one image at a time, running statistics."""
    made = read_checkpoint(checkpoint)
    network = build_network(made.header.network)
    network.load_state_dict(load_file(checkpoint))
    network.eval()
    pixels = made.header.preprocessing
    mean, std = (torch.tensor(constants)[:, None, None] for constants in (pixels.mean, pixels.std))
    size = (pixels.width, pixels.height)
    found = []
    for image in images:
        resized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
        tensor = (torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255 - mean) / std
        with torch.no_grad():
            feature = network.embed(tensor[None])
            if flip:
                feature = feature + network.embed(tensor.flip(2)[None])
        found.append(feature[0].numpy())
    return np.stack(found)


# Pillow rounds what it resized to whole grey levels, we do not; these small networks make that much of it.
RESIZED, SAME_SIZE = 0.08, 1e-4


def assert_close(features: Features, wanted: NDArray[np.float32], *, share: float) -> None:
    """Equal up to a share of each feature's length, and nearest to the right one of all images."""
    assert features.features.shape == wanted.shape
    length = np.linalg.norm(wanted, axis=1)
    apart = np.linalg.norm(features.features[:, None] - wanted, axis=2)
    assert (apart.diagonal() < share * length).all(), apart.diagonal() / length
    assert np.array_equal(apart.argmin(1), np.arange(len(wanted)))


def test_features_are_those_of_a_plain_forward_pass(home: Path, labelled: Path, lupctl: Shell) -> None:
    ran = lupctl(f"dump fine --home {home} --device cpu --out f.h5 --workers 0")
    assert ran.code == 0, ran.err
    assert ran.out == "f.h5\n"
    features, pack = read_features(Path("f.h5")), open_pack(labelled)
    rows = np.flatnonzero(pack.samples.role >= 2).tolist()
    assert len(rows) == 34, "queries and gallery"
    assert features.features.dtype == np.float32
    wanted = plain_features(home / "runs/fine/checkpoint.safetensors", [decode_rgb(pack.read(row)) for row in rows])
    assert_close(features, wanted, share=SAME_SIZE)
    assert abs(np.linalg.norm(features.features, axis=1) - 1).min() > 1e-3, "not normalised"
    samples = features.samples
    assert samples.name == [pack.samples.name[row] for row in rows]
    for mine, theirs in ((samples.person, pack.samples.person), (samples.role, pack.samples.role)):
        assert np.array_equal(mine, theirs[rows])
    record = features.record
    assert record["parents"]["pack:labelled"] == pack.fingerprint
    assert record["parents"]["checkpoint"].startswith("sha256:")
    assert (record["dataset"], record["flip"], record["precision"]) == ("labelled", False, "float32")
    assert record["command"] == ["lupctl", "dump", "fine"]


def test_the_same_features_have_the_same_bytes_anywhere(home: Path, lupctl: Shell) -> None:
    assert lupctl(f"dump fine --home {home} --device cpu --out one.h5 --workers 0").code == 0
    assert lupctl(f"dump fine --home={home} --device=cpu --out=elsewhere/two.h5 --workers 2 --json").code == 0
    assert Path("one.h5").read_bytes() == Path("elsewhere/two.h5").read_bytes()


def test_flip_adds_the_mirrored_image(home: Path, labelled: Path, lupctl: Shell) -> None:
    assert lupctl(f"dump fine --home {home} --device cpu --out flip.h5 --flip --role query").code == 0
    features, pack = read_features(Path("flip.h5")), open_pack(labelled)
    images = [decode_rgb(pack.read(int(row))) for row in np.flatnonzero(pack.samples.role == 2)]
    wanted = plain_features(home / "runs/fine/checkpoint.safetensors", images, flip=True)
    assert_close(features, wanted, share=SAME_SIZE)
    once = plain_features(home / "runs/fine/checkpoint.safetensors", images)
    assert np.linalg.norm(features.features - 2 * once, axis=1).min() > 1e-3 * np.linalg.norm(once, axis=1).min()
    assert features.record["flip"] is True


def test_chunks_workers_and_type_change_nothing_but_rounding(home: Path, lupctl: Shell) -> None:
    base = f"dump fine --home {home} --device cpu"
    assert lupctl(f"{base} --out a.h5 --workers 0").code == 0
    whole = read_features(Path("a.h5")).features
    for name, options in (("b", "--chunk 7 --workers 0"), ("c", "--chunk 1 --workers 0"), ("d", "--workers 2")):
        assert lupctl(f"{base} --out {name}.h5 {options}").code == 0
        assert np.allclose(read_features(Path(f"{name}.h5")).features, whole, rtol=1e-4, atol=1e-5)
    assert lupctl(f"{base} --out half.h5 --type float16").code == 0
    half = read_features(Path("half.h5")).features
    assert half.dtype == np.float16
    assert np.array_equal(half, whole.astype(np.float16))


@pytest.mark.parametrize(
    ("options", "roles"),
    [("", {2, 3}), ("--role train", {1}), ("--role query", {2}), ("--role gallery --role train", {1, 3})],
)
def test_roles(home: Path, labelled: Path, lupctl: Shell, options: str, roles: set[int]) -> None:
    assert lupctl(f"dump fine {labelled} --home {home} --device cpu --out f.h5 {options}").code == 0
    found = read_features(Path("f.h5")).samples
    assert set(found.role.tolist()) == roles
    assert len(found) == int(np.isin(open_pack(labelled).samples.role, list(roles)).sum())


def test_roles_that_are_none(home: Path, labelled: Path, lupctl: Shell) -> None:
    ran = lupctl(f"dump fine --home {home} --device cpu --out f.h5 --role unlabelled")
    assert ran.code == 3
    assert f"error: {labelled}: no images of role unlabelled" in ran.err
    ran = lupctl(f"dump fine --home {home} --role galery")
    assert ran.code == 2
    assert "--role galery: expected one of unlabelled, train, query, gallery\nhint: --role gallery" in ran.err
    assert not Path("f.h5").exists()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of several sizes and kinds, a text named .jpg, an empty file, and something else."""
    root = tmp_path / "photos"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "b.jpg").write_bytes(encode_tiny(1))
    (root / "deep" / "a.png").write_bytes(encode_tiny(2, ".png", 64, 48))
    (root / "deep" / "er" / "c.jpg").write_bytes(encode_tiny(3, ".jpg", 24, 40))
    (root / "text.jpg").write_text("I am no image")
    (root / "zero.png").write_bytes(b"")
    (root / "notes.txt").write_text("of no interest")
    return root


def test_a_folder_of_images(home: Path, folder: Path, lupctl: Shell) -> None:
    ran = lupctl(f"dump fine photos --home {home} --device cpu --out f.h5 --json")
    assert ran.code == 0, ran.err
    assert "warning: 2 files left out" in ran.err
    assert (ran.json["schema"], ran.json["images"], ran.json["dim"]) == ("lupctl.dump/1", 3, 32)
    assert [line.partition(":")[0] for line in ran.json["quarantine"]] == ["text.jpg", "zero.png"]
    features = read_features(Path("f.h5"))
    assert features.samples.name == ["b.jpg", "deep/a.png", "deep/er/c.jpg"]
    assert set(features.samples.role.tolist()) == {0}
    assert set(features.samples.person.tolist()) == {-1}
    assert features.record["quarantine"] == ran.json["quarantine"]
    assert (features.record["dataset"], set(features.record["parents"])) == ("photos", {"checkpoint"})
    images = [cv2.imread(str(folder / name))[:, :, ::-1] for name in features.samples.name]
    wanted = plain_features(home / "runs/fine/checkpoint.safetensors", [np.ascontiguousarray(im) for im in images])
    assert_close(features, wanted, share=RESIZED)
    assert lupctl(f"dump fine photos --home {home} --dry-run --json").json["images"] == 5


def test_a_folder_without_images(home: Path, folder: Path, lupctl: Shell) -> None:
    for name in ("b.jpg", "deep/a.png", "deep/er/c.jpg"):
        (folder / name).unlink()
    ran = lupctl(f"dump fine photos --home {home} --device cpu --out f.h5")
    assert ran.code == 3
    assert "photos: none of the 2 files is an image" in ran.err
    for name in ("text.jpg", "zero.png"):
        (folder / name).unlink()
    ran = lupctl(f"dump fine photos --home {home} --device cpu --out f.h5")
    assert ran.code == 3
    assert "photos" in ran.err.splitlines()[0]
    assert not Path("f.h5").exists()


def test_an_output_that_exists_is_kept(home: Path, lupctl: Shell) -> None:
    Path("f.h5").write_text("mine")
    line = f"dump fine --home {home} --device cpu --out f.h5"
    ran = lupctl(line)
    assert ran.code == 2
    assert "error: f.h5: exists already and would be overwritten\nhint: add --force" in ran.err
    assert Path("f.h5").read_text() == "mine"
    assert lupctl(f"{line} --force").code == 0
    assert len(read_features(Path("f.h5")).features) == 34


def test_the_newest_run_and_its_data_are_chosen_and_said(home: Path, labelled: Path, lupctl: Shell) -> None:
    ran = lupctl(f"dump --home {home} --device cpu --dry-run --json")
    assert ran.err == f"run: {home}/runs/fine (the newest fine-tuning run)\n"
    assert ran.json == {
        "schema": "lupctl.dump-plan/1",
        "checkpoint": f"{home}/runs/fine/checkpoint.safetensors",
        "data": str(labelled),
        "out": f"{home}/runs/fine/labelled.features.h5",
        "device": "cpu",
        "images": 34,
    }
    assert not list((home / "runs" / "fine").glob("*.features.h5"))
    assert lupctl(f"dump --home {home} --device cpu --dry-run --quiet").err == ""


def test_a_pretraining_run_can_be_dumped(home: Path, crowd: Path, lupctl: Shell) -> None:
    ran = lupctl(f"dump pre {crowd} --home {home} --device cpu --out f.h5")
    assert ran.code == 0, ran.err
    assert "36 x 32 float32 from r18 width 4, avg pooling, head projection (pretrain)" in ran.err
    features, pack = read_features(Path("f.h5")), open_pack(crowd)
    images = [decode_rgb(pack.read(row)) for row in range(36)]
    assert_close(features, plain_features(home / "runs/pre/checkpoint.safetensors", images), share=RESIZED)
    ran = lupctl(f"dump pre --home {home} --device cpu --out g.h5")
    assert ran.code == 3
    assert "no pack of 'crowd'" in ran.err, "its pack lies elsewhere"


def test_what_cannot_be_dumped(home: Path, labelled: Path, tmp_path: Path, lupctl: Shell) -> None:
    ran = lupctl("dump --home nowhere")
    assert ran.code == 3
    assert "error: nowhere/runs: no finished run\nhint: lupctl init lists the commands" in ran.err
    ran = lupctl(f"dump other --home {home}")
    assert ran.code == 3
    assert f"no checkpoint 'other': neither a file, nor a run's folder, nor a run in {home}/runs" in ran.err
    begun = tmp_path / "begun"
    begun.mkdir()
    (begun / "recipe.toml").write_text("")
    ran = lupctl(f"dump begun --home {home}")
    assert ran.code == 3
    assert (
        "begun: the run is not finished, it has no checkpoint.safetensors\nhint: type the command that made it again"
        in ran.err
    )
    loose = tmp_path / "loose.safetensors"
    loose.write_bytes((home / "runs/fine/checkpoint.safetensors").read_bytes())
    ran = lupctl(f"dump loose.safetensors --home {home}")
    assert ran.code == 3
    assert "loose.safetensors: belongs to no run, so there is no default dataset" in ran.err
    assert ran.err.endswith("\nhint: lupctl dump loose.safetensors FOLDER\n"), "this workspace has no pack"
    loose.write_bytes(loose.read_bytes()[:5000])
    ran = lupctl(f"dump loose.safetensors {labelled} --home {home}")
    assert ran.code == 3
    assert "loose.safetensors: not a complete safetensors file" in ran.err
    ran = lupctl(f"dump fine --home {home} --device cuda:99 --json")
    assert (ran.code, ran.out) == (5, "")
    assert "--device cuda:99: this machine has" in ran.err
    ran = lupctl(f"dump fine --home {home} --device tpu")
    assert ran.code == 2
    assert "--device tpu: expected cpu, cuda or cuda:N" in ran.err


def test_a_damaged_image_of_a_pack_is_an_error_not_a_gap(home: Path, labelled: Path, lupctl: Shell) -> None:
    pack = open_pack(labelled)
    content = bytearray(labelled.read_bytes())
    content[pack.shards[0].base + pack.num_bytes - 30] ^= 1
    Path("bad.h5").write_bytes(content)
    ran = lupctl(f"dump fine bad.h5 --home {home} --device cpu --out f.h5 --workers 1")
    assert ran.code == 3
    assert "bad.h5: image" in ran.err
    assert pack.samples.name[-1] in ran.err
    assert not Path("f.h5").exists()


def test_the_record_holds_the_recipe(home: Path, lupctl: Shell) -> None:
    assert lupctl(f"dump fine --home {home} --device cpu --out f.h5").code == 0
    record = read_features(Path("f.h5")).record
    assert record["recipe"]["stage"] == "finetune"
    assert record["preprocessing"]["height"] == 32
    assert json.loads(json.dumps(record)) == record


def test_a_dump_that_finds_its_work_done_is_done(home: Path, lupctl: Shell) -> None:
    line = f"dump fine --home {home} --device cpu --out f.h5"
    assert lupctl(line).code == 0
    made = Path("f.h5").read_bytes()
    again = lupctl(line)
    assert again.code == 0
    assert "f.h5: already finished; --force computes it again" in again.err
    assert again.out == "f.h5\n"
    other = lupctl(f"{line} --flip")
    assert other.code == 2, "of something else"
    assert "exists already and would be overwritten" in other.err
    assert Path("f.h5").read_bytes() == made
