"""Checkpoints: written, read, damaged, foreign, and put into networks that do not fit."""

import json
import struct
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.weights.file import (
    load_strictly,
    read_checkpoint,
    read_method,
    write_checkpoint,
    write_method,
)
from lupctl.core.formats.weights.header import (
    PackReference,
    describe_network,
    has_header,
    read_header,
)
from lupctl.core.formats.weights.plan import HeadPlan
from tests.tools.networks import make_header, mgn_heads, neck, no_head, plan_network, projection
from tests.tools.shell import Shell

STORY = PackReference(dataset="crowd", fingerprint="sha256:1", images=3, source={"notice": "ask"}, terms=None)
HEADER = make_header(
    plan_network(neck(2), pooling="gem"),
    recipe={"seed": 1, "name": "größer"},
    classes=(7, "other/9"),
    parents={"pack": "sha256:0"},
    data=(STORY,),
)


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "backbone.conv": torch.randn(4, 3, 3, 3, generator=generator),
        "backbone.count": torch.tensor(7),
        "head.half": torch.randn(5, generator=generator).bfloat16(),
        "head.empty": torch.zeros(0, 3),
    }


def raw_header(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, read by the format's own description."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    metadata: dict[str, str] = json.loads(content[8 : 8 + length])["__metadata__"]
    return metadata


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "checkpoint.safetensors"
    write_checkpoint(path, tensors(), HEADER)
    found = read_checkpoint(path)
    assert found.path == path
    assert found.tensors.keys() == tensors().keys()
    for key, tensor in tensors().items():
        assert found.tensors[key].dtype == tensor.dtype
        assert torch.equal(found.tensors[key], tensor), key
    assert found.header == HEADER
    assert found.header.version == version("lupctl")
    assert read_header(path) == found.header
    assert has_header(path)
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.safetensors"]


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, tensors(), HEADER)
    assert load_file(path).keys() == tensors().keys()
    assert json.loads(raw_header(path)["lupctl"]) == {**HEADER.to_json(), "format": 2, "kind": "checkpoint"}


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the order of keys, the memory layout, and whether gradients are wanted."""
    first, second, third = (tmp_path / f"{name}.safetensors" for name in "abc")
    write_checkpoint(first, tensors(), HEADER)
    turned = dict(reversed(tensors().items()))
    turned["backbone.conv"] = turned["backbone.conv"].to(memory_format=torch.channels_last).requires_grad_()
    recipe = dict(reversed((HEADER.recipe or {}).items()))
    write_checkpoint(second, turned, HEADER.model_copy(update={"recipe": recipe}))
    assert first.read_bytes() == second.read_bytes()
    assert read_checkpoint(first).fingerprint == read_checkpoint(second).fingerprint
    other = tensors()
    other["backbone.conv"][0, 0, 0, 0] += 1
    write_checkpoint(third, other, HEADER)
    assert read_checkpoint(third).fingerprint != read_checkpoint(first).fingerprint


def test_writing_replaces_and_a_failed_write_leaves_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, tensors(), HEADER)
    before = path.read_bytes()

    def torn(plain: dict[str, Tensor], partial: Path, metadata: dict[str, str]) -> None:
        Path(partial).write_bytes(b"half")
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("lupctl.core.formats.weights.file.save_file", torn)
    with pytest.raises(DataError, match=r"cannot be written \(Input/output error\)"):
        write_checkpoint(path, tensors(), make_header())
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_checkpoint, read_header):
        with pytest.raises(DataError, match=r"none\.safetensors: there is no such file"):
            read(tmp_path / "none.safetensors")
        with pytest.raises(DataError, match="a folder, not a regular file; expected a checkpoint"):
            read(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1, -200])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, tensors(), HEADER)
    path.write_bytes(path.read_bytes()[:kept])
    for read in (read_checkpoint, read_header):
        with pytest.raises(FormatError, match=r"checkpoint\.safetensors: not a complete safetensors file"):
            read(path)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(tensors(), path)
    with pytest.raises(FormatError, match="not a complete safetensors file"):
        read_checkpoint(path)
    foreign = tmp_path / "foreign.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file(tensors(), foreign, metadata=metadata)
        with pytest.raises(FormatError, match="without lupctl's header"):
            read_checkpoint(foreign)


@pytest.mark.parametrize("text", ["{", "[1]", '"text"', "[" * 100_000, '{"format": NaN}'])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file(tensors(), path, metadata={"lupctl": text})
    with pytest.raises(FormatError, match="header"):
        read_checkpoint(path)


def write_raw(path: Path, found: dict[str, Any]) -> None:
    save_file(tensors(), path, metadata={"lupctl": json.dumps(found)})


# As lupctl 0.1.0 wrote it: the network is flat, and nothing says in which order its channels are.
FORMAT_1 = {
    "format": 1, "kind": "checkpoint", "version": "0.1.0", "stage": "pretrain",
    "command": ["lupctl", "pretrain", "--arch", "r50", "--data", "my pack"], "recipe": {"seed": 1},
    "network": {
        "arch": "r50", "width": 64, "last_stride": 2, "pooling": "avg", "head": "projection", "outputs": 128,
        "embedding": 0, "extra_bn": False, "ibn": False,
    },
    "preprocessing": {
        "height": 256, "width": 128, "mean": [0.3525, 0.3106, 0.314], "std": [0.266, 0.2522, 0.2505],
        "interpolation": "bilinear",
    },
    "classes": None, "parents": {}, "data": [],
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "command"),
    [
        ({}, "lupctl pretrain --arch r50 --data 'my pack' --out {run} --force"),
        (
            {"command": ["lupctl", "finetune", "--force", "market1501"]},
            "lupctl finetune --force market1501 --out {run}",
        ),
        ({"command": ["lupctl", "finetune", "--out", "b"]}, "lupctl finetune --out b --force"),
        ({"command": ["lupctl", "model", "convert", "a.pth"]}, "lupctl model convert a.pth --force"),
        ({"command": ["train.py"]}, "train.py"),
        ({"command": []}, "lupctl pretrain --force"),
        ({"command": [], "stage": "finetune"}, "lupctl finetune DATASET --force"),
        ({"command": "text", "stage": "convert"}, "lupctl model convert FILE --out {path} --force"),
        ({"command": [1], "stage": {}}, "lupctl pretrain --force"),
        ({"format": 3}, "lupctl pretrain --arch r50 --data 'my pack' --out {run} --force"),
    ],
)
def test_another_format_is_refused_with_the_command_that_makes_the_file_again(
    tmp_path: Path, change: dict[str, Any], command: str
) -> None:
    path = tmp_path / "checkpoint.safetensors"
    found = {**FORMAT_1, **change}
    write_raw(path, found)
    for read in (read_checkpoint, read_header):
        with pytest.raises(FormatError) as caught:
            read(path)
        assert caught.value.message == f"{path}: checkpoint format {found['format']}; this lupctl reads format 2"
        assert caught.value.hint == f"make it again: {command.format(path=path, run=tmp_path)}"
    assert has_header(path)


@pytest.mark.parametrize(
    "line",
    [
        "dump old.safetensors photos --device cpu", "finetune {pack} --from old.safetensors --gpus 0 --dry-run",
        "model info old.safetensors", "model convert old.safetensors --out new.safetensors",
        "model convert old.safetensors --to torchvision --out new.pth",
    ],
)  # fmt: skip
def test_every_command_refuses_format_1(lupctl: Shell, labelled: Path, tmp_path: Path, line: str) -> None:
    """Nor does `model convert` take it for a published trunk, whose keys it has."""
    write_raw(tmp_path / "old.safetensors", FORMAT_1)
    (tmp_path / "photos").mkdir()
    Image.new("RGB", (8, 16)).save(tmp_path / "photos" / "a.png")
    ran = lupctl(line.format(pack=labelled))
    assert ran.code == 3, ran.err
    assert "error: old.safetensors: checkpoint format 1; this lupctl reads format 2\n" in ran.err
    assert "hint: make it again: lupctl pretrain --arch r50 --data 'my pack' --force\n" in ran.err


def changed(place: str, value: Any) -> dict[str, Any]:
    """A whole header with one entry changed, or gone where the value is None."""
    found: dict[str, Any] = {**HEADER.to_json(), "format": 2, "kind": "checkpoint"}
    *outer, last = place.split("/")
    inner: Any = found
    for key in outer:
        inner = inner[int(key) if key.isdigit() else key]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return found


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("stage", None, "lacks stage"),
        ("version", None, "lacks version"),
        ("stage", "sleep", "stage: input should be 'pretrain', 'finetune' or 'convert'"),
        ("mood", "good", "mood: extra inputs are not permitted"),
        ("command", ["lupctl", 1], "command.1: input should be a valid string"),
        ("classes", [1.5], "classes.0.int: input should be a valid integer"),
        ("network", "r50", "network: input should be an object"),
        ("network/pooling", None, "network.pooling: field required"),
        ("network/trunk/kind", None, "network.trunk: unable to extract tag using discriminator 'kind'"),
        ("network/trunk/kind", "convnext", "network.trunk: input tag 'convnext' found using 'kind' does not match"),
        ("network/trunk/width", None, "network.trunk.resnet.width: field required"),
        ("network/trunk/width", "64", "network.trunk.resnet.width: input should be a valid integer"),
        ("network/trunk/width", 0, "network.trunk.resnet.width: input should be greater than or equal to 1"),
        ("network/trunk/depth", 3, "network.trunk.resnet.depth: extra inputs are not permitted"),
        ("network/head/kind", None, "network.head: unable to extract tag using discriminator 'kind'"),
        ("network/head/kind", "arcface", "network.head: input tag 'arcface' found using 'kind' does not match"),
        ("network/head/classes", 1.5, "network.head.bnneck.classes: input should be a valid integer"),
        ("preprocessing/channels", "BGR", "preprocessing.channels: input should be 'RGB'"),
        ("preprocessing/mean", [0.1, 0.2], "preprocessing.mean.2: field required"),
        ("preprocessing/std", [1e999, 1, 1], "is not JSON"),
        ("preprocessing/height", 10**9, "preprocessing.height: input should be less than or equal to 65536"),
        ("data/0/images", -1, "data.0.images: input should be greater than or equal to 0"),
        ("data/0/terms", 3, "data.0.terms: input should be a valid string"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path: Path, place: str, value: Any, message: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_raw(path, changed(place, value))
    for read in (read_checkpoint, read_header):
        with pytest.raises(FormatError) as caught:
            read(path)
        assert f"{path}: lupctl's header" in caught.value.message
        assert message in caught.value.message
    if "JSON" not in message:
        again, place_again = ("DATASET", "") if place == "command" else ("tiny", f" --out {tmp_path}")
        assert caught.value.hint == f"make it again: lupctl finetune {again}{place_again} --force"


@pytest.mark.parametrize("head", [no_head(), projection(16), neck(5), mgn_heads(0)])
@pytest.mark.parametrize("ibn", [False, True])
def test_every_plan_survives_its_header(tmp_path: Path, head: HeadPlan, ibn: bool) -> None:
    plan = plan_network(head, "r101", width=32, last_stride=1, pooling="gem", ibn=ibn)
    write_checkpoint(tmp_path / "a.safetensors", {}, make_header(plan))
    assert read_header(tmp_path / "a.safetensors").network == plan


def test_a_network_in_words() -> None:
    assert describe_network(HEADER) == "r18 width 4, gem pooling, head bnneck (finetune)"
    published = make_header(plan_network(no_head(), "r50", width=64), stage="convert")
    assert describe_network(published) == "r50, avg pooling, head none (convert)"


def test_a_header_is_read_without_torch(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, tensors(), HEADER)
    code = (
        "import sys; from pathlib import Path; from lupctl.core.formats.weights.header import read_header; "
        f"print(read_header(Path({str(path)!r})).network.trunk.arch, 'torch' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["r18", "False"]


# All networks of a method


def test_a_method_is_a_file_of_another_kind(tmp_path: Path) -> None:
    path, single = tmp_path / "method.safetensors", tmp_path / "checkpoint.safetensors"
    networks = {f"{name}.{key}": value for name in ("student", "teacher") for key, value in tensors().items()}
    write_method(path, networks, HEADER)
    write_checkpoint(single, tensors(), HEADER)
    found = read_method(path)
    assert (found.path, found.header, found.tensors.keys()) == (path, HEADER, networks.keys())
    assert all(torch.equal(value, networks[key]) for key, value in found.tensors.items())
    assert read_header(path, "method") == HEADER
    for read in (read_checkpoint, read_header):
        with pytest.raises(FormatError, match=r"method\.safetensors: contains a method; a checkpoint was expected"):
            read(path)
    with pytest.raises(FormatError, match=r"contains a checkpoint; a method was expected") as caught:
        read_method(single)
    assert caught.value.hint == "name the method.safetensors of a pre-training run"


# Loading


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def untouched(model: nn.Module, before: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_everything_that_fits_is_loaded() -> None:
    source, target = network(), network()
    assert load_strictly(target, source.state_dict(), origin="file") == 9
    assert untouched(target, source.state_dict())


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"2.bias": None}, "1 missing (2.bias)"),
        ({"module.0.weight": torch.zeros(1)}, "1 not in the network (module.0.weight)"),
        ({"0.weight": torch.zeros(4, 5)}, "1 of another shape (0.weight)"),
        ({"0.weight": torch.zeros(12)}, "1 of another shape (0.weight)"),
        (
            {"2.bias": None, "2.weight": None, "x": torch.zeros(1), "0.bias": torch.zeros(3)},
            "2 missing (2.weight, 2.bias); 1 not in the network (x); 1 of another shape (0.bias)",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_names_and_nothing_is_loaded(
    change: dict[str, Tensor | None], expected: str
) -> None:
    state = {**network().state_dict(), **change}
    model = network()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(FormatError) as caught:
        load_strictly(model, {key: value for key, value in state.items() if value is not None}, origin="some.file")
    assert caught.value.message == f"some.file: does not fit the network: {expected}"
    assert untouched(model, before)


def test_a_prefixed_file_loads_nothing_silently() -> None:
    """The published loader took such a file, loaded no tensor and trained from noise."""
    prefixed = {f"module.{key}": value for key, value in network().state_dict().items()}
    with pytest.raises(FormatError, match=r"9 missing \(0\.weight, .*, \.\.\.\); 9 not in the network"):
        load_strictly(network(), prefixed, origin="file")


def test_only_listed_prefixes_may_be_absent() -> None:
    state = network().state_dict()
    trunk = {key: value for key, value in state.items() if not key.startswith("2.")}
    model = network()
    head = model.state_dict()["2.weight"].clone()
    assert load_strictly(model, trunk, origin="file", may_lack=("2.",)) == 7
    assert torch.equal(model.state_dict()["2.weight"], head)
    assert torch.equal(model.state_dict()["0.weight"], state["0.weight"])
    del trunk["0.bias"]
    with pytest.raises(FormatError, match=r"1 missing \(0\.bias\)"):
        load_strictly(model, trunk, origin="file", may_lack=("2.",))
