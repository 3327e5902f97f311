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


def gradient(networks, codes, multipliers, penalty, target, past, weight, distance):
    """dL/dC at codes `[K, D]`, and the observation it was taken from.

    past: `Moments` of C0 (eq. 7); `no_points` gives eq. 9.  weight: of the diversity term.
    Returns (gradient `[K, D]`, `Observation`).
    """

    def total(codes):
        observation = observe.observe(networks, codes)
        points = diversity.points_of(distance, codes, observation)
        mean = jax.lax.stop_gradient(points.mean(0))
        spread = diversity.separable_pair_terms(points, codes.shape[0], mean, past)
        terms = constraint_terms(observation.activations, multipliers, penalty, target)
        return (terms - weight * spread).sum(), observation

    return jax.grad(total, has_aux=True)(codes)


def batched_gradient(networks, codes, multipliers, penalty, target, past, weight, distance, micro):
    """The gradient of `gradient` at codes `[n, D]`, `micro` of them at a time.

    Two passes: the mean of all points, which is all that samples share, then one micro-batch's
    gradient after another.  Exact, in memory that does not grow with n.
    Returns (gradient `[n, D]`, activations `[n, P]`, pair sum).
    """
    count = codes.shape[0]

    def points(codes):
        return diversity.points_of(distance, codes, observe.observe(networks, codes))

    def measure(whole, batch):
        codes, real = batch
        return diversity.merge(whole, diversity.moments(points(codes), real)), None

    batches = observe.cut(micro, codes, jnp.ones(count, bool))
    size = jax.eval_shape(points, codes[:1]).shape[1]
    nothing = diversity.no_points(size, codes.dtype)
    whole, _ = jax.lax.scan(measure, nothing, batches)

    def total(codes, multipliers):
        observation = observe.observe(networks, codes)
        own = diversity.points_of(distance, codes, observation)
        spread = diversity.separable_pair_terms(own, count, whole.mean, past)
        terms = constraint_terms(observation.activations, multipliers, penalty, target)
        return (terms - weight * spread).sum(), observation.activations

    slope = jax.grad(total, has_aux=True)
    gradients, activations = observe.map_batches(slope, micro, codes, multipliers)
    return gradients, activations, 2 * count * whole.scatter
