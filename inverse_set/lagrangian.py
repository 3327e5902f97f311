"""The augmented Lagrangian of eqs. 9 and 11, and the updates of its multipliers and penalty.

    L = - weight D + sum_ip (lambda_ip r_ip + mu / 2 r_ip^2),    r = (f - s) / scale

The paper's multipliers are ours with the sign changed.
"""

import jax
import jax.numpy as jnp

from inverse_set import constraints, diversity, observe


def constraint_terms(activations, multipliers, penalty, target):
    """lambda r + mu / 2 r^2 summed over the constraints of each sample, `[K]`.

    The optimal slack is inserted; its own change costs nothing at the minimum, so it is a constant
    to the gradient.  All arguments but penalty (scalar mu) are `[K, P]`.
    """
    slacks = constraints.optimal_slacks(activations, multipliers, penalty, target)
    r = constraints.residuals(activations, jax.lax.stop_gradient(slacks), target)
    return (multipliers * r + penalty / 2 * r**2).sum(-1)


def update_multipliers(activations, multipliers, penalty, target):
    """lambda <- lambda + mu (f - s*) / scale, `[K, P]` (sec. 3.4)."""
    slacks = constraints.optimal_slacks(activations, multipliers, penalty, target)
    return multipliers + penalty * constraints.residuals(activations, slacks, target)


def update_penalty(penalty, growth, cap):
    """mu <- min(alpha mu, cap)."""
    return jnp.minimum(penalty * growth, cap)


def gradient(networks, codes, multipliers, penalty, target, past, weight, distance, micro=None):
    """dL/dC at codes `[K, D]`, and the observation it was taken from.

    past: `Moments` of C0 (eq. 7); `no_points` gives eq. 9.
    weight: of the diversity term.
    micro: codes at a time.  Two passes then, first the features alone, then one micro-batch's
        gradient after another: exact, in memory that does not grow with K.  None: all at once.
    Returns (gradient `[K, D]`, Observation of all K).
    """
    count = codes.shape[0]

    def losses(codes, multipliers, mean):
        observation = observe.observe(networks, codes)
        points = diversity.points_of(distance, codes, observation)
        if mean is None:
            mean = jax.lax.stop_gradient(points.mean(0))
        spread = diversity.separable_pair_terms(points, count, mean, past)
        terms = constraint_terms(observation.activations, multipliers, penalty, target)
        return (terms - weight * spread).sum(), observation

    slope = jax.grad(losses, has_aux=True)
    if micro is None or micro >= count:
        return slope(codes, multipliers, None)

    def features(codes):
        return diversity.points_of(distance, codes, observe.observe(networks, codes))

    mean = observe.map_batches(features, micro, codes).mean(0)
    return observe.map_batches(lambda c, m: slope(c, m, mean), micro, codes, multipliers)
