"""Writers of small weight files other than .caffemodel, for tests."""

import io
import json
import struct
import zipfile

import numpy as np


def weights(seed=0):
    """A small network, every layer of another shape: `{layer: (kernel, bias)}`, Caffe's layout."""
    random = np.random.default_rng(seed)
    shapes = {"conv1": (4, 3, 2, 5), "conv2": (6, 2, 3, 3), "fc6": (5, 6 * 2 * 3)}
    return {
        name: (random.normal(size=shape).astype("f4"), random.normal(size=shape[0]).astype("f4"))
        for name, shape in shapes.items()
    }


def matlab_kernel(name, kernel):
    """Caffe's kernel as MatConvNet has it: HxWxInxOut, conv1 in RGB, fc6 over 2x3 positions."""
    if name.startswith("fc"):
        kernel = kernel.reshape(len(kernel), -1, 2, 3)
    if name == "conv1":
        kernel = kernel[:, ::-1]
    return np.asfortranarray(kernel.transpose(2, 3, 1, 0))


def cell(*items):
    """A 1xN cell array."""
    array = np.empty((1, len(items)), dtype=object)
    array[0] = [*items, None][: len(items)]
    return array


def mat(path, layers, /, mean=None, old=False, meta=True, compressed=True, net=False, **more):
    """Writes a MatConvNet file; old: filters and biases in place of weights; more: variables.

    A layer of the kind, in place of arrays, "pool" or "normalize" has no weights.
    net: all that is the network in one variable of that name.
    """
    from scipy.io import savemat

    items = []
    for name, arrays in layers.items():
        if isinstance(arrays, str):
            items.append({"name": name, "type": arrays})
            continue
        kernel, bias = arrays
        values = matlab_kernel(name, kernel), bias[None]
        held = {"filters": values[0], "biases": values[1]} if old else {"weights": cell(*values)}
        items += [{"name": name, "type": "conv", **held}, {"name": f"r_{name}", "type": "relu"}]
    content = {"layers": cell(*items)}
    if mean is not None:
        normalization = {"averageImage": mean, "interpolation": "bicubic"}
        content |= {"meta": {"normalization": normalization}} if meta else {}
        content |= {} if meta else {"normalization": normalization}
    content = {"net": content} if net else content
    savemat(path, content | more, do_compression=compressed)
    return path


def generator_weights(names, seed=0):
    """`{layer: (kernel, bias)}` of the fc6 generator's layers, all sizes shrunk."""
    random = np.random.default_rng(seed)
    found = {}
    for i, name in enumerate(names):
        shape = (3 + i, 2 + i) if i < 3 else (2 + i, 3, 4, 4)
        out = shape[0] if i < 3 else shape[1]
        found[name] = random.normal(size=shape).astype("f4"), random.normal(size=out).astype("f4")
    return found


def pt(path, layers, key="{}.{}", wrap=None, dtype=None, legacy=False):
    """Writes a torch state dict; key: how a layer and weight or bias make a key."""
    import torch

    tensors = {}
    for name, arrays in layers.items():
        for part, array in zip(("weight", "bias"), arrays, strict=True):
            tensors[key.format(name, part)] = torch.tensor(array).to(dtype or torch.float32)
    content = {wrap: tensors, "epoch": 3} if wrap else tensors
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def named(layers, kernel="/kernel", bias="/bias"):
    """`{key: array}` in one of the spellings of plain array files."""
    return {
        name + suffix: array
        for name, arrays in layers.items()
        for suffix, array in zip((kernel, bias), arrays, strict=True)
    }


def npz(path, arrays, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for key, array in arrays.items():
            data = array if isinstance(array, bytes) else npy_bytes(array)
            archive.writestr(f"{key}.npy", data)
    return path


def npy_bytes(array, allow_pickle=False):
    out = io.BytesIO()
    np.save(out, array, allow_pickle=allow_pickle)
    return out.getvalue()


def forged_npy(shape, descr="<f4", data=b""):
    """A .npy that declares any shape over any data."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def safetensors(path, arrays, dtype=None, header=None):
    """Writes the format by hand; header: text in place of the right one."""
    kinds = {"float32": "F32", "float16": "F16", "float64": "F64", "bfloat16": "BF16"}
    listed, data = {}, b""
    for key, array in arrays.items():
        array = array if dtype is None else array.astype(dtype)
        kind = kinds.get(array.dtype.name, "I32")
        place = [len(data), len(data) + array.nbytes]
        listed[key] = {"dtype": kind, "shape": list(array.shape), "data_offsets": place}
        data += array.tobytes()
    text = json.dumps(listed).encode() if header is None else header
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


class Marker:
    """Writes a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return (open, (self.path, "w"))
