"""The command that files keep: whole, but for what does not change their content."""

import sys

import pytest

from lupctl.cli.app import app
from lupctl.core.system.command_line import FLAGS_LEFT_OUT, OPTIONS_LEFT_OUT, recorded_command


@pytest.mark.parametrize(
    ("typed", "recorded"),
    [
        ("dump mine market1501", "dump mine market1501"),
        ("dump mine --out f.h5 --type float16", "dump mine --type float16"),
        ("dump --out=f.h5 --home=elsewhere mine", "dump mine"),
        ("dump mine --device cpu --gpus 2 --processes 3 --shard 1/4 --workers 0 -q", "dump mine"),
        ("data pack --force --json --debug --quiet", "data pack"),
        ("data build x --executor ray --shard=2/3 --strict --every 5", "data build x --every 5"),
        ("eval --rerank --min-map 0.8 --min-rank1=0.9 --no-page", "eval --rerank"),
        ("pretrain --nodes 2 --rdzv-endpoint a:1 --node-rank 1 --arch r50", "pretrain --arch r50"),
        ("finetune x --set optim.lr=1 --set data.persons=8", "finetune x --set optim.lr=1 --set data.persons=8"),
        ("dump out --outer", "dump out --outer"),
        ("", ""),
    ],
)
def test_what_is_recorded(monkeypatch: pytest.MonkeyPatch, typed: str, recorded: str) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/bin/lupctl", *typed.split()])
    assert recorded_command() == ("lupctl", *recorded.split())


def test_what_is_left_out_is_an_option_of_its_kind() -> None:
    """A flag that were taken for an option with a value would swallow the next argument, and the other way round."""
    import typer

    kinds: dict[str, set[bool]] = {}
    waiting = [typer.main.get_command(app)]
    while waiting:
        command = waiting.pop()
        waiting += getattr(command, "commands", {}).values()
        for param in command.params:
            for name in (*param.opts, *param.secondary_opts):
                kinds.setdefault(name, set()).add(bool(getattr(param, "is_flag", False)))
    for names, is_flag in ((OPTIONS_LEFT_OUT, False), (FLAGS_LEFT_OUT, True)):
        for name in names:
            assert kinds[name] == {is_flag}, name
