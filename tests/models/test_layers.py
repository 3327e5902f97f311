import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from inverse_set.models import layers, pooling

CONVOLUTIONS = [  # kernel, stride, padding, groups, height, width
    (1, 1, 0, 1, 5, 4),
    (1, 1, 1, 1, 5, 6),
    (1, 2, 0, 2, 7, 6),
    (2, 1, 0, 1, 5, 6),
    (2, 1, 2, 1, 4, 5),
    (2, 2, 1, 2, 7, 8),
    (3, 1, 1, 1, 6, 7),
    (3, 1, 2, 2, 5, 5),
    (3, 2, 1, 1, 8, 9),
    (3, 4, 0, 1, 13, 10),
    (5, 1, 2, 2, 7, 6),
    (5, 2, 2, 1, 9, 8),
    (5, 4, 0, 2, 15, 12),
    (5, 4, 2, 1, 11, 13),
]
LARGE = [  # inputs, outputs, padding, groups, height, width: 3x3, enough channels for other forms
    (128, 128, 0, 1, 5, 4),
    (128, 130, 1, 1, 4, 3),
    (128, 128, 2, 1, 3, 3),
    (256, 256, 1, 2, 3, 4),
]
DECONVOLUTIONS = [(4, 2, 1), (3, 1, 1), (3, 1, 0), (2, 1, 0)]
POOLS = [  # size, window, stride, outputs
    (2, 3, 2, 1),
    (3, 3, 2, 1),
    (6, 3, 2, 3),
    (8, 3, 2, 4),
    (13, 3, 2, 6),
    (16, 3, 2, 8),
    (27, 3, 2, 13),
    (32, 3, 2, 16),
    (54, 3, 2, 27),
    (55, 3, 2, 27),
    (2, 2, 2, 1),
    (7, 2, 2, 4),
    (9, 5, 4, 2),
    (5, 2, 1, 4),
    (7, 2, 3, 3),
    (6, 2, 3, 2),  # a third window would begin beyond the image
    (4, 1, 2, 2),
]


def normal(shape, seed):
    return np.random.default_rng(seed).normal(size=shape)


def plain(x, kernel, stride=1, padding=0, groups=1, dilation=1):
    """What XLA and its autodiff make of the same convolution."""
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((padding, padding), (padding, padding)),
        lhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
    )


def convolution_by_definition(x, kernel, stride, padding, groups):
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    size, inputs, features = kernel.shape[0], kernel.shape[2], kernel.shape[3] // groups
    rows, columns = ((n - size) // stride + 1 for n in x.shape[1:3])
    y = np.zeros((len(x), rows, columns, kernel.shape[3]))
    for g in range(groups):
        into, out = slice(g * inputs, (g + 1) * inputs), slice(g * features, (g + 1) * features)
        for i in range(rows):
            for j in range(columns):
                r, c = i * stride, j * stride
                patch = x[:, r : r + size, c : c + size, into]
                y[:, i, j, out] = np.einsum("nabi,abio->no", patch, kernel[..., out])
    return y


def deconvolution_by_definition(x, kernel, stride, padding):
    """Caffe scatters every input pixel through its kernel, which ours is the flip of."""
    caffe = kernel[::-1, ::-1]
    n, height, width, _ = x.shape
    size, features = kernel.shape[0], kernel.shape[3]
    y = np.zeros((n, (height - 1) * stride + size, (width - 1) * stride + size, features))
    for i in range(height):
        for j in range(width):
            r, c = i * stride, j * stride
            patch = np.einsum("ni,abio->nabo", x[:, i, j], caffe)
            y[:, r : r + size, c : c + size] += patch
    return y[:, padding : y.shape[1] - padding, padding : y.shape[2] - padding]


def pooling_by_definition(x, window, stride):
    def windows(size):
        count = int(np.ceil((size - window) / stride)) + 1
        starts = [i * stride for i in range(count) if i * stride < size]
        return [slice(start, min(start + window, size)) for start in starts]

    rows = [[x[:, a, b].max((1, 2)) for b in windows(x.shape[2])] for a in windows(x.shape[1])]
    return np.stack([np.stack(row, axis=1) for row in rows], axis=1)


def close(actual, expected, tolerance=1e-10):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def weighted(y):
    """Weights `y.shape` that make a scalar of an output."""
    return np.cos(np.arange(y.size)).reshape(y.shape)


def energy(y):
    """Quadratic in y, so that its gradient depends on where it is taken."""
    return (weighted(y) * y * (y + 1)).sum() / 2


def forward_and_gradients(function, reference, *arguments):
    """Output and gradients of a form of ours, gradients of the plain form, compiled together."""
    places = tuple(range(len(arguments)))

    @jax.jit
    def run(*arguments):
        gradients = [
            jax.grad(lambda *a, f=f: energy(f(*a)), places)(*arguments)
            for f in (function, reference)
        ]
        return function(*arguments), *gradients

    return jax.device_get(run(*arguments))


def check_finite_differences(definition, arguments, gradients, step=1e-2, tolerance=1e-8):
    """Central differences of the NumPy definition; exact for quadratics, whatever the step."""
    for place, gradient in enumerate(gradients):
        for seed in range(3):
            direction = normal(gradient.shape, 10 + seed)
            ends = []
            for sign in (1, -1):
                moved = list(arguments)
                moved[place] = moved[place] + sign * step * direction
                ends.append(energy(definition(*moved)))
            slope = (ends[0] - ends[1]) / (2 * step)
            scale = np.linalg.norm(gradient) * np.linalg.norm(direction)
            assert abs(slope - np.vdot(gradient, direction)) < tolerance * scale


def check_layer(function, reference, definition, arguments):
    output, ours, theirs = forward_and_gradients(function, reference, *arguments)
    close(output, definition(*arguments))
    for a, b in zip(ours, theirs, strict=True):
        close(a, b)
    check_finite_differences(definition, arguments, ours)


@pytest.mark.parametrize("size, stride, padding, groups, height, width", CONVOLUTIONS)
def test_convolution(x64, size, stride, padding, groups, height, width):
    x, kernel = normal((2, height, width, 4), 0), normal((size, size, 4 // groups, 6), 1)
    numbers = (stride, padding, groups)
    check_layer(
        lambda x, k: layers.conv2d(x, k, *numbers),
        lambda x, k: plain(x, k, *numbers),
        lambda x, k: convolution_by_definition(x, k, *numbers),
        (x, kernel),
    )


@pytest.mark.parametrize("inputs, outputs, padding, groups, height, width", LARGE)
def test_large_convolution(x64, inputs, outputs, padding, groups, height, width):
    x = normal((2, height, width, inputs), 0)
    kernel = normal((3, 3, inputs // groups, outputs), 1)
    check_layer(
        lambda x, k: layers.conv2d(x, k, 1, padding, groups),
        lambda x, k: plain(x, k, 1, padding, groups),
        lambda x, k: convolution_by_definition(x, k, 1, padding, groups),
        (x, kernel),
    )


@pytest.mark.parametrize("size, stride, padding", DECONVOLUTIONS)
@pytest.mark.parametrize("height, width", [(4, 4), (3, 5)])
def test_deconvolution(x64, size, stride, padding, height, width):
    x, kernel = normal((2, height, width, 3), 0), normal((size, size, 3, 5), 1)
    check_layer(
        lambda x, k: layers.deconv2d(x, k, stride, padding),
        lambda x, k: plain(x, k, padding=size - 1 - padding, dilation=stride),
        lambda x, k: deconvolution_by_definition(x, k, stride, padding),
        (x, kernel),
    )


def test_lhs_dilation_is_the_deconvolution(x64):
    """The reference form of the gradients above is itself the scatter definition."""
    x, kernel = normal((2, 3, 4, 3), 0), normal((4, 4, 3, 5), 1)
    expected = deconvolution_by_definition(x, kernel, 2, 1)
    close(plain(x, kernel, padding=2, dilation=2), expected)


@pytest.mark.parametrize("size, stride, padding", [(4, 2, 0), (4, 2, 2), (3, 2, 1), (4, 4, 1)])
def test_other_deconvolutions_are_refused(size, stride, padding):
    message = f"got {size}/{stride}/{padding}"
    with pytest.raises(ValueError, match=message):
        layers.deconv2d(jnp.ones((1, 2, 2, 1)), jnp.ones((size, size, 1, 1)), stride, padding)


@pytest.mark.parametrize("size, window, stride, outputs", POOLS)
def test_max_pooling(x64, size, window, stride, outputs):
    """On negative values, which a border of zeros would drown."""
    x = normal((2, size, size, 2), 0) - 5
    y = jax.jit(lambda x: pooling.max_pool(x, window, stride))(x)
    assert y.shape == (2, outputs, outputs, 2)
    np.testing.assert_array_equal(y, pooling_by_definition(x, window, stride))


@pytest.mark.parametrize(
    "height, width, window, stride", [(7, 10, 3, 2), (2, 5, 3, 2), (6, 9, 2, 3)]
)
def test_max_pooling_of_oblong_images(x64, height, width, window, stride):
    x = normal((1, height, width, 3), 0) - 5
    y = jax.jit(lambda x: pooling.max_pool(x, window, stride))(x)
    np.testing.assert_array_equal(y, pooling_by_definition(x, window, stride))


@pytest.mark.parametrize("size, window, stride", [(13, 3, 2), (16, 3, 2), (7, 2, 2), (5, 2, 1)])
def test_max_pooling_against_reduce_window(x64, size, window, stride):
    """Forward and backward; the step of the finite differences never reorders two values."""
    x = np.random.default_rng(0).permutation(size * size * 2).reshape(1, size, size, 2) - 1000.0
    beyond = -(size - window) % stride
    pads = ((0, 0), (0, beyond), (0, beyond), (0, 0))
    window_and_stride = (1, window, window, 1), (1, stride, stride, 1)
    check_layer(
        lambda x: pooling.max_pool(x, window, stride),
        lambda x: lax.reduce_window(x, -jnp.inf, lax.max, *window_and_stride, pads),
        lambda x: pooling_by_definition(x, window, stride),
        (x,),
    )


def test_tied_maxima_share_the_gradient(x64):
    """Nothing is lost to ties, nor to the border beyond the image."""
    gradient = jax.jit(jax.grad(lambda x: pooling.max_pool(x, 3, 2).sum()))(jnp.ones((1, 6, 6, 1)))
    assert np.isfinite(gradient).all()
    assert gradient.sum() == pytest.approx(9.0, abs=1e-12)


def normalisation_by_definition(x, size, alpha, beta, k):
    y, channels = np.zeros_like(x), x.shape[-1]
    for c in range(channels):
        around = x[..., max(0, c - size // 2) : min(channels, c + size // 2 + 1)]
        y[..., c] = x[..., c] / (k + alpha / size * np.square(around).sum(-1)) ** beta
    return y


def plain_normalisation(x, size, alpha, beta, k):
    window, half = (1,) * (x.ndim - 1) + (size,), size // 2
    pads = ((0, 0),) * (x.ndim - 1) + ((half, half),)
    sums = lax.reduce_window(x * x, 0.0, lax.add, window, (1,) * x.ndim, pads)
    return x / (k + alpha / size * sums) ** beta


@pytest.mark.parametrize(
    "size, alpha, beta, k", [(5, 1e-4, 0.75, 1), (3, 0.3, 0.75, 2), (1, 2, 0.5, 1)]
)
@pytest.mark.parametrize("channels", [2, 9])
def test_local_response_norm(x64, size, alpha, beta, k, channels):
    """Fewer channels than the window too; the step is small, for this one is no quadratic."""
    x, numbers = 3 * normal((2, 2, 3, channels), 0), (size, alpha, beta, k)
    output, ours, theirs = forward_and_gradients(
        lambda x: pooling.local_response_norm(x, *numbers),
        lambda x: plain_normalisation(x, *numbers),
        x,
    )
    close(output, normalisation_by_definition(x, *numbers))
    close(ours[0], theirs[0])
    check_finite_differences(
        lambda x: normalisation_by_definition(x, *numbers), (x,), ours, step=1e-4
    )


@pytest.mark.parametrize(
    "ours, theirs, shapes",
    [
        pytest.param(
            lambda x, k: layers.conv2d(x, k, 4),
            lambda x, k: plain(x, k, 4),
            ((2, 35, 35, 3), (11, 11, 3, 16)),
            id="strided",
        ),
        pytest.param(
            lambda x, k: layers.conv2d(x, k, 1, 2, 2),
            lambda x, k: plain(x, k, 1, 2, 2),
            ((2, 9, 9, 32), (5, 5, 16, 24)),
            id="grouped",
        ),
        pytest.param(
            lambda x, k: layers.conv2d(x, k, 1, 1),
            lambda x, k: plain(x, k, 1, 1),
            ((2, 13, 13, 128), (3, 3, 128, 160)),
            id="large",
        ),
        pytest.param(
            lambda x, k: layers.deconv2d(x, k, 2, 1),
            lambda x, k: plain(x, k, padding=2, dilation=2),
            ((2, 8, 8, 32), (4, 4, 32, 16)),
            id="deconvolution",
        ),
        pytest.param(
            lambda x: pooling.local_response_norm(30 * x),
            lambda x: plain_normalisation(30 * x, 5, 1e-4, 0.75, 1.0),
            ((2, 5, 5, 96),),
            id="normalisation",
        ),
    ],
)
def test_single_precision(ours, theirs, shapes):
    arguments = [normal(shape, seed).astype(np.float32) for seed, shape in enumerate(shapes)]
    y = jax.jit(ours)(*arguments)
    assert y.dtype == jnp.float32
    close(y, jax.jit(theirs)(*arguments), 1e-5)
    slopes, expected = (
        jax.jit(jax.grad(lambda *a, f=f: jnp.square(f(*a)).sum(), range(len(shapes))))(*arguments)
        for f in (ours, theirs)
    )
    for a, b in zip(slopes, expected, strict=True):
        close(a, b, 1e-5)


def ours_in_a_row(x, kernel):
    x = pooling.max_pool(layers.conv2d(x, kernel, 2, 1), 3, 2)
    x = layers.conv2d(x, kernel.swapaxes(2, 3), 1, 1)
    return layers.deconv2d(x, jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0))), 2, 1)


def large(x, kernel):
    kernel = jnp.tile(kernel, (1, 1, 32, 32))
    return (
        layers.conv2d(jnp.tile(x, 32), kernel, 1, 1)
        + layers.conv2d(x, kernel[:, :, :4], 2, 1).mean()
    )


def grouped(x, kernel):
    return layers.conv2d(x, kernel[:, :, :2], 1, 1, 2)


@pytest.mark.parametrize(
    "network, slow",
    [
        pytest.param(ours_in_a_row, False, id="ours"),
        pytest.param(grouped, False, id="ours grouped"),
        pytest.param(large, False, id="ours large"),
        pytest.param(lambda x, k: plain(x, k, 1, 1), True, id="plain"),
        pytest.param(lambda x, k: plain(x, k, 2, 1), True, id="plain strided"),
        pytest.param(lambda x, k: plain(x, k, 1, 1, dilation=2), True, id="plain dilated"),
    ],
)
def test_loops_have_no_slow_gradient(network, slow):
    """`01oi` labels the kernel of an input gradient that XLA:CPU leaves as it is in a loop."""
    with jax.default_device(jax.devices("cpu")[0]):
        x, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 4))

        @jax.jit
        def descend(x, kernel):
            gradient = jax.grad(lambda x: jnp.square(network(x, kernel)).sum())
            return lax.fori_loop(0, 3, lambda _, x: x - 0.1 * gradient(x), x)

        text = descend.lower(x, kernel).compile().as_text()
    assert "while(" in text
    assert "convolution(" in text
    assert ("01oi" in text) == slow
