"""Downloading published networks: one file each, resumed, and compared with its first download."""

import json
import shutil
import threading
from contextlib import closing, suppress
from pathlib import Path

from lupctl.core.data.catalog.origin import read_note
from lupctl.core.data.catalog.published import PublishedWeights
from lupctl.core.errors import DataError, StoppedError
from lupctl.core.stages.download.place import locked_staging, open_slots, slot_of, staged_file
from lupctl.core.system.disk.atomic import disk_errors_named, file_fingerprint, sync_path, write_text
from lupctl.core.system.fetch.drive import fetch_drive
from lupctl.core.system.fetch.http import fetch_http
from lupctl.core.system.fetch.transfer import ByteBar, Patience
from lupctl.core.system.fetch.workers import finish_each
from lupctl.core.system.progress.lines import Progress


def fetch_weights(
    one: PublishedWeights,
    models: Path,
    *,
    accepted: bool,
    force: bool,
    then: str,
    progress: Progress,
    patience: Patience | None = None,
) -> Path:
    """The published file, downloaded into a workspace's models; an earlier download is used as it is.

    Its projects publish no checksums. That of the first download is kept next to the file and compared from then on.

    Args:
        one: the network.
        models: the workspace's `models/`.
        accepted: its terms of use were accepted.
        force: downloads it again.
        then: the command that follows once the file is there, for hints.
        progress: for the bar.
        patience: how often and how long to try.

    Returns:
        `models/<name>.pth`.

    Raises:
        DataError: the terms were not accepted, it can be downloaded only by hand, the download failed, or the file
            differs from the first download.
        StoppedError: on request; the same command continues.
    """
    out, note = models / f"{one.name}.pth", models / f"{one.name}.pth.json"
    if out.is_file() and not force:
        return out
    if not one.is_direct:
        raise DataError(
            f"{one.name}: lupctl cannot download it; open {one.url} ({one.steps}) in a browser and save it as {out}",
            hint=f"then: {then}",
        )
    if not accepted:
        raise DataError(
            f"{one.name}: terms of use: {one.project.terms} ({one.project.page})", hint="agree with --accept-terms"
        )
    with locked_staging(models):
        slot = slot_of(models, one.name)
        slot.mkdir(parents=True, exist_ok=True)
        try:
            path = staged_file(slot, out.name) or _fetch(one, slot, out.name, progress, patience)
        except StoppedError:
            raise
        except DataError as error:
            with suppress(OSError):
                slot.rmdir()  # fails if a part is in it
            is_kept = one.name in open_slots(models)
            by_hand = f"open {one.listing} in a browser, save the file as {out}, then: {then}"
            raise DataError(f"{one.name}: {error.message}", hint=error.hint if is_kept else by_hand) from error
        fingerprint = file_fingerprint(path)
        known = read_note(note)["sha256"] if note.is_file() else fingerprint
        if known != fingerprint:
            shutil.rmtree(slot)
            raise DataError(
                f"{one.name}: the file differs from the first download ({fingerprint}, then {known})",
                hint=f"check {one.project.page}; to accept the new file, remove {note}",
            )
        facts = {
            "name": one.name,
            "url": one.url,
            "page": one.project.page,
            "terms": one.project.terms,
            "sha256": fingerprint,
        }
        write_text(note, json.dumps(facts, indent=2, sort_keys=True) + "\n")
        with disk_errors_named(out):
            path.replace(out)
            sync_path(models)
        shutil.rmtree(slot)
    return out


def _fetch(one: PublishedWeights, slot: Path, name: str, progress: Progress, patience: Patience | None) -> Path:
    """One transfer in a thread of its own, so that Ctrl-C and SIGTERM end it cleanly."""
    cancel = threading.Event()
    with progress.task("downloading", total=0, unit="MiB") as task:

        def get(_: None) -> Path:
            bar = ByteBar(task)
            if one.drive_id is not None:
                return fetch_drive(one.drive_id, slot, name, cancel=cancel, bar=bar, patience=patience)
            return fetch_http(one.url, slot / name, cancel=cancel, bar=bar, patience=patience)

        with closing(finish_each(get, [None], jobs=1, cancel=cancel)) as outcomes:
            fetched = [future for _, future in outcomes]
    return fetched[0].result()
