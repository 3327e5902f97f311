"""Files that appear whole or not at all."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

from inverse_set.errors import UserError


def write_atomically(path, data):
    """Puts `data` at `path`: after a power cut it holds all of it, or what it held before."""
    with replacing(Path(path)) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path):
    """A binary file to write under a temporary name; named `path` once it is on the disk."""
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def temporary_name(path):
    """A name beside `path` that nobody else takes."""
    return path.with_name(f"{path.name}.tmp-{secrets.token_hex(6)}")


def sync(path):
    """Flushes a file, or the entries of a folder where the file system can, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


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
