import jax
import jax.numpy as jnp
import numpy as np
import pytest

from inverse_set.baselines import dgn_am, multifaceted
from tests import toys

MIDDLES = np.asarray([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])


def clouds(size=20):
    """Three small clouds, one after the other."""
    noise = np.random.default_rng(0).normal(0, 0.5, (3, size, 2))
    return jnp.asarray((MIDDLES[:, None] + noise).reshape(-1, 2), jnp.float32)


def order(means):
    return np.asarray([np.square(means - middle).sum(1).argmin() for middle in MIDDLES])


@pytest.mark.parametrize("seed", range(5))
def test_clouds_far_apart_are_the_clusters(seed):
    points = clouds()
    found = multifaceted.cluster(jax.random.key(seed), points, 3)
    rows = order(np.asarray(found.means))
    np.testing.assert_array_equal(found.members, np.repeat(rows, 20))
    expected = np.asarray(points).reshape(3, 20, 2).mean(1)
    np.testing.assert_allclose(found.means[rows], expected, rtol=1e-5, atol=1e-5)


def test_a_round_never_raises_the_sum_of_squares(x64):
    points = jnp.asarray(np.random.default_rng(1).normal(size=(60, 3)))
    clusters, before = (
        jax.jit(multifaceted.init, static_argnums=2)(jax.random.key(0), points, 5),
        np.inf,
    )
    step = jax.jit(multifaceted.step)
    for _ in range(10):
        means, members = (np.asarray(part) for part in clusters)
        now = np.square(np.asarray(points) - means[members]).sum()
        assert now <= before + 1e-12
        before, clusters = now, step(clusters, points)


def test_a_cluster_without_members_keeps_its_mean():
    means = jnp.asarray([[0.0, 0.0], [99.0, 99.0]])
    points = clouds()
    with jax.debug_nans(True):
        found = multifaceted.step(
            multifaceted.Clusters(means, multifaceted.assign(points, means)), points
        )
    np.testing.assert_array_equal(found.means[1], means[1])
    np.testing.assert_allclose(found.means[0], points.mean(0), rtol=1e-5)


def test_points_that_are_all_alike_make_no_nan():
    found = multifaceted.cluster(jax.random.key(0), jnp.ones((4, 2)), 3)
    np.testing.assert_array_equal(found.means, np.ones((3, 2)))


def test_as_many_clusters_as_points_are_the_points():
    points = clouds(2)
    found = multifaceted.cluster(jax.random.key(0), points, 6)
    np.testing.assert_array_equal(np.unique(found.means, axis=0), np.unique(points, axis=0))


def test_every_mean_is_climbed_from():
    """A linear neuron: each chain ends at its own mean, decayed, plus one climb."""
    networks = toys.neuron(jnp.asarray([[1.0, 3.0]]), jnp.zeros(1))
    constants = dgn_am.Constants(rate=1.0)
    found = multifaceted.run(jax.random.key(0), clouds() + 2, 3, networks, 0, constants, 10)
    assert found.trace.codes.shape == (10, 3, 2)
    climbed = found.trace.codes[-1] - 0.99**10 * found.clusters.means
    rates = np.linspace(1, 0, 11)[:10]
    expected = (rates * 0.99 ** (10 - np.arange(10))).sum() * np.asarray([0.5, 1.5])
    np.testing.assert_allclose(climbed, np.broadcast_to(expected, (3, 2)), rtol=1e-4)
    alone = dgn_am.run(found.clusters.means[1:2], networks, 0, constants, 10)
    np.testing.assert_allclose(found.trace.codes[:, 1:2], alone.codes, rtol=1e-5)


@pytest.mark.parametrize("count", [0, 61])
def test_there_are_no_more_clusters_than_codes(count):
    networks = toys.neuron(jnp.ones((1, 2)), jnp.zeros(1))
    with pytest.raises(ValueError, match=f"got {count}"):
        multifaceted.run(jax.random.key(0), clouds(), count, networks, 0)
