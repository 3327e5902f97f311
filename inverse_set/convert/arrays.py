"""Files of plain arrays: .npz and .safetensors with weights, .npy with a mean colour.

Kernels are in Caffe's layout.  An array's key is the layer's name and then /kernel and /bias,
.weight and .bias, or _W and _b.  Sizes are checked against the file before memory is asked for,
and nothing is unpickled.
"""

import math
import re
import struct
import warnings
import zipfile

import numpy as np
from safetensors import safe_open

from inverse_set.convert.files import (
    checked_name,
    float32,
    most_bytes,
    one_line,
    pairs,
    reading,
    regular_size,
)
from inverse_set.errors import WeightError

MAX_HEADER = 1 << 20  # a safetensors header takes some 100 bytes an array
MAX_MEMBERS = 4096
_KEY = re.compile(r"(.+?)(/kernel|/bias|\.weight|\.bias|_W|_b)")
_PARTS = {"/kernel": "kernel", ".weight": "kernel", "_W": "kernel"}
_TYPES = ("F16", "BF16", "F32", "F64")


def read_npz(path):
    """`{layer: (kernel, bias)}` in float32 of a .npz, compressed or not."""
    size = regular_size(path)
    with reading(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_members(path, members, size)
        parts, taken = {}, 0
        for member in members:
            place = _place(path, member.filename.removesuffix(".npy"), parts)
            with archive.open(member) as file:
                array = _read_npy(file, member.file_size)
            parts[place] = float32(path, array, place[0])
            taken += parts[place].nbytes
            if taken > most_bytes(size):
                raise ValueError("its arrays are too large for its size")
        return pairs(path, parts)


def read_safetensors(path):
    """`{layer: (kernel, bias)}` in float32 of a .safetensors file of F16, BF16, F32 or F64."""
    size = regular_size(path)
    with reading(path):
        with open(path, "rb") as file:
            start = file.read(8)
        if len(start) < 8 or struct.unpack("<Q", start)[0] > min(size - 8, MAX_HEADER):
            raise ValueError("its first 8 bytes are not the length of a safetensors header")
        import ml_dtypes  # noqa: F401  gives numpy bfloat16

        with safe_open(path, framework="np") as archive:
            parts = {}
            for key in archive.keys():  # noqa: SIM118  it has no iterator
                place = _place(path, key, parts)
                if (kind := archive.get_slice(key).get_dtype()) not in _TYPES:
                    raise WeightError(path, f"expected {', '.join(_TYPES)}, has {kind}", place[0])
                parts[place] = float32(path, np.array(archive.get_tensor(key)), place[0])
        return pairs(path, parts)


def read_mean(path):
    """Mean colour, float32 [3] in BGR, of a .npy with a colour [3] or an image [3, H, W].

    Axes of length 1 may come before these.
    """
    size = regular_size(path)
    with reading(path), open(path, "rb") as file:
        mean = _read_npy(file, size)
        shape = mean.shape
        while len(shape) in (2, 4) and shape[0] == 1:
            shape = shape[1:]
        if shape != (3,) and (len(shape) != 3 or shape[0] != 3 or not mean.size):
            raise ValueError(f"expected a mean [3] or [3, H, W], has shape {mean.shape}")
        with np.errstate(over="ignore", invalid="ignore"):
            mean = mean.reshape(3, -1).mean(axis=1, dtype=np.float64)
        return float32(path, mean, None)


def _place(path, key, taken):
    """("conv1", "kernel") of "conv1/kernel" and its other spellings."""
    found = _KEY.fullmatch(key)
    if not found:
        wrong = f"expected keys such as conv1/kernel and conv1/bias, has {one_line(repr(key))}"
        raise WeightError(path, wrong)
    place = (checked_name(path, found[1]), _PARTS.get(found[2], "bias"))
    if place in taken:
        raise WeightError(path, f"two arrays are its {place[1]}", place[0])
    return place


def _check_members(path, members, size):
    """Refuses an archive that holds anything but arrays, or more than its size allows."""
    if len(members) > MAX_MEMBERS:
        raise ValueError(f"{len(members)} members, at most {MAX_MEMBERS} are read")
    if len({member.filename for member in members}) != len(members):
        raise ValueError("two members have the same name")
    for member in members:
        wrong = None
        if not member.filename.endswith(".npy"):
            wrong = "is not an array"
        elif member.flag_bits & 1:
            wrong = "is encrypted"
        elif member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            wrong = "is compressed by an unusual method"  # whose output zipfile does not bound
        if wrong:
            offset = member.header_offset
            raise WeightError(path, f"{one_line(repr(member.filename))} {wrong}", offset=offset)
    if sum(member.compress_size for member in members) > size:
        raise ValueError("its members overlap")
    if (total := sum(member.file_size for member in members)) > most_bytes(size):
        raise ValueError(f"declares {total} bytes, too much for its size")


def _read_npy(file, size):
    """The array of a .npy of `size` bytes; it must be floats and fill the file exactly."""
    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"a .npy of version {version}, only 1.0 and 2.0 are read")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # numpy has one for headers written by Python 2
        header = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, fortran, dtype = header(file)
    if dtype.kind != "f" or dtype.itemsize > 8:
        raise ValueError(f"expected floats of 16 to 64 bits, has {dtype}")
    left = size - file.tell()
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"declares {dtype} {shape}, {left} bytes follow")
    data = np.empty(math.prod(shape), dtype)
    view = memoryview(data.view("u1"))
    while view and (piece := file.read(min(len(view), 1 << 20))):
        view[: len(piece)] = piece
        view = view[len(piece) :]
    if view or file.read(1):  # the last read makes zipfile compare the checksum
        raise ValueError("its length is not the declared one")
    return data.reshape(shape, order="F" if fortran else "C")
