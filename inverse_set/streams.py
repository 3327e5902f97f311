"""Standard output and error that never fail over what is written to them or who reads it."""

import io
import os
import sys


class _Descriptor(io.RawIOBase):
    """Writes to a file descriptor; once nobody reads its pipe, to nowhere."""

    def __init__(self, descriptor):
        self.descriptor, self.broken = descriptor, False

    def writable(self):
        return True

    def fileno(self):
        return self.descriptor

    def isatty(self):
        return os.isatty(self.descriptor)

    def write(self, data):
        if not self.broken:
            try:
                return os.write(self.descriptor, data)
            except BrokenPipeError:
                self.broken = True
        return len(data)


def prepare():
    """Makes sys.stdout and sys.stderr safe to print to, for the rest of the process.

    A closed one leads to nowhere, and no file opened later takes its number.  A reader that goes
    away ends nothing.  What the encoding cannot say is written as an escape.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        given = getattr(sys, name)
        raw = io.BufferedWriter(_Descriptor(descriptor))
        encoding = "utf-8" if given is None else given.encoding
        lines = name == "stderr" or os.isatty(descriptor)
        if given is not None:
            given.flush()
        stream = io.TextIOWrapper(
            raw, encoding, errors="backslashreplace", line_buffering=lines, newline=None
        )
        setattr(sys, name, stream)


def finish():
    """Writes out what is left; the error if the disk refuses it, after which nothing is written."""
    refused = None
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except OSError as error:
            refused = error
            getattr(sys, name).buffer.raw.broken = True  # what is left in it leads to nowhere
    return refused
