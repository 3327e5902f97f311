import math

import jax
import jax.numpy as jnp
import numpy as np

from inverse_set import constraints
from inverse_set.baselines import rejection
from tests import toys


def test_a_gaussian_falls_inside_as_often_as_it_should():
    """w . h + c is N(c, |w|^2)."""
    networks = toys.neuron(jnp.asarray([[3.0, 4.0]]), jnp.asarray([1.0]))
    proposal = rejection.Proposal(lower=-jnp.inf)
    target = constraints.two_sided([(3.5, 6.0)])
    found = rejection.run(jax.random.key(0), networks, target, proposal, 1000, 2, 20)
    assert found.codes.shape == (20, 1000, 2) and found.activations.shape == (20, 1000, 1)
    share = 0.5 * (math.erf(5 / 5 / 2**0.5) - math.erf(2.5 / 5 / 2**0.5))
    np.testing.assert_allclose(found.accepted.mean(), share, atol=4 * (share / 20000) ** 0.5)
    kept = found.activations[found.accepted]
    assert kept.min() >= 3.5 and kept.max() <= 6.0


def test_a_draw_does_not_depend_on_how_many_are_drawn_at_a_time():
    target, proposal = constraints.two_sided([(0.5, 0.8)]), rejection.Proposal()
    key = jax.random.key(2)
    many = rejection.run(key, toys.CIRCLE, target, proposal, 6, 1, 2)
    few = rejection.run(key, toys.CIRCLE, target, proposal, 3, 1, 4)
    np.testing.assert_array_equal(many.codes.reshape(12, 1), few.codes.reshape(12, 1))
    assert len(np.unique(rejection.run(key, toys.CIRCLE, target, _free(), 6, 1, 2).codes)) == 12


def _free():
    return rejection.Proposal(lower=-jnp.inf)


def test_given_codes_are_kept_on_the_two_arcs():
    codes = jnp.linspace(-3, 3, 301)[:, None]
    target = constraints.two_sided([(0.5, 0.8)])
    found = rejection.natural(toys.CIRCLE, codes, target, micro=64)
    angle = np.abs(codes[:, 0])
    arcs = (angle >= np.arccos(0.8)) & (angle <= np.arccos(0.5))
    np.testing.assert_array_equal(found.accepted, arcs)
    np.testing.assert_array_equal(found.codes, codes)


def test_an_intersection_takes_all_of_its_intervals():
    networks = toys.neuron(jnp.eye(2), jnp.zeros(2))
    target = constraints.two_sided([(0, 1), (0, 1)])
    codes = jnp.asarray([[0.5, 0.5], [0.5, 2.0], [2.0, 0.5]])
    found = rejection.natural(networks, codes, target)
    np.testing.assert_array_equal(found.accepted, [True, False, False])


def test_a_fitted_proposal_has_the_spread_of_the_codes_and_its_bounds():
    rng = np.random.default_rng(0)
    codes = rng.normal([1.0, 5.0], [0.5, 2.0], (2000, 2)).astype(np.float32)
    networks, target = toys.neuron(jnp.eye(2), jnp.zeros(2)), constraints.two_sided([(0, 1)] * 2)
    upper = jnp.asarray([[100.0, 6.0]])
    proposal = rejection.fitted(codes, lower=0.0, upper=upper)
    found = rejection.run(jax.random.key(0), networks, target, proposal, 2000, 2, 1).codes[0]
    np.testing.assert_allclose(found[:, 0].mean(), 1, atol=0.05)
    assert (found >= 0).all() and (found <= upper).all() and (found == upper).any()


def test_other_numbers_compile_nothing():
    arguments = (toys.CIRCLE, constraints.two_sided([(0.5, 0.8)]))
    rejection.run(jax.random.key(0), *arguments, rejection.Proposal(), 2, 1, 2)
    size = rejection.run._cache_size()
    arguments = (toys.CIRCLE, constraints.two_sided([(0.1, 0.2)]))
    rejection.run(jax.random.key(1), *arguments, rejection.Proposal(0.5, 2.0), 2, 1, 2)
    assert rejection.run._cache_size() == size
