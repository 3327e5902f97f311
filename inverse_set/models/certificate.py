"""The classifier again, in NumPy and float64: the independent proof that a picture lies inside.

Shares the plan and the weights with the Flax network, and no arithmetic.
"""

import numpy as np

from inverse_set.models.classifier import PROB, Conv, Dense, Norm, Pool, relu_name


def forward(plan, weights, images, wanted):
    """{name: activations} of images `[N, H, W, 3]` in the network's scale, float64.

    wanted: names to return, `conv5` before and `relu5` after the ReLU; it stops at the deepest.
    """
    x, found = np.asarray(images, np.float64), {}
    missing = set(wanted)
    for layer in plan:
        x = _apply(layer, x, weights)
        steps = {layer.name: x}
        if isinstance(layer, Conv | Dense) and layer is not plan[-1]:
            x = steps[relu_name(layer.name)] = np.maximum(x, 0.0)
        elif layer is plan[-1]:
            odds = np.exp(x - x.max(-1, keepdims=True))
            steps[PROB] = odds / odds.sum(-1, keepdims=True)
        found |= {name: steps[name] for name in missing & set(steps)}
        missing -= set(steps)
        if not missing:
            return found
    raise KeyError(", ".join(sorted(missing)))


def _apply(layer, x, weights):
    if isinstance(layer, Pool):
        return _max_pool(x, layer.window, layer.stride)
    if isinstance(layer, Norm):
        return _normalise(x, layer)
    kernel = np.asarray(weights[layer.name]["kernel"], np.float64)
    bias = np.asarray(weights[layer.name]["bias"], np.float64)
    if isinstance(layer, Conv):
        return _convolve(x, kernel, layer) + bias
    return x.reshape(len(x), -1) @ kernel + bias


def _normalise(x, layer):
    before = layer.size // 2
    pads = ((0, 0), (0, 0), (0, 0), (before, layer.size - 1 - before))
    squares, channels = np.pad(x**2, pads), x.shape[3]
    total = sum(squares[..., shift : shift + channels] for shift in range(layer.size))
    return x / (layer.k + layer.alpha / layer.size * total) ** layer.beta


def _convolve(x, kernel, layer):
    border = (layer.padding, layer.padding)
    x = np.pad(x, ((0, 0), border, border, (0, 0)))
    size, step = layer.kernel, layer.stride
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::step, ::step]
    columns = np.split(windows, layer.groups, axis=3)  # each [N, H', W', I, kh, kw]
    kernels = np.split(kernel, layer.groups, axis=3)
    parts = [
        np.tensordot(c, k, ((4, 5, 3), (0, 1, 2))) for c, k in zip(columns, kernels, strict=True)
    ]
    return np.concatenate(parts, axis=-1)


def _max_pool(x, window, stride):
    for axis in (1, 2):
        starts = np.arange(0, max(x.shape[axis] - window, 0) + stride, stride)
        starts = starts[starts < x.shape[axis]]
        ends = np.minimum(starts + window, x.shape[axis])
        slices = [x.take(range(a, b), axis).max(axis) for a, b in zip(starts, ends, strict=True)]
        x = np.stack(slices, axis)
    return x
