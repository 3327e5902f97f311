import jax
import jax.numpy as jnp
import numpy as np

from inverse_set.baselines import dgn_am
from tests import toys

WEIGHTS = np.asarray([[1.0, 0.5, 0.25, 2.0], [0.1, 0.1, 0.3, -0.1]])


def linear():
    return toys.neuron(jnp.asarray(WEIGHTS), jnp.zeros(2))


def test_a_linear_neuron_has_a_closed_form(x64):
    """h_T = rho^T h_0 + sum_t lr_t rho^(T - t) w / mean |w| as long as nothing is clipped."""
    codes = jnp.asarray(np.random.default_rng(0).uniform(size=(3, 4)))
    found = dgn_am.run(codes, linear(), 0)
    t = np.arange(200)
    rates = 8 + (1e-10 - 8) * t / 200
    unit = WEIGHTS[0] / WEIGHTS[0].mean()
    expected = 0.99**200 * np.asarray(codes) + (rates * 0.99 ** (200 - t)).sum() * unit
    np.testing.assert_allclose(found.codes[-1], expected, rtol=1e-10)
    np.testing.assert_allclose(found.activations, found.codes @ WEIGHTS[0], rtol=1e-12)
    assert found.codes.shape == (200, 3, 4)


def test_codes_are_clipped_before_they_decay(x64):
    constants = dgn_am.Constants(upper=jnp.asarray([[1.0, 2.0, 3.0, 4.0]]))
    found = dgn_am.run(jnp.ones((1, 4)), linear(), 0, constants, steps=20)
    np.testing.assert_allclose(found.codes[-1, 0], 0.99 * np.asarray([1, 2, 3, 4.0]))


def test_a_chain_alone_is_the_chain_among_others(x64):
    key, units = jax.random.key(1), jnp.asarray([0, 1, 1])
    weights, offset = jnp.asarray(WEIGHTS), jnp.zeros(2)
    networks = toys.neuron(weights, offset, logistic=True)
    many = dgn_am.run(dgn_am.start(key, jnp.arange(3), 4), networks, units, steps=10)
    alone = dgn_am.run(dgn_am.start(key, jnp.asarray([2]), 4), networks, 1, steps=10)
    for whole, part in zip(many, alone, strict=True):
        np.testing.assert_allclose(whole[:, 2:3], part, rtol=1e-9)


def test_starts_are_standard_normal():
    codes = dgn_am.start(jax.random.key(0), jnp.arange(100), 50)
    np.testing.assert_allclose([codes.mean(), codes.std()], [0, 1], atol=0.05)


def test_other_numbers_compile_nothing():
    codes = jnp.ones((2, 4))
    dgn_am.run(codes, linear(), 0, dgn_am.Constants(), steps=3)
    size = dgn_am.run._cache_size()
    dgn_am.run(codes + 1, linear(), 1, dgn_am.Constants(rate=1.0), steps=3)
    assert dgn_am.run._cache_size() == size


def test_a_neuron_without_a_gradient_only_decays():
    flat = toys.neuron(jnp.zeros((1, 4)), jnp.ones(1))
    with jax.debug_nans(True):
        found = dgn_am.run(jnp.ones((1, 4)), flat, 0, steps=2)
    np.testing.assert_allclose(found.codes[-1], 0.99**2 * np.ones((1, 4)), rtol=1e-6)
