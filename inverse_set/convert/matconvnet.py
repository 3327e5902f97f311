"""MATLAB's .mat files: CaffeNet and AlexNet as MatConvNet released them, and Caffe's mean picture.

Every layer there is a convolution whose kernel is HxWxInxOut, also fc6 to fc8, and conv1 and the
average image are in RGB.  What leaves here is in Caffe's layout and in BGR.
"""

import re

from inverse_set.convert.files import (
    NORM,
    POOL,
    Source,
    float32,
    pairs,
    reading,
    regular_size,
)
from inverse_set.convert.isolated import Child
from inverse_set.errors import WeightError

_INNER_PRODUCT = re.compile(r"fc[0-9]+")


def read(path, child=None):
    """`Source` of a network in a .mat file of version 5.

    layers: `{name: (kernel, bias)}`, float32: convolutions [O, I/g, kh, kw], inner products
        [O, I] with I counted channel, row, column; conv1's input channels in BGR.
    mean: the average image over its pixels.
    child: a `Child("mat")` to read with, for many files in a row; by default one for this file.
    """
    arrays, mean = _read(path, child)
    order = tuple(NORM if kind else POOL for kind in arrays.pop("order", ()))
    if not arrays:
        remedy = "give it as --mean, beside the file of the network"
        raise WeightError(path, "holds a mean picture and no network", remedy=remedy)
    parts = {}
    for key in list(arrays):
        layer, _, part = key.rpartition("/")
        array = arrays.pop(key)
        parts[layer, part] = _caffe_kernel(layer, array) if part == "kernel" else array
    return Source(pairs(path, parts), mean, order)


def read_mean(path, child=None):
    """float32 [3], BGR: MatConvNet's average image or Caffe's mean picture, over its pixels."""
    mean = _read(path, child)[1]
    if mean is None:
        remedy = "leave --mean out, or give a file that holds one"
        raise WeightError(path, "holds a network and no mean picture", remedy=remedy)
    return mean


def _read(path, child):
    """(the child's arrays, the mean in BGR or None) of the file."""
    _check_header(path)
    if child is None:
        with Child("mat") as child:
            arrays = child.read(path)
    else:
        arrays = child.read(path)
    mean = arrays.pop("mean", None)
    return arrays, None if mean is None else float32(path, mean[::-1], "the mean picture")


def _caffe_kernel(layer, kernel):
    """[O, I, kw, kh], as MATLAB lays it out, into Caffe's layout."""
    kernel = kernel.transpose(0, 1, 3, 2)
    if layer == "conv1":
        kernel = kernel[:, ::-1]
    return kernel.reshape(len(kernel), -1) if _INNER_PRODUCT.fullmatch(layer) else kernel


def _check_header(path):
    """Refuses what is not a .mat file of version 5 before a child process is started for it."""
    regular_size(path)
    with reading(path), open(path, "rb") as file:
        header = file.read(520)
    if header.startswith(b"MATLAB 7.3") or b"\x89HDF\r\n\x1a\n" in (header[:8], header[512:]):
        remedy = "save it again in MATLAB: save(file, '-struct', 'net', '-v7')"
        raise WeightError(path, "a .mat file of version 7.3, which is not read", remedy=remedy)
    if header[124:128] == b"\x01\x00MI":
        remedy = "load and save it again on a machine of today"
        raise WeightError(path, "written with the most significant byte first", remedy=remedy)
    if not header.startswith(b"MATLAB 5.0") or header[124:128] != b"\x00\x01IM":
        raise WeightError(path, "not a .mat file of version 5", offset=0)
