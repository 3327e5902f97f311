"""State dicts of the PyTorch ports of DeePSiM's fc6 generator (.pt).

PyTorch's Linear [out, in] and ConvTranspose2d [in, out, kh, kw] lie as Caffe's inner product and
deconvolution do, so only the names change.
"""

import re

from inverse_set.convert.files import one_line, pairs, regular_size
from inverse_set.convert.isolated import Child
from inverse_set.errors import WeightError

# The other port's names, input to output.
_RENAMED = {
    "fc7": "defc7",
    "fc6": "defc6",
    "fc5": "defc5",
    "tconv5_0": "deconv5",
    "tconv5_1": "conv5_1",
    "tconv4_0": "deconv4",
    "tconv4_1": "conv4_1",
    "tconv3_0": "deconv3",
    "tconv3_1": "conv3_1",
    "tconv2": "deconv2",
    "tconv1": "deconv1",
    "tconv0": "deconv0",
}
_PARTS = {"weight": "kernel", "bias": "bias"}
_PREFIX = re.compile(r"((module|G)\.)+")


def read(path, child=None):
    """`{name: (kernel, bias)}` in float32, Caffe's names and layout.

    Layers of other names are handed on under these.  child: a `Child("torch")` to read with, for
    many files in a row; by default one for this file.
    """
    regular_size(path)
    if child is None:
        with Child("torch") as child:
            arrays = child.read(path)
    else:
        arrays = child.read(path)
    split = {key: _split(path, key) for key in arrays}
    other_port = any(layer.startswith("tconv") for layer, _ in split.values())
    parts, origin = {}, {}
    for key, (layer, part) in split.items():
        place = (_RENAMED.get(layer, layer) if other_port else layer, part)
        if place in parts:
            wrong = f"{origin[place]} and {one_line(key)} are the same"
            raise WeightError(path, wrong, one_line(place[0]))
        parts[place], origin[place] = arrays.pop(key), one_line(key)
    return pairs(path, parts)


def _split(path, key):
    """("defc7", "kernel") of "module.defc7.1.weight"."""
    layer, _, part = _PREFIX.sub("", key, count=1).replace(".1.", ".").rpartition(".")
    if part not in _PARTS:
        raise WeightError(path, f"expected weights and biases, has {one_line(key)}")
    return layer, _PARTS[part]
