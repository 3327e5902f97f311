"""The few records everyone shares."""

import enum
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

# Metadata of a configuration's fields that decide which program is compiled: all others are traced.
STATIC = {"static": True}


class Networks(NamedTuple):
    """What the algorithms know of f, E and G: pure functions, as `jax.tree_util.Partial`s.

    generate: codes `[K, D]` -> images `[K, ...]`, the generator G.
    read: images `[K, ...]` -> (features `[K, F]`, activations `[K, P]`), E and every constrained f.
    finish: images -> images as they will be saved (clipped, rounded).

    A Partial is a pytree: weights bound to it travel as arguments of the compiled functions.
    """

    generate: Any
    read: Any
    finish: Any


def networks(generate, encode, activate, finish=None):
    """Networks from three callables: G, E and f.

    generate: codes `[K, D]` -> images `[K, ...]` (whatever the domain calls an input).
    encode: images -> features `[K, F]`.  activate: images -> activations `[K, P]`.
    Bind weights with `jax.tree_util.Partial(function, weights)`, not in a closure: arrays of a
    closure become constants of the compiled loop.
    finish: images -> images as saved; a sample counts only if the activation of the finished image
        is inside.  The default saves images as they are.
    """
    return Networks(
        _partial(generate),
        jax.tree_util.Partial(_read_both, _partial(encode), _partial(activate)),
        _partial(_as_is if finish is None else finish),
    )


def _partial(function):
    """A Partial of a Partial would hide the inner one's arrays from JAX: every new one compiles."""
    partial = jax.tree_util.Partial
    return function if isinstance(function, partial) else partial(function)


def _read_both(encode, activate, images):
    return encode(images), activate(images)


def _as_is(images):
    return images


class Constraint(NamedTuple):
    """One neuron and the interval asked for: low <= f(x) <= high, in the neuron's own units."""

    name: str
    low: float
    high: float


class Observation(NamedTuple):
    """One forward pass.

    images: `[K, ...]` as saved.  features: `[K, F]` = E.  activations: `[K, P]`.
    """

    images: jnp.ndarray
    features: jnp.ndarray
    activations: jnp.ndarray


class Status(enum.IntEnum):
    """How a run ended, and what to do about it."""

    RUNNING = 0
    OK = 1
    PARTIAL = 2
    INFEASIBLE = 3
    NON_FINITE = 4
    PLATEAU = 5
    BUDGET = 6
    INTERRUPTED = 7

    @property
    def sentence(self):
        return _SENTENCES[self]


_SENTENCES = {
    Status.RUNNING: "still running",
    Status.OK: "every sample asked for lies inside",
    Status.PARTIAL: "some samples asked for could not be brought inside within the step budget",
    Status.INFEASIBLE: "no code reached the interval within the step budget",
    Status.NON_FINITE: "a network returned NaN or infinity; the last finite samples are kept",
    Status.PLATEAU: "every sample lies inside and diversity has stopped growing",
    Status.BUDGET: "every sample lies inside; diversity was still growing at the step budget",
    Status.INTERRUPTED: "interrupted; the samples found so far are kept",
}
