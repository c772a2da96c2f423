"""Options for how raw data is read."""

from pathlib import Path
from typing import Annotated

import typer

from lupctl.core.choices import CameraRule, Layout, Version

LayoutOption = Annotated[
    Layout | None,
    typer.Option(
        "--layout",
        help="How the files are laid out: market1501 (three folders; also CUHK03-NP and DukeMTMC-reID); images (any "
        "tree, no labels); persons (a folder per person); cuhk03-index (a .mat file); msmt17 (lists); luperson-nl; "
        "lmdb; csv (path, person, camera, role) [default: detected and reported].",
        show_default=False,
    ),
]
CamerasOption = Annotated[
    CameraRule | None,
    typer.Option(
        "--cameras",
        help="For --layout persons, where the camera's number is: none; market (`_c3` in the file name); "
        "prefix (the name begins with `c3_` or `3_`); folder (person/camera/image) [default: detected and reported].",
        show_default=False,
    ),
]
VersionOption = Annotated[
    Version | None,
    typer.Option(
        "--version",
        help="For MSMT17 whose folders do not show it: v1, or v2 (blurred faces).",
        show_default=False,
    ),
]
ValOption = Annotated[
    bool | None,
    typer.Option(
        "--val/--no-val",
        help="For MSMT17: train on the images of list_val.txt too, or leave them out [default: --val].",
        show_default=False,
    ),
]
KeysOption = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar="FILE|none",
        help="For an LMDB: its key file, or none to read every entry [default: the only .pkl inside or next to it].",
        show_default=False,
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", help="For a CSV: the folder that its paths are relative to [default: the CSV's].", show_default=False
    ),
]
AcceptOption = Annotated[
    bool, typer.Option("--accept-terms", help="Acknowledge the notice that comes with a withdrawn dataset.")
]
