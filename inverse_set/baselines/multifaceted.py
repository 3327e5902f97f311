"""Multifaceted starts (Nguyen et al. 2016b): one start for each cluster of real images' codes.

Lloyd's k-means, seeded far apart, then activation maximisation from every mean.  Which real images,
the caller decides: those of a class, or those that drive the neuron most.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from inverse_set.baselines import dgn_am, trace


class Clusters(NamedTuple):
    """means: `[K, D]`.  members: int32 `[N]`, the cluster of each point."""

    means: jnp.ndarray
    members: jnp.ndarray


class Faceted(NamedTuple):
    """clusters: `Clusters`, whose means the chains started from.  trace: `Trace` of the chains."""

    clusters: Clusters
    trace: trace.Trace


def init(key, points, count):
    """K = `count` of the points `[N, D]` as means; uses the key up.

    The first at random, each next one with a probability that grows with its squared distance to
    the nearest mean so far.
    """
    first = jax.random.randint(jax.random.fold_in(key, 0), (), 0, len(points))
    means = jnp.zeros((count, points.shape[1]), points.dtype).at[0].set(points[first])

    def grow(index, carry):
        means, nearest = carry
        chosen = jax.random.categorical(jax.random.fold_in(key, index), jnp.log(nearest))
        nearest = jnp.minimum(nearest, _squares(points, points[chosen]))
        return means.at[index].set(points[chosen]), nearest

    means, _ = jax.lax.fori_loop(1, count, grow, (means, _squares(points, points[first])))
    return Clusters(means, assign(points, means))


def assign(points, means):
    """The nearest of the means `[K, D]` to each point `[N, D]`, int32 `[N]`."""
    squares = jax.lax.map(lambda mean: _squares(points, mean), means)
    return squares.argmin(0).astype(jnp.int32)


def step(clusters, points):
    """Each mean to the middle of its members, then each point to its nearest mean.

    A cluster without members keeps its mean.
    """
    count = clusters.means.shape[0]
    ones = jax.nn.one_hot(clusters.members, count, dtype=points.dtype)
    sizes = ones.sum(0)[:, None]
    middle = (ones.T @ points) / jnp.maximum(sizes, 1)
    means = jnp.where(sizes > 0, middle, clusters.means)
    return Clusters(means, assign(points, means))


@functools.partial(jax.jit, static_argnames=("count", "rounds"))
def cluster(key, points, count, rounds=100):
    """`Clusters` of points `[N, D]`, after at most `rounds` rounds of `step`."""

    def moving(carry):
        done, clusters, members = carry
        return (done < rounds) & ((done == 0) | (clusters.members != members).any())

    def again(carry):
        done, clusters, _ = carry
        return done + 1, step(clusters, points), clusters.members

    clusters = init(key, points, count)
    return jax.lax.while_loop(moving, again, (0, clusters, clusters.members))[1]


def run(key, codes, count, networks, unit, constants=None, steps=200):
    """Activation maximisation from the means of K = `count` clusters of codes `[N, D]`, `Faceted`.

    Arguments `networks`, `unit`, `constants`, `steps` as of `dgn_am.run`; uses the key up.
    """
    if not 1 <= count <= len(codes):
        raise ValueError(f"expected 1 to {len(codes)} clusters of as many codes, got {count}")
    clusters = cluster(key, jnp.asarray(codes), count)
    return Faceted(clusters, dgn_am.run(clusters.means, networks, unit, constants, steps))


def _squares(points, mean):
    return ((points - mean[None]) ** 2).sum(-1)
