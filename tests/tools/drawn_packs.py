"""Packs of drawn persons."""

from collections.abc import Mapping
from pathlib import Path

from lupctl.core.choices import ROLE_CODES, ROLE_NAMES, Role
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.stages.pack import pack
from lupctl.core.system.progress.lines import Progress


def pack_drawn(plan: SyntheticPlan, out: Path, *, dataset: str) -> Path:
    """Draws a plan's persons into a pack."""
    pack(SyntheticSource(plan, dataset=dataset), out=out, progress=Progress(quiet=True), workers=1)
    return out


def repack(path: Path, out: Path, roles: Mapping[Role, Role], *, dataset: str) -> Path:
    """A pack of the same images under other names.

    Args:
        path: the pack to take them from.
        out: the new one.
        roles: the new role of the images of a role; the first image of a person and camera asks where `query` is
            among them. Roles that are not named are left out.
        dataset: its name.
    """
    old, asked = open_pack(path), set[tuple[int, int]]()
    rows = []
    for row in range(len(old)):
        new = roles.get(ROLE_NAMES[int(old.samples.role[row])])
        if new is None:
            continue
        person, camera = int(old.samples.person[row]), int(old.samples.camera[row])
        if new == "query":
            new = "gallery" if (person, camera) in asked else "query"
            asked.add((person, camera))
        height, width = old.size[row].tolist()
        name = f"{row:04d}.jpg"
        rows.append((new, PackedImage(old.read(row), height, width, name, person=person, camera=camera, role=new)))
    rows.sort(key=lambda found: (ROLE_CODES[found[0]], found[1].name))
    return write_pack(out, [image for _, image in rows], dataset=dataset)
