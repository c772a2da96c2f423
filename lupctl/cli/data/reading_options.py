"""Options that say how raw data is to be read."""

from pathlib import Path
from typing import Annotated

import typer

from lupctl.core.choices import CameraRule, Layout, Version

LayoutOption = Annotated[
    Layout | None,
    typer.Option(
        "--layout",
        help="How the files lie: market1501 (three folders; CUHK03-NP and DukeMTMC-reID, too); images (any tree, no "
        "labels); persons (a folder per person); cuhk03-index (a .mat file); msmt17 (lists); luperson-nl; lmdb; csv "
        "(path, person, camera, role) [default: found out, and said].",
        show_default=False,
    ),
]
CamerasOption = Annotated[
    CameraRule | None,
    typer.Option(
        "--cameras",
        help="For --layout persons, where the camera's number stands: none; market (`_c3` in the file name); "
        "prefix (the name begins with `c3_` or `3_`); folder (person/camera/image) [default: none].",
        show_default=False,
    ),
]
VersionOption = Annotated[
    Version | None,
    typer.Option(
        "--version",
        help="For MSMT17 whose folders do not tell: v1, or v2 (blurred faces).",
        show_default=False,
    ),
]
ValOption = Annotated[
    bool | None,
    typer.Option(
        "--val/--no-val",
        help="For MSMT17: train on the images of list_val.txt, too, or leave them out [default: --val].",
        show_default=False,
    ),
]
KeysOption = Annotated[
    str | None,
    typer.Option(
        "--keys",
        metavar="FILE|none",
        help="For an LMDB: its key file, or none to read every entry [default: the only .pkl inside or beside it].",
        show_default=False,
    ),
]
RootOption = Annotated[
    Path | None,
    typer.Option(
        "--root", help="For a CSV: the folder that its paths are relative to [default: its own].", show_default=False
    ),
]
AcceptOption = Annotated[
    bool, typer.Option("--accept-terms", help="The notice that a withdrawn dataset comes with is acknowledged.")
]
