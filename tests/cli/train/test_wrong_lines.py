"""Command lines that lupctl does not have: one error line, and a hint that is the whole command as it was meant."""

import re
import shlex
from typing import Any

import pytest
import typer
from typer.core import TyperOption

from lupctl.cli.app import app
from lupctl.cli.failures import check, find_command
from lupctl.cli.meant import meant_option
from tests.tools.shell import Shell

ROOT: Any = typer.main.get_command(app)


@pytest.mark.parametrize(
    ("typed", "message", "meant"),
    [
        # Options that have a name of their own here.
        ("finetune x --lr0 0.1", "finetune: there is no option --lr0", "finetune x --lr 0.1"),
        ("finetune x --learning-rate=0.1", "there is no option --learning-rate", "finetune x --lr 0.1"),
        ("pretrain --batch-size 64", "pretrain: there is no option --batch-size", "pretrain --batch 64"),
        ("finetune x --batch_size 64", "there is no option --batch_size", "finetune x --batch 64"),
        ("finetune x --epoch 3", "there is no option --epoch", "finetune x --epochs 3"),
        ("finetune x --num-workers 3", "there is no option --num-workers", "finetune x --workers 3"),
        ("finetune x --device 0", "there is no option --device", "finetune x --gpus 1"),
        ("finetune x --device cpu", "there is no option --device", "finetune x --gpus 0"),
        ("finetune x --device 0,1,2,3", "there is no option --device", "finetune x --gpus 4"),
        ("finetune x --pretrained", "there is no option --pretrained", "finetune x --from imagenet"),
        ("finetune --pretrained x", "there is no option --pretrained", "finetune --from imagenet x"),
        ("finetune x --pretrained a/b.pth", "there is no option --pretrained", "finetune x --from a/b.pth"),
        ("finetune x --weights a.pth", "there is no option --weights", "finetune x --from a.pth"),
        ("pretrain --backbone r50", "there is no option --backbone", "pretrain --arch r50"),
        ("pretrain --output-dir o", "there is no option --output-dir", "pretrain --out o"),
        ("pretrain --dry_run", "there is no option --dry_run", "pretrain --dry-run"),
        ("eval --re-rank", "eval: there is no option --re-rank", "eval --rerank"),
        ("dump --gpu 2", "dump: there is no option --gpu", "dump --gpus 2"),
        ("dump --cpu", "dump: there is no option --cpu", "dump --device cpu"),
        ("run rm x --noconfirm", "run rm: there is no option --noconfirm", "run rm x --yes"),
        # Keys of a recipe.
        ("finetune x --weight-decay 1e-4", "--weight-decay; the recipe's key is optim.weight_decay",
         "finetune x --set optim.weight_decay=1e-4"),
        ("pretrain --momentum 0.8", "the recipe's key is optim.momentum", "pretrain --set optim.momentum=0.8"),
        ("pretrain --temperature=0.07", "the recipe's key is moco.temperature", "pretrain --set moco.temperature=0.07"),
        ("finetune x --seed 3", "the recipe's key is seed", "finetune x --set seed=3"),
        ("finetune x --optimizer adamw", "the recipe's key is optim.name", "finetune x --set optim.name=adamw"),
        ("finetune x --margn 0.2", "the recipe's key is losses.margin", "finetune x --set losses.margin=0.2"),
        ("finetune x --amp", "the recipe's key is precision", "finetune x --set precision=auto"),
        # What is not needed.
        ("pretrain --pretrained", "--pretrained: pre-training starts from random weights", "pretrain"),
        ("finetune x --resume", "--resume: the same command continues a stopped run", "finetune x"),
        # Several mistakes are put right at once.
        ("finetune x -lr 0.1 --wd 0 --bs 32", "there is no option -lr",
         "finetune x --lr 0.1 --set optim.weight_decay=0 --batch 32"),
        # Values and commands.
        ("pretrain --arch resnet50", "invalid value for '--arch': 'resnet50' is not one of", "pretrain --arch r50"),
        ("pretrain --arch=r5", "'r5' is not one of", "pretrain --arch=r50"),
        ("train x", "there is no command train", "finetune x"),
        ("test --rerank", "there is no command test", "eval --rerank"),
        ("finetun x", "there is no command finetun", "finetune x"),
        ("pack x", "there is no command pack", "data pack x"),
        ("data remove x", "data: there is no command remove", "data rm x"),
        ("data dowload market1501", "data: there is no command dowload", "data download market1501"),
        ("runs", "there is no command runs", "run list"),
        # Nothing is close: the help.
        ("doctor --nonsense", "doctor: there is no option --nonsense", "doctor --help"),
        ("nonsense", "there is no command nonsense", "--help"),
        ("recipe show", "recipe show: missing argument 'NAME|RUN'", "recipe show --help"),
        ("pretrain --gpus -1", "pretrain: invalid value for '--gpus'", "pretrain --help"),
        ("pretrain --epochs ten", "pretrain: invalid value for '--epochs'", "pretrain --help"),
        ("dump a b c", "dump: got unexpected extra argument", "dump --help"),
        ("finetune x --lr", "finetune: option '--lr' requires an argument", "finetune --help"),
    ],
)  # fmt: skip
def test_a_wrong_line_is_answered_by_the_right_one(lupctl: Shell, typed: str, message: str, meant: str) -> None:
    ran = lupctl(typed)
    assert (ran.code, ran.out) == (2, "")
    first, second = ran.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert second == f"hint: lupctl {meant}"
    right = shlex.split(meant)
    assert check(ROOT, right) is None, "what the hint says can be typed"
    words = find_command(ROOT, right)[1]
    assert words == right[: len(words)]
    if "--help" in right:
        helped = lupctl(meant)
        assert (helped.code, helped.err) == (0, "")
        assert "Usage: " in helped.out


@pytest.mark.parametrize("line", ["", "data", "recipe", "model", "run"])
def test_a_group_alone_shows_its_help_and_is_no_error(lupctl: Shell, line: str) -> None:
    alone, asked = lupctl(line), lupctl(f"{line} --help")
    assert (alone.code, alone.err) == (0, "")
    assert alone.out == asked.out
    assert re.search(r"Usage: .*COMMAND", alone.out)


def test_an_option_without_one_of_its_letters_is_found_again() -> None:
    found, missed = 0, []
    for words in (["pretrain"], ["finetune"], ["dump"], ["eval"], ["search"], ["data", "pack"], ["model", "export"]):
        options = [param for param in find_command(ROOT, words)[0].params if isinstance(param, TyperOption)]
        for option in sorted({name for param in options for name in param.opts if len(name) > 6}):
            meant = meant_option(words, options, option[:4] + option[5:], "1")
            if meant is not None and meant.words[:1] == (option,):
                found += 1
            else:
                missed.append((words, option, meant))
    assert found > 80, missed
    assert not missed
