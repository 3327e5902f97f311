"""Intervals as constraints: optimal slacks, residuals, membership (eqs. 1, 8, 12; sec. 3.4).

Always P >= 1 constraints; an intersection of inverse sets (eqs. 12, 13) is not a special case.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

RULES = ("two_sided", "paper")


class Target(NamedTuple):
    """Where activations should go, and which are accepted.  All `[1, P]`, in the neurons' units.

    lower, upper: the slack's range; upper may be +inf.
    accept_low, accept_high: a sample is inside if every f lies between them; high may be +inf.
    scale: residuals are divided by it.
    """

    lower: jnp.ndarray
    upper: jnp.ndarray
    accept_low: jnp.ndarray
    accept_high: jnp.ndarray
    scale: jnp.ndarray


def _bounds(intervals):
    """Intervals `[P, 2]` as two float arrays `[1, P]`; one end of each may be infinite."""
    intervals = np.asarray(intervals, float).reshape(-1, 2)
    low, high = intervals.T[:, None, :]
    known = (low < high) & (np.isfinite(low) | np.isfinite(high))
    if not (intervals.size and known.all()):
        raise ValueError(f"expected intervals low < high, got {intervals.tolist()}")
    return low, high


def two_sided(intervals, margin=0.2, guard=0.0, scales=None):
    """Eq. 1: z1 <= f <= z2.  The slack keeps `margin` of the width from either end.

    scales: `[P]`, what stands for the width of an interval with an infinite end; None is 1.
    guard: share of the width by which the accepted interval is narrower than the one asked for, so
        that the rounding of another program cannot move a sample out.
    """
    low, high = _bounds(intervals)
    scales = np.ones(low.shape[1]) if scales is None else np.asarray(scales, float)
    width = np.where(np.isfinite(high - low), high - low, scales)
    inset, shave = margin * width, guard * width
    fields = (low + inset, high - inset, low + shave, high - shave, width)
    return Target(*(jnp.asarray(field) for field in fields))


def paper(intervals):
    """Eq. 8 to the letter: z2 - f <= eps, aimed at z2 - eps / 2; f > z2 is accepted."""
    low, high = _bounds(intervals)
    if not np.isfinite([low, high]).all():
        raise ValueError("the paper's rule needs intervals with two ends")
    unbounded = np.full_like(low, np.inf)
    fields = ((low + high) / 2, unbounded, low, unbounded, np.ones_like(low))
    return Target(*(jnp.asarray(field) for field in fields))


def optimal_slacks(activations, multipliers, penalty, target):
    """Minimises the augmented Lagrangian over the slacks, codes held fixed (sec. 3.4, "In s").

    Convex and separable, so the minimiser is f + scale lambda / mu clipped to the target.
    activations, multipliers and result `[K, P]`; penalty mu > 0.
    """
    free = activations + target.scale * multipliers / penalty
    return jnp.clip(free, target.lower, target.upper)


def residuals(activations, slacks, target):
    """r = (f - s) / scale, `[K, P]`, without units."""
    return (activations - slacks) / target.scale


def violations(activations, target):
    """How far each sample is from being inside, `[K]`: the worst constraint, in units of scale."""
    below = target.accept_low - activations
    above = activations - target.accept_high
    return jnp.maximum(jnp.maximum(below, above) / target.scale, 0).max(-1)


def inside(activations, target):
    """Which samples satisfy every constraint (eq. 12), `[K]`; NaN never does."""
    accepted = (activations >= target.accept_low) & (activations <= target.accept_high)
    return accepted.all(-1)
