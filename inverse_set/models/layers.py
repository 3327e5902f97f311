"""The layers of the Caffe family, in forms that stay fast inside compiled loops.

XLA:CPU canonicalises convolutions in the entry computation only, so the input gradient that
autodiff writes (kernel layout `01oi`) runs 2 to 12 times slower inside a `while_loop`.  It is
therefore written out here with the flipped kernel as HWIO.  Images are NHWC, kernels HWIO.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _correlate(x, kernel, stride, padding, dilation=1):
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        lhs_dilation=(dilation, dilation),
        dimension_numbers=_LAYOUT,
    )


def _transpose_kernel(kernel):
    """The kernel of the adjoint: flipped in space, input and output channels exchanged."""
    return kernel[::-1, ::-1].swapaxes(2, 3)


def _kernel_gradient(x, cotangent, kernel, stride, padding):
    """Only training asks for it.  For even kernels a matmul a tap is 40 times faster on XLA:CPU."""
    pads = ((padding, padding), (padding, padding))
    if kernel.shape[0] % 2 or stride > 1 or padding >= kernel.shape[0]:
        _, pullback = jax.vjp(lambda k: _correlate(x, k, stride, pads), kernel)
        return pullback(cotangent)[0]
    size, (_, height, width, channels) = kernel.shape[0], x.shape
    border = (size - 1 - padding, size - 1 - padding)
    cotangent = jnp.pad(cotangent, ((0, 0), border, border, (0, 0)))
    x, taps = x.reshape(-1, channels), range(size - 1, -1, -1)
    shifted = [cotangent[:, a : a + height, b : b + width] for a in taps for b in taps]
    rows = [x.T @ part.reshape(-1, part.shape[-1]) for part in shifted]
    return jnp.stack(rows).reshape(kernel.shape)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv2d(x, kernel, stride, padding):
    return _correlate(x, kernel, stride, ((padding, padding), (padding, padding)))


def _conv2d_forward(x, kernel, stride, padding):
    return _conv2d(x, kernel, stride, padding), (x, kernel)


def _conv2d_backward(stride, padding, saved, cotangent):
    x, kernel = saved

    def border(axis):
        low = kernel.shape[axis] - 1 - padding
        spread = (cotangent.shape[1 + axis] - 1) * stride + 1
        return low, x.shape[1 + axis] + kernel.shape[axis] - 1 - spread - low

    to_input = _correlate(
        cotangent, _transpose_kernel(kernel), 1, (border(0), border(1)), dilation=stride
    )
    return to_input, _kernel_gradient(x, cotangent, kernel, stride, padding)


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def conv2d(x, kernel, stride=1, padding=0, groups=1):
    """Convolution `[N, H, W, I] * [kh, kw, I / groups, O] -> [N, H', W', O]`, zero-padded.

    Groups are computed as separate plain convolutions: XLA's grouped form is five times slower.
    """
    if groups == 1:
        return _conv2d(x, kernel, stride, padding)
    parts = zip(jnp.split(x, groups, axis=-1), jnp.split(kernel, groups, axis=-1), strict=True)
    return jnp.concatenate([_conv2d(a, k, stride, padding) for a, k in parts], axis=-1)


def deconv2d(x, kernel, stride, padding):
    """Caffe's Deconvolution: `[N, H, W, I] -> [N, (H - 1) stride + kh - 2 padding, ..., O]`.

    kernel: `[kh, kw, I, O]`, already flipped, so that a stride-1 deconvolution is a convolution.
    The usual 4 / 2 / 1 layer is computed in sub-pixel form: its four output phases are one 2x2
    convolution over the small image, then interleaved.
    """
    size = kernel.shape[0]
    if stride == 1:
        return _conv2d(x, kernel, 1, size - 1 - padding)
    if (size, stride, padding) != (4, 2, 1):
        raise ValueError(
            f"expected a stride-1 or a 4/2/1 deconvolution, got {size}/{stride}/{padding}"
        )
    n, height, width, _ = x.shape
    features = kernel.shape[3]
    # Output pixel 2i + a reads kernel taps a, a + 2 at input pixels i - 1 + a, i + a.
    phases = [kernel[a::2, b::2] for a in (0, 1) for b in (0, 1)]
    z = _conv2d(x, jnp.concatenate(phases, axis=-1), 1, 1)
    z = z.reshape(n, height + 1, width + 1, 4, features)
    rows = [
        jnp.stack(
            [z[:, a : a + height, b : b + width, 2 * a + b] for b in (0, 1)], axis=3
        )  # [N, H, W, 2, O]
        for a in (0, 1)
    ]
    return jnp.stack(rows, axis=2).reshape(n, 2 * height, 2 * width, features)


def max_pool(x, window, stride):
    """Caffe's max pooling `[N, H, W, C] -> [N, H', W', C]`: ceil mode, the last window clipped.

    A maximum over strided slices: its gradient is an eighth of the time of `reduce_window`'s on a
    CPU and deterministic on a GPU; tied maxima share the gradient.
    """

    def outputs(size):
        count = -(-(size - window) // stride) + 1
        return count - 1 if (count - 1) * stride >= size else count

    _, height, width, _ = x.shape
    rows, columns = outputs(height), outputs(width)
    reach = ((rows - 1) * stride + window, (columns - 1) * stride + window)
    pads = ((0, 0), (0, max(0, reach[0] - height)), (0, max(0, reach[1] - width)), (0, 0))
    x = jnp.pad(x, pads, constant_values=-jnp.inf)
    slices = [
        x[:, a : reach[0] - window + a + 1 : stride, b : reach[1] - window + b + 1 : stride]
        for a in range(window)
        for b in range(window)
    ]
    return jax.tree.reduce(jnp.maximum, slices)


def local_response_norm(x, size=5, alpha=1e-4, beta=0.75, k=1.0):
    """Caffe's normalisation across channels, `[..., C] -> [..., C]`; size is odd.

    x / (k + alpha / size * sum of x^2 over size zero-padded channels around)^beta; the sums are a
    product with a banded matrix.
    """
    channel = jnp.arange(x.shape[-1])
    band = abs(channel[:, None] - channel) <= size // 2
    scale = k + alpha / size * jnp.matmul(x * x, band.astype(x.dtype))
    return x * scale**-beta
