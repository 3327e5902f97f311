"""What the rivals share: the record of a run, its interval-matched form, a key for every chain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from inverse_set import constraints, observe


class Trace(NamedTuple):
    """What T steps of K chains went through.

    codes: `[T, K, D]`, after each step; images `[T, K, ...]` where there are no codes.
    activations: `[T, K]`, of the images as they will be saved, in the neuron's own units.
    """

    codes: jnp.ndarray
    activations: jnp.ndarray


def matched(activations, target):
    """Which steps of which chains lie inside the interval, as a mask of activations' shape.

    A rival in its interval-matched form is what the mask keeps: `trace.codes[mask]` is `[n, D]`.
    activations: of one neuron, of any shape.  target: a `Target` of one neuron (P = 1).
    """
    if target.accept_low.shape != (1, 1):
        raise ValueError(f"expected a target (1, 1), got {target.accept_low.shape}")
    return constraints.inside(activations.reshape(-1, 1), target).reshape(activations.shape)


def chain_keys(key, chains):
    """A key `[K]` for each chain number `[K]`: a chain alone draws what it draws among others."""
    return jax.vmap(lambda chain: jax.random.fold_in(key, chain))(jnp.asarray(chains))


def fold(keys, number):
    """The keys `[K]` of one step, or of another use, by its number."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def gaussian(keys, shape):
    """N(0, 1), `[K, *shape]`; uses the keys up."""
    return jax.vmap(lambda key: jax.random.normal(key, shape))(keys)


def pick(activations, unit):
    """The chosen column of activations `[K, P]`, `[K]`; unit: int, or `[K]`, one for each chain."""
    unit = jnp.broadcast_to(jnp.asarray(unit), activations.shape[:1])
    return jnp.take_along_axis(activations, unit[:, None], axis=1)[:, 0]


def climb(networks, codes, objective):
    """The gradient of each chain's own objective `[K]`, and the observation it was taken from.

    objective: activations `[K, P]` -> `[K]`.  codes: `[K, D]`.  Returns (`[K, D]`, `Observation`).
    """

    def total(codes):
        observation = observe.observe(networks, codes)
        return objective(observation.activations).sum(), observation

    return jax.grad(total, has_aux=True)(codes)


def normalised(direction):
    """d / mean |d|, the mean over a chain's own entries; zero stays zero.  `[K, ...]`."""
    size = jnp.abs(direction).mean(tuple(range(1, direction.ndim)), keepdims=True)
    return direction / jnp.where(size > 0, size, 1)
