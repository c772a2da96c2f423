"""What is in a folder, a table, a pack, some videos, or a workspace."""

import time
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from lupctl.core.choices import nearest_name
from lupctl.core.errors import CorruptImageError, DataError
from lupctl.core.flows.init.counting import count_samples, hold_out, pick_labels
from lupctl.core.flows.init.model import Seen
from lupctl.core.flows.init.videos import holds_videos, look_at_videos
from lupctl.core.resolve.data.datasets import NAME_RULE, find_target, has_raw, valid_name
from lupctl.core.resolve.data.layouts import Reading
from lupctl.core.resolve.data.sources import build_target_source
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.formats.pack.samples import Samples

# Images that are read to see how long one takes.
READ_IMAGES = 32
TABLE_SUFFIXES = frozenset({".csv", ".mat", ".mdb", ".lmdb"})
LAYOUT_TITLES = {
    "market1501": "a benchmark in the layout of Market-1501",
    "cuhk03-index": "CUHK03 with the index file of its new protocol",
    "msmt17": "MSMT17 with its lists",
    "luperson-nl": "crops named like LUPerson-NL's",
    "lmdb": "an LMDB",
    "csv": "a table of images",
    "persons": "a folder for each person",
    "images": "images without labels",
}


def look_at(space: Workspace, given: str, *, progress: Progress) -> Seen:
    """What a path, or a name in the workspace, holds: a pack, raw data, a folder, a table, or videos.

    Raises:
        DataError: there is nothing of that name, or it cannot be read.
    """
    path, packed = Path(given), space.named_pack(given)
    if packed is not None and path.exists():
        progress.say(f"{given}: {packed}, and not what is at ./{given}")
    if packed is not None or path.suffix == ".h5":
        return _look_at_pack(space, packed or path)
    _refuse_other_files(space, given)
    root = space.raw / given if has_raw(space, given) and (space.raw / given).exists() else path
    if holds_videos(root):
        return look_at_videos(space, root, dataset=name_of(root))
    dataset = None if has_raw(space, given) or not path.exists() else name_of(path)
    target = find_target(space, given, dataset=dataset)
    source = build_target_source(target, Reading(), progress=progress)
    samples = source.list_images()
    own = path.absolute()
    named = dataset is not None and dataset != (own.stem if own.is_file() else own.name)
    packing = ("data", "pack", given, *(("--name", dataset) if named and dataset else ()))
    layout = str(source.facts.get("layout", ""))
    return Seen(
        kind="images",
        dataset=target.dataset,
        packing=packing,
        title=f"{given}: {LAYOUT_TITLES.get(layout, layout or 'drawn persons')}",
        counts=count_samples(samples),
        labels=pick_labels(samples),
        held_out=hold_out(samples, packing, dataset=target.dataset),
        read_s=_time_reading(samples, source.read),
    )


def _refuse_other_files(space: Workspace, given: str) -> None:
    """Refuses a single picture, a file of another kind, and a path that is not there, with what may have been meant.

    Raises:
        DataError: it is one of these.
    """
    from lupctl.core.data.sources.folder import IMAGE_SUFFIXES
    from lupctl.core.data.video.listing import VIDEO_SUFFIXES

    path, expected = Path(given), "a folder, a table (.csv), a video or a pack was expected"
    if has_raw(space, given) or path.is_dir():
        return
    suffix = path.suffix.lower()
    if path.is_file() and suffix in IMAGE_SUFFIXES:
        raise DataError(f"{given}: one picture; {expected}", hint=f"lupctl find {quote(given)} --in VIDEO")
    if path.is_file() and suffix not in VIDEO_SUFFIXES | TABLE_SUFFIXES:
        raise DataError(f"{given}: a file of another kind; {expected}", hint=f"lupctl init {quote(str(path.parent))}")
    if not path.exists() and path.parent.is_dir():
        beside = {str(path.parent / one.name): one for one in path.parent.iterdir() if not one.name.startswith(".")}
        near = nearest_name(given.removeprefix("./"), list(beside))
        if near is not None:
            raise DataError(
                f"{given}: there is no such file or folder; {expected}", hint=f"did you mean lupctl init {quote(near)}?"
            )


def look_around(space: Workspace, *, progress: Progress) -> tuple[Seen, list[str]]:
    """What a workspace holds: the dataset to begin with, one with labels where there is one, and the names of all.

    Raises:
        DataError: a dataset cannot be read.
    """
    from lupctl.core.resolve.data.datasets import raw_names

    packed = [path.stem if path.suffix == ".h5" else path.name for path in space.pack_paths()]
    names = list(dict.fromkeys([*packed, *raw_names(space)]))
    first: Seen | None = None
    for name in names:
        try:
            seen = look_at(space, name, progress=progress)
        except DataError as error:
            progress.say(f"{name}: left out; {error.message}")
            continue
        if seen.counts is not None and seen.counts.train_persons > 1:
            return seen, names
        first = first or seen
    return first or Seen("nothing"), names


def name_of(path: Path) -> str:
    """A name that a dataset may have, after that of a folder or file.

    >>> name_of(Path("/data/Büro West 2"))
    'buero-west-2'
    """
    own = path.absolute()
    name = own.stem if own.is_file() else own.name
    return name if NAME_RULE.fullmatch(name) else valid_name(name)


def _look_at_pack(space: Workspace, path: Path) -> Seen:
    """A pack; one without a test is split into another one, from its raw data or from itself."""
    from lupctl.core.formats.pack.read import open_pack

    pack = open_pack(path)
    words = ("data", "pack", str(path), "--name", f"{pack.dataset}-split")
    return Seen(
        kind="pack",
        dataset=pack.dataset if space.named_pack(pack.dataset) == path else str(path),
        title=f"{path}: a pack",
        counts=count_samples(pack.samples),
        labels=pick_labels(pack.samples),
        held_out=hold_out(pack.samples, words, dataset=f"{pack.dataset}-split") if path.suffix == ".h5" else None,
    )


def _time_reading(samples: "Samples", read: Callable[[str], bytes]) -> float:
    """Seconds that reading and decoding one image takes, from some of them; those that cannot be read are left out."""
    from lupctl.core.formats.images.codec import decode_rgb

    rows = range(0, len(samples), -(-len(samples) // READ_IMAGES))
    started_at = time.perf_counter()
    for row in rows:
        try:
            decode_rgb(read(samples.name[row]))
        except (OSError, CorruptImageError):
            continue
    return (time.perf_counter() - started_at) / max(len(rows), 1)
