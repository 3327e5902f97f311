"""The few records everyone shares."""

import enum
import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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
        as_partial(generate),
        jax.tree_util.Partial(_read_both, as_partial(encode), as_partial(activate)),
        as_partial(_as_is if finish is None else finish),
    )


def as_partial(function):
    """A `jax.tree_util.Partial` of a function, its bound arrays arguments of compiled code.

    A Partial stays as it is: one of a Partial would hide the inner one's arrays from JAX, and every
    new one would compile.  Of a `functools.partial` the arrays are bound, and what is no array
    (`train=False`) stays a part of the function.
    """
    if isinstance(function, jax.tree_util.Partial):
        return function
    if not isinstance(function, functools.partial) or not _arrays(function.args):
        return jax.tree_util.Partial(function)
    bound = {name: value for name, value in function.keywords.items() if _arrays(value)}
    others = {name: value for name, value in function.keywords.items() if name not in bound}
    inner = functools.partial(function.func, **others) if others else function.func
    return jax.tree_util.Partial(inner, *function.args, **bound)


def _arrays(tree):
    """Whether all leaves are arrays."""
    return all(isinstance(leaf, jax.Array | np.ndarray) for leaf in jax.tree.leaves(tree))


def _read_both(encode, activate, images):
    return encode(images), activate(images)


def _as_is(images):
    return images


class Constraint(NamedTuple):
    """One neuron and the interval asked for: low <= f(x) <= high, in the neuron's own units.

    Either end may be infinite.  scale: what then stands for the interval's width.
    """

    name: str
    low: float
    high: float
    scale: float = 1.0

    @property
    def width(self):
        """high - low, or the scale of an interval with one end."""
        return self.high - self.low if math.isfinite(self.high - self.low) else self.scale


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
