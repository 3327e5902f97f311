"""From a released file of any format to a weight file of ours."""

import contextlib
import hashlib
from pathlib import Path

import numpy as np

from inverse_set import disk
from inverse_set.convert import (
    arrange,
    arrays,
    caffemodel,
    matconvnet,
    signatures,
    torch_file,
    weight_file,
)
from inverse_set.convert.files import Source
from inverse_set.errors import UserError, WeightError
from inverse_set.models import caffenet

MEANS = (".binaryproto", ".npy", ".mat")
FORMATS = (".caffemodel", ".mat", ".pt", ".pth", ".npz", ".safetensors")


def convert(source, destination, network, dtype="fp32", mean=None):
    """Converts `source` and writes `destination`; returns the record it holds.

    source: a released file, its format told by its ending (`FORMATS`).
    network: one of `arrange.NETWORKS`.  dtype: "fp32" or "fp16".
    mean: a file with the classifier's mean picture (.binaryproto, .npy, .mat); by default that in
        the source, else ImageNet's.
    Raises WeightError for a file that is not such a network; `destination` is untouched then.
    """
    source = Path(source)
    record, tensors = opened(source, network, dtype, mean)
    return write(source, destination, shapes(network), tensors, record)


def opened(source, network, dtype="fp32", mean=None):
    """(record, iterable of (name, array) in our layout) of a released file, as in `convert`.

    The record lacks result_sha256, and the arrays are read when they are asked for.
    """
    if network not in arrange.NETWORKS:
        raise UserError(
            f"unknown network {network!r}", f"choose among: {', '.join(arrange.NETWORKS)}"
        )
    if dtype not in weight_file.DTYPES:
        raise UserError(f"unknown precision {dtype!r}", f"choose {' or '.join(weight_file.DTYPES)}")
    layers, own_mean, order = read(source)
    arrange.check(source, network, layers, order)
    record = {"network": network, "source": source.name, "source_sha256": _digest(source)}
    record["dtype"] = dtype
    if network != "fc6_generator":
        given = read_mean(Path(mean)) if mean else own_mean
        record["mean_of"] = Path(mean).name if mean else "ImageNet" if given is None else "source"
        record["mean"] = [float(v) for v in (caffenet.MEAN if given is None else given)]
        record["order"] = list(order)  # of pooling and normalisation; [] if the file does not tell
    return record, _tensors(source, network, layers)


def write(source, destination, shapes, tensors, record):
    """Writes the weight file `destination` whole or not at all; returns the record it holds.

    shapes: {tensor: shape}, in the order of `tensors`.  source: named where they do not fit.
    """
    destination = Path(destination)
    with disk.writing(destination):
        destination.parent.mkdir(parents=True, exist_ok=True)
        disk.remove_leftovers(destination)
        with fitting(source):
            digest = weight_file.write(destination, shapes, tensors, record, record["dtype"])
    return record | {"result_sha256": digest}


@contextlib.contextmanager
def fitting(source):
    """Turns what half precision cannot hold into a WeightError."""
    try:
        yield
    except ValueError as error:
        raise WeightError(source, str(error), remedy="give --dtype=fp32") from None


def read(path):
    """`Source` of a released file."""
    kind = path.suffix.lower()
    signatures.check(path, kind if kind in FORMATS else "")
    if kind == ".caffemodel":
        layers = caffemodel.read(path)
        return Source(layers, order=layers.order)
    if kind == ".mat":
        return matconvnet.read(path)
    if kind in (".pt", ".pth"):
        return Source(torch_file.read(path))
    if kind == ".npz":
        return Source(arrays.read_npz(path))
    if kind == ".safetensors":
        return Source(arrays.read_safetensors(path))
    raise WeightError(
        path, f"files ending in {kind!r} are not known", remedy=f"known are {', '.join(FORMATS)}"
    )


def read_mean(path):
    """float32 `[3]`, BGR: a mean picture over its pixels, as the generator's authors use it."""
    kind = path.suffix.lower()
    signatures.check(path, kind if kind in MEANS else "")
    if kind == ".binaryproto":
        image = caffemodel.read_mean(path)
        if len(image) != 3:
            raise WeightError(path, f"expected 3 channels, has {len(image)}")
        return image.astype(np.float64).mean((1, 2)).astype(np.float32)
    if kind == ".npy":
        return arrays.read_mean(path)
    if kind == ".mat":
        return matconvnet.read_mean(path)
    raise WeightError(path, "no mean picture by its ending", remedy=f"known are {', '.join(MEANS)}")


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def shapes(network):
    """{tensor: shape} in our layout, in the order of Caffe's layers."""
    shapes = {}
    for name, (kernel, bias) in arrange.expected(network).items():
        shapes[f"{name}/kernel"] = arrange.our_shape(network, kernel)
        shapes[f"{name}/bias"] = bias
    return shapes


def _tensors(source, network, layers):
    """(name, array) of one layer after another; what is done with is given back."""
    for name in arrange.expected(network):
        mapped = isinstance(layers, caffemodel.Weights)
        if mapped:
            layers.check_finite(name)
        kernel, bias = arrange.arranged(network, name, layers[name])
        if mapped:
            layers.release(name)
        yield f"{name}/kernel", kernel
        del kernel
        yield f"{name}/bias", bias
