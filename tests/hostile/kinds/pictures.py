"""Images and videos: damaged, huge, and not what their names say."""

import os
import socket
import struct
import zlib
from pathlib import Path
from random import Random

from tests.hostile.runner import Case, Place, pick_command
from tests.hostile.values import file_name, mutate, mutate_file

IMAGES = ("a.jpg", "b/c.png", "new.jpg", "b/new.png", "new.bmp", "new.webp", "new.tiff", "new.gif")
IMAGE_COMMANDS = """
data pack crops --workers 1
data pack crops --dry-run
data pack crops --max-bad 1 --workers 1
data pack crops --max-bad 1 --check header --workers 1
data pack crops --max-bad 1 --size 32x16 --workers 1
data verify lup/raw/crops
data verify lup/raw/crops --deep --workers 1
search fine lup/raw/crops --device cpu
search fine lup/raw/crops/a.jpg --device cpu --sheet s.png
dump fine lup/raw/crops --workers 0 --device cpu --out f.h5
find lup/raw/crops/a.jpg --in labelled --run fine --device cpu --workers 0
"""
VIDEOS = ("clip.avi", "clip.mp4", "other.mkv", "x.mov")
FRAMES = ("000001.jpg", "000002.png", "1.jpg", "².jpg", "99999999999999999999999.jpg")
VIDEO_COMMANDS = """
data build x --videos videos --detections {kind} --format {kind} --workers 1 --quiet
data build x --videos videos/clip.avi --detections {kind} --format {kind} --workers 1
data build x --videos videos --detections {kind} --format {kind} --dry-run
find a.jpg --in videos/clip.avi --detections {kind} --format {kind} --run fine --device cpu --workers 0
"""
LINKS = ("/dev/zero", "/dev/null", "/dev/random", "/dev/tty", "/etc/passwd", "/proc/self/mem", "gone", ".")
BEGINNINGS = (
    b"GIF89a\xff\xff\xff\xff" + b"\0" * 20,
    b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\0" * 30,
    b"BM" + b"\xff" * 60,
    b"II*\0\xff\xff\xff\xff",
    b"MM\0*\0\0\0\x08\xff\xff" + b"\0" * 40,
    b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03",
    b"<svg/>",
    b"P6 99999 99999 255\n",
    b"#EXTM3U\nfile:///etc/passwd\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
)
SIDES = ((1, 1), (0, 5), (16, 32), (20_000, 20_000), (30_000, 30_000), (2**31 - 1, 1), (65_536, 1), (70_000, 2))


def images(draw: Random, place: Place) -> Case:
    """Images to pack, search with, find or verify."""
    folder = place.take("lup/raw/crops")
    for _ in range(draw.choice((1, 1, 2))):
        _spoil(draw, folder / draw.choice(IMAGES))
    place.take("lup/runs/fine")
    place.take("lup/packs")
    return Case(pick_command(draw, IMAGE_COMMANDS))


def videos(draw: Random, place: Place) -> Case:
    """A video, or a folder of frames, with boxes."""
    path, kind = place.take("videos/clip.avi"), draw.choice(("mot", "coco", "luperson"))
    for name in (kind, "a.jpg", "lup/runs/fine"):
        place.take(name)
    for _ in range(draw.choice((1, 1, 2))):
        if draw.random() < 0.6:
            mutate_file(draw, path)
        else:
            _spoil(draw, path.with_name(draw.choice(VIDEOS)))
    if draw.random() < 0.2:
        for _ in range(3):
            _spoil(draw, path.parent / "clip" / draw.choice((*FRAMES, file_name(draw)[:60] + ".jpg")))
    return Case(pick_command(draw, VIDEO_COMMANDS, kind=kind))


def _spoil(draw: Random, path: Path) -> None:
    """Damages a file, or puts something else in its place."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = draw.randrange(12)
    if path.is_dir() and not path.is_symlink():
        return
    if kind < 3 and path.is_file():
        mutate_file(draw, path)
        return
    path.unlink(missing_ok=True)
    match kind:
        case 4:
            path.write_bytes(png(draw))
        case 5:
            os.mkfifo(path)
        case 6:
            _make_socket(path)
        case 7:
            path.symlink_to(draw.choice((*LINKS, path.name)))
        case 8:
            path.write_bytes(b"")
        case 9:
            with path.open("wb") as stream:
                stream.truncate(draw.choice((1 << 20, 3 << 30, 1 << 40)))
        case 10:
            path.mkdir()
        case 11:
            path.write_bytes(draw.choice(BEGINNINGS))
        case _:
            path.write_bytes(mutate(draw, png(draw)))


def _make_socket(path: Path) -> None:
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path has at most 107 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(here)


def png(draw: Random) -> bytes:
    """A PNG that claims any size, with some of its data."""
    width, height = draw.choice(SIDES)
    depth, colour = draw.choice(((8, 2), (8, 2), (16, 6), (1, 0), (8, 3), (7, 9)))
    data = zlib.compress(bytes(min(width * height * 3, draw.choice((100, 1 << 22)))))
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, draw.choice((0, 1)))
    chunks = [(b"IHDR", header), (b"IDAT", data), (b"IEND", b"")]
    if draw.random() < 0.2:
        chunks.insert(1, (draw.choice((b"tEXt", b"iCCP", b"zTXt", b"eXIf", b"PLTE")), draw.randbytes(50)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
