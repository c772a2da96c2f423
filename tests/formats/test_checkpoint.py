"""Checkpoints: written, read, damaged, foreign, and put into networks that do not fit."""

import json
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.weights.file import (
    CHECKPOINT_FORMAT,
    load_strictly,
    read_checkpoint,
    read_header,
    write_checkpoint,
)

HEADER = {
    "stage": "pretrain",
    "recipe": {"seed": 1, "name": "größer"},
    "classes": None,
    "parents": {"pack": "sha256:0"},
}


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
    assert {key: found.header[key] for key in HEADER} == HEADER
    assert (found.header["format"], found.header["kind"]) == (CHECKPOINT_FORMAT, "checkpoint")
    assert found.header["version"]
    assert read_header(path) == found.header
    assert [file.name for file in path.parent.iterdir()] == ["checkpoint.safetensors"]


def test_other_programs_can_read_it(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, tensors(), HEADER)
    assert load_file(path).keys() == tensors().keys()
    assert json.loads(raw_header(path)["lupctl"])["recipe"] == HEADER["recipe"]


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    """Whatever the order of keys, the memory layout, and whether gradients are wanted."""
    first, second, third = (tmp_path / f"{name}.safetensors" for name in "abc")
    write_checkpoint(first, tensors(), HEADER)
    turned = dict(reversed(tensors().items()))
    turned["backbone.conv"] = turned["backbone.conv"].to(memory_format=torch.channels_last).requires_grad_()
    write_checkpoint(second, turned, dict(reversed(HEADER.items())))
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
        write_checkpoint(path, tensors(), {"stage": "other"})
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for read in (read_checkpoint, read_header):
        with pytest.raises(DataError, match=r"none\.safetensors: there is no such file"):
            read(tmp_path / "none.safetensors")
        with pytest.raises(DataError, match="there is no such file"):
            read(tmp_path)


@pytest.mark.parametrize("kept", [0, 5, 100, -1, -200])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "checkpoint.safetensors"
    write_checkpoint(path, tensors(), HEADER)
    path.write_bytes(path.read_bytes()[:kept])
    for read in (read_checkpoint, read_header):
        with pytest.raises(FormatError, match=r"checkpoint\.safetensors: not a whole safetensors file"):
            read(path)


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(tensors(), path)
    with pytest.raises(FormatError, match="not a whole safetensors file"):
        read_checkpoint(path)
    foreign = tmp_path / "foreign.safetensors"
    for metadata in (None, {"format": "pt"}):
        save_file(tensors(), foreign, metadata=metadata)
        with pytest.raises(FormatError, match="without lupctl's header"):
            read_checkpoint(foreign)


@pytest.mark.parametrize("text", ["{", "[1]", '"text"'])
def test_a_header_that_is_no_object_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file(tensors(), path, metadata={"lupctl": text})
    with pytest.raises(FormatError, match="header"):
        read_checkpoint(path)


def test_another_format_number_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    save_file(tensors(), path, metadata={"lupctl": json.dumps({"format": 2})})
    with pytest.raises(FormatError, match="checkpoint format 2; this lupctl reads format 1") as caught:
        read_checkpoint(path)
    assert caught.value.hint == "train again with this lupctl"


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
    with pytest.raises(FormatError, match=r"9 missing \(0\.weight, .*, …\); 9 not in the network"):
        load_strictly(network(), prefixed, origin="file")


def test_only_listed_prefixes_may_be_absent() -> None:
    state = network().state_dict()
    trunk = {key: value for key, value in state.items() if not key.startswith("2.")}
    model = network()
    head = model.state_dict()["2.weight"].clone()
    assert load_strictly(model, trunk, origin="file", may_lack=["2."]) == 7
    assert torch.equal(model.state_dict()["2.weight"], head)
    assert torch.equal(model.state_dict()["0.weight"], state["0.weight"])
    del trunk["0.bias"]
    with pytest.raises(FormatError, match=r"1 missing \(0\.bias\)"):
        load_strictly(model, trunk, origin="file", may_lack=["2."])
