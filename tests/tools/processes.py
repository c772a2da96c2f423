"""What runs on this machine, and the memory that processes share, as Linux shows them."""

import os
from pathlib import Path


def in_session(session: int) -> list[str]:
    """The processes of a session that run, as `number: command`; those that ended and wait to be collected do not."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            name, fields = (folder / "stat").read_text().rsplit(")", 1)
            state, _, _, its_session = fields.split()[:4]
        except OSError:
            continue  # it ended while we looked
        if int(its_session) == session and state != "Z":
            found.append(f"{folder.name}: {name}")
    return found


def own_shared_memory() -> set[Path]:
    """The files of this user that are memory shared by processes."""
    found = set()
    for path in Path("/dev/shm").iterdir():
        try:
            if path.stat().st_uid == os.getuid():
                found.add(path)
        except FileNotFoundError:
            continue
    return found
