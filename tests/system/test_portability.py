"""What only Unix, or only Linux, has is asked for with a way round: nothing here needs it to be imported or to read."""

import subprocess
import sys
from pathlib import Path

from lupctl.core.formats.pack.read import open_pack

# Everything is imported once, so that other people's packages have what they look for; then ours once more, in a system
# where these things are missing.
SCRIPT = """
import importlib, os, pkgutil, select, signal, sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog", "readline")
OS = (
    "pread", "preadv", "pwrite", "fork", "forkpty", "register_at_fork", "sched_getaffinity", "sched_setaffinity",
    "getuid", "geteuid", "getgid", "getegid", "getgroups", "setsid", "getpgid", "killpg", "statvfs", "fstatvfs",
    "posix_fadvise", "posix_fallocate", "sendfile", "mkfifo", "mknod", "fchmod", "chown", "fchown", "chroot", "nice",
    "getpriority", "getloadavg", "uname", "sysconf", "wait", "WNOHANG", "WIFEXITED", "O_CLOEXEC", "O_DIRECTORY",
    "O_NOFOLLOW", "O_NONBLOCK", "O_DIRECT", "O_TMPFILE", "O_SYNC", "pipe2", "memfd_create",
)
SIGNALS = (
    "SIGCHLD", "SIGKILL", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGQUIT", "SIGSTOP", "SIGCONT", "SIGTSTP",
    "SIGPIPE", "SIGWINCH", "alarm", "setitimer", "pause", "pthread_sigmask", "sigwait", "siginterrupt",
)

def import_all():
    import lupctl
    names = [module.name for module in pkgutil.walk_packages(lupctl.__path__, "lupctl.")]
    for name in names:
        importlib.import_module(name)
    return names

before = import_all()
for name in [name for name in sys.modules if name.partition(".")[0] == "lupctl"]:
    del sys.modules[name]
for name in MODULES:
    sys.modules[name] = None
for part, names in ((os, OS), (signal, SIGNALS), (select, ("epoll", "poll"))):
    for name in names:
        if hasattr(part, name):
            delattr(part, name)
assert import_all() == before
assert len(before) > 200

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.system.disk.reading import read_at, seek_and_read
from lupctl.core.system.threads.cores import usable_cores
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.training.loading.worker_errors import child_handler_kept

assert read_at is seek_and_read
assert usable_cores() >= 1
pack = open_pack(Path(sys.argv[1]))
with ThreadPoolExecutor(4) as pool:  # all at the one position of one file
    images = list(pool.map(pack.read, list(range(len(pack))) * 20))
rows = [
    PackedImage(encoded, int(height), int(width), name)
    for encoded, (height, width), name in zip(images, pack.size, pack.samples.name)
]
folder = Path(sys.argv[2])
write_pack(folder / "copy.h5", rows, dataset="copy")
with RunFolder(folder / "run").held(), child_handler_kept():
    pass
"""


def test_every_module_is_imported_and_a_pack_is_read_without_unix(tmp_path: Path, crowd: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(crowd), str(tmp_path)], capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    whole, copy = open_pack(crowd), open_pack(tmp_path / "copy.h5")
    assert [copy.read(row) for row in range(len(copy))] == [whole.read(row) for row in range(len(whole))]
