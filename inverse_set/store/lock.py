"""One writer to a folder: a lock that dies with its process.

The lock is a file that is locked by the kernel (flock) and says who holds it.  The kernel's lock
ends with the process, however it ends, so a file that nobody has locked is a dead one's and is
taken over.  Two kinds of file system cannot be trusted with that alone:

- Some network drives keep flock to one machine.  So a file that names another machine is always
  respected, and only a person can say that its process is dead.
- Some know no flock at all.  There the process named decides: its number and the time it started.
  Two that take over the same dead lock in the same moment may then both believe to hold it;
  `Lock.check` tells the one that was written over before it writes anything.
"""

import contextlib
import datetime
import errno
import json
import os
import secrets
import socket
from pathlib import Path

from inverse_set.errors import ResultsError, shown

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

_UNKNOWN = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL)
_TRIES = 100  # a holder that lets go removes the file: whoever opened it before must look again
_MAX_BYTES = 4096


class Lock:
    """A lock that this process holds, until `release` or its end."""

    def __init__(self, path, handle, text):
        self.path, self._handle, self._text = path, handle, text

    def check(self):
        """ResultsError if the file is no longer the one that this lock wrote."""
        try:
            held = _read(self._handle) == self._text and _same(self._handle, self.path)
        except OSError:
            held = False
        if not held:
            raise ResultsError(
                f"the lock {self.path} was taken away from this process while it worked",
                "let one process at a time write there, and keep its lock",
            )

    def release(self):
        """Lets go, and removes the file if it is still this lock's; a dead one hinders nobody."""
        try:
            with contextlib.suppress(OSError):
                if _read(self._handle) == self._text and _same(self._handle, self.path):
                    self.path.unlink()
        finally:
            os.close(self._handle)


def acquire(path):
    """`Lock` on the file `path`, created if absent; ResultsError that names the holder."""
    for _ in range(_TRIES):
        with contextlib.suppress(FileNotFoundError):  # the folder went with its last holder
            path.parent.mkdir(exist_ok=True)
            follow = getattr(os, "O_NOFOLLOW", 0)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | follow, 0o644)
            try:
                if lock := _take(path, handle):
                    return lock
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)
    raise ResultsError(f"{path} changes hands all the time", "try again")


def _take(path, handle):
    """`Lock` over an open file, or None if the file lost its name meanwhile."""
    try:
        enforced = _flock(handle)
    except BlockingIOError:
        if not _same(handle, path):
            return None
        raise _refusal(path, _parse(_read(handle))) from None
    if not _same(handle, path):
        return None
    found = _read(handle)
    holder = _parse(found)
    if found and holder is not None and holder.get("host") != socket.gethostname():
        raise _refusal(path, holder)
    if found and not enforced and (holder is None or _alive(holder)):
        raise _refusal(path, holder)
    text = json.dumps(_self()).encode()
    os.ftruncate(handle, 0)
    os.lseek(handle, 0, os.SEEK_SET)
    os.write(handle, text)
    os.fsync(handle)
    return Lock(path, handle, text)


def _flock(handle):
    """Whether the file is locked, until it is closed; False where the file system knows no locks.

    BlockingIOError while another holds it.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise
        return False
    return True


def _refusal(path, holder):
    folder, remedy = path.parent.parent, f"if no such process is left, delete {path}"
    if not holder:
        return ResultsError(f"another process is writing to {folder}", "wait for it, or " + remedy)
    pid, host, since = (str(holder.get(key))[:100] for key in ("pid", "host", "since"))
    who = f"process {pid} on {host} has been writing to {folder} since {since}"
    here = host == socket.gethostname()
    wait = "wait for it, stop it or choose another --out" if here else "wait for it, or " + remedy
    return ResultsError(shown(who), wait)


def _self():
    since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    pid, host = os.getpid(), socket.gethostname()
    return {
        "pid": pid,
        "host": host,
        "since": since,
        "started": _started(pid),
        "token": secrets.token_hex(8),
    }


def _started(pid):
    """What tells a process from a later one of the same number; None where the system hides it."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    return f"{boot} {status.rpartition(')')[2].split()[19]}"  # clock ticks since that boot


def _alive(holder):
    """Whether the process that a lock of this machine names still runs."""
    pid, started = holder.get("pid"), holder.get("started")
    if os.name != "posix":
        return True  # nothing to ask that would not end the process
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, TypeError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's, so there is one
    found = _started(pid)
    return None in (found, started) or found == started


def _read(handle):
    os.lseek(handle, 0, os.SEEK_SET)
    return os.read(handle, _MAX_BYTES)


def _parse(text):
    """The holder that a lock's text names, {} for an empty one, None for one that is not ours."""
    if not text:
        return {}
    try:
        holder = json.loads(text)
    except ValueError:
        return None
    return holder if isinstance(holder, dict) else None


def _same(handle, path):
    """Whether `path` still names the open file."""
    try:
        return os.path.samestat(os.fstat(handle), os.lstat(path))
    except FileNotFoundError:
        return False
