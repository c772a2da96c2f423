"""`lupctl data list`: every dataset, what is published about it, and its state in this workspace."""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.options import DebugOption, HomeOption, JsonOption, QuietOption
from lupctl.cli.output import print_json, print_table
from lupctl.cli.removal import write_age, write_size
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.datasets import DatasetState

SCHEMA = "lupctl.datasets/1"
# In the short list, whose lines fit into 80 columns.
SHORT = {"failed verification": "not sound", "damaged pack": "damaged"}

LongOption = Annotated[
    bool, typer.Option("--long", help="Also counts by role, persons, cameras, terms of use, and how to get each.")
]


def list_datasets(
    long: LongOption = False,
    home: HomeOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Lists every dataset: how many images it has, and what of it is in this workspace, with its size and age.

    Examples:

    `lupctl data list`

    `lupctl data list --long` (with counts by role, terms of use, and how to get each)

    `lupctl data list --json` (with checksums, mirrors, and the sources of the counts, too)
    """
    from lupctl.core.stages.datasets import list_datasets as stage

    states = stage(open_workspace(home))
    if json:
        print_json(SCHEMA, {"datasets": [asdict(state) for state in states]})
        return
    if not long:
        print_table("", ["dataset", "images", "here", "size", "age"], [_short_cells(state) for state in states])
        print("terms of use, counts by role, how to get one: lupctl data list --long")
        return
    columns = ["dataset", "images", "persons", "cameras", "state here", "terms of use"]
    print_table("", columns, [_cells(state) for state in states])
    print_table(
        "", ["dataset", "how to get it", "published"], [_how_to_get(state) for state in states if state.get != "own"]
    )
    for state in states:
        if state.name.startswith("luperson"):
            print(f"{state.title}: {_counts(state.images)} images; {state.remarks}.")


def _short_cells(state: "DatasetState") -> list[object]:
    published = sum(state.images.values())
    packed = state.packed_images
    images = f"{packed or published:,}"
    if packed and published and packed != published:
        images = f"{packed:,}/{published:,}"
    here = ", ".join(SHORT.get(word, word) for word in state.state)
    if state.state == ["absent"]:
        here = "withdrawn" if state.get == "withdrawn" else ""
    sizes = [size for size in (state.raw_bytes, state.pack_bytes) if size]
    return [
        state.name,
        images if packed or published else None,
        here or None,
        write_size(sum(sizes)) if sizes else None,
        None if state.changed_at is None else write_age(time.time() - state.changed_at),
    ]


def _cells(state: "DatasetState") -> list[object]:
    images: object = _counts(state.images)
    if state.packed_images is not None and not state.images:
        images = f"{state.packed_images:,} in the pack"
    return [
        state.name,
        images or None,
        _counts(state.persons) or ("no labels" if "unlabelled" in state.images else None),
        state.cameras,
        ", ".join(state.state),
        state.terms or ("your own" if state.get == "own" else None),
    ]


def _how_to_get(state: "DatasetState") -> list[object]:
    match state.get:
        case "download":
            how = f"lupctl data download {state.name} --accept-terms"
        case "by hand":
            how = f"by hand; lupctl data download {state.name} --accept-terms gives the steps"
        case "drawn":
            how = f"lupctl data pack {state.name}"
        case _:
            how = "no download: withdrawn by its authors"
    return [state.name, how, state.published or None]


def _counts(by_role: object) -> str:
    assert isinstance(by_role, dict)
    if len(by_role) == 1:
        return f"{next(iter(by_role.values())):,}"
    return ", ".join(f"{role} {count:,}" for role, count in by_role.items())
