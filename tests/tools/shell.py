"""Typing commands in this process."""

import json
import shlex
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from lupctl.cli.app import main


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Shell:
    """Types commands in this process: `lupctl("data pack --json")`."""

    def __init__(self, patch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.patch, self.capture = patch, capture

    def __call__(self, line: str) -> Ran:
        self.patch.setattr(sys, "argv", ["lupctl", *shlex.split(line)])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = self.capture.readouterr()
        code = left.value.code
        return Ran(code if isinstance(code, int) else int(code is not None), out, err)
