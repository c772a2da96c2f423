"""Plan of a download: what is there, what is missing, and what has to be fetched by hand."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from lupctl.core.choices import SYNTHETIC, nearest_name
from lupctl.core.data.catalog.datasets import find_entry, known_datasets
from lupctl.core.data.catalog.links import CUHK03, Download, Links, dataset_links, has_signs
from lupctl.core.data.catalog.origin import ORIGIN_NAME, read_origin
from lupctl.core.errors import DataError, UsageError
from lupctl.core.stages.download.place import open_slots
from lupctl.core.system.disk.archives.kinds import is_archive

UNKNOWN_TERMS = "not known to lupctl: ask the publisher of the file what is permitted"
DATASET_RULE = re.compile(r"\w[\w.-]*")
FILE_RULE = re.compile(r"\w[\w. +-]*")
SHA256_RULE = re.compile(r"(sha256:)?[0-9A-Fa-f]{64}")


@dataclass(frozen=True)
class Wanted:
    """A requested dataset.

    Args:
        dataset: its name.
        folder: where its raw data is or will be.
        terms: of use.
        published: where it is described; empty if unknown.
        links: how to get it.
        sha256: expected hash of the only download; empty if unknown.
    """

    dataset: str
    folder: Path
    terms: str
    published: str
    links: Links
    sha256: str = ""


@dataclass(frozen=True)
class Plan:
    """What downloading one dataset would do.

    Args:
        wanted: the dataset.
        missing: files to fetch or to continue.
        archives: archives that the user put into the folder, to be unpacked.
    """

    wanted: Wanted
    missing: list[Download] = field(default_factory=list)
    archives: list[Path] = field(default_factory=list)

    @property
    def is_complete(self) -> bool:
        """Whether there is nothing to do."""
        return not self.missing and not self.archives and not self.is_by_hand

    @property
    def is_by_hand(self) -> bool:
        """Whether the user has to fetch it by hand."""
        links = self.wanted.links
        return not (links.downloads or self.archives or has_images(self.wanted))

    @property
    def steps(self) -> list[str]:
        """What the user has to do where lupctl cannot, or may do instead."""
        links = self.wanted.links
        shown = [f"link to {download.what}: {download.page} (stated by {download.stated})" for download in self.missing]
        steps = [step.replace("{folder}", str(self.wanted.folder)) for step in links.steps]
        return [*shown, *steps, *(f"elsewhere: {mirror}" for mirror in links.mirrors)]


def find_wanted(raw: Path, name: str, *, url: str = "", sha256: str = "") -> Wanted:
    """The dataset that the user names.

    Args:
        raw: the workspace's `raw/`.
        name: from the catalogue, `cuhk03-np`, or the user's own with a `url`.
        url: fetch this instead of what the catalogue knows.
        sha256: expected hash.

    Raises:
        DataError: a dataset that was withdrawn.
        UsageError: an unknown dataset without a `url`, or a `url` without a file name.
    """
    if sha256 and not SHA256_RULE.fullmatch(sha256):
        raise UsageError(f"--sha256 {sha256}: 64 hexadecimal digits were expected", hint="--sha256 HEX")
    entry = find_entry("cuhk03-labeled" if name == CUHK03.folder else name)
    links = dataset_links(entry.name) if entry is not None else None
    if links is not None and links.refused:
        kind = UsageError if name == SYNTHETIC else DataError
        hint = f"lupctl data pack {SYNTHETIC}" if name == SYNTHETIC else "lupctl data list shows what is available"
        raise kind(f"{name}: {links.refused}", hint=hint)
    if not DATASET_RULE.fullmatch(name):
        raise UsageError(f"{name!r} is not a valid dataset name", hint="use only letters, digits, - _ .")
    if url:
        links = Links(folder=links.folder if links else name, downloads=(_download_of(url),))
    if links is None:
        near = nearest_name(name, known_datasets())
        raise UsageError(
            f"{name!r} is not a dataset that lupctl knows",
            hint=f"did you mean {near}?" if near else "lupctl data list, or give an address with --url",
        )
    return Wanted(
        dataset=name,
        folder=raw / links.folder,
        terms=entry.terms if entry else UNKNOWN_TERMS,
        published=entry.published if entry else "",
        links=links,
        sha256=sha256,
    )


def plan_download(wanted: Wanted, *, force: bool = False) -> Plan:
    """Examine what is there; contacts no server.

    Args:
        wanted: the dataset.
        force: fetch everything again.
    """
    slots = open_slots(wanted.folder)
    known = {(file["name"], file["bytes"]) for file in read_own_origin(wanted.folder).get("files", [])}
    archives = []
    if wanted.folder.is_dir() and (force or not has_images(wanted) or not wanted.links.images):
        for path in sorted(wanted.folder.iterdir()):
            is_new = (path.name, path.stat().st_size) not in known or path.name in slots
            if path.is_file() and is_archive(path.name) and is_new:
                archives.append(path)
    by_hand = {path.name for path in archives}
    missing = [
        download
        for download in wanted.links.downloads
        if slot_name(download) in slots
        or ((force or not is_there(wanted, download)) and not (by_hand and download.name in ("", *by_hand)))
    ]
    return Plan(wanted, missing, archives)


def is_there(wanted: Wanted, download: Download) -> bool:
    """Whether a file, or its content, is in the dataset's folder."""
    signs = download.signs or ((download.into or download.name,),)
    if has_signs(wanted.folder, signs):
        return True
    files = read_own_origin(wanted.folder).get("files", [])
    return any(
        file["address"] == download.address and all((wanted.folder / name).exists() for name in file["content"])
        for file in files
    )


def has_images(wanted: Wanted) -> bool:
    """Whether the dataset's images are there, wherever they came from."""
    return has_signs(wanted.folder, wanted.links.images)


def read_own_origin(folder: Path) -> dict[str, Any]:
    """The record of this folder itself, not of one above it."""
    return read_origin(folder) if (folder / ORIGIN_NAME).is_file() else {}


def slot_name(download: Download) -> str:
    """The name of a download's slot."""
    return download.name or re.sub(r"[^\w-]", "-", download.address)


def _download_of(url: str) -> Download:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise UsageError(f"--url {url}: not an address ({error})", hint="--url https://...") from error
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise UsageError(f"--url {url}: an http or https address was expected", hint="--url https://...")
    name = unquote(parts.path).rpartition("/")[2]
    if not FILE_RULE.fullmatch(name):
        raise UsageError(f"--url {url}: its path does not end in a file name", hint="give the address of a file")
    return Download(name=name, address=url, what=name, stated="you")
