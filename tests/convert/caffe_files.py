"""Writes `.caffemodel` and `.binaryproto` files, knowing nothing of the reader."""

import numpy as np

V1_TYPES = {
    "convolution": 4,
    "data": 5,
    "dropout": 6,
    "inner_product": 14,
    "lrn": 15,
    "pooling": 17,
    "relu": 18,
    "softmax": 20,
    "deconvolution": 39,
}
V2_TYPES = {
    "convolution": "Convolution",
    "data": "Data",
    "dropout": "Dropout",
    "inner_product": "InnerProduct",
    "lrn": "LRN",
    "pooling": "Pooling",
    "relu": "ReLU",
    "softmax": "Softmax",
    "deconvolution": "Deconvolution",
}
V0_TYPES = {  # V0 had no deconvolution
    "convolution": "conv",
    "data": "data",
    "dropout": "dropout",
    "inner_product": "innerproduct",
    "lrn": "lrn",
    "pooling": "pool",
    "relu": "relu",
    "softmax": "softmax",
}


RAW_TYPES = {"<f8": 0, "<f4": 1, "<f2": 2}  # of NVIDIA's Caffe


def write(path, layers, layout="v2", packed=True, double=False, legacy=None, raw=None):
    """Writes a network and returns `path`; layers: a list of `(name, kind, [arrays])`.

    layout: "v2", "v1" or "v0".  packed: values and dims as one field, else a field each.
    double: values as double_data.  legacy: shapes as num, channels, height, width, the default
    but in V2; arrays of fewer axes then get ones in front.  raw: values as raw_data, of a type of
    RAW_TYPES.
    """
    legacy = layout != "v2" if legacy is None else legacy
    parts = [*text(1, "net")]
    for name, kind, arrays in layers:
        blobs = [blob(array, packed, double, legacy, raw) for array in arrays]
        parts += layer(layout, name, kind, blobs)
    return save(path, parts)


def write_mean(path, array, **how):
    """Writes a mean image `[C, H, W]` as released ones are: one legacy blob (1, C, H, W)."""
    return save(path, blob(array, **({"legacy": True} | how)))


def layer(layout, name, kind, blobs):
    """The chunks of one layer of a network; blobs: the chunks of each BlobProto."""
    ends = [*text({"v2": 3, "v1": 2, "v0": 2}[layout], "below")]
    ends += text({"v2": 4, "v1": 3, "v0": 3}[layout], name)
    if layout == "v2":
        inner = [*text(1, name), *text(2, V2_TYPES[kind]), *ends]
        return message(100, inner + [c for b in blobs for c in message(7, b)])
    if layout == "v1":
        inner = [*ends, *text(4, name), number(5, V1_TYPES[kind])]
        return message(2, inner + [c for b in blobs for c in message(6, b)])
    inner = [*text(1, name), *text(2, V0_TYPES[kind])]
    return message(2, message(1, inner + [c for b in blobs for c in message(50, b)]) + ends)


def blob(array, packed=True, double=False, legacy=False, raw=None):
    """The chunks of a BlobProto."""
    array = np.ascontiguousarray(array, raw or ("<f8" if double else "<f4"))
    shape = (1,) * (4 - array.ndim) + array.shape if legacy else array.shape
    if legacy:
        parts = [number(i, dim) for i, dim in enumerate(shape, 1)]
    elif packed:
        parts = message(7, message(1, [varint(dim) for dim in shape]))
    else:
        parts = message(7, [number(1, dim) for dim in shape])
    if raw:
        values = message(12, [memoryview(array.reshape(-1)).cast("B")])
        return [*parts, number(10, RAW_TYPES[raw]), *values]
    field, kind = (8, 1) if double else (5, 5)
    if packed:
        return parts + message(field, [memoryview(array.reshape(-1)).cast("B")])
    records = np.empty(array.size, [("tag", "u1"), ("value", array.dtype)])
    records["tag"], records["value"] = field << 3 | kind, array.reshape(-1)
    return [*parts, records.tobytes()]


def message(field, chunks):
    """The chunks of a field that holds the given chunks."""
    return [varint(field << 3 | 2), varint(sum(len(chunk) for chunk in chunks)), *chunks]


def text(field, value):
    """The chunks of a string field; bytes are taken as they are."""
    return message(field, [value if isinstance(value, bytes) else value.encode()])


def number(field, value):
    """The bytes of an integer field."""
    return varint(field << 3) + varint(value)


def varint(value):
    """The bytes of an integer, a negative one as its 64 bits."""
    value, out = value % (1 << 64), bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def save(path, chunks):
    """Writes the chunks, returns `path`."""
    with open(path, "wb") as file:
        file.writelines(chunks)
    return path
