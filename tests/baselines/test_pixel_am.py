import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set.baselines import pixel_am
from inverse_set.types import networks

SHAPE = (5, 6, 2)
PLAIN = pixel_am.Plan(steps=2, every=1, jitter=0, blur_every=0)
FREE = pixel_am.Constants(norm=0.0, variation=0.0)


def _flat(images):
    return images.reshape(len(images), -1)


def _linear(weights, images):
    return _flat(images) @ weights.T


def _levels(images):
    return jnp.round(jnp.clip(images, 0, 1) * 255) / 255


def neuron(weights, finish=None):
    """Linear in the pixels; weights `[P, H, W, C]`."""
    activate = jax.tree_util.Partial(_linear, _flat(jnp.asarray(weights)))
    return networks(lambda codes: codes, _flat, activate, finish)


def some(count=1, low=0.0, high=1.0):
    rng = np.random.default_rng(count)
    return rng.uniform(low, high, (count, *SHAPE))


def run(images, weights, constants, plan, chains=None, key=0, finish=None):
    chains = jnp.arange(len(images)) if chains is None else chains
    return pixel_am.run(
        jax.random.key(key),
        chains,
        jnp.asarray(images),
        neuron(weights, finish),
        0,
        constants,
        plan,
    )


def test_a_linear_neuron_and_a_quadratic_norm_have_one_maximum(x64):
    """w = 2 a (x - x0) / N."""
    weights = np.asarray(some(1, -0.01, 0.01))
    constants = pixel_am.Constants(norm=2.0, variation=0.0, rate=0.02, rate_end=0.0)
    plan = pixel_am.Plan(steps=4000, every=1000, alpha=2.0, jitter=0, blur_every=0)
    found = run(some(2), weights, constants, plan)
    expected = 0.5 + np.prod(SHAPE) * weights / (2 * 2.0)
    np.testing.assert_allclose(found.codes[-1], np.concatenate([expected] * 2), atol=1e-3)
    assert found.codes.shape == (4, 2, *SHAPE) and found.activations.shape == (4, 2)


def test_the_norm_and_the_variation_are_their_sums():
    images = np.asarray(some(3))
    found = jax.jit(pixel_am.alpha_norm)(images, 0.5, 6.0)
    np.testing.assert_allclose(found, (np.abs(images - 0.5) ** 6).mean((1, 2, 3)), rtol=1e-5)
    total = np.zeros(3)
    for row, column, channel in np.ndindex(*SHAPE):
        x = images[:, row, column, channel]
        down = images[:, min(row + 1, SHAPE[0] - 1), column, channel] - x
        right = images[:, row, min(column + 1, SHAPE[1] - 1), channel] - x
        total += (down**2 + right**2) ** 0.75
    found = jax.jit(pixel_am.total_variation)(images, 1.5)
    np.testing.assert_allclose(found, total / np.prod(SHAPE), rtol=1e-5)


def test_the_gradient_of_the_regularisers_is_that_of_differences(x64):
    images, direction, small = some(1), some(2)[:1] - 0.5, 1e-6
    cost = jax.jit(lambda x: pixel_am.cost(x, pixel_am.Constants(), pixel_am.Plan(beta=1.5)).sum())
    slope = jax.grad(cost)(images)
    up, down = (cost(images + sign * small * direction) for sign in (1, -1))
    np.testing.assert_allclose((slope * direction).sum(), (up - down) / (2 * small), rtol=1e-6)


@pytest.mark.parametrize("beta", [1.0, 2.0])
def test_a_grey_image_has_no_variation_and_no_gradient_of_it(beta):
    grey = jnp.full((1, *SHAPE), 0.3)
    with jax.debug_nans(True):
        slope = jax.jit(jax.grad(lambda x: pixel_am.total_variation(x, beta).sum()))(grey)
    assert (slope == 0).all()


def test_a_blurred_dot_is_a_gaussian_and_grey_stays_grey():
    dot = np.zeros((1, 9, 9, 1), np.float32)
    dot[0, 4, 4, 0] = 1
    line = np.exp(-0.5 * (np.arange(-4, 5) / 0.8) ** 2) * (np.abs(np.arange(-4, 5)) <= 3)
    line /= line.sum()
    blur = jax.jit(pixel_am.blur, static_argnums=2)
    found = blur(dot, 0.8, 3)[0, :, :, 0]
    np.testing.assert_allclose(found, np.outer(line, line), rtol=1e-5, atol=1e-9)
    grey = jnp.full((1, *SHAPE), 0.3)
    np.testing.assert_allclose(blur(grey, 0.8, 3), grey, rtol=1e-6)


def test_blur_comes_every_so_many_steps(x64):
    images, still = some(1), FREE._replace(rate=0.0, rate_end=0.0)
    plan = PLAIN._replace(steps=6, blur_every=3)
    found = run(images, np.zeros((1, *SHAPE)), still, plan).codes
    blur = jax.jit(pixel_am.blur, static_argnums=2)
    once = blur(images, 0.5, 2)
    np.testing.assert_allclose(found[1], images)
    np.testing.assert_allclose(found[4], once)
    np.testing.assert_allclose(found[5], blur(once, 0.5, 2))


def test_jitter_moves_the_gradient_by_no_more_than_asked_and_back(x64):
    """One pixel's neuron changes, over many steps, the pixels within the jitter of it."""
    weights = np.zeros((1, 9, 9, 1))
    weights[0, 4, 4, 0] = 1.0
    images = jnp.full((1, 9, 9, 1), 0.2)
    plan = PLAIN._replace(steps=100, jitter=2)
    found = run(images, weights, FREE._replace(rate=1e-3), plan).codes[-1, 0, :, :, 0]
    moved = np.zeros((9, 9), bool)
    moved[2:7, 2:7] = True
    np.testing.assert_array_equal(found > 0.2, moved)


def test_a_neuron_that_sees_the_whole_image_alike_feels_no_jitter(x64):
    weights = np.ones((1, *SHAPE))
    plans = (PLAIN._replace(jitter=3), PLAIN)
    shaken, still = (run(some(2), weights, FREE, plan).codes for plan in plans)
    np.testing.assert_allclose(shaken, still, rtol=1e-12)


def test_a_chain_alone_is_the_chain_among_others(x64):
    key, plan = jax.random.key(4), pixel_am.Plan(steps=4, every=2)
    weights = np.asarray(some(1, -1, 1))
    everyone = jnp.arange(3)
    images = pixel_am.start(key, everyone, SHAPE)
    many = run(images, weights, None, plan, everyone)
    only = jnp.asarray([2])
    alone = run(pixel_am.start(key, only, SHAPE), weights, None, plan, only)
    for whole, part in zip(many, alone, strict=True):
        np.testing.assert_allclose(whole[:, 2:3], part, rtol=1e-9)


def test_what_is_recorded_is_the_saved_image():
    weights = some(1, -1, 1)
    found = run(some(1), weights, None, PLAIN, finish=_levels)
    levels = np.asarray(found.codes) * 255
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)
    expected = (np.asarray(found.codes) * np.asarray(weights)).sum((2, 3, 4))
    np.testing.assert_allclose(found.activations, expected, rtol=1e-4)


def test_rows_have_to_divide_the_steps():
    with pytest.raises(ValueError, match="multiple of every 3"):
        run(some(1), some(1), None, PLAIN._replace(steps=4, every=3))


def test_other_numbers_compile_nothing():
    images, chains = jnp.asarray(some(1)), jnp.arange(1)
    networks = neuron(np.asarray(some(1)))
    key = jax.random.key(0)
    pixel_am.run(key, chains, images, networks, 0, FREE, PLAIN)
    size = pixel_am.run._cache_size()
    pixel_am.run(key, chains, images, networks, 0, FREE._replace(sigma=2.0, norm=1.0), PLAIN)
    assert pixel_am.run._cache_size() == size
