"""Protobuf's wire format over a mapped file, read strictly.

A message is a sequence of tagged fields between two offsets.  Nothing here recurses or trusts a
length: whoever knows the schema asks for the fields of a message inside a message, so the schema
bounds the depth, and every length is held against the end of the message around it.
"""

import mmap
import os
import stat
from typing import NamedTuple

import numpy as np

from inverse_set.errors import WeightError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types; 3 and 4, groups, are refused
WIDTH = {FIXED64: 8, FIXED32: 4}
KINDS = {VARINT: "a varint", FIXED64: "64 bits", BYTES: "bytes", FIXED32: "32 bits"}
MAX_FIELDS = 1 << 17  # far more than a network has, few enough to walk in a fraction of a second


def mapped(path):
    """The whole regular file as a read-only mmap; links are followed, nothing is waited for."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise WeightError(path, "not a regular file", remedy="give the path of a file")
            if not status.st_size:
                raise WeightError(path, "the file is empty", offset=0)
            return mmap.mmap(handle, status.st_size, access=mmap.ACCESS_READ)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightError(path, f"cannot be read: {reason}", remedy="check the path") from error


def release(data, start, end):
    """Drops the pages around bytes `start` to `end`; touched again, they come from the file."""
    if end - start >= mmap.PAGESIZE:
        start -= start % mmap.PAGESIZE
        data.madvise(mmap.MADV_DONTNEED, start, end - start)


class WireError(Exception):
    """wrong: what does not fit.  offset: byte in the file.  layer: its name, once it is known."""

    def __init__(self, wrong, offset, layer=None):
        super().__init__(wrong)
        self.wrong, self.offset, self.layer = wrong, offset, layer


class Field(NamedTuple):
    """One field; or, where fixed-size fields of one tag follow each other, all of them at once.

    number: in the schema.  kind: wire type.  offset: byte of the (first) tag.
    start, end: bytes of the content; those of a run start behind its first tag.
    value: of a varint, unsigned; of a run, how many fields it has; else the length in bytes.
    stride: bytes from one value of a run to the next, else 0.
    """

    number: int
    kind: int
    offset: int
    start: int
    end: int
    value: int
    stride: int


class Reader:
    """Reads `data`, a bytes-like object; gives up after MAX_FIELDS fields or runs in all."""

    def __init__(self, data):
        self.data, self.seen = data, 0

    def fields(self, start, end):
        """Yields the Fields of the message in bytes `start` to `end`, or raises WireError."""
        while start < end:
            field = self._field(start, end)
            self.seen += 1
            if self.seen > MAX_FIELDS:
                raise WireError(f"more than {MAX_FIELDS} fields", start)
            yield field
            start = field.end

    def varint(self, at, end):
        """`(value, offset behind it)` of the unsigned number at byte `at`."""
        value = 0
        for i in range(10):
            if at + i >= end:
                raise WireError("the message ends inside a number", at)
            byte = self.data[at + i]
            value |= (byte & 0x7F) << 7 * i
            if byte < 0x80:
                if value >> 64:
                    break
                return value, at + i + 1
        raise WireError("a number of more than 64 bits", at)

    def _field(self, offset, end):
        tag, start = self.varint(offset, end)
        number, kind = tag >> 3, tag & 7
        if not 0 < number < 1 << 29:
            raise WireError(f"field number {number} does not exist", offset)
        if kind not in KINDS:
            raise WireError(f"field {number} has wire type {kind}, which is not in use", offset)
        value = stride = 0
        if kind == VARINT:
            value, stop = self.varint(start, end)
        elif kind == BYTES:
            value, start = self.varint(start, end)
            stop = start + value
        else:
            value, stride = 1, start - offset + WIDTH[kind]
            if stride == 1 + WIDTH[kind]:
                value = max(1, _run(self.data, offset, end, stride))
            stop = offset + value * stride
        if stop > end:
            wrong = f"field {number} ends at byte {stop}, the message around it at {end}"
            raise WireError(wrong, offset)
        return Field(number, kind, offset, start, stop, value, stride)


def expect(field, *kinds):
    """WireError unless the field has one of the wire types."""
    if field.kind not in kinds:
        wanted = " or ".join(KINDS[kind] for kind in kinds)
        wrong = f"field {field.number} holds {KINDS[field.kind]}, expected {wanted}"
        raise WireError(wrong, field.offset)


def signed(value):
    """The int64 that a varint's 64 bits stand for."""
    return value - (value >> 63 << 64)


def _run(data, at, end, stride):
    """How many whole records of `stride` bytes from `at` on share the first one's tag byte."""
    most, tag, found = (end - at) // stride, data[at], 0
    while found < min(most, 16):  # numpy only pays for more
        if data[at + found * stride] != tag:
            return found
        found += 1
    block = 256
    while found < most:
        count = min(block, most - found)
        tags = np.ndarray((count,), np.uint8, data, at + found * stride, (stride,))
        if (same := int(np.argmin(tags == tag))) or tags[0] != tag:
            return found + same
        found, block = found + count, min(2 * block, 1 << 20)
    return found
