"""What was meant by an option, a command or a value that lupctl does not have."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any, Final

from typer.core import TyperGroup, TyperOption

from lupctl.core.choices import nearest_name

STAGES = ("pretrain", "finetune")
# Names of options in other code of the field, without dashes and in lower case. The first one that a command has.
OPTIONS_ELSEWHERE: Final = {
    "numworkers": "--workers", "nworkers": "--workers", "worker": "--workers", "j": "--workers", "jobs": "--workers",
    "numthreads": "--workers", "batchsize": "--batch", "bs": "--batch", "b": "--batch", "imsperbatch": "--batch",
    "numepochs": "--epochs", "nepochs": "--epochs", "maxepoch": "--epochs", "maxepochs": "--epochs", "e": "--epochs",
    "learningrate": "--lr", "baselr": "--lr", "lr0": "--lr", "initlr": "--lr", "rate": "--lr",
    "model": "--arch", "backbone": "--arch", "network": "--arch", "net": "--arch", "depth": "--arch",
    "architecture": "--arch", "dataset": "--data", "datasets": "--data", "d": "--data", "pack": "--data",
    "output": "--out", "outputdir": "--out", "outdir": "--out", "savedir": "--out", "logdir": "--out", "o": "--out",
    "dir": "--out", "config": "--recipe", "configfile": "--recipe", "cfg": "--recipe", "c": "--recipe",
    "overwrite": "--force", "f": "--force", "gpu": "--gpus", "numgpus": "--gpus", "ngpus": "--gpus", "ngpu": "--gpus",
    "nprocpernode": "--processes", "pretrained": "--from", "pretrain": "--from", "weights": "--from",
    "checkpoint": "--from", "ckpt": "--from", "init": "--from", "start": "--from", "pretrainpath": "--from",
    "workspace": "--home", "root": "--home", "datadir": "--home", "y": "--yes", "noconfirm": "--yes", "opts": "--set",
    "dryrun": "--dry-run", "n": "--dry-run", "silent": "--quiet", "verbose": "--debug", "v": "--debug",
    "reranking": "--rerank", "rr": "--rerank", "name": "--out", "expname": "--out", "runname": "--out",
}  # fmt: skip
# The keys of a recipe that have an option of their own.
KEY_OF_OPTION: Final = {
    "--epochs": "schedule.epochs", "--batch": "data.batch", "--lr": "optim.lr", "--arch": "net.arch",
    "--method": "method", "--data": "data.packs", "--subset": "data.subset", "--repeat": "data.repeat",
    "--from": "start", "--probe": "probe.pack", "--labels": "labels",
}  # fmt: skip
# How much a name has to be like an option, from 0 to 1, to be taken for a misspelling of it.
LIKE = 0.7
DIGITS = re.compile(r"\d+")
# What takes no value there.
BARE = ("pretrained", "resume", "amp", "fp16", "cpu", "cuda")
SWITCHES = ("amp", "fp16")  # no value of theirs is one of ours
DROPPED: Final = {
    ("pretrain", "pretrained"): "pre-training starts from random weights",
    ("pretrain", "resume"): "the same command continues a stopped run",
    ("finetune", "resume"): "the same command continues a stopped run",
}
COMMANDS_ELSEWHERE: Final = {
    "train": ("finetune",), "tune": ("finetune",), "test": ("eval",), "evaluate": ("eval",), "score": ("eval",),
    "validate": ("eval",), "val": ("eval",), "extract": ("dump",), "embed": ("dump",), "features": ("dump",),
    "rerank": ("eval", "--rerank"), "help": ("--help",), "version": ("--version",), "runs": ("run", "list"),
    "remove": ("rm",), "delete": ("rm",), "ls": ("list",), "show": ("info",), "info": ("show",), "check": ("verify",),
    "rm": ("run", "rm"),
    "packs": ("data", "list"), "datasets": ("data", "list"), "models": ("model", "list"), "recipes": ("recipe", "list"),
}  # fmt: skip


def plain(name: str) -> str:
    """A name without dashes and underscores, in lower case.

    >>> plain("--Weight_Decay")
    'weightdecay'
    """
    return name.replace("-", "").replace("_", "").lower()


@dataclass(frozen=True)
class Meant:
    """What to type instead of something.

    Args:
        words: to type; empty to leave it out.
        remark: what to say about it.
        takes_value: whether the value typed after it is among the words, or goes with it.
    """

    words: tuple[str, ...]
    remark: str = ""
    takes_value: bool = False


def meant_option(words: Sequence[str], options: Sequence[TyperOption], name: str, value: str | None) -> Meant | None:
    """What to type instead of an option that a command does not have; None where nothing is close.

    Args:
        words: of the command.
        options: that it has.
        name: as typed, with its dashes.
        value: typed after it, if anything was.
    """
    command, bare = " ".join(words), plain(name)
    known = {option: param.is_flag for param in options for option in param.opts}
    if bare in BARE and not (value is not None and _is_value(bare, value)):
        value = None
    takes_value = value is not None
    if bare in SWITCHES:
        value = None
    if (command, bare) in DROPPED:
        return Meant((), f": {DROPPED[command, bare]}", takes_value)
    if bare in ("device", "devices", "cpu", "cuda") and "--gpus" in known and "--device" not in known:
        return Meant(("--gpus", _count_gpus(value or bare)), takes_value=takes_value)
    if bare in ("cpu", "cuda") and "--device" in known:
        return Meant(("--device", bare))
    option, key = _nearest(command, sorted(known), name)
    if option is None and key is None:
        return None
    if option is not None and known[option]:
        return Meant((option,))
    if option == "--from" and (value is None or value.lower() in ("true", "1", "yes")):
        value = "imagenet"
    if value is None:
        value = _default(command, KEY_OF_OPTION.get(option, "") if option else str(key))
    if option is None:
        return Meant(("--set", f"{key}={value}"), f"; the recipe's key is {key}", takes_value)
    return None if value is None else Meant((option, value), takes_value=takes_value)


def meant_command(group: TyperGroup, name: str) -> tuple[str, ...] | None:
    """The words of a command that was meant by one that a group does not have; None where nothing is close."""
    elsewhere = COMMANDS_ELSEWHERE.get(name)
    if elsewhere is not None and (elsewhere[0] in group.commands or elsewhere[0].startswith("-")):
        return elsewhere
    near = nearest_name(name, group.commands)
    if near is not None:
        return (near,)
    for below in group.commands.values():
        if isinstance(below, TyperGroup) and below.name and name in below.commands:
            return below.name, name
    return None


def meant_choice(name: str, choices: Sequence[str]) -> str | None:
    """The choice that was meant, by its letters or else by its digits, as `r50` by `resnet50`.

    >>> meant_choice("resnet50", ["r18", "r50"])
    'r50'
    """
    near = nearest_name(name, choices)
    digits = [choice for choice in choices if DIGITS.findall(choice) == DIGITS.findall(name) != []]
    return near or (digits[0] if len(digits) == 1 else None)


def _nearest(command: str, options: Sequence[str], name: str) -> tuple[str | None, str | None]:
    """The option, or else the recipe key, that a name is closest to."""
    bare = plain(name)
    same = [option for option in options if option == OPTIONS_ELSEWHERE.get(bare) or plain(option) == bare]
    if same:
        return same[0], None
    near = nearest_name(name, options)
    if near is not None and SequenceMatcher(None, bare, plain(near)).ratio() < LIKE:
        near = None  # alike in the dashes alone, as --dropout and --out
    if command not in STAGES:
        return near, None
    from lupctl.core.recipes.shipped import MODELS
    from lupctl.core.recipes.text import likeness, nearest_key, recipe_keys, recipe_tables

    typed = name.lstrip("-").replace("-", "_").lower()
    usual = recipe_tables(MODELS[command]())
    # A key of a section that not every recipe has, such as [vit], is meant by its own name alone.
    keys = [
        key for key in recipe_keys(MODELS[command]) if key.split(".")[0] in usual or plain(key.split(".")[-1]) == bare
    ]
    key = nearest_key(typed, keys)
    if key is None or (near is not None and likeness(typed, key) < likeness(typed, near)):
        return near, None
    named = next((option for option, own in KEY_OF_OPTION.items() if own == key and option in options), None)
    return (named, None) if named else (None, key)


def _is_value(bare: str, value: str) -> bool:
    """Whether what follows an option that is a switch elsewhere is its value."""
    path = bare in ("pretrained", "resume") and ("/" in value or "." in value or value in ("imagenet", "scratch"))
    return path or value.lower() in ("true", "false", "0", "1", "yes", "no")


def _count_gpus(device: str) -> str:
    """The number of GPUs in what other code calls a device.

    >>> [_count_gpus(device) for device in ("cpu", "0", "cuda:1", "0,1,2,3")]
    ['0', '1', '1', '4']
    """
    return "0" if device == "cpu" else str(device.count(",") + 1)


def _default(command: str, key: str) -> str | None:
    """The value that a key has in the stage's recipe; None where there is none."""
    from lupctl.core.recipes.shipped import MODELS
    from lupctl.core.recipes.text import recipe_tables

    found: Any = recipe_tables(MODELS[command]()) if command in STAGES and key else None
    for part in key.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return None if found is None or isinstance(found, dict) else str(found).lower().replace("'", '"').replace(" ", "")
