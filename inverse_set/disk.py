"""Files that appear whole or not at all, and files that are safe to open."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: nothing is locked, so no leftover is known to be one
    fcntl = None

from inverse_set.errors import UserError

# What file systems answer that cannot flush a folder: network drives have none of it to flush.
_UNSYNCABLE = (
    errno.EINVAL,
    errno.ENOTSUP,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EBADF,
    errno.EACCES,
    errno.EIO,
)

# No link is followed and no pipe waited for, where the system can tell.
_CAREFULLY = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOFOLLOW", "O_BINARY"))


def write_atomically(path, data):
    """Puts `data` at `path`: after a power cut it holds all of it, or what it held before."""
    with replacing(Path(path)) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path):
    """A binary file to write under a temporary name; named `path` once it is on the disk."""
    temporary = temporary_name(path)
    try:
        with _created(temporary) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(temporary, path)  # while it is locked: nobody takes it for a leftover
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def temporary_name(path):
    """A name beside `path` that nobody else takes."""
    return path.with_name(f"{path.name}.tmp-{secrets.token_hex(6)}")


def remove_leftovers(path):
    """Deletes the temporary files of `replacing(path)` whose writers were killed.

    A living writer holds a lock on its file, which the system gives up with the process.
    """
    ours = re.compile(re.escape(path.name) + r"\.tmp-[0-9a-f]{12}")
    with contextlib.suppress(OSError):  # the folder may not be there yet
        for name in os.listdir(path.parent):
            if ours.fullmatch(name) and (found := path.with_name(name)).is_file():
                with contextlib.suppress(OSError), open(found, "rb") as file:
                    if _lock(file):
                        found.unlink()


@contextlib.contextmanager
def alone(path):
    """Holds the lock called `path`, an empty file; BlockingIOError while another process does.

    The file is gone afterwards; that of a killed process remains, and no longer locks.  A file
    system without locks lets everybody in.
    """
    while True:
        with open(path, "ab") as file:
            _lock(file)
            if not _still_named(path, file):  # its last holder has deleted it meanwhile
                continue
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _created(path):
    """A new file, open and locked."""
    while True:
        file = open(path, "xb")  # noqa: SIM115  the caller closes it
        _lock(file, wait=True)
        if _still_named(path, file):
            return file
        file.close()  # taken for a leftover before it was locked


def _lock(file, wait=False):
    """Locks `file` until it is closed; returns False where files cannot be locked.

    BlockingIOError while another process has it locked, unless `wait` says to wait for that.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except (OSError, AttributeError):
        return False
    return True


def _still_named(path, file):
    try:
        return os.path.samestat(os.stat(path), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def create(path, write):
    """A new file, written by `write(file)` and flushed to the disk.

    Returns the SHA-256 of the bytes written: they are read back through the handle that wrote them,
    so that a file which takes the name later cannot lend its own.
    """
    with open(path, "x+b") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
        return digest(file)


def digest(file):
    """SHA-256 of all of an open file, in hexadecimal digits."""
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def sync(folder):
    """Flushes the entries of a folder to the disk, where the file system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in _UNSYNCABLE:
            raise


@contextlib.contextmanager
def reading(path):
    """The regular file at `path`, opened for reading.

    ValueError says what else it is.  A pipe, a device or a link is not opened at all: some wait for
    ever, some have no end, and a link may lead to either.
    """
    _check_regular(os.lstat(path))
    handle = os.open(path, os.O_RDONLY | _CAREFULLY)
    with open(handle, "rb") as file:
        _check_regular(os.fstat(handle))
        yield file


_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def _check_regular(status):
    if not stat.S_ISREG(status.st_mode):
        kind = next((name for test, name in _KINDS if test(status.st_mode)), "something else")
        raise ValueError(f"it is {kind}, not a regular file")


@contextlib.contextmanager
def writing(place, kind=UserError, instead="another place"):
    """Turns what the disk refuses into an error of `kind`, a UserError.

    instead: what the remedy tells a person to choose.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = f"free some space or choose {instead}"
            raise kind(f"no space left for {place}", remedy) from error
        what = f"cannot write to {place}: {error.strerror or error}"
        raise kind(what, f"check its permissions or choose {instead}") from error
