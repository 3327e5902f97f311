import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set import constraints, observe
from inverse_set.baselines import trace
from tests import toys


def test_matched_keeps_the_interval_and_never_a_nan():
    activations = jnp.asarray([[0.0, 1.0, 2.0], [3.0, jnp.nan, 1.5]])
    mask = trace.matched(activations, constraints.two_sided([(1.0, 2.0)]))
    np.testing.assert_array_equal(mask, [[False, True, True], [False, False, True]])
    codes = np.arange(12.0).reshape(2, 3, 2)
    np.testing.assert_array_equal(codes[mask], [[2, 3], [4, 5], [10, 11]])


def test_matched_is_one_interval():
    with pytest.raises(ValueError, match="1, 1"):
        trace.matched(jnp.zeros((2, 2)), constraints.two_sided([(0, 1), (0, 1)]))


def test_every_chain_has_its_own_column():
    activations = jnp.arange(6.0).reshape(3, 2)
    np.testing.assert_array_equal(trace.pick(activations, 1), [1, 3, 5])
    np.testing.assert_array_equal(trace.pick(activations, jnp.asarray([1, 0, 1])), [1, 2, 5])


def test_the_mean_is_over_a_chains_own_entries():
    direction = jnp.asarray([[1.0, -3.0], [0.0, 0.0], [0.0, 1e-30]])
    with jax.debug_nans(True):
        found = trace.normalised(direction)
    np.testing.assert_allclose(found, [[0.5, -1.5], [0, 0], [0, 2]], rtol=1e-6)


def test_a_chain_alone_draws_what_it_draws_among_others():
    key = jax.random.key(3)
    many = trace.gaussian(trace.chain_keys(key, jnp.arange(4)), (5,))
    alone = trace.gaussian(trace.chain_keys(key, [2]), (5,))
    np.testing.assert_array_equal(many[2:3], alone)
    assert len(np.unique(many)) == 20


def test_the_gradient_is_that_of_differences(x64):
    """Of a logistic neuron on three codes, one chain's never in another's."""
    networks = toys.neuron(jnp.asarray([[1.0, -2.0], [0.3, 0.4]]), jnp.asarray([0.1, 0.2]), True)
    codes = jnp.asarray([[0.1, 0.2], [0.5, -0.3], [-1.0, 0.7]])

    def objective(activations):
        return activations[:, 0] * activations[:, 1]

    def value(codes):
        return objective(observe.observe(networks, codes).activations)

    slope, observation = trace.climb(networks, codes, objective)
    small = 1e-6
    for entry in range(2):
        nudge = small * jnp.eye(2)[entry][None]
        difference = (value(codes + nudge) - value(codes - nudge)) / (2 * small)
        np.testing.assert_allclose(slope[:, entry], difference, rtol=1e-6)
    np.testing.assert_allclose(observation.features, codes)
