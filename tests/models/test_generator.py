import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set.models import mini
from inverse_set.models.generator import Deconv, Generator, Plan


def single(slope, sigmoid, sign):
    """A generator that only rearranges its code, and the weights that make it do so."""
    plan = Plan((("inner", 12),), 2, (Deconv("outer", 3, 1, 1, 0),), slope, sigmoid)
    weights = {
        "inner": {"kernel": jnp.eye(12), "bias": jnp.zeros(12)},
        "outer": {"kernel": sign * jnp.eye(3)[None, None], "bias": jnp.zeros(3)},
    }
    return Generator(plan), {"params": weights}


def variables_of(network, codes):
    """Random variables."""
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(network.init, jax.random.key(0), codes)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape) / 4, shapes)


def test_mini_draws_pictures_of_its_size():
    generator = Generator(mini.generator_plan(4))
    codes = np.random.default_rng(1).normal(size=(2, 128))
    variables = variables_of(generator, codes)
    images = jax.jit(generator.apply)(variables, codes)
    assert images.shape == (2, mini.SIDE, mini.SIDE, 3)
    assert ((images >= 0) & (images <= 1)).all()
    assert np.std(images) > 0.05
    assert variables["params"]["defc5"]["kernel"].shape == (128, 4 * 4 * 16)


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
def test_slope_of_every_layer_but_the_last(slope, sign):
    generator, variables = single(slope, False, sign)
    codes = np.linspace(-3, 3, 24, dtype=np.float32).reshape(2, 12)
    expected = sign * np.where(codes > 0, codes, slope * codes).reshape(2, 2, 2, 3)
    np.testing.assert_allclose(generator.apply(variables, codes), expected, rtol=1e-6)


def test_deconvolutions_in_between_have_the_slope_too():
    plan = Plan((("a", 3),), 1, (Deconv("b", 3, 1, 1, 0), Deconv("c", 3, 1, 1, 0)), 0.5)
    ones = jnp.eye(3)[None, None]
    weights = {
        "a": {"kernel": jnp.eye(3), "bias": jnp.zeros(3)},
        "b": {"kernel": ones, "bias": jnp.zeros(3)},
        "c": {"kernel": ones, "bias": jnp.zeros(3)},
    }
    images = Generator(plan).apply({"params": weights}, jnp.asarray([[-8.0, 0.0, 8.0]]))
    np.testing.assert_array_equal(images, [[[[-2.0, 0.0, 8.0]]]])


def test_a_residual_layer_adds_what_it_reads():
    """After the LeakyReLU: of -8, 0 and 8, negated, slope 0.5: 8 - 8, 0 and -4 + 8."""
    outer = Deconv("b", 3, 1, 1, 0, residual=True), Deconv("c", 3, 1, 1, 0)
    plan = Plan((("a", 3),), 1, outer, 0.5)
    ones, none = jnp.eye(3)[None, None], jnp.zeros(3)
    weights = {
        "a": {"kernel": jnp.eye(3), "bias": none},
        "b": {"kernel": -ones, "bias": none},
        "c": {"kernel": ones, "bias": none},
    }
    images = Generator(plan).apply({"params": weights}, jnp.asarray([[-16.0, 0.0, 8.0]]))
    np.testing.assert_array_equal(images, [[[[0.0, 0.0, 4.0]]]])


def test_sigmoid():
    generator, variables = single(1.0, True, 1)
    codes = np.linspace(-30, 30, 12, dtype=np.float32)[None]
    expected = (1 / (1 + np.exp(-codes.astype(np.float64)))).reshape(1, 2, 2, 3)
    np.testing.assert_allclose(generator.apply(variables, codes), expected, rtol=1e-5)
