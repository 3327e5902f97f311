"""Writes a weight file of ours, one tensor at a time, so that memory stays below one network."""

import hashlib
import json
import struct

import numpy as np

from inverse_set.disk import replacing

_DTYPES = {"fp32": ("<f4", "F32"), "fp16": ("<f2", "F16")}
DTYPES = tuple(_DTYPES)
_UNKNOWN = "0" * 64  # in the place of a SHA-256 until the tensors have been written


def write(path, shapes, tensors, record, dtype="fp32"):
    """Writes {name: shape} tensors as a safetensors file; returns the SHA-256 of its tensors.

    tensors: iterable of (name, array) in the order of `shapes`, taken one by one.
    record: JSON for the header, to which "result_sha256" is added: of all the tensors' bytes.
    dtype: "fp32" or "fp16".  ValueError for what does not fit, nothing is left behind then.
    """
    kind, label = _DTYPES[dtype]
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + int(np.prod(shape)) * np.dtype(kind).itemsize
        header[name] = {"dtype": label, "shape": list(shape), "data_offsets": [start, end]}
    head = _header(header, record | {"result_sha256": _UNKNOWN})
    total = hashlib.sha256()
    with replacing(path) as file:
        file.write(head)
        for (name, array), (want, shape) in zip(tensors, shapes.items(), strict=True):
            if name != want or array.shape != tuple(shape):
                raise ValueError(f"expected {want} {tuple(shape)}, got {name} {array.shape}")
            data = stored(name, array, dtype)
            total.update(data)
            file.write(data)
        file.seek(head.index(_UNKNOWN.encode()))
        file.write(total.hexdigest().encode())
    return total.hexdigest()


def stored(name, array, dtype):
    """The array as the file holds it, contiguous; ValueError for what "fp16" cannot hold."""
    with np.errstate(over="ignore"):
        data = np.ascontiguousarray(array, _DTYPES[dtype][0])
    if dtype == "fp16" and np.isinf(data).any():
        raise ValueError(f"{name} exceeds what fp16 holds, write fp32")
    return data


def _header(tensors, record):
    """The length and the JSON, filled up with blanks to a multiple of 8 bytes."""
    content = {"__metadata__": {"record": json.dumps(record)}} | tensors
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
