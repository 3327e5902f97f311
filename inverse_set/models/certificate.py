"""The classifier again, in NumPy and float64: the independent proof that a picture lies inside.

Shares the plan and the weights with the Flax network, and no arithmetic.
"""

import numpy as np

from inverse_set.models.classifier import Conv, Dense, Pool, relu_name


def forward(plan, weights, images, until):
    """The activations called `until` of images `[N, H, W, 3]` in the network's scale, float64."""
    x = np.asarray(images, np.float64)
    for layer in plan:
        if isinstance(layer, Pool):
            x = _max_pool(x, layer.window, layer.stride)
        else:
            kernel = np.asarray(weights[layer.name]["kernel"], np.float64)
            if isinstance(layer, Conv):
                x = _convolve(x, kernel, layer)
            else:
                x = x.reshape(len(x), -1) @ kernel
            x = x + np.asarray(weights[layer.name]["bias"], np.float64)
        if layer.name == until:
            return x
        if isinstance(layer, Conv | Dense) and layer is not plan[-1]:
            x = np.maximum(x, 0.0)
            if relu_name(layer.name) == until:
                return x
    raise KeyError(until)


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
