"""Files and folders that appear whole or not at all, and the removal of what killed runs left.

Everything is written under a hidden name beside its target, forced to disk and then renamed. A
rename within one folder is atomic, so neither a reader nor a process killed half-way ever sees or
leaves half a file under the target's name, and a power cut cannot keep the rename and lose the
bytes. An exception removes the hidden name. A kill cannot, so the next write into the same folder
does: the name tells which process made it, and only names of dead processes are removed.

Functions raise OSError; who calls them knows what to advise.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

STRANGER_SECONDS = 7 * 24 * 3600.0  # until a partial file of another machine is taken for dead
_NAME = re.compile(
    r"\.quaver-(?P<host>[0-9a-f]{8})-(?P<pid>\d{1,10})-(?P<start>\d{1,20})-[0-9a-f]{8}\.part"
)
_UNSYNCABLE = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EBADF,
    errno.EACCES,
)  # folders that cannot be synced


def hidden_name(path: Path) -> Path:
    """A new hidden name beside `path`. Its length does not depend on the target's."""
    start = _started(os.getpid()) or 0
    return path.parent / (f".quaver-{_host()}-{os.getpid()}-{start}-{secrets.token_hex(4)}.part")


@contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """Yield a name to write; that file replaces `path` when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent)
    part = hidden_name(path)
    try:
        yield part
        settle(part, path)
    finally:
        with suppress(OSError):
            part.unlink(missing_ok=True)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `path` when the block ends well.

    `path` may be absent or an empty folder.
    """
    path = path.absolute()
    with scratch_folder(path.parent) as scratch:
        part = scratch / "whole"
        part.mkdir()
        yield part
        if path.is_dir():
            path.rmdir()  # Windows renames onto no folder, not even an empty one
        settle(part, path)


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder inside `parent`, private to this user; it is removed in any case."""
    parent.mkdir(parents=True, exist_ok=True)
    sweep(parent)
    part = hidden_name(parent / "scratch")
    try:
        part.mkdir(mode=0o700)
        yield part
    finally:
        shutil.rmtree(part, ignore_errors=True)


def settle(part: Path, path: Path) -> None:
    """Force the file or folder `part` to disk, give it the name `path`, and force that too."""
    sync(part)
    part.replace(path)
    _sync_folder(path.parent)
    if part.parent != path.parent:
        _sync_folder(part.parent)


def sync(path: Path) -> None:
    """Force a file, or a folder with all that is in it, to disk."""
    if not path.is_dir():
        with path.open("rb" if os.name == "posix" else "rb+") as file:
            os.fsync(file.fileno())
        return
    for folder, _, names in os.walk(path, topdown=False):
        for name in names:
            sync(Path(folder, name))
        _sync_folder(Path(folder))


def sweep(folder: Path) -> None:
    """Remove what killed runs of Quaver left in `folder`: by name, of this user, of the dead."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if (found := _NAME.fullmatch(entry.name)) and _is_dead(entry, found):
                _remove(entry)


def check_writable(path: Path) -> None:
    """Raise OSError if a file cannot be put at `path`, before long work is done for it.

    Missing parents are fine if they can be made. Nothing is left behind.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with suppress(FileNotFoundError):
        path.stat()  # ENAMETOOLONG and the like
    parent = path.absolute().parent
    while not parent.exists():
        parent = parent.parent
    part = hidden_name(parent / "check")
    part.open("xb").close()
    part.unlink()


def _is_dead(entry: os.DirEntry[str], found: re.Match[str]) -> bool:
    """Whether the process that made `entry` has ended; of another machine, whether it is old."""
    if hasattr(os, "getuid") and entry.stat(follow_symlinks=False).st_uid != os.getuid():
        return False
    if found["host"] != _host() or not _knows_processes():
        return time.time() - _touched(Path(entry)) > STRANGER_SECONDS
    return _started(int(found["pid"])) != int(found["start"])


def _touched(path: Path) -> float:
    """When a file, or anything in a folder, was last written: seconds since the epoch."""
    times = [path.lstat().st_mtime]
    for folder, folders, names in os.walk(path):
        times += [Path(folder, name).lstat().st_mtime for name in [*folders, *names]]
    return max(times)


def _remove(entry: os.DirEntry[str]) -> None:
    if entry.is_dir(follow_symlinks=False):
        shutil.rmtree(entry.path, ignore_errors=True)
    else:
        Path(entry.path).unlink(missing_ok=True)


@functools.cache
def _host() -> str:
    """The machine and its process table: containers with one name may have two."""
    with suppress(OSError):
        name = f"{socket.gethostname()} {Path('/proc/self/ns/pid').readlink()}"
        return hashlib.sha256(name.encode()).hexdigest()[:8]
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _knows_processes() -> bool:
    """Whether this system tells of its processes as Linux does."""
    return _started(os.getpid()) is not None


def _started(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None if there is none such.

    A number alone is not enough: the next process may have got it.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # a program's name may hold anything before it
    return None if fields[0] in "ZX" else int(fields[19])


def _sync_folder(path: Path) -> None:
    """Force a folder's names to disk, where the system can."""
    if os.name != "posix":
        return
    try:
        opened = os.open(path, os.O_RDONLY)
    except PermissionError:
        return
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _UNSYNCABLE:
            raise
    finally:
        os.close(opened)
