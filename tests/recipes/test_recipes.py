"""Recipes: what is shipped, what may be said, and who wins."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import typer
from hypothesis import given
from hypothesis import strategies as st

from lupctl.cli.app import app
from lupctl.core.choices import Arch, Method
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.weights.vit_plan import VIT_SIZES
from lupctl.core.recipes.dino_sections import DinoSettings
from lupctl.core.recipes.finetune_sections import FinetuneData
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.osnet_sections import is_osnet
from lupctl.core.recipes.pretrain_sections import (
    METHOD_SECTIONS,
    PretrainData,
    PretrainOptim,
    check_sections,
)
from lupctl.core.recipes.sections import Augment, Net, ScheduleSettings
from lupctl.core.recipes.shipped import (
    MODELS,
    Shipped,
    find_text,
    read_resolved,
    resolve_recipe,
    shipped_recipes,
)
from lupctl.core.recipes.text import (
    build_recipe,
    dump_recipe,
    override,
    parse_override,
    parse_recipe,
    recipe_keys,
    recipe_tables,
)
from lupctl.core.stages.finetune.job import network_plan as finetune_network
from lupctl.core.stages.pretrain.job import student_plan as pretrain_network
from lupctl.core.training.nets.build import build_network

SHIPPED = shipped_recipes()
shipped = pytest.mark.parametrize("recipe", SHIPPED, ids=lambda recipe: recipe.name)


def test_there_are_recipes_of_both_stages_with_names_of_their_own() -> None:
    names = [recipe.name for recipe in SHIPPED]
    assert {"luperson-moco", "demo-moco", "bot", "demo-bot"} <= set(names)
    assert {name for name in names if names.count(name) > 1} == {f"solider-swin-{size}" for size in "tsb"}
    assert len({(recipe.stage, recipe.name) for recipe in SHIPPED}) == len(SHIPPED)
    assert {recipe.stage for recipe in SHIPPED} == set(MODELS)


@shipped
def test_a_shipped_recipe_builds_its_network(recipe: Shipped) -> None:
    resolved = resolve_recipe(recipe.stage, recipe.name)
    assert resolved.stage == recipe.stage
    with torch.device("meta"):
        if isinstance(resolved, PretrainRecipe):
            network = build_network(pretrain_network(resolved))
            if isinstance(resolved.settings, DinoSettings):  # its head is not part of what is kept
                assert not [key for key in network.state_dict() if key.startswith("head.")]
            else:
                assert network.state_dict()["head.out.weight"].shape[0] == resolved.settings.dim
        else:
            network = build_network(finetune_network(resolved, 751, range(1, 7)))
            state = network.state_dict()
            classifiers = [value for key, value in state.items() if re.search(r"classifiers?(\.\d)?\.weight$", key)]
            assert {value.shape[0] for value in classifiers} == {751}
        cameras = torch.zeros(2, dtype=torch.int64) if network.needs_cameras else None
        feature = network.eval().embed(torch.empty(2, 3, resolved.pixels.height, resolved.pixels.width), cameras)
    assert feature.shape == (2, count_features(resolved))


def count_features(recipe: PretrainRecipe | FinetuneRecipe) -> int:
    """Length of the retrieval feature, as the papers state it."""
    net = recipe.net
    if recipe.swin is not None:
        return {"swin-u": 256, "swin-t": 768, "swin-s": 768, "swin-b": 1024}[net.arch]
    if is_osnet(net.arch):
        return 512
    if net.arch in VIT_SIZES:
        dim = VIT_SIZES[net.arch][0]
        if isinstance(recipe, FinetuneRecipe) and recipe.jpm is not None:
            return dim * (1 + recipe.jpm.parts)
        return dim * (2 if net.pooling == "parts" else 1)
    if isinstance(recipe, FinetuneRecipe) and recipe.net.head == "mgn":
        return 8 * recipe.net.embedding
    return 8 * net.width * (1 if net.arch == "r18" else 4)


@shipped
def test_a_shipped_recipe_opens_with_what_one_wants_to_know(recipe: Shipped) -> None:
    assert {"What", "Paper", "Command", "Cost", "Score"} <= set(recipe.header)
    for label in ("What", "Paper", "Cost", "Score"):
        assert len(recipe.header[label]) > 10, label
    assert recipe.text.startswith("# What: ")


@shipped
def test_the_command_of_a_shipped_recipe_is_one(recipe: Shipped) -> None:
    program, *words = recipe.header["Command"].split()
    assert program == "lupctl"
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    params = command.make_context("lupctl", words).params
    if command.name in MODELS:
        assert command.name == recipe.stage
        default = {"pretrain": "luperson-moco", "finetune": "mgn-luperson"}[command.name]
        assert (params["recipe"] or default) == recipe.name
        flags = {"net.arch": params["arch"]}
        assert resolve_recipe(recipe.stage, recipe.name, flags=flags) == resolve_recipe(recipe.stage, recipe.name)
    else:
        from lupctl.core.flows.demo import RECIPES

        assert (command.name, recipe.name in RECIPES) == ("demo", True)


@shipped
def test_a_resolved_recipe_can_be_given_back(recipe: Shipped, tmp_path: Path) -> None:
    resolved = resolve_recipe(recipe.stage, recipe.name, overrides=["seed=7"])
    path = tmp_path / "mine.toml"
    path.write_text(dump_recipe(resolved))
    assert resolve_recipe(recipe.stage, str(path)) == resolved == read_resolved(path)
    assert dump_recipe(resolve_recipe(recipe.stage, str(path))) == path.read_text()
    tables = parse_recipe(path.read_text(), origin="")
    keys = {key for key in recipe_keys(type(resolved)) if _look_up(tables, key)}
    own = METHOD_SECTIONS[tables["method"]] if "method" in tables else ()
    others = {name for names in METHOD_SECTIONS.values() for name in names if name not in own}
    is_vit = resolved.net.arch in VIT_SIZES
    others |= set() if is_vit else {"vit", "sie"}
    others |= set() if resolved.swin is not None else {"swin"}
    others |= set() if isinstance(resolved, FinetuneRecipe) and resolved.net.head == "jpm" else {"jpm"}
    others.add("distil")  # no recipe knows the runs that somebody has
    if isinstance(resolved, FinetuneRecipe):
        others.add("clusters" if resolved.labels == "persons" else "losses")
    wanted = {key for key in recipe_keys(type(resolved)) if key.partition(".")[0] not in others}
    assert keys == wanted, "every key of the method is written"


def _look_up(tables: Any, key: str) -> bool:
    for part in key.split("."):
        if part not in tables:
            return False
        tables = tables[part]
    return True


# Published: LUPerson's launch script; T, queue and momentum as its section on launch values says.
LUPERSON: dict[str, Any] = {
    "method": "moco",
    "bn_groups": 8,
    "net.arch": "r50",
    "net.width": 64,
    "net.last_stride": 2,
    "net.pooling": "avg",
    "data.batch": 2560,
    "pixels.height": 256,
    "pixels.width": 128,
    "pixels.mean": (0.3525, 0.3106, 0.3140),
    "pixels.std": (0.2660, 0.2522, 0.2505),
    "pixels.interpolation": "bilinear",
    "augment.crop_area": (0.2, 1.0),
    "augment.crop_ratio": (3 / 4, 4 / 3),
    "augment.pad": 0,
    "augment.jitter.p": 0.0,
    "augment.grey": 0.2,
    "augment.blur": 0.5,
    "augment.blur_radius": (0.1, 2.0),
    "augment.flip": 0.5,
    "augment.erase": 0.5,
    "augment.erase_area": (0.02, 0.6),
    "augment.erase_aspect": (0.3, 1 / 0.3),
    "moco.dim": 128,
    "moco.queue": 65_536,
    "moco.momentum": 0.999,
    "moco.temperature": 0.1,
    "optim.name": "sgd",
    "optim.lr": 0.3,
    "optim.momentum": 0.9,
    "optim.weight_decay": 1e-4,
    "optim.clip": 0.0,
    "optim.accumulate": 1,
    "net.compile": False,
    "net.checkpoint_activations": False,
    "probe.pack": "",
    "schedule.epochs": 200,
    "schedule.kind": "cosine",
    "schedule.unit": "epoch",
    "schedule.warmup_epochs": 0.0,
    "schedule.final": 0.0,
}


@pytest.mark.parametrize(("name", "arch"), [("", "r50"), ("-r101", "r101"), ("-r152", "r152")])
def test_luperson_has_the_published_constants(name: str, arch: str) -> None:
    tables = resolve_recipe("pretrain", f"luperson-moco{name}").model_dump()
    for key, wanted in (LUPERSON | {"net.arch": arch}).items():
        found: Any = tables
        for part in key.split("."):
            found = found[part]
        assert found == pytest.approx(wanted), key


# Published: the configuration of LUPerson's ResNet-50 MGN, pixel constants of 255.
MGN: dict[str, Any] = {
    "bn_groups": 4,
    "precision": "float32",
    "freeze_epochs": 10,
    "net.arch": "r50",
    "net.width": 64,
    "net.head": "mgn",
    "net.last_stride": 1,
    "net.embedding": 256,
    "net.ibn": False,
    "data.persons": 4,
    "data.images": 16,
    "data.order": "stream",
    "pixels.height": 384,
    "pixels.width": 128,
    "pixels.interpolation": "bicubic",
    "augment.crop_area": (),
    "augment.pad": 10,
    "augment.jitter.p": 0.0,
    "augment.grey": 0.0,
    "augment.blur": 0.0,
    "augment.flip": 0.5,
    "augment.erase": 0.5,
    "augment.erase_area": (0.02, 0.4),
    "augment.erase_aspect": (0.3, 1 / 0.3),
    "augment.erase_fill": "black",
    "losses.smoothing": 0.1,
    "losses.margin": 0.0,
    "losses.mining": "hard",
    "losses.identity": 1.0,
    "losses.triplet": 1.0,
    "losses.circle_scale": 64.0,
    "losses.circle_margin": 0.35,
    "optim.name": "adam",
    "optim.lr": 3.5e-4,
    "optim.weight_decay": 5e-4,
    "optim.clip": 0.0,
    "schedule.epochs": 60,
    "schedule.kind": "cosine",
    "schedule.unit": "step",
    "schedule.warmup_epochs": 10,
    "schedule.warmup_factor": 0.01,
    "schedule.hold_epochs": 30,
    "schedule.final": 7.7e-7 / 3.5e-4,
}
MGN_PIXELS = {
    "mgn-luperson": ((89.896, 79.200, 80.073), (63.872, 64.305, 63.839), True, ""),
    "mgn-luperson-nl": ((88.026, 78.285, 79.407), (67.142, 63.750, 63.240), True, ""),
    "mgn-imagenet": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False, "imagenet"),
    "mgn-imagenet-r101": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), False, "imagenet"),
}


@pytest.mark.parametrize("name", MGN_PIXELS)
def test_mgn_has_the_published_constants(name: str) -> None:
    recipe = resolve_recipe("finetune", name)
    assert isinstance(recipe, FinetuneRecipe)
    tables = recipe.model_dump()
    own = {"net.arch": "r101", "auto_augment_epochs": 30} if name.endswith("-r101") else {"auto_augment_epochs": 0}
    for key, wanted in {**MGN, **own}.items():
        found: Any = tables
        for part in key.split("."):
            found = found[part]
        assert found == pytest.approx(wanted), key
    mean, std, extra_bn, start = MGN_PIXELS[name]
    assert [255 * value for value in recipe.pixels.mean] == pytest.approx(mean, abs=1e-4)
    assert [255 * value for value in recipe.pixels.std] == pytest.approx(std, abs=1e-4)
    assert (recipe.net.extra_bn, recipe.start) == (extra_bn, start)


def test_mgn_needs_rows_for_its_stripes() -> None:
    with pytest.raises(UsageError, match=r"pixels\.height = 256 is not a multiple of 96, which mgn needs"):
        resolve_recipe("finetune", "mgn-luperson", overrides=["pixels.height=256"])
    assert resolve_recipe("finetune", "mgn-luperson", overrides=["pixels.height=288"]).pixels.height == 288


@pytest.mark.parametrize("arch", get_args(Arch))
def test_luperson_resolves_for_every_depth(arch: str) -> None:
    assert resolve_recipe("pretrain", "luperson-moco", flags={"net.arch": arch}).net.arch == arch


share = st.floats(0, 1)
pair = st.tuples(st.floats(-1e6, 1e6), st.floats(1e-12, 1e12))


@given(
    recipe=st.builds(
        PretrainRecipe,
        seed=st.integers(0, 2**63 - 1),
        bn_groups=st.just(2),
        data=st.builds(PretrainData, packs=st.lists(st.text(st.characters(codec="utf-8")), max_size=3).map(tuple)),
        net=st.builds(Net, last_stride=st.sampled_from([1, 2])),
        augment=st.builds(Augment, crop_area=st.one_of(st.just(()), pair), erase_area=pair, flip=share),
        optim=st.builds(PretrainOptim, lr=st.floats(1e-300, 1e300), weight_decay=st.floats(0, 1e30)),
        schedule=st.builds(ScheduleSettings, milestones=st.lists(st.integers(-9, 10**12)).map(tuple), final=share),
    )
)
def test_a_dumped_recipe_reads_back_the_same(recipe: PretrainRecipe) -> None:
    tables = parse_recipe(dump_recipe(recipe), origin="dump")
    assert build_recipe(PretrainRecipe, tables, origin="dump") == recipe
    assert tables == recipe_tables(recipe), "the stored recipe is compared with the new one key by key"


@given(start=st.text(st.characters(codec="utf-8")), pack=st.text(st.characters(codec="utf-8")))
def test_any_name_survives(start: str, pack: str) -> None:
    recipe = FinetuneRecipe(start=start, data=FinetuneData(packs=(pack,)))
    assert build_recipe(FinetuneRecipe, parse_recipe(dump_recipe(recipe), origin=""), origin="") == recipe


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=3", 3),
        ("a=-3", -3),
        ("a=0.5", 0.5),
        ("a=1e-4", 1e-4),
        ("a = 1e-4", 1e-4),
        ("a=true", True),
        ("a=[1, 2]", [1, 2]),
        ('a=["x", "y"]', ["x", "y"]),
        ("a=[]", []),
        ("a=r18", "r18"),
        ("a=lup/runs/a b", "lup/runs/a b"),
        ('a="3"', "3"),
        ("a=", ""),
        ("a=x=y", "x=y"),
    ],
)
def test_values_of_set_have_the_type_they_look_like(text: str, value: Any) -> None:
    key, found = parse_override(text)
    assert (key, found, type(found)) == ("a", value, type(value))


@pytest.mark.parametrize("text", ["seed", "=3", ""])
def test_set_needs_key_and_value(text: str) -> None:
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        parse_override(text)


def test_a_key_of_set_has_few_parts() -> None:
    with pytest.raises(UsageError, match="a key of more than 32 parts"):
        parse_override(f"{'.'.join('a' * 40)}=1")


def resolve(*overrides: str) -> PretrainRecipe:
    recipe = resolve_recipe("pretrain", "luperson-moco", overrides=overrides)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def test_set_reaches_every_kind_of_key() -> None:
    changed = resolve(
        "optim.lr=1", "schedule.milestones=[3, 5]", "net.arch=r18", "augment.crop_area=[]", "data.packs=['a']",
        "augment.jitter.p=0.5", "seed=3", "seed=4",
    )  # fmt: skip
    assert (changed.optim.lr, changed.schedule.milestones, changed.net.arch) == (1.0, (3, 5), "r18")
    assert (changed.augment.crop_area, changed.data.packs, changed.augment.jitter.p) == ((), ("a",), 0.5)
    assert changed.seed == 4, "the later one wins"
    assert isinstance(changed.optim.lr, float)


@pytest.mark.parametrize(
    ("entry", "guess"),
    [
        ("optim.rate=1", "optim.lr"),
        ("optim.learningrate=1", "optim.lr"),
        ("solver.base_lr=1", "optim.lr"),
        ("optim.momentm=1", "optim.momentum"),
        ("moco.momentm=0.9", "moco.momentum"),
        ("optim.qqqqqq=1", None),
        ("moco.K=1", "moco.queue"),
        ("net.backbone=r50", "net.arch"),
        ("schedule.gamma=1", None),
        ("optim.rl=1", "optim.lr"),
        ("optim.l=1", "optim.lr"),
        ("schedule.epoch=1", "schedule.epochs"),
        ("moco.temprature=1", "moco.temperature"),
        ("lr=1", "optim.lr"),
        ("augment.jitter.hu=0", "augment.jitter.hue"),
        ("qqqqqq=1", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(entry: str, guess: str | None) -> None:
    key, _, value = entry.partition("=")
    with pytest.raises(UsageError) as caught:
        resolve(entry)
    assert caught.value.message.startswith(f"luperson-moco with --set: unknown recipe key {key!r}")
    if guess is not None:
        assert caught.value.message.endswith(f"; did you mean {guess!r}?")
        assert caught.value.hint == f"--set {guess}={value}"
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "entry", "guess", "hint"),
    [
        ("luperson-moco", "net.depth=r18", "net.arch", "--set net.arch=r18"),
        (
            "luperson-moco",
            "net.depth=1",
            "net.arch",
            "lupctl recipe show luperson-moco --stage pretrain shows a valid value for every key",
        ),
        ("small-dino", "net.depth=2", "vit.depth", "--set vit.depth=2"),
        (
            "small-moco",
            "optim.baselr=fast",
            "optim.lr",
            "lupctl recipe show small-moco --stage pretrain shows a valid value for every key",
        ),
    ],
)
def test_the_hint_for_an_unknown_key_sets_one_that_takes_the_value(
    name: str, entry: str, guess: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_recipe("pretrain", name, overrides=[entry])
    assert caught.value.message.endswith(f"did you mean {guess!r}?")
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("schedule.epochs=three", "schedule.epochs: input should be a valid integer, got 'three'"),
        ("schedule.epochs=3.5", "schedule.epochs: input should be a valid integer, got 3.5"),
        ("schedule.epochs=0", "schedule.epochs: input should be greater than 0, got 0"),
        ("schedule.epochs=true", "schedule.epochs: input should be a valid integer, got True"),
        ('schedule.epochs="3"', "schedule.epochs: input should be a valid integer, got '3'"),
        ("optim.lr=nan", "optim.lr: input should be a finite number, got nan"),
        ("optim.lr=fast", "optim.lr: input should be a valid number, got 'fast'"),
        ("optim.lr=false", "optim.lr: input should be a valid number, got False"),
        (
            "net.arch=r34",
            "'osnet-ain-x0.75', 'osnet-ain-x0.5' or 'osnet-ain-x0.25', got 'r34'",
        ),
        ("net.last_stride=3", "net.last_stride: input should be 1 or 2, got 3"),
        ("augment.flip=1.5", "augment.flip: input should be less than or equal to 1, got 1.5"),
        ("data.packs=a", "data.packs: input should be a valid tuple, got 'a'"),
        ("optim=3", "optim: input should be "),
        ("stage=finetune", "stage: input should be 'pretrain', got 'finetune'"),
        ("bn_groups=7", "bn_groups = 7 does not divide data.batch = 2560 into equal parts of two or more"),
        ("optim.accumulate=3", "optim.accumulate = 3 does not divide bn_groups = 8; a part of a batch needs whole"),
        ("optim.accumulate=0", "optim.accumulate: input should be greater than 0, got 0"),
        ("bn_groups=2560", "bn_groups = 2560 does not divide data.batch = 2560 into equal parts of two or more"),
    ],
)
def test_a_value_of_the_wrong_kind_names_key_and_value(entry: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(entry)
    assert message in caught.value.message
    assert caught.value.message.startswith("luperson-moco with --set: ")
    assert "\n" not in caught.value.message
    assert caught.value.hint == "lupctl recipe show luperson-moco --stage pretrain shows a valid value for every key"


def test_compiled_networks_are_not_recomputed() -> None:
    with pytest.raises(UsageError, match=r"net\.compile and net\.checkpoint_activations cannot be combined"):
        resolve("net.compile=true", "net.checkpoint_activations=true")


def test_what_is_published_and_what_is_not_is_said_at_the_top() -> None:
    for name in ("luperson-moco", "luperson-moco-r101", "luperson-moco-r152"):
        quirks = next(recipe for recipe in SHIPPED if recipe.name == name).header["Quirks"]
        for word in ("Followed as published", "Changed on purpose", "bf16", "Gaussian", "mean over the eight groups"):
            assert word in quirks, (name, word)
        assert "0.07" in find_text(name, "pretrain")[0].partition("temperature = 0.1")[0].rpartition("[moco]")[2]


def test_a_pair_of_the_wrong_length_names_its_key() -> None:
    for entry in ("augment.crop_area=[1]", "pixels.mean=[1, 2]", "augment.crop_area=0.5"):
        with pytest.raises(UsageError, match=entry.partition("=")[0].replace(".", r"\.")) as caught:
            resolve(entry)
        assert "tuple[" not in caught.value.message


def test_recipes_that_are_none(tmp_path: Path) -> None:
    broken = tmp_path / "broken.toml"
    for content, message in ((b"seed = ", "not valid TOML"), (b"\xff\xfe", "not a text file")):
        broken.write_bytes(content)
        with pytest.raises(UsageError, match=message) as caught:
            resolve_recipe("pretrain", str(broken))
        assert str(broken) in caught.value.message
    with pytest.raises(UsageError, match=r"gone\.toml: no such recipe file"):
        resolve_recipe("pretrain", str(tmp_path / "gone.toml"))
    with pytest.raises(UsageError, match="no pretrain recipe 'luperson-mcoo'; did you mean 'luperson-moco'"):
        resolve_recipe("pretrain", "luperson-mcoo")
    with pytest.raises(
        UsageError, match="no finetune recipe 'luperson-moco': it is a recipe for lupctl pretrain"
    ) as caught:
        resolve_recipe("finetune", "luperson-moco")
    assert caught.value.hint == "lupctl pretrain --recipe luperson-moco"
    with pytest.raises(UsageError, match="no recipe 'bott'; did you mean 'bot'"):
        find_text("bott", None)


def test_a_recipe_of_the_other_stage_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text('stage = "finetune"\n')
    with pytest.raises(UsageError, match="a recipe for finetune, not for pretrain") as caught:
        resolve_recipe("pretrain", str(path))
    assert caught.value.hint == f"lupctl finetune --recipe {path}"
    path.write_text('stage = "sleep"\n')
    with pytest.raises(UsageError, match="stage = 'sleep', expected pretrain or finetune"):
        read_resolved(path)
    with pytest.raises(DataError, match="no such file"):
        read_resolved(tmp_path / "gone")


def test_defaults_below_adopted_below_recipe_below_facts_below_set_below_flags(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"

    def width(text: str, **more: Any) -> int:
        path.write_text(text)
        return resolve_recipe("finetune", str(path), **more).net.width

    adopted = {"net.width": 8}
    facts, overrides, flags = {"net.width": 14}, ["net.width=16"], {"net.width": 20}
    assert width("") == 64
    assert width("", adopted=adopted) == 8
    assert width("[net]\npooling = 'gem'", adopted=adopted) == 8
    assert width("[net]\nwidth = 12", adopted=adopted) == 12
    assert width("[net]\nwidth = 12", adopted=adopted, facts=facts) == 14
    assert width("", facts=facts) == 14
    assert width("[net]\nwidth = 12", adopted=adopted, facts=facts, overrides=overrides) == 16
    assert width("", adopted=adopted, overrides=overrides) == 16
    assert width("[net]\nwidth = 12", adopted=adopted, facts=facts, overrides=overrides, flags=flags) == 20
    assert width("", facts=facts, flags={"net.width": None}) == 14
    assert width("[net]\nwidth = 12", flags={"net.width": None}) == 12, "a flag that was not given says nothing"
    with pytest.raises(UsageError, match="net: input should be"):
        width("net = 3", adopted=adopted)


def test_override_copies() -> None:
    tables = {"net": {"arch": "r50"}}
    assert override(tables, "net.arch", "r18") == {"net": {"arch": "r18"}}
    assert override(tables, "optim.lr", 1) == {"net": {"arch": "r50"}, "optim": {"lr": 1}}
    assert tables == {"net": {"arch": "r50"}}


def test_recipes_are_frozen() -> None:
    recipe = resolve_recipe("finetune", "bot")
    with pytest.raises(ValueError, match="frozen"):
        recipe.net.width = 8  # type: ignore[misc]


SECTIONS = {"moco": ("moco",), "dino": ("dino", "local"), "other": ("dino", "other")}


def test_a_recipe_has_the_sections_of_its_own_method_alone() -> None:
    assert check_sections({"seed": 1, "dino": {"a": 2}}, "dino", SECTIONS) == {"seed": 1, "dino": {"a": 2}, "local": {}}
    with pytest.raises(ValueError, match=r"^\[moco\] is a section of the method moco; this recipe's method is dino$"):
        check_sections({"moco": {}, "dino": {}}, "dino", SECTIONS)
    with pytest.raises(ValueError, match=r"^\[local\] is a section of the method dino; this recipe's method is other$"):
        check_sections({"dino": {}, "local": {}}, "other", SECTIONS)
    assert set(METHOD_SECTIONS) == set(get_args(Method))


def test_a_section_of_no_method_is_an_unknown_key(tmp_path: Path) -> None:
    path = tmp_path / "two.toml"
    path.write_text('stage = "pretrain"\n[moco]\nqueue = 64\n[byol]\noutputs = 5\n')
    with pytest.raises(UsageError, match=r"two\.toml: unknown recipe key 'byol\.outputs'"):
        resolve_recipe("pretrain", str(path))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("curves.decay.final=0.4", "a constant curve has no final value and no epochs"),
        ("curves.decay.epochs=4", "a constant curve has no final value and no epochs"),
        ("curves.momentum={kind='cosine', final=1.5}", "momentum.final = 1.5; a share from 0 to 1 is expected"),
        ("curves.temperature.kind=linear", "temperature.final = 0; a temperature above 0 is expected"),
        ("curves.decay.kind=straight", "curves.decay.kind"),
    ],
)
def test_curves_that_go_nowhere_are_refused(entry: str, message: str) -> None:
    with pytest.raises(UsageError, match=re.escape(message)):
        resolve(entry)
