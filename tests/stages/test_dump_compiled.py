"""`dump --compile`: passes of one size are compiled, once, and give the same features but for rounding."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.system.jobs.compiling import CompiledPasses
from lupctl.core.training.nets.build import build_network
from tests.tools.networks import make_header, neck, plan_network
from tests.tools.shell import Shell


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    plan = plan_network(neck(3), "r18", width=4)
    write_checkpoint(tmp_path / "net.safetensors", build_network(plan).state_dict(), make_header(plan))
    return tmp_path / "net.safetensors"


def test_passes_of_another_size_run_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes, threads = {"plain": list[int](), "compiled": list[int]()}, torch.get_num_threads()

    def note(where: str, images: Tensor, cameras: Tensor | None) -> Tensor:
        sizes[where].append(len(images))
        return images.sum(dim=(1, 2, 3))

    monkeypatch.setattr(torch, "compile", lambda plain, *, dynamic: partial(note, "compiled"))
    passes = CompiledPasses(partial(note, "plain"), 16)
    for count in (16, 16, 2, 16, 15):
        passes(torch.ones(count, 3, 2, 2), None)
    assert sizes == {"plain": [2, 15], "compiled": [16, 16, 16]}
    assert torch.get_num_threads() == threads


def dump_twice(lupctl: Shell, checkpoint: Path, pack: Path) -> None:
    """34 images: of two passes of 16, and one of 2; in float32, and compiled."""
    for options in ("--out plain.h5", "--out compiled.h5 --compile"):
        ran = lupctl(f"dump {checkpoint} {pack} --device cpu --workers 0 {options}")
        assert ran.code == 0, ran.err
    plain, compiled = (read_features(Path(name)) for name in ("plain.h5", "compiled.h5"))
    assert np.allclose(compiled.features, plain.features, rtol=1e-4, atol=1e-5)
    assert compiled.record["compiled"] is True
    assert "compiled" not in plain.record


def test_compiled_features_are_the_same(
    lupctl: Shell, checkpoint: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traced, and run as it was traced: writing C++ takes a minute."""
    real, traced = torch.compile, list[int]()

    def run_traced(graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., object]:
        traced.append(max(len(given) for given in inputs if given.dim() == 4 and given.shape[1] == 3))
        return graph.forward

    monkeypatch.setattr(torch, "compile", lambda plain, **given: real(plain, backend=run_traced, **given))
    assert len(open_pack(labelled).samples) > 34
    dump_twice(lupctl, checkpoint, labelled)
    assert traced == [16], "in one piece, for one size, and once"


@pytest.mark.slow
def test_compiled_code_gives_the_same_features(lupctl: Shell, checkpoint: Path, labelled: Path) -> None:
    dump_twice(lupctl, checkpoint, labelled)


def test_the_plan_says_when_compiling_pays(lupctl: Shell, checkpoint: Path, labelled: Path) -> None:
    words = f"dump {checkpoint} {labelled} --device cpu --dry-run --json"
    assert "after 3,000 images in float32" in lupctl(f"{words} --compile").json["compile"]
    assert "compile" not in lupctl(words).json


def test_compiling_needs_a_compiler(
    lupctl: Shell, checkpoint: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    for words in ("--dry-run", ""):
        ran = lupctl(f"dump {checkpoint} {labelled} --device cpu --out f.h5 --compile {words}")
        assert (ran.code, ran.out) == (5, "")
        assert "error: --compile: torch.compile needs a compiler, and no-such-compiler is not here\n" in ran.err
        assert ran.err.endswith("or leave out --compile\n")
    assert not Path("f.h5").exists()
