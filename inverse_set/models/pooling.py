"""Caffe's max pooling and local response normalisation, their gradients written out.  NHWC."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from inverse_set.models.layers import interleave, pad, strided


def _windows(length, window, stride):
    """Caffe's number of windows: rounded up, but none begins beyond the image."""
    count = -(-(length - window) // stride) + 1
    return count - 1 if (count - 1) * stride >= length else count


def _taps(x, window, stride):
    """The pixels of each window, a strided slice for every place in it."""
    rows, columns = (_windows(length, window, stride) for length in x.shape[1:3])
    bottom, right = ((count - 1) * stride + window for count in (rows, columns))
    x = pad(x, (0, bottom - x.shape[1]), (0, right - x.shape[2]), -jnp.inf)
    places = [(a, b) for a in range(window) for b in range(window)]
    return [strided(x, a, b, rows, columns, stride) for a, b in places]


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def max_pool(x, window, stride):
    """Caffe's max pooling `[N, H, W, C] -> [N, H', W', C]`: ceil mode, the last window clipped.

    The gradient is written out as a gather, so that nothing is computed once a tap and that it is
    deterministic on a GPU; tied maxima share it.
    """
    return jax.tree.reduce(jnp.maximum, _taps(x, window, stride))


def _max_pool_forward(x, window, stride):
    y = max_pool(x, window, stride)
    return y, (x, y)


def _max_pool_backward(window, stride, saved, cotangent):
    """Pixel (i stride + a, ...) lies in the windows i - q, ... for which q stride + a < window."""
    x, y = saved
    (_, height, width, _), (_, rows, columns, _) = x.shape, y.shape
    overlap = -(-window // stride)  # windows that a pixel may lie in, in one direction
    rows, columns, frame = rows + overlap - 1, columns + overlap - 1, (overlap - 1, overlap - 1)
    ties = sum((tap == y).astype(x.dtype) for tap in _taps(x, window, stride))
    x = pad(x, (0, rows * stride - height), (0, columns * stride - width), -jnp.inf)
    # The barrier keeps XLA from computing whatever made the cotangent again in every term.
    y, shares = lax.optimization_barrier(
        (pad(y, frame, frame), pad(cotangent / ties, frame, frame))
    )

    def gather(a, b):
        pixels = strided(x, a, b, rows, columns, stride)
        total = jnp.zeros_like(pixels)
        for q in range(overlap):
            for p in range(overlap):
                if q * stride + a < window and p * stride + b < window:
                    top, left = overlap - 1 - q, overlap - 1 - p
                    here = (top, left, rows, columns, 1)
                    hit = pixels == strided(y, *here)
                    total += jnp.where(hit, strided(shares, *here), 0)
        return total

    slope = interleave([[gather(a, b) for b in range(stride)] for a in range(stride)])
    return (slope[:, :height, :width],)


max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _neighbours(x, size):
    """Sums over the size channels around each; a product with a banded matrix."""
    channel = jnp.arange(x.shape[-1])
    band = abs(channel[:, None] - channel[None]) <= size // 2
    return jnp.matmul(x, band.astype(x.dtype))


@partial(jax.custom_vjp, nondiff_argnums=(1, 2, 3, 4))
def local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0):
    """Caffe's normalisation across channels, `[..., C] -> [..., C]`; size is odd.

    x / (k + alpha / size * sum of x^2 over size zero-padded channels around)^beta.
    """
    return _norm_forward(x, size, alpha, beta, k)[0]


def _inverse_power(scale, beta):
    """scale^-beta; at Caffe's 0.75 roots are several times faster than a power."""
    if beta != 0.75:
        return scale**-beta
    root = lax.rsqrt(scale)
    return root * jnp.sqrt(root)


def _norm_forward(x, size, alpha, beta, k):
    scale = k + alpha / size * _neighbours(x * x, size)
    return x * _inverse_power(scale, beta), (x, scale)


def _norm_backward(size, alpha, beta, k, saved, cotangent):
    x, scale = saved
    factor = _inverse_power(scale, beta)
    shared = _neighbours(cotangent * x * factor / scale, size)
    return (cotangent * factor - 2 * alpha * beta / size * x * shared,)


local_response_norm.defvjp(_norm_forward, _norm_backward)
