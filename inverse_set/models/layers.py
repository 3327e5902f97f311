"""The layers of the Caffe family, in forms that stay fast inside compiled loops.

Images are NHWC, kernels HWIO.  Every convolution is brought to stride 1 (strides fold pixels into
channels), and its input gradient is written out as another one, with the flipped kernel as HWIO:
autodiff's (kernel layout `01oi`) runs 2 to 12 times slower inside a `while_loop` on XLA:CPU, which
canonicalises convolutions in the entry computation only.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")
# Winograd's minimal filtering of 2x2 outputs with 3x3 taps: how a 4x4 tile of the input, the taps
# and the products are combined along each axis.
_TO_TILE = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
_TO_TAPS = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
_TO_OUTPUTS = ((1, 1, 1, 0), (0, 1, -1, -1))


def _plain(x, kernel, borders):
    return lax.conv_general_dilated(x, kernel, (1, 1), borders, dimension_numbers=_LAYOUT)


def _combine(matrix, parts):
    return [sum(c * part for c, part in zip(row, parts, strict=True) if c) for row in matrix]


def strided(x, row, column, rows, columns, stride):
    """`rows` x `columns` pixels of images `[N, H, W, C]` from (row, column) on, `stride` apart.

    Indexing would say the same as a gather, with kernels for its indices.
    """
    bottom, right = row + (rows - 1) * stride + 1, column + (columns - 1) * stride + 1
    n, channels = x.shape[0], x.shape[-1]
    return lax.slice(x, (0, row, column, 0), (n, bottom, right, channels), (1, stride, stride, 1))


def interleave(squares):
    """A table `[s, s]` of arrays `[N, H, W, C]` -> `[N, s H, s W, C]`."""
    n, height, width, channels = squares[0][0].shape
    size = len(squares)
    y = jnp.stack([jnp.stack(row, axis=3) for row in squares], axis=2)
    return y.reshape(n, size * height, size * width, channels)


def pad(x, rows, columns, value=0.0):
    """Frames images; a negative width crops."""
    none = (0, 0, 0)
    return lax.pad(x, jnp.asarray(value, x.dtype), (none, (*rows, 0), (*columns, 0), none))


def _pairs(matrix, x, axis):
    """One axis of length 2 t + 2 as t overlapping fours, each combined by a row of `matrix`.

    Returns the combinations along a new first axis.
    """
    length = x.shape[axis] // 2
    x = x.reshape(*x.shape[:axis], length, 2, *x.shape[axis + 1 :])
    halves = [lax.slice_in_dim(x, late, length - 1 + late, axis=axis) for late in (0, 1)]
    places = [lax.index_in_dim(half, odd, axis + 1, False) for half in halves for odd in (0, 1)]
    return jnp.stack(_combine(matrix, places))


@partial(jax.jit, static_argnums=2)  # traced once a shape, not once a call
def _minimal(x, kernel, padding):
    """A 3x3 convolution by Winograd's minimal filtering: 16 products where 36 would do."""
    n, height, width, _ = x.shape
    rows, columns = height + 2 * padding - 2, width + 2 * padding - 2
    down, across = -(-rows // 2), -(-columns // 2)  # tiles of the output
    bottom, right = 2 * down + 2 - height - padding, 2 * across + 2 - width - padding
    x = pad(x, (padding, bottom), (padding, right))
    tiles = _pairs(_TO_TILE, _pairs(_TO_TILE, x, 1), 3)  # [column, row, n, down, across, inputs]
    taps = jnp.asarray(_TO_TAPS, kernel.dtype)
    taps = jnp.einsum("ia,jb,abco->jico", taps, taps, kernel)
    products = jnp.einsum("jinhwc,jico->jinhwo", tiles, taps)
    y = jnp.stack(_combine(_TO_OUTPUTS, products), 4)  # [row, n, down, across, 2, outputs]
    y = jnp.stack(_combine(_TO_OUTPUTS, y), 2)  # [n, down, 2, across, 2, outputs]
    return y.reshape(n, 2 * down, 2 * across, -1)[:, :rows, :columns]


def _single(x, kernel, padding):
    """The convolution of one group, on a CPU perhaps with spare rows at the bottom."""
    size, spare = len(kernel), 0
    if jax.default_backend() == "cpu":
        if size == 3 and min(kernel.shape[2:]) >= 128:
            return _minimal(x, kernel, padding)
        spare = max(0, size - 2 * padding)
    return _plain(x, kernel, ((padding, padding + spare), (padding, padding)))


def _by_group(function, groups, *arrays):
    """function of each group of channels, the results side by side."""
    if groups == 1:
        return function(*arrays)
    parts = zip(*(jnp.split(array, groups, axis=-1) for array in arrays), strict=True)
    return jnp.concatenate([function(*part) for part in parts], axis=-1)


def _correlate(x, kernel, padding, groups):
    """Convolution of stride 1.

    XLA:CPU hands a convolution to Eigen if its output is larger than its input in some direction,
    and otherwise to YNNPACK, which takes up to four times as long: hence the spare rows, which
    are cut off here.  Large 3x3 kernels take Winograd's form there, which is faster still.
    Groups are computed as separate convolutions: XLA's grouped form is five times slower.
    """
    rows = x.shape[1] + 2 * padding - kernel.shape[0] + 1
    y = _by_group(lambda x, kernel: _single(x, kernel, padding), groups, x, kernel)
    return y[:, :rows]


def _adjoint(kernel):
    """The kernel flipped in space, input and output channels exchanged.

    Flipped by concatenation, since XLA moves that out of loops, unlike a reversal.
    """
    flat = kernel.swapaxes(2, 3).reshape(-1, kernel.shape[3], kernel.shape[2])
    flat = jnp.take(flat, np.arange(len(flat))[::-1], axis=0, mode="clip")
    return flat.reshape(*kernel.shape[:2], *flat.shape[1:])


def _kernel_gradient(x, cotangent, kernel, padding):
    borders = ((padding, padding), (padding, padding))
    _, pullback = jax.vjp(lambda kernel: _plain(x, kernel, borders), kernel)
    return pullback(cotangent)[0]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv2d(x, kernel, padding, groups):
    return _correlate(x, kernel, padding, groups)


def _conv2d_forward(x, kernel, padding, groups):
    return _conv2d(x, kernel, padding, groups), (x, kernel)


def _conv2d_backward(padding, groups, saved, cotangent):
    x, kernel = saved
    adjoint = _by_group(_adjoint, groups, kernel)
    to_input = _correlate(cotangent, adjoint, len(kernel) - 1 - padding, groups)

    def to_kernel(x, cotangent, kernel):
        return _kernel_gradient(x, cotangent, kernel, padding)

    return to_input, _by_group(to_kernel, groups, x, cotangent, kernel)


_conv2d.defvjp(_conv2d_forward, _conv2d_backward)


def _fold(x, size):
    """Squares of pixels into channels, `[N, size H, size W, C] -> [N, H, W, size^2 C]`."""
    n, height, width, channels = x.shape
    x = x.reshape(n, height // size, size, width // size, size, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // size, width // size, -1)


def _strided(x, kernel, stride, padding):
    """A strided convolution as one of stride 1 over squares of pixels, the kernel filled up."""
    size = len(kernel)
    filled = -(-size // stride) * stride

    def border(length):
        reach = (length + 2 * padding - size) // stride * stride + filled
        return padding, reach - length - padding

    x = _fold(pad(x, border(x.shape[1]), border(x.shape[2])), stride)
    kernel = jnp.pad(kernel, ((0, filled - size), (0, filled - size), (0, 0), (0, 0)))
    kernel = _fold(kernel.transpose(3, 0, 1, 2), stride).transpose(1, 2, 3, 0)
    return _conv2d(x, kernel, 0, 1)


def conv2d(x, kernel, stride=1, padding=0, groups=1):
    """Convolution `[N, H, W, I] * [k, k, I / groups, O] -> [N, H', W', O]`, zero-padded."""
    if stride == 1:
        return _conv2d(x, kernel, padding, groups)
    return _by_group(lambda x, kernel: _strided(x, kernel, stride, padding), groups, x, kernel)


def deconv2d(x, kernel, stride, padding):
    """Caffe's Deconvolution: `[N, H, W, I] -> [N, (H - 1) stride + k - 2 padding, ..., O]`.

    kernel: `[k, k, I, O]`, already flipped, so that a stride-1 deconvolution is a convolution.
    The usual 4 / 2 / 1 layer is computed in sub-pixel form: its four output phases are one 2x2
    convolution over the small image, then interleaved.
    """
    size = len(kernel)
    if stride == 1:
        return _conv2d(x, kernel, size - 1 - padding, 1)
    if (size, stride, padding) != (4, 2, 1):
        raise ValueError(
            f"expected a stride-1 or a 4/2/1 deconvolution, got {size}/{stride}/{padding}"
        )
    n, height, width, _ = x.shape
    # Output pixel 2i + a reads taps a, a + 2 at input pixels i - 1 + a, i + a: of the interleaved
    # phases, the odd ones first, the frame is cut off.
    phases = [
        lax.slice(kernel, (a, b, 0, 0), kernel.shape, (2, 2, 1, 1)) for a in (1, 0) for b in (1, 0)
    ]
    y = _conv2d(x, jnp.concatenate(phases, axis=-1), 1, 1)
    y = y.reshape(n, height + 1, width + 1, 2, 2, -1).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(n, 2 * height + 2, 2 * width + 2, -1)[:, 1:-1, 1:-1]
