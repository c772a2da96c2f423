"""Contents of a pack, in numbers and as a picture."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, ROLE_NAMES, ImageCheck, Role
from lupctl.core.errors import CorruptImageError
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.images.sheet import (
    EMPTY,
    GAP,
    TOP,
    blank_sheet,
    cell_of,
    check_sheet,
    corner,
    paste,
    title,
    write_label,
    write_picture,
)
from lupctl.core.formats.images.sizes import describe_sizes
from lupctl.core.formats.pack.facts import packed_check
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.pack.split import list_remarks, name_split, packed_split
from lupctl.core.system.examples import count_things

MOST_ROWS = 16
MOST_COLUMNS = 12
MOST_CELLS = MOST_ROWS * MOST_COLUMNS // 2  # of a sheet without persons


@dataclass(frozen=True)
class Summary:
    """A pack in numbers.

    Args:
        path: the pack.
        dataset: its name.
        images: number of images.
        persons: number of persons, without junk, distractors and unknown persons.
        cameras: number of cameras, without unknown ones.
        roles: images per role.
        persons_by_role: persons per role.
        distractors: images of person 0.
        junk: labelled images of person -1.
        smallest: height and width of the image with the fewest pixels.
        median: median height and median width.
        largest: height and width of the image with the most pixels.
        shards: number of files.
        num_bytes: bytes of all encoded images.
        quarantined: number of images that were left out when it was packed.
        check: the check that the other images passed.
        source: where the images came from.
        split: the rule that divided them into roles, and remarks on it; empty without one.
        terms: terms of use.
        fingerprint: of the pack.
    """

    path: Path
    dataset: str
    images: int
    persons: int
    cameras: int
    roles: dict[Role, int]
    persons_by_role: dict[Role, int]
    distractors: int
    junk: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    shards: int
    num_bytes: int
    quarantined: int
    check: ImageCheck
    source: dict[str, object]
    split: list[str]
    terms: str
    fingerprint: str


def summarize_pack(path: Path) -> Summary:
    """Count what is in a pack; reads no image.

    Raises:
        DataError: there is no such pack.
        FormatError: it is damaged.
    """
    pack = open_pack(path)
    samples, size = pack.samples, pack.size
    sizes = describe_sizes(size)
    assert sizes is not None, "a pack has images"
    split = packed_split(pack.record)
    persons = {role: np.unique(samples.person[samples.role == code]) for role, code in ROLE_CODES.items()}
    return Summary(
        path=path,
        dataset=pack.dataset,
        images=len(pack),
        persons=len(np.unique(samples.person[samples.person > 0])),
        cameras=len(np.unique(samples.camera[samples.camera >= 0])),
        roles={role: int((samples.role == code).sum()) for role, code in ROLE_CODES.items()},
        persons_by_role={role: int((numbers > 0).sum()) for role, numbers in persons.items()},
        distractors=int((samples.person == 0).sum()),
        junk=int(((samples.person < 0) & (samples.role != ROLE_CODES["unlabelled"])).sum()),
        smallest=sizes.smallest,
        median=sizes.median,
        largest=sizes.largest,
        shards=len(pack.shards),
        num_bytes=pack.num_bytes,
        quarantined=len(pack.record["quarantine"]),
        check=packed_check(pack.record),
        source=dict(pack.record.get("source", {})),
        split=[] if split is None else [name_split(split), *list_remarks(split)],
        terms=str(pack.record.get("terms", "")),
        fingerprint=pack.fingerprint,
    )


@dataclass(frozen=True)
class Sheet:
    """A contact sheet that was drawn.

    Args:
        path: the picture.
        images_shown: number of images on it.
        persons_shown: number of persons on it.
        persons: number of persons in the pack.
    """

    path: Path
    images_shown: int
    persons_shown: int
    persons: int


def write_sheet(path: Path, out: Path, *, force: bool = False) -> Sheet:
    """Draw a contact sheet of a pack: one row per person with images of each camera, or a plain grid without labels.

    At most 16 persons are shown, evenly spaced over the sorted numbers, in at most 12 columns. Where the cameras are
    fewer, each has several columns, with images evenly spaced over those of the person from that camera. Images are
    scaled to fit 128 x 64 pixels.

    Args:
        path: the pack.
        out: the picture; its ending determines the encoding (.png .jpg .webp).
        force: overwrites an existing picture.

    Raises:
        UsageError: the picture exists, or has an unknown ending.
        DataError: there is no such pack, or the disk is full.
    """
    check_sheet(out, force=force)
    pack = open_pack(path)
    persons = np.unique(pack.samples.person[pack.samples.person > 0])
    rows = pick_cells(pack)
    sheet = draw_persons(pack, rows) if rows else draw_grid(pack)
    write_picture(out, sheet)
    shown = sum(len(cells) for row in rows for cells in row.cells.values()) or min(MOST_CELLS, len(pack))
    return Sheet(path=out, images_shown=shown, persons_shown=len(rows), persons=len(persons))


@dataclass(frozen=True)
class PersonRow:
    """A row of a sheet: the person, and for each camera the images to show, in its columns from left to right."""

    person: int
    cells: dict[int, list[int]]


def pick_cells(pack: Pack) -> list[PersonRow]:
    """The images that a sheet shows of each person from each camera; empty for a pack without persons."""
    samples = pack.samples
    known = samples.person > 0
    cameras = _spread(np.unique(samples.camera[known]), MOST_COLUMNS)
    per_camera = MOST_COLUMNS // max(1, len(cameras))
    rows = []
    for person in _spread(np.unique(samples.person[known]), MOST_ROWS):
        of_person = samples.person == person
        found = {camera: np.flatnonzero(of_person & (samples.camera == camera)) for camera in cameras}
        rows.append(PersonRow(person, {camera: _spread(images, per_camera) for camera, images in found.items()}))
    return rows


def draw_persons(pack: Pack, rows: list[PersonRow]) -> NDArray[np.uint8]:
    """The sheet (H, W, 3) of a pack with persons."""
    samples = pack.samples
    known = samples.person > 0
    width = {camera: max(1, *(len(row.cells[camera]) for row in rows)) for camera in rows[0].cells}
    first = dict(zip(width, np.cumsum([0, *width.values()]).tolist(), strict=False))
    sheet = blank_sheet(len(rows), sum(width.values()))
    num_persons = len(np.unique(samples.person[known]))
    shown = "" if len(rows) == num_persons else f", {len(rows)} of them shown"
    title(sheet, f"{pack.dataset}: {count_things(len(pack), 'image')}, {count_things(num_persons, 'person')}{shown}")
    for camera in width:
        write_label(sheet, f"cam {camera}" if camera >= 0 else "no cam", corner(0, first[camera])[1], TOP - 6)
    for at, row in enumerate(rows):
        of_person = samples.person == row.person
        top = corner(at, 0)[0]
        roles = [ROLE_NAMES[code] for code in np.unique(samples.role[of_person]).tolist()]
        write_label(sheet, f"person {row.person}", GAP, top + 20)
        for line, role in enumerate(roles):
            write_label(sheet, role, GAP, top + 40 + 18 * line)
        write_label(sheet, count_things(int(of_person.sum()), "image"), GAP, top + 40 + 18 * len(roles))
        for camera, images in row.cells.items():
            for column in range(width[camera]):
                if column < len(images):
                    _paste(sheet, pack, images[column], at, first[camera] + column)
                else:
                    cell_of(sheet, at, first[camera] + column)[:] = EMPTY
    return sheet


def draw_grid(pack: Pack) -> NDArray[np.uint8]:
    """The sheet (H, W, 3) of a pack without persons: evenly spaced images."""
    rows = _spread(np.arange(len(pack)), MOST_CELLS)
    sheet = blank_sheet(-(-len(rows) // MOST_COLUMNS), min(MOST_COLUMNS, len(rows)))
    title(sheet, f"{pack.dataset}: {count_things(len(pack), 'image')} without labels")
    for cell, row in enumerate(rows):
        _paste(sheet, pack, row, cell // MOST_COLUMNS, cell % MOST_COLUMNS)
    return sheet


def _spread(values: NDArray[np.int64] | NDArray[np.int16], most: int) -> list[int]:
    """At most `most` evenly spaced items of sorted values, including the first and the last."""
    if len(values) > most:
        values = values[np.linspace(0, len(values) - 1, most).round().astype(np.int64)]
    return [int(value) for value in values]


def _paste(sheet: NDArray[np.uint8], pack: Pack, index: int, row: int, column: int) -> None:
    try:
        pixels = decode_rgb(pack.read(index))
    except CorruptImageError:
        pixels = None
    paste(sheet, pixels, row, column)
