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


def gradient(networks, codes, duals, target, past, weight, objective, alive):
    """dL/dC at codes `[K, D]`, and the observation it was taken from: one pass there and back.

    duals: activations `[K, P]` of the codes -> (multipliers `[K, P]`, penalty mu), before the
        gradient is taken.
    past: `Moments` of C0 (eq. 7); `no_points` gives eq. 9.  weight: of the diversity term.
    objective: (distance, mean_pairs): what is kept apart, one of `diversity.DISTANCES`, and whether
    the weight is that of the mean over pairs or of their raw sum (the paper).
    alive: `[K]`, which codes count; the others are no part of any pair, and have no gradient.
    Returns (gradient `[K, D]`, `Observation`, (multipliers, penalty), alive `[K]`): a code at which
    a network or its gradient is NaN or infinite is alive no longer.  One at which a network is has
    no part in the others' gradients; one whose gradient alone is was their partner this once.
    """
    distance, mean_pairs = objective
    observation, pull_back = jax.vjp(lambda codes: observe.observe(networks, codes), codes)
    multipliers, penalty = duals(observation.activations)
    points = diversity.points_of(distance, codes, observation)
    sound = alive & observe.finite(observation) & jnp.isfinite(points).all(-1)
    whole = diversity.moments(points, sound)
    share = diversity.pair_weight(weight, whole.count, past) if mean_pairs else weight

    def total(codes, observation):
        points = diversity.points_of(distance, codes, observation)
        spread = _spread(points, sound, whole, past)
        terms = constraint_terms(observation.activations, multipliers, penalty, target)
        return jnp.where(sound, terms - share * spread, 0).sum()

    direct, slopes = jax.grad(total, (0, 1))(codes, observation)
    slope, sound = _sound(direct + pull_back(slopes)[0], sound)
    return slope, observation, (multipliers, penalty), sound


def batched_gradient(networks, codes, duals, target, past, weight, objective, alive, micro_batch):
    """The gradient of `gradient` at codes `[n, D]`, `micro_batch` of them at a time.

    Two passes: the mean of all points, which is all that samples share, then one micro-batch's
    gradient after another.  Exact, in memory that does not grow with n.
    Returns (gradient `[n, D]`, activations `[n, P]`, pair sum, (multipliers, penalty), alive).
    """
    distance, mean_pairs = objective
    count = codes.shape[0]

    def measure(whole, batch):
        codes, real = batch
        observation = observe.observe(networks, codes)
        points = diversity.points_of(distance, codes, observation)
        sound = real & observe.finite(observation) & jnp.isfinite(points).all(-1)
        whole = diversity.merge(whole, diversity.moments(points, sound))
        return whole, (observation.activations, sound)

    batches = observe.cut(micro_batch, codes, alive)
    nothing = diversity.no_points(point_size(networks, codes, distance), codes.dtype)
    whole, seen = jax.lax.scan(measure, nothing, batches)
    activations, sound = (leaf.reshape(-1, *leaf.shape[2:])[:count] for leaf in seen)
    multipliers, penalty = duals(activations)
    share = diversity.pair_weight(weight, whole.count, past) if mean_pairs else weight

    def total(codes, multipliers, sound):
        observation = observe.observe(networks, codes)
        points = diversity.points_of(distance, codes, observation)
        spread = _spread(points, sound, whole, past)
        terms = constraint_terms(observation.activations, multipliers, penalty, target)
        return jnp.where(sound, terms - share * spread, 0).sum()

    slope = observe.map_batches(jax.grad(total), micro_batch, codes, multipliers, sound)
    slope, sound = _sound(slope, sound)
    spread = 2 * whole.count * whole.scatter
    return slope, activations, spread, (multipliers, penalty), sound


def point_size(networks, codes, distance):
    """Dimensions of what distance is taken between."""

    def points(codes):
        return diversity.points_of(distance, codes, observe.observe(networks, codes))

    return jax.eval_shape(points, codes).shape[1]


def _spread(points, sound, whole, past):
    """Eq. 7 split over samples, those that are not sound aside; whole: `Moments` of the others."""
    points = jnp.where(sound[:, None], points, 0)
    return diversity.separable_pair_terms(points, whole.count, whole.mean, past)


def _sound(slope, sound):
    """Gradients `[K, D]` of sound codes, zero elsewhere; who is sound, the gradient looked at."""
    sound = sound & jnp.isfinite(slope).all(-1)
    return jnp.where(sound[:, None], slope, 0), sound
