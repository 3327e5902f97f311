"""DGN-AM (Nguyen et al. 2016a): activation maximisation in the code space of a generator.

    h <- decay clip(h + lr_t g / mean |g|),    g = grad_h f(G(h)),    lr_t falling linearly

The mean is over the entries of a chain's own gradient.  One image a chain is what the method is
after, the last; the others are recorded for the comparison inside an interval.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inverse_set.baselines import trace


class Constants(NamedTuple):
    """The published constants, all arguments of the compiled functions.

    rate, rate_end: lr of the first step and where its line ends, the mean change of an entry.
    decay: codes are multiplied by it after every step.
    lower, upper: codes are clipped to them, scalars or `[1, D]`.  The published upper end is each
        entry's mean over natural images plus three standard deviations, which the caller knows.
    """

    rate: Any = 8.0
    rate_end: Any = 1e-10
    decay: Any = 0.99
    lower: Any = 0.0
    upper: Any = jnp.inf


class ClimbState(NamedTuple):
    """What the next step needs.

    codes: `[K, D]`.  slope: `[K, D]`, the gradient of the activation.  step: int32, steps taken.
    """

    codes: jnp.ndarray
    slope: jnp.ndarray
    step: jnp.ndarray


def look(networks, codes, unit):
    """(gradient `[K, D]`, activation `[K]`) of the unit at codes `[K, D]`."""
    slope, observation = trace.climb(networks, codes, lambda a: trace.pick(a, unit))
    return slope, trace.pick(observation.activations, unit)


def init(codes, networks, unit):
    """The state before the first step, at codes `[K, D]`."""
    return ClimbState(codes, look(networks, codes, unit)[0], jnp.int32(0))


def step(state, networks, unit, constants, steps):
    """Step number `state.step` of `steps`; returns (state, `Trace` without its axis T)."""
    share = state.step.astype(state.codes.dtype) / steps
    rate = constants.rate + share * (constants.rate_end - constants.rate)
    codes = state.codes + rate * trace.normalised(state.slope)
    codes = constants.decay * jnp.clip(codes, constants.lower, constants.upper)
    slope, activations = look(networks, codes, unit)
    return ClimbState(codes, slope, state.step + 1), trace.Trace(codes, activations)


def start(key, chains, size):
    """N(0, 1) codes `[K, size]` of the chains numbered `[K]`; uses the key up."""
    return trace.gaussian(trace.chain_keys(key, chains), (size,))


@functools.partial(jax.jit, static_argnames="steps")
def run(codes, networks, unit, constants=None, steps=200):
    """Every step from codes `[K, D]`, as a `Trace`.

    networks: `Networks` of P neurons.  unit: int or `[K]`, the column climbed and recorded.
    """
    constants = Constants() if constants is None else constants

    def one_step(state, _):
        return step(state, networks, unit, constants, steps)

    return jax.lax.scan(one_step, init(codes, networks, unit), length=steps)[1]
