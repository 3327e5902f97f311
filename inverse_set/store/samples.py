"""samples.npz: the arrays of a run, written so that bytes depend on them alone, read with distrust.

Nothing is unpickled, and every size that a file declares is held against the file before memory is
asked for.
"""

import math
import os
import struct
import zipfile
from typing import NamedTuple

import numpy as np

MAX_BYTES = 8 << 30  # most that is read from one samples.npz
_MAX_DIRECTORY = 4096  # bytes of the zip directory; seven arrays need some 700
_CHUNK = 1 << 20
_MAX_RANK = 8  # axes of an array of inputs
_FIELDS = {  # dtype and shape on the disk
    "images": ("|u1", "[n, H, W, 1 or 3], or <f4 [n, ...]"),
    "codes": ("<f4", "[n, D]"),
    "activations": ("<f4", "[n, P]"),
    "raw_activations": ("<f4", "[n, P]"),
    "features": ("<f4", "[n, F]"),
    "step": ("<i4", "[n]"),
    "chain": ("<i4", "[n]"),
}


class SampleSet(NamedTuple):
    """n samples of a run, in the order in which they were taken.

    images: uint8 `[n, H, W, 3]`, RGB, or `[n, H, W, 1]`, grey, exactly the saved pictures; inputs
        that are no pictures are float32 `[n, ...]`.
    codes: float32 `[n, D]` generator codes.
    activations: float32 `[n, P]` of the saved inputs, in units of the neurons' outputs.
    raw_activations: float32 `[n, P]` before pictures are rounded to 8 bits, same units.
    features: float32 `[n, F]`, what distances between samples are measured in.
    step: int32 `[n]`, the step each sample was taken at.
    chain: int32 `[n]`, the chain each sample comes from.
    """

    images: np.ndarray
    codes: np.ndarray
    activations: np.ndarray
    raw_activations: np.ndarray
    features: np.ndarray
    step: np.ndarray
    chain: np.ndarray

    @property
    def pictures(self):
        """Whether the inputs are pictures of 8 bits; others are float32."""
        return self.images.dtype == np.uint8


def checked(samples, constraints):
    """The same samples as contiguous arrays of the documented types; ValueError if they are others.

    constraints: how many there are, P.
    """
    arrays = {name: np.asarray(value) for name, value in samples._asdict().items()}
    if (given := arrays["images"].dtype) not in (np.uint8, np.float32):
        raise ValueError(f"expected uint8 images, 0 to 255, or float32 inputs, got {given}")
    for name, (dtype, _) in _FIELDS.items():
        dtype = given if name == "images" else dtype
        if not np.can_cast(arrays[name].dtype, dtype, "same_kind"):
            wanted = np.dtype(dtype).name
            raise ValueError(f"expected {wanted} {name}, got {arrays[name].dtype}")
        arrays[name] = np.ascontiguousarray(arrays[name].astype(dtype))
    _check_shapes({name: array.shape for name, array in arrays.items()}, given == np.uint8)
    if (given := arrays["activations"].shape[1]) != constraints or not constraints:
        raise ValueError(
            f"expected activations [n, {constraints}], one column per constraint, "
            f"got {arrays['activations'].shape}"
        )
    return SampleSet(**arrays)


def _check_shapes(shapes, pictures):
    """ValueError unless `{field: shape}` is what SampleSet documents."""
    for name, (_, documented) in _FIELDS.items():
        shape = shapes[name]
        if not _fits(name, shape, pictures):
            raise ValueError(f"expected {name} {documented}, got {shape}")
        if shape[0] != shapes["images"][0]:
            raise ValueError(f"{name} {shape} are of {shape[0]} samples, images {shapes['images']}")
    if shapes["activations"] != shapes["raw_activations"]:
        raise ValueError(
            f"raw_activations {shapes['raw_activations']} and activations "
            f"{shapes['activations']} differ in shape"
        )


def _fits(name, shape, pictures):
    if name != "images":
        return len(shape) == _FIELDS[name][1].count(",") + 1
    if pictures:
        return len(shape) == 4 and shape[3] in (1, 3)
    return 2 <= len(shape) <= _MAX_RANK


def write(file, samples):
    """An uncompressed .npz whose bytes depend on the arrays alone, not on date, system or zlib."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, array in samples._asdict().items():
            info = zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0))
            info.create_system, info.external_attr = 3, 0o644 << 16
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, version=(1, 0), allow_pickle=False)


def read(file):
    """SampleSet of an open samples.npz; ValueError for anything that `write` does not write."""
    size = file.seek(0, os.SEEK_END)
    _check_directory(file, size)
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if sorted(m.filename for m in members) != sorted(f"{name}.npy" for name in _FIELDS):
            raise ValueError("expected the arrays " + ", ".join(_FIELDS))
        if any(m.compress_type or m.file_size != m.compress_size for m in members):
            raise ValueError("its arrays are compressed, a run's never are")
        if (total := sum(m.file_size for m in members)) > min(MAX_BYTES, size):
            raise ValueError(f"declares {total} bytes, has {size}, at most {MAX_BYTES} are read")
        found = {name: _shape(archive, name) for name in _FIELDS}
        shapes = {name: shape for name, (shape, _) in found.items()}
        _check_shapes(shapes, found["images"][1] == np.uint8)
        return SampleSet(**{name: _array(archive, name, *found[name]) for name in _FIELDS})


def _check_directory(file, size):
    """The zip's directory lies at its end and is small: zipfile would read any number of entries.

    Beyond 4 GiB a second record, of 56 bytes and with a locator of 20, says the same in 64 bits.
    """
    file.seek(max(0, size - 98))
    tail = file.read(98)
    end = tail[-22:]
    if len(end) < 22 or end[:4] != b"PK\5\6" or end[20:] != b"\0\0":
        raise ValueError("it is no zip file, or not all of it")
    entries, length = struct.unpack_from("<HI", end, 10)
    if tail[-42:-38] == b"PK\6\7":
        (place,) = struct.unpack_from("<Q", tail, len(tail) - 34)
        if len(tail) < 98 or tail[:4] != b"PK\6\6" or place != size - 98:
            raise ValueError("its directory is not where a run's is")
        entries, length = struct.unpack_from("<QQ", tail, 32)
    if entries != len(_FIELDS):
        raise ValueError("expected the arrays " + ", ".join(_FIELDS))
    if length > _MAX_DIRECTORY:
        raise ValueError(f"its directory has {length} bytes, at most {_MAX_DIRECTORY} are read")


def _shape(archive, name):
    """(shape, dtype) that an array's header declares, once type, rank and size are right."""
    with archive.open(f"{name}.npy") as member:
        shape, dtype = _header(member, name)
        left = archive.getinfo(f"{name}.npy").file_size - member.tell()
    if math.prod(shape) * dtype.itemsize != left:
        raise ValueError(f"{name}: declares {dtype.str} {shape}, {left} bytes follow")
    return shape, dtype


def _header(member, name):
    if np.lib.format.read_magic(member) != (1, 0):
        raise ValueError(f"{name}: expected .npy version 1.0")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(member)
    expected, documented = _FIELDS[name]
    typed = dtype.str in ("|u1", "<f4") if name == "images" else dtype.str == expected
    ranked = _fits(name, (*shape[:3], 3) if len(shape) == 4 else shape, dtype == np.uint8)
    if not typed or fortran or not ranked or min(shape) < 0:
        raise ValueError(f"{name}: expected {expected} {documented}, has {dtype.str} {shape}")
    return shape, dtype


def _array(archive, name, shape, dtype):
    """One array, read a piece at a time, so that it is in memory once."""
    array = np.empty(shape, dtype)
    room = memoryview(array.reshape(-1).view(np.uint8))
    with archive.open(f"{name}.npy") as member:
        _header(member, name)
        while len(room):
            piece = member.read(min(_CHUNK, len(room)))
            if not piece:
                raise ValueError(f"{name}: {len(room)} bytes are missing")
            room[: len(piece)] = piece
            room = room[len(piece) :]
    return array
