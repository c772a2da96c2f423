"""The exercise of `doctor`: what is right passes, what is wrong is found, and nothing ends it."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from lupctl.core.errors import DeviceError
from lupctl.core.flows.machine.exercise import judge_speed, plan_trunks
from lupctl.core.formats.images.codec import encode_png
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.ranking.metrics.labels import ImageLabels
from lupctl.core.ranking.metrics.ranking import cosine_distances
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.faiss_neighbours import find_neighbours_by_faiss
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.exercise import attention, compiling, images, messages, search, trunks
from lupctl.core.stages.exercise.check import Budget, Check, Outcome, SkippedError, Status, Trial, WrongError, run_trial
from lupctl.core.training.nets.trunk import Trunk
from lupctl.core.training.views.pixels import make_view

CPU = torch.device("cpu")


def tried(trial: Trial, seconds: float = 60.0) -> Check:
    return run_trial(trial, Budget(seconds))


def named(trials: list[Trial], start: str) -> Trial:
    return next(trial for trial in trials if trial.what.startswith(start))


@pytest.fixture
def recipe() -> FinetuneRecipe:
    found = resolve_recipe("finetune", "small-bot", overrides=("pixels.height=32", "pixels.width=16"))
    assert isinstance(found, FinetuneRecipe)
    return found


@pytest.mark.parametrize(
    ("error", "status", "result"),
    [
        (SkippedError("no GPU"), "skipped", "no GPU"),
        (WrongError("off by 1"), "failed", "off by 1"),
        (DeviceError("out of memory", hint="less"), "failed", "out of memory"),
        (RuntimeError("\n  cuDNN: no kernel\nmore"), "failed", "RuntimeError: cuDNN: no kernel"),
        (KeyError(), "failed", "KeyError"),
    ],
)
def test_errors_are_rows(error: Exception, status: Status, result: str) -> None:
    def attempt(left_s: float) -> Outcome:
        raise error

    assert tried(Trial("it", attempt)) == Check("it", result, status=status)


def test_time_is_up() -> None:
    asked = []
    trial = Trial("it", lambda left_s: asked.append(left_s) or Outcome("fine", "1 a second", {"a": 1.0}))
    assert tried(trial) == Check("it", "fine", "1 a second", numbers={"a": 1.0})
    assert 59 < asked[0] <= 60
    assert tried(trial, seconds=0.0).status == "skipped"
    assert len(asked) == 1


def test_every_family_has_a_trunk() -> None:
    plans = plan_trunks()
    kinds = {plan.kind for plan in plans.values()}
    # Those that a checkpoint can describe, from the type itself.
    from lupctl.core.formats.weights.plan import TrunkPlan

    union = TrunkPlan.__origin__  # type: ignore[attr-defined]
    assert kinds == {one.model_fields["kind"].annotation.__args__[0] for one in union.__args__}
    assert {"r18", "vit-t", "swin-u", "r18 with IBN", "vit-t with ICS"} <= set(plans)
    assert plans["r18 with IBN"].ibn
    assert plans["vit-t with ICS"].stem == "ics"


def test_a_trunk_is_compared_with_float64() -> None:
    trials = trunks.trunk_trials({"tiny": plan_swin("swin-u", depths=(1, 1, 1, 1))}, CPU)
    assert [trial.what for trial in trials] == ["tiny, float32, cpu", "tiny, bf16, cpu"]
    one, half = map(tried, trials)
    assert one.status == half.status == "ok"
    assert 0 < one.numbers["features_difference"] < 1e-5 < half.numbers["features_difference"] < 0.1
    assert one.numbers["images_per_s"] > 0
    assert "times float32" in half.figure


def test_a_wrong_pass_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = trunks.run_pass

    def spoil(trunk: Trunk, given: Tensor, kind: torch.dtype) -> trunks.Pass:
        found = right(trunk, given, kind)
        found.gradient[0] = torch.nan if kind == torch.bfloat16 else found.gradient.norm()
        return found

    trials = trunks.trunk_trials({"tiny": plan_swin("swin-u", depths=(1, 1, 1, 1))}, CPU)
    assert all(tried(trial).status == "ok" for trial in trials)
    trials = trunks.trunk_trials({"tiny": plan_swin("swin-u", depths=(1, 1, 1, 1))}, CPU)
    # The reference is what it was: only what the device computes is spoiled.
    monkeypatch.setattr(
        trunks, "run_pass", lambda *given: right(*given) if given[2] == torch.float64 else spoil(*given)
    )
    found = [tried(trial) for trial in trials]
    assert [check.status for check in found] == ["failed", "failed"]
    assert "rounding" in found[0].result
    assert "gradients nan" in found[1].result


@pytest.mark.parametrize("start", ["ranks", "cosines", "faiss"])
def test_search_is_right_on_a_cpu(start: str) -> None:
    check = tried(named(search.search_trials(CPU), start))
    assert (check.status, check.what) == ("ok", named(search.search_trials(CPU), start).what)


def test_wrong_ranks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cosine_distances

    def spoil(queries: UnitRows, gallery: UnitRows) -> Callable[[int, int], Tensor]:
        # One tie of the last query goes to the later image.
        distances = right(queries, gallery)
        return lambda start, stop: distances(start, stop).index_fill_(1, torch.arange(0, 500), 0.0)

    monkeypatch.setattr(search, "cosine_distances", spoil)
    assert tried(named(search.search_trials(CPU), "ranks")).status == "failed"


def test_the_plain_ranks_are_by_hand() -> None:
    labels = ImageLabels(person=np.array([1]), camera=np.array([1], np.int16))
    gallery = ImageLabels(person=np.array([1, 2, 1, 1]), camera=np.array([1, 2, 2, 3], np.int16))
    # The first is the query's own camera; the tie of the second and third goes to the second.
    assert search.rank_plainly(np.array([[0.9, 0.5, 0.5, 0.1]]), labels, gallery) == ([2], [(1 / 2 + 2 / 3) / 2])


def test_distances_in_tf32_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    unit = UnitRows.unit
    # Ten bits of a mantissa, as a GPU's TF32 has them.
    monkeypatch.setattr(UnitRows, "unit", lambda *given: (unit(*given).half()).float())
    check = tried(named(search.search_trials(CPU), "cosines"))
    assert check.status == "failed"
    assert "rounding of float32" in check.result


def test_neighbours_that_faiss_gets_wrong_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    right = find_neighbours_by_faiss

    def spoil(pool: UnitRows, *, count: int) -> object:
        found = right(pool, count=count)
        found.index[0, -1] += 1
        return found

    monkeypatch.setattr(search, "find_neighbours_by_faiss", spoil)
    check = tried(named(search.search_trials(CPU), "faiss"))
    assert (check.status, "are others" in check.result) == ("failed", True)


def test_a_gpu_that_faiss_does_not_see_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "gpu_of", lambda device: None)
    check = tried(named(search.search_trials(torch.device("cuda", 0)), "faiss"))
    assert (check.status, "sees 0 GPUs" in check.result) == ("skipped", True)


def test_attention_is_right_and_named() -> None:
    found = [tried(trial) for trial in attention.attention_trials(CPU)]
    assert [check.status for check in found] == ["ok"] * 4
    assert {check.result.split(",")[0] for check in found} <= {"math", "flash", "efficient", "cudnn"}


def test_wrong_attention_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda one, two, three, attn_mask: three.clone()
    )
    assert {tried(trial).status for trial in attention.attention_trials(CPU)} == {"failed"}


def test_images_are_decoded_and_transformed(recipe: FinetuneRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "TIMED_S", 0.01)
    decoding, transforms, copies = map(tried, images.image_trials(recipe, CPU))
    assert (decoding.status, transforms.status, copies.status) == ("ok", "ok", "skipped")
    assert decoding.numbers["images_per_s_core"] > 100
    assert transforms.numbers["difference"] == 0
    assert copies.result == "no GPU: there is nothing to copy to"


def test_a_decoder_and_transforms_that_are_wrong_are_found(
    recipe: FinetuneRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    right, encode = make_view, encode_png
    monkeypatch.setattr(images, "make_view", lambda *given: right(*given) + 1e-6 * len(given[1]))
    monkeypatch.setattr(images, "encode_png", lambda pixels: encode(pixels[:, ::-1].copy()))
    decoding, transforms, _ = map(tried, images.image_trials(recipe, CPU))
    assert (decoding.status, transforms.status) == ("failed", "failed")


def test_one_gpu_has_nobody_to_send_to(monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = messages.message_trials([torch.device("cuda", 0)])
    assert (trial.what, tried(trial).status) == ("all-reduce, nccl over 1 GPU", "skipped")
    (trial,) = messages.message_trials([CPU])
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID"):
        monkeypatch.setenv(name, "1")
    assert "another launcher" in tried(trial).result


def test_sums_that_are_wrong_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = messages.message_trials([CPU])
    monkeypatch.setattr(messages, "launch", lambda *given, **named: messages.Reduced(False, 1.0))
    assert tried(trial).status == "failed"
    monkeypatch.setattr(messages, "launch", lambda *given, **named: messages.Reduced(True, 0.01))
    check = tried(trial)
    # Of two processes each sends and receives its numbers once: 10 MB in 10 ms.
    assert (check.status, round(check.numbers["gigabytes_per_s"], 6)) == ("ok", 1.0)


@pytest.mark.slow
def test_messages_arrive() -> None:
    (trial,) = messages.message_trials([CPU])
    check = tried(trial)
    assert (check.status, check.what) == ("ok", "all-reduce, gloo over 2 processes")


def test_no_compiler_and_no_time_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    (trial,) = compiling.compile_trials(CPU)
    check = tried(trial, seconds=1.0)
    assert (check.status, check.result) == ("skipped", "1 s were left for it")
    monkeypatch.setenv("CXX", "no-such-compiler")
    check = tried(trial)
    assert (check.status, "no-such-compiler is not here" in check.result) == ("skipped", True)


@pytest.mark.slow
def test_a_compiler_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    slow = tmp_path / "g++"
    slow.write_text("#!/bin/sh\nexec sleep 3117\n")
    slow.chmod(0o755)
    monkeypatch.setenv("CXX", str(slow))
    (trial,) = compiling.compile_trials(CPU)
    began_at = time.monotonic()
    check = tried(trial, seconds=25.0)
    assert (check.status, "not compiled after" in check.result) == ("skipped", True)
    assert time.monotonic() - began_at < 40
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    assert "sleep 3117" not in running


@pytest.mark.parametrize(
    ("network", "kind", "devices", "expected", "slow"),
    [
        (100.0, "cuda", 1, 100.0, "the network"),
        (5000.0, "cuda", 1, 4000.0, "decoding"),  # 8 cores of 500
        (100.0, "cpu", 1, 80.0, "the network"),  # 10 ms an image, and 2.5 ms to decode it
        (400.0, "cpu", 1, 200.0, "the network"),
        (800.0, "cpu", 1, 800 / 3, "decoding"),
    ],
)
def test_the_bottleneck(network: float, kind: str, devices: int, expected: float, slow: str) -> None:
    decoding = {"images_per_s_core": 500.0, "images_per_s": 400.0, "cores": 8}
    found = judge_speed(network, decoding, kind, devices)
    assert round(found.numbers["images_per_s"], 6) == round(expected, 6)
    assert found.result.startswith(f"{slow} is the bottleneck")
