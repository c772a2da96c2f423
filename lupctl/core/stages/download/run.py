"""Downloading datasets: every missing file, several at once, checked, unpacked, recorded."""

import shutil
import threading
from collections.abc import Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from lupctl.core.data.catalog.links import Download
from lupctl.core.data.catalog.origin import write_origin
from lupctl.core.errors import DataError, FormatError, LupError, StoppedError
from lupctl.core.stages.download.hashes import Digests, KnownHashes, check_wanted, compare_published, file_digests
from lupctl.core.stages.download.place import (
    STAGING,
    UNPACKED,
    locked_staging,
    move_file,
    move_unpacked,
    slot_of,
    staged_file,
    unpack_into_slot,
)
from lupctl.core.stages.download.plan import Plan, Wanted, read_own_origin, slot_name
from lupctl.core.system.disk.archives.kinds import archive_kind
from lupctl.core.system.fetch.drive import fetch_drive
from lupctl.core.system.fetch.http import fetch_http
from lupctl.core.system.fetch.transfer import ByteBar, Patience
from lupctl.core.system.fetch.workers import finish_each
from lupctl.core.system.progress.lines import Progress

BY_HAND = "placed by hand"


@dataclass(frozen=True)
class FileResult:
    """One file that was fetched, or an archive that was there and is now unpacked.

    Args:
        name: of the file.
        address: where it came from.
        bytes: its length.
        sha256: of its bytes.
        md5: of its bytes.
        published_md5: the MD5 that others state for a file of this name; empty if no one does.
        content: names in the dataset's folder that came from it.
    """

    name: str
    address: str
    bytes: int
    sha256: str
    md5: str
    published_md5: str
    content: list[str]


@dataclass
class DatasetResult:
    """The result for one dataset.

    Args:
        dataset: its name.
        folder: with its raw data.
        files: the files that were fetched or unpacked.
        state: `complete` if there was nothing to do; `failed` if a file is still missing.
    """

    dataset: str
    folder: Path
    files: list[FileResult] = field(default_factory=list)
    state: Literal["complete", "downloaded", "failed"] = "complete"


def download(
    plans: Sequence[Plan],
    *,
    raw: Path,
    jobs: int,
    progress: Progress,
    force: bool = False,
    patience: Patience | None = None,
) -> tuple[list[DatasetResult], list[LupError]]:
    """Fetch what is missing of several datasets; the failure of one does not affect the others.

    Args:
        plans: what to do; datasets that have to be fetched by hand are skipped.
        raw: the workspace's `raw/`.
        jobs: files at once.
        progress: for progress lines and bars.
        force: replaces what exists, and accepts files that differ from an earlier download.
        patience: how often and how long to try.

    Returns:
        The result for each dataset, and the errors.

    Raises:
        StoppedError: on request; the same command continues.
    """
    todo = [plan for plan in plans if not plan.is_by_hand]
    results = [DatasetResult(plan.wanted.dataset, plan.wanted.folder) for plan in todo]
    errors: list[LupError] = []
    cancel = threading.Event()
    with ExitStack() as stack, progress.task("downloading", total=0, unit="MiB") as task:
        works: list[_Item] = []
        for plan, result in zip(todo, results, strict=True):
            if (plan.wanted.folder / STAGING).is_dir() or not plan.is_complete:
                stack.enter_context(locked_staging(plan.wanted.folder))  # also removes an empty one left by a kill
            if not plan.is_complete:
                work = _Work(plan.wanted, KnownHashes(raw), ByteBar(task), cancel, progress, force, patience)
                works += [(work, archive, result) for archive in plan.archives]
                works += [(work, file, result) for file in plan.missing]
                result.state = "downloaded"
        with closing(finish_each(_get, works, jobs=jobs, cancel=cancel)) as outcomes:
            for (_, _, result), future in outcomes:
                try:
                    result.files.append(future.result())
                except StoppedError:
                    result.state = "failed"
                except LupError as error:
                    result.state = "failed"
                    errors.append(error)
    for result in results:
        result.files.sort(key=lambda file: file.name)
    return results, errors


@dataclass
class _Work:
    """What all files of one dataset share."""

    wanted: Wanted
    hashes: KnownHashes
    bar: ByteBar
    cancel: threading.Event
    progress: Progress
    force: bool
    patience: Patience | None
    recording: threading.Lock = field(default_factory=threading.Lock)


_Item = tuple[_Work, Download | Path, DatasetResult]


def _get(work: _Item) -> FileResult:
    shared, what, _ = work
    if isinstance(what, Path):
        return _get_archive(shared, what)
    try:
        return _get_download(shared, what)
    except LupError:
        with suppress(OSError):
            slot_of(shared.wanted.folder, slot_name(what)).rmdir()  # fails if a part is in it
        raise


def _get_download(work: _Work, download: Download) -> FileResult:
    """Fetch a file, check it, and move it or its content into place; continues where an earlier call was killed."""
    folder = work.wanted.folder
    slot = slot_of(folder, slot_name(download))
    slot.mkdir(parents=True, exist_ok=True)
    path = staged_file(slot, download.name)
    if path is None and (slot / UNPACKED).is_dir():
        return _finish(work, slot, download.into)  # only the move is not finished
    if path is None:
        path = _fetch(work, download, slot)
    result = _check(work, path, download)
    if archive_kind(path.name) is None:
        result = _with_content(result, [path.name])
        work.hashes.remember(download.address, result.sha256, result.bytes)
        _record(work, result)
        move_file(path, folder / path.name)
        shutil.rmtree(slot)
        return result
    try:
        unpack_into_slot(path, slot, folder, into=download.into, force=work.force, cancel=work.cancel)
    except FormatError:
        shutil.rmtree(slot)  # the next call fetches it again
        raise
    work.hashes.remember(download.address, result.sha256, result.bytes)
    content = [download.into] if download.into else sorted(entry.name for entry in (slot / UNPACKED).iterdir())
    _record(work, _with_content(result, content))
    path.unlink()
    return _finish(work, slot, download.into)


def _get_archive(work: _Work, archive: Path) -> FileResult:
    """Unpack an archive that the user put into the dataset's folder; the archive stays there."""
    slot = slot_of(work.wanted.folder, archive.name)
    slot.mkdir(parents=True, exist_ok=True)
    into = next((known.into for known in work.wanted.links.downloads if known.name == archive.name), "")
    recorded = [file for file in _recorded(work.wanted.folder) if file.name == archive.name]
    if not (recorded and (slot / UNPACKED).is_dir()):
        result = _describe(work, archive, BY_HAND, file_digests(archive))
        try:
            unpack_into_slot(archive, slot, work.wanted.folder, into=into, force=work.force, cancel=work.cancel)
        except DataError:
            shutil.rmtree(slot)  # nothing in it is worth keeping
            raise
        content = [into] if into else sorted(entry.name for entry in (slot / UNPACKED).iterdir())
        _record(work, _with_content(result, content))
    return _finish(work, slot, into)


def _fetch(work: _Work, download: Download, slot: Path) -> Path:
    kind, _, rest = download.address.partition(":")
    if kind == "drive":
        return fetch_drive(rest, slot, download.name, cancel=work.cancel, bar=work.bar, patience=work.patience)
    known = bool(work.wanted.sha256) or (not work.force and work.hashes.recall(download.address) is not None)
    return fetch_http(
        download.address,
        slot / download.name,
        cancel=work.cancel,
        bar=work.bar,
        patience=work.patience,
        hash_known=known,
    )


def _check(work: _Work, path: Path, download: Download) -> FileResult:
    """Compare hashes; a rejected file is removed, so that the next call fetches it again."""
    digests = file_digests(path)
    try:
        check_wanted(path.name, digests, work.wanted.sha256)
        if not work.force:
            work.hashes.check(download.address, digests)
    except DataError:
        shutil.rmtree(path.parent)
        raise
    return _describe(work, path, download.address, digests)


def _describe(work: _Work, path: Path, address: str, digests: Digests) -> FileResult:
    published, lines = compare_published(path.name, digests, work.wanted.links.archives)
    for line in lines:
        work.progress.warn(line)
    return FileResult(path.name, address, digests.num_bytes, digests.sha256, digests.md5, published, [])


def _finish(work: _Work, slot: Path, into: str) -> FileResult:
    """Move the unpacked content into place; it is already recorded."""
    move_unpacked(slot, work.wanted.folder, into=into)
    shutil.rmtree(slot)
    return next(file for file in _recorded(work.wanted.folder) if slot.name in (file.name, _slot_of_address(file)))


def _slot_of_address(file: FileResult) -> str:
    return slot_name(Download(name="", address=file.address, what=""))


def _with_content(result: FileResult, content: list[str]) -> FileResult:
    return FileResult(**{**asdict(result), "content": content})


def _recorded(folder: Path) -> list[FileResult]:
    return [FileResult(**file) for file in read_own_origin(folder).get("files", [])]


def _record(work: _Work, result: FileResult) -> None:
    with work.recording:
        others = [file for file in _recorded(work.wanted.folder) if file.name != result.name]
        files: list[dict[str, Any]] = [asdict(file) for file in sorted([*others, result], key=lambda file: file.name)]
        write_origin(work.wanted.folder, origin_of(work.wanted, files))


def origin_of(wanted: Wanted, files: Sequence[dict[str, Any]]) -> dict[str, object]:
    """The record that is kept with a dataset's raw data; whoever started the download accepted its terms."""
    return {
        "dataset": wanted.links.folder,
        "terms": wanted.terms,
        "terms_accepted": True,
        "published": wanted.published,
        "files": list(files),
    }
