"""From Caffe's layout to ours: which layers a network has, and how their axes move."""

import math

import numpy as np

from inverse_set.convert.files import NORM, POOL
from inverse_set.errors import WeightError
from inverse_set.models import caffenet
from inverse_set.models.classifier import Conv, Dense, Norm, Pool

NETWORKS = (*caffenet.CLASSIFIERS, "fc6_generator")
_SHOWN = 6  # lines of a difference
_BLOCK = 64  # rows and columns transposed together: they stay in the cache


def expected(network):
    """{layer: (kernel shape, bias shape)} in Caffe's axes: [O, I / g, kh, kw] of a convolution,
    [O, I] of an inner product, [I, O, kh, kw] of a deconvolution."""
    if network == "fc6_generator":
        return _generator_shapes(caffenet.FC6_GENERATOR, caffenet.CODES)
    return _classifier_shapes(caffenet.CLASSIFIERS[network])


def _classifier_shapes(plan):
    shapes, channels, side = {}, 3, caffenet.SIZE
    for layer in plan:
        if isinstance(layer, Conv):
            kernel = (layer.features, channels // layer.groups, layer.kernel, layer.kernel)
            side = (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
        elif isinstance(layer, Dense):
            kernel, side = (layer.features, channels * side**2), 1
        else:
            # At the size these networks are made for every pooling window divides exactly.
            side = (side - layer.window) // layer.stride + 1 if hasattr(layer, "window") else side
            continue
        shapes[layer.name], channels = (kernel, (layer.features,)), layer.features
    return shapes


def _generator_shapes(plan, channels):
    shapes = {}
    for name, features in plan.dense:
        shapes[name], channels = ((features, channels), (features,)), features
    channels //= plan.spatial**2
    for layer in plan.deconvs:
        kernel = (channels, layer.features, layer.kernel, layer.kernel)
        shapes[layer.name], channels = (kernel, (layer.features,)), layer.features
    return shapes


def order(network):
    """POOL or NORM of each layer of that kind, in the order that `network` computes them.

    It alone sets CaffeNet, which pools first, and AlexNet apart.
    """
    kinds = {Pool: POOL, Norm: NORM}
    plan = caffenet.CLASSIFIERS.get(network, ())
    return tuple(kinds[type(layer)] for layer in plan if type(layer) in kinds)


def check(path, network, layers, kinds=()):
    """WeightError with a readable difference unless `layers` are exactly those of `network`.

    layers: {name: arrays}.  Caffe's old files give every array four axes, leading ones of length 1.
    kinds: the file's own order of pooling and normalisation, () if it does not tell.
    """
    want, wrong = expected(network), []
    for name in want:
        if name not in layers:
            wrong.append(f"layer {name} is expected and not there")
            continue
        have = tuple(array.shape for array in layers[name])
        fits = len(have) == 2 and all(map(_same, have, want[name]))
        if not fits:
            wrong.append(f"layer {name}: expected {_text(want[name])}, file has {_text(have)}")
    wrong += [f"layer {name} is there and not expected" for name in layers if name not in want]
    if not wrong and not _same_order(network, kinds):
        wrong = [f"expected {', '.join(order(network))}; file has {', '.join(kinds[:8])}"]
    if wrong:
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise WeightError(
            path,
            f"this is not {network}: " + "; ".join(wrong[:_SHOWN]) + more,
            remedy=_remedy(network, layers, kinds),
        )


def _same_order(network, kinds):
    return not kinds or not order(network) or kinds == order(network)


def _same(have, want):
    lead = len(have) - len(want)
    return lead >= 0 and have[:lead] == (1,) * lead and have[lead:] == want


def _text(shapes):
    return " and ".join(str(shape) for shape in shapes) or "no arrays"


def _remedy(network, layers, kinds):
    """Names the network that the layers do fit, if there is one."""
    have = {
        name: tuple(array.shape for array in arrays)
        for name, arrays in ((name, layers[name]) for name in layers)
    }
    for other in NETWORKS:
        want = expected(other)
        if (
            other != network
            and set(want) == set(have)
            and _same_order(other, kinds)
            and all(
                len(have[name]) == 2 and all(map(_same, have[name], want[name])) for name in want
            )
        ):
            return f"it fits --network={other}"
    return f"check that the file is of {network}; the networks are {', '.join(NETWORKS)}"


def our_shape(network, kernel_shape):
    """The shape of a kernel in our axes."""
    if len(kernel_shape) == 2:
        return kernel_shape[::-1]
    first, second, height, width = kernel_shape
    return (height, width, *((first, second) if network == "fc6_generator" else (second, first)))


def arranged(network, name, arrays):
    """(kernel, bias) of one layer in our axes, contiguous, in the source's precision.

    [kh, kw, I / g, O] of a convolution; [I, O] of an inner product, whose input or output is
    counted row, column, channel where it meets a map; [kh, kw, I, O], flipped, of a deconvolution.
    """
    kernel_shape, bias_shape = expected(network)[name]
    kernel, bias = arrays[0].reshape(kernel_shape), arrays[1].reshape(bias_shape)
    if len(kernel_shape) == 4:
        deconvolution = network == "fc6_generator"
        axes = (2, 3, 0, 1) if deconvolution else (2, 3, 1, 0)
        kernel = kernel.transpose(axes)
        kernel = kernel[::-1, ::-1] if deconvolution else kernel
        return np.ascontiguousarray(kernel), np.array(bias)
    inputs, outputs = _orders(network, name, kernel_shape)
    return _transposed(kernel, inputs, outputs), bias[outputs]


def _orders(network, name, kernel_shape):
    """Which of Caffe's inputs and outputs an inner product's own are, in order."""
    outputs, inputs = (np.arange(size) for size in kernel_shape)
    if network == "fc6_generator":
        plan = caffenet.FC6_GENERATOR
        if name == plan.dense[-1][0]:
            outputs = _channels_last(len(outputs), plan.spatial)
        return inputs, outputs
    plan = caffenet.CLASSIFIERS[network]
    if name == next(layer for layer in plan if isinstance(layer, Dense)).name:
        channels = [layer for layer in plan if isinstance(layer, Conv)][-1].features
        inputs = _channels_last(len(inputs), math.isqrt(len(inputs) // channels))
    return inputs, outputs


def _channels_last(size, side):
    """Positions of entries counted channel, row, column, in the order row, column, channel."""
    return np.arange(size).reshape(-1, side, side).transpose(1, 2, 0).reshape(-1)


def _transposed(matrix, inputs, outputs):
    """matrix[outputs][:, inputs].T as a new array; in blocks it is faster than NumPy's own."""
    result = np.empty(matrix.shape[::-1], matrix.dtype)
    place = np.argsort(inputs)
    for i in range(0, matrix.shape[0], _BLOCK):
        rows = matrix[outputs[i : i + _BLOCK]]
        for j in range(0, matrix.shape[1], _BLOCK):
            result[place[j : j + _BLOCK], i : i + _BLOCK] = rows[:, j : j + _BLOCK].T
    return result
