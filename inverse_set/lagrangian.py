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


def gradient(networks, codes, multipliers, penalty, target, past, weight, objective, alive):
    """dL/dC at codes `[K, D]`, and the observation it was taken from.

    past: `Moments` of C0 (eq. 7); `no_points` gives eq. 9.  weight: of the diversity term.
    objective: (distance, mean_pairs): what is kept apart, one of `diversity.DISTANCES`, and whether
    the weight is that of the mean over pairs or of their raw sum (the paper).
    alive: `[K]`, which codes count; the others are no part of any pair, and have no gradient.
    Returns (gradient `[K, D]`, `Observation`, alive `[K]`): a code at which a network or its
    gradient is NaN or infinite is alive no longer, and changes nothing for the others.
    """
    distance, mean_pairs = objective

    def total(codes):
        observation = observe.observe(networks, codes)
        points = diversity.points_of(distance, codes, observation)
        sound = alive & observe.finite(observation) & jnp.isfinite(points).all(-1)
        points = jnp.where(sound[:, None], points, 0)
        whole = diversity.moments(jax.lax.stop_gradient(points), sound)
        share = diversity.pair_weight(weight, whole.count, past) if mean_pairs else weight
        spread = diversity.separable_pair_terms(points, whole.count, whole.mean, past)
        terms = constraint_terms(observation.activations, multipliers, penalty, target)
        return jnp.where(sound, terms - share * spread, 0).sum(), (observation, sound)

    slope, (observation, sound) = jax.grad(total, has_aux=True)(codes)
    slope, sound = _sound(slope, sound)
    return slope, observation, sound


def batched_gradient(
    networks, codes, multipliers, penalty, target, past, weight, objective, alive, micro
):
    """The gradient of `gradient` at codes `[n, D]`, `micro` of them at a time.

    Two passes: the mean of all points, which is all that samples share, then one micro-batch's
    gradient after another.  Exact, in memory that does not grow with n.
    Returns (gradient `[n, D]`, activations `[n, P]`, pair sum, alive `[n]`).
    """
    distance, mean_pairs = objective

    def points(codes):
        observation = observe.observe(networks, codes)
        found = diversity.points_of(distance, codes, observation)
        return found, observe.finite(observation) & jnp.isfinite(found).all(-1)

    def measure(whole, batch):
        codes, real = batch
        found, sound = points(codes)
        return diversity.merge(whole, diversity.moments(found, real & sound)), sound

    batches = observe.cut(micro, codes, alive)
    size = jax.eval_shape(points, codes[:1])[0].shape[1]
    nothing = diversity.no_points(size, codes.dtype)
    whole, sound = jax.lax.scan(measure, nothing, batches)
    sound = alive & sound.reshape(-1)[: codes.shape[0]]
    share = diversity.pair_weight(weight, whole.count, past) if mean_pairs else weight

    def total(codes, multipliers, sound):
        observation = observe.observe(networks, codes)
        own = diversity.points_of(distance, codes, observation)
        own = jnp.where(sound[:, None], own, 0)
        spread = diversity.separable_pair_terms(own, whole.count, whole.mean, past)
        terms = constraint_terms(observation.activations, multipliers, penalty, target)
        return jnp.where(sound, terms - share * spread, 0).sum(), observation.activations

    slope = jax.grad(total, has_aux=True)
    gradients, activations = observe.map_batches(slope, micro, codes, multipliers, sound)
    gradients, sound = _sound(gradients, sound)
    return gradients, activations, 2 * whole.count * whole.scatter, sound


def _sound(slope, sound):
    """Gradients `[K, D]` of sound codes, zero elsewhere; who is sound, the gradient looked at."""
    sound = sound & jnp.isfinite(slope).all(-1)
    return jnp.where(sound[:, None], slope, 0), sound
