"""Rejection: codes drawn blindly, kept when their image falls inside.

Codes of real images (`natural`), or Gaussian ones (`init`, `step`, `run`).  What is kept follows
the proposal restricted to the inverse set, exactly, if anything is kept.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inverse_set import constraints, observe
from inverse_set.baselines import trace


class Proposal(NamedTuple):
    """Independent Gaussian entries, clipped.

    mean, deviation, lower, upper: scalars or `[1, D]`, in code units.
    """

    mean: Any = 0.0
    deviation: Any = 1.0
    lower: Any = 0.0
    upper: Any = jnp.inf


class RejectionState(NamedTuple):
    """key: of the whole run.  drawn: int32, codes drawn so far, the number of the next one."""

    key: jnp.ndarray
    drawn: jnp.ndarray


class Draws(NamedTuple):
    """codes: `[..., D]`.  activations: `[..., P]`, of the images as they will be saved.

    accepted: `[...]`, which lie inside all P intervals.
    """

    codes: jnp.ndarray
    activations: jnp.ndarray
    accepted: jnp.ndarray


def fitted(codes, lower=0.0, upper=jnp.inf):
    """The `Proposal` with the mean and deviation of natural codes `[N, D]`, entry by entry."""
    codes = jnp.asarray(codes)
    return Proposal(codes.mean(0)[None], codes.std(0)[None], lower, upper)


def init(key):
    """The state before the first draw."""
    return RejectionState(key, jnp.int32(0))


def step(state, networks, target, proposal, count, size):
    """`count` more codes of `size` entries; returns (state, `Draws`).

    Code number i is the same however many are drawn at a time.
    """
    keys = trace.chain_keys(state.key, state.drawn + jnp.arange(count))
    codes = proposal.mean + proposal.deviation * trace.gaussian(keys, (size,))
    codes = jnp.clip(codes, proposal.lower, proposal.upper)
    return state._replace(drawn=state.drawn + count), natural(networks, codes, target)


@functools.partial(jax.jit, static_argnames="micro")
def natural(networks, codes, target, micro=None):
    """`Draws` of given codes `[K, D]`, such as real images have, at most `micro` at a time."""
    activations = observe.activations_of(networks, codes, micro)
    return Draws(codes, activations, constraints.inside(activations, target))


@functools.partial(jax.jit, static_argnames=("count", "size", "steps"))
def run(key, networks, target, proposal, count, size, steps):
    """`steps` times `count` codes of `size` entries, as `Draws` with leading axes `[T, K]`.

    Uses the key up.  networks: of P neurons.  target: `Target` of them.
    """

    def one_step(state, _):
        return step(state, networks, target, proposal, count, size)

    return jax.lax.scan(one_step, init(key), length=steps)[1]
