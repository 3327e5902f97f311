"""Released Caffe files: the blobs of a `.caffemodel`, the mean image of a `.binaryproto`.

A `.caffemodel` is a protobuf NetParameter in one of three layouts: its layers are LayerParameter
messages (V2), V1LayerParameter, or V0LayerParameter inside V1LayerParameter.  The file is mapped,
not loaded: the walk touches the few bytes around the arrays, and an array is a view of the file.
The file must not change while it is in use; cut short meanwhile, it kills the process, as any
mapped file does.
"""

import contextlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from inverse_set.convert import wire
from inverse_set.convert.files import NORM, POOL
from inverse_set.errors import WeightError

MAX_AXES = 32  # Caffe's own limit
MAX_NAME = 1024  # bytes of a layer's name
_BLOCK = 1 << 20  # values looked at together
_DATA = {5: ("<f4", wire.FIXED32), 8: ("<f8", wire.FIXED64)}  # BlobProto: data, double_data
# NVIDIA's Caffe and OpenCV: values as bytes, and of which type; protobuf's default is the first.
_RAW_TYPE, _RAW = 10, 12
_RAW_TYPES = {0: "<f8", 1: "<f4", 2: "<f2"}
_LEGACY = {1: "num", 2: "channels", 3: "height", 4: "width"}
_SHAPE, _DIM = 7, 1


class _Layout(NamedTuple):
    """Field numbers of a layer message; inner: its V0 layer, if it can have one."""

    name: int
    kind: int
    blobs: int
    inner: int | None = None


_V0 = _Layout(name=1, kind=2, blobs=50)
_LAYERS = {2: _Layout(name=4, kind=5, blobs=6, inner=1), 100: _Layout(name=1, kind=2, blobs=7)}
# What a layer's type is called in the layouts; V1 has numbers.
_KINDS = {17: POOL, b"Pooling": POOL, b"pool": POOL, 15: NORM, b"LRN": NORM, b"lrn": NORM}


class _Blob(NamedTuple):
    """One array in the file: its values are those of the runs, in order (wire.Field, see there).

    An empty array has no runs.
    """

    shape: tuple
    dtype: np.dtype
    runs: list


class Weights(Mapping):
    """Layer name -> tuple of arrays, in the file's order, axes and precision, read-only.

    A kernel comes first, then a bias; a legacy array has four axes.  Arrays are views of the file
    wherever its values lie evenly spaced, as Caffe writes them, else copies made anew at each
    access; so take a layer, use it, release it.

    order: POOL or NORM of each layer of that kind, as they follow each other in the file.
    """

    def __init__(self, path, data, blobs, order):
        self.path, self._data, self._blobs, self.order = path, data, blobs, order

    def __getitem__(self, name):
        return tuple(_array(self._data, blob) for blob in self._blobs[name])

    def __iter__(self):
        return iter(self._blobs)

    def __len__(self):
        return len(self._blobs)

    def check_finite(self, name):
        """WeightError with the offset of the layer's first value that no finite float32 holds.

        Works in blocks and releases each, so memory stays flat.
        """
        for blob in self._blobs[name]:
            _check_finite(self.path, self._data, blob, name)

    def release(self, name):
        """Gives the memory of the layer's pages back; its arrays stay valid and are read again."""
        for blob in self._blobs[name]:
            for run in blob.runs:
                wire.release(self._data, run.start, run.end)


def read(path):
    """Weights of every layer that has any, from a `.caffemodel`; takes milliseconds at any size.

    Raises WeightError for anything but a whole, unambiguous network; values are not looked at
    (see Weights.check_finite), nor is how many arrays a layer ought to have.
    """
    data = wire.mapped(path)
    with _refusing(path):
        return Weights(path, data, *_layers(wire.Reader(data), len(data)))


def read_mean(path):
    """float32 `[C, H, W]`, the mean image of a `.binaryproto`, channels as in the file (BGR)."""
    data = wire.mapped(path)
    with _refusing(path):
        blob = _blob(wire.Reader(data), 0, len(data))
    if not blob.runs:
        raise WeightError(path, "no mean image: it holds no values", offset=0)
    shape = blob.shape[1:] if len(blob.shape) == 4 and blob.shape[0] == 1 else blob.shape
    if len(shape) != 3:
        raise WeightError(path, f"expected one mean image [C, H, W], has {blob.shape}", offset=0)
    _check_finite(path, data, blob)
    return _array(data, blob).reshape(shape).astype(np.float32)


@contextlib.contextmanager
def _refusing(path):
    try:
        yield
    except wire.WireError as error:
        raise WeightError(path, error.wrong, error.layer, error.offset) from error


def _layers(reader, size):
    """({name: [_Blob]}, kinds of `_KINDS` in order) of the NetParameter in bytes 0 to `size`."""
    found, order, layout = {}, [], None
    for field in reader.fields(0, size):
        if field.number not in _LAYERS:
            continue
        wire.expect(field, wire.BYTES)
        if layout not in (None, field.number):
            raise wire.WireError("layers of two layouts, V1 and V2, in one file", field.offset)
        layout = field.number
        name, kind, blobs = _layer(reader, field, _LAYERS[layout])
        if kind in _KINDS:
            order.append(_KINDS[kind])
        arrays = _arrays(reader, name, blobs)
        if not arrays:
            continue
        if not name:
            raise wire.WireError("a layer with weights has no name", field.offset)
        if name in found:
            raise wire.WireError("a second layer of this name", field.offset, name)
        found[name] = arrays
    if not found:
        raise wire.WireError("not a Caffe network: no layer holds weights", 0)
    return found, tuple(order)


def _arrays(reader, name, blobs):
    """The _Blobs of one layer, [] if all of them are empty."""
    try:
        arrays = [_blob(reader, blob.start, blob.end) for blob in blobs]
        empty = [blob.start for array, blob in zip(arrays, blobs, strict=True) if not array.runs]
        if len(empty) == len(arrays):
            return []
        if empty:
            raise wire.WireError("an array without values", empty[0])
    except wire.WireError as error:
        error.layer = name
        raise
    return arrays


def _layer(reader, message, layout):
    """`(name, type, fields of its blobs)` of a layer, or of the V0 layer inside it.

    The name and the type are None where there is none.
    """
    name, kind, blobs, inner_blobs = None, None, [], []
    try:
        for field in reader.fields(message.start, message.end):
            if field.number == layout.name:
                _once(name is None, field, "name")
                name = _name(reader, field)
            elif field.number == layout.kind:
                kind = _kind(reader, field)
            elif field.number == layout.blobs:
                wire.expect(field, wire.BYTES)
                blobs.append(field)
            elif field.number == layout.inner:
                wire.expect(field, wire.BYTES)
                inner, inner_kind, more = _layer(reader, field, _V0)
                _once(name is None or inner is None, field, "name")
                name = inner if name is None else name
                kind = kind or inner_kind
                inner_blobs += more
        if blobs and inner_blobs:
            raise wire.WireError("weights in a V0 layer and around it", message.offset)
    except wire.WireError as error:
        error.layer = error.layer or name
        raise
    return name, kind, blobs or inner_blobs


def _kind(reader, field):
    """A layer's type: its number, or the first bytes of its name."""
    if field.kind == wire.VARINT:
        return field.value
    return bytes(reader.data[field.start : min(field.end, field.start + MAX_NAME)])


def _name(reader, field):
    wire.expect(field, wire.BYTES)
    if field.value > MAX_NAME:
        raise wire.WireError(f"a name of {field.value} bytes", field.offset)
    try:
        name = bytes(reader.data[field.start : field.end]).decode()
    except UnicodeDecodeError as error:
        raise wire.WireError("a name that is not UTF-8", field.offset) from error
    if not name.isprintable():  # it ends up in messages, on a terminal
        raise wire.WireError(f"a name with unprintable characters: {name!a}", field.offset)
    return name


def _once(first, field, what):
    if not first:
        raise wire.WireError(f"the {what} is given twice", field.offset)


def _blob(reader, start, end):
    """The _Blob of the BlobProto in bytes `start` to `end`; its values are not touched."""
    legacy, shape, kind, raw_type, runs = {}, None, None, None, []
    for field in reader.fields(start, end):
        if field.stride:  # the walk has touched the tags between the values
            wire.release(reader.data, field.offset, field.end)
        if field.number in _LEGACY:
            wire.expect(field, wire.VARINT)
            _once(field.number not in legacy, field, _LEGACY[field.number])
            legacy[field.number] = wire.signed(field.value)
        elif field.number == _SHAPE:
            wire.expect(field, wire.BYTES)
            _once(shape is None, field, "shape")
            shape = _dims(reader, field)
        elif field.number == _RAW_TYPE:
            wire.expect(field, wire.VARINT)
            _once(raw_type is None, field, "type of the values")
            raw_type = field.value
        elif field.number in _DATA or field.number == _RAW:
            wire.expect(field, wire.BYTES, *(_DATA.get(field.number, ())[1:]))
            if kind not in (None, field.number):
                raise wire.WireError("the values are given in two ways", field.offset)
            _once(kind != _RAW, field, "string of values")
            kind = field.number
            runs.append(field)
    if legacy:
        if shape is not None:
            raise wire.WireError("the shape is given in two ways", start)
        shape = tuple(legacy.get(number, 1 if runs else 0) for number in _LEGACY)
    dtype = np.dtype(_raw_type(raw_type, start) if kind == _RAW else _DATA[kind or 5][0])
    return _checked(shape, dtype, [_values(run, dtype.itemsize) for run in runs], start)


def _raw_type(number, offset):
    if (number or 0) not in _RAW_TYPES:
        raise wire.WireError(f"values of type {number}, which are no floats", offset)
    return _RAW_TYPES[number or 0]


def _checked(shape, dtype, runs, offset):
    """The _Blob, if its shape is possible and the runs hold exactly as many values."""
    held = sum(run.value for run in runs)
    if shape is None and held:
        raise wire.WireError("an array without a shape", offset)
    shape = (0,) if shape is None else shape
    if min(shape, default=1) < 0:
        raise wire.WireError(f"an array of shape {shape}", offset)
    if held != (declared := math.prod(shape)):
        wrong = f"an array of shape {shape} has {declared} values, the file holds {held}"
        raise wire.WireError(wrong, offset)
    return _Blob(shape, dtype, [run for run in runs if run.value])


def _dims(reader, message):
    """The shape in a BlobShape: repeated int64, packed or not."""
    dims = []
    for field in reader.fields(message.start, message.end):
        if field.number != _DIM:
            continue
        wire.expect(field, wire.VARINT, wire.BYTES)
        at = field.end
        if field.kind == wire.VARINT:
            dims.append(wire.signed(field.value))
        else:
            at = field.start
        while at < field.end and len(dims) <= MAX_AXES:
            value, at = reader.varint(at, field.end)
            dims.append(wire.signed(value))
        if len(dims) > MAX_AXES:
            raise wire.WireError(f"more than {MAX_AXES} axes", field.offset)
    return tuple(dims)


def _values(field, width):
    """The field, with packed values told as a run: how many there are and how far apart."""
    if field.kind != wire.BYTES:
        return field
    if field.value % width:
        wrong = f"{field.value} bytes are no whole number of {width}-byte values"
        raise wire.WireError(wrong, field.offset)
    return field._replace(value=field.value // width, stride=width)


def _view(data, dtype, run, first=0, count=None):
    """Values of a run as a view of `data`: all, or `count` of them from `first` on."""
    count = run.value if count is None else count
    return np.ndarray((count,), dtype, data, run.start + first * run.stride, (run.stride,))


def _array(data, blob):
    if len(blob.runs) == 1:
        return _view(data, blob.dtype, blob.runs[0]).reshape(blob.shape)
    whole, at = np.empty(math.prod(blob.shape), blob.dtype), 0
    for run in blob.runs:
        whole[at : at + run.value] = _view(data, blob.dtype, run)
        at += run.value
        wire.release(data, run.start, run.end)
    whole.flags.writeable = False
    return whole.reshape(blob.shape)


def _check_finite(path, data, blob, layer=None):
    for run in blob.runs:
        for first in range(0, run.value, _BLOCK):
            block = _view(data, blob.dtype, run, first, min(_BLOCK, run.value - first))
            with np.errstate(all="ignore"):  # a double too large becomes an infinity: refused
                good = np.isfinite(block.astype(np.float32, copy=False))
            offset = run.start + first * run.stride
            if not good.all():
                bad = int(np.argmin(good))
                wrong = f"a value is not a finite float32: {block[bad]}"
                raise WeightError(path, wrong, layer, offset + bad * run.stride)
            wire.release(data, offset, offset + len(block) * run.stride)
