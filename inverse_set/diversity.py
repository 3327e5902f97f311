"""How far apart samples are: the sum over ordered pairs of squared distances (eqs. 4 to 7, 14, 15).

Every sum over pairs is written with means, O(n) instead of O(n^2):

    sum_ij |e_i - e_j|^2 = 2 n sum_i |e_i - mean e|^2

centred, because the difference of two large sums cancels in float32.
"""

from typing import NamedTuple

import jax.numpy as jnp

DISTANCES = ("encoder", "image", "code", "none")


class Moments(NamedTuple):
    """All that a fixed set of points contributes to eq. 7.

    count: scalar.  mean: `[F]`.  scatter: scalar, sum of squared distances to the mean.
    """

    count: jnp.ndarray
    mean: jnp.ndarray
    scatter: jnp.ndarray


def no_points(features, dtype=jnp.float32):
    """Moments of the empty set in `features` dimensions."""
    return Moments(jnp.zeros((), dtype), jnp.zeros((features,), dtype), jnp.zeros((), dtype))


def moments(points, weights=None):
    """Moments of points `[K, F]`, those of weight 0 left out (weights `[K]` of 0 and 1).

    A point of weight 0 may be NaN.
    """
    weights = jnp.ones(points.shape[:1], points.dtype) if weights is None else weights
    weights = weights.astype(points.dtype)[:, None]
    points = jnp.where(weights > 0, points, 0)
    count = weights.sum()
    mean = (weights * points).sum(0) / jnp.maximum(count, 1)
    return Moments(count, mean, (weights * (points - mean[None]) ** 2).sum())


def merge(a, b):
    """Moments of the union of two sets."""
    count = a.count + b.count
    share = b.count / jnp.maximum(count, 1)
    shift = b.mean - a.mean
    scatter = a.scatter + b.scatter + a.count * share * (shift**2).sum()
    return Moments(count, a.mean + share * shift, scatter)


def pair_sum(points, weights=None):
    """Eq. 6: sum_ij |e_i - e_j|^2 over ordered pairs of points `[n, F]`.

    weights: `[n]` of 0 and 1; pairs with a point of weight 0 are left out, and it may be NaN.
    """
    known = moments(points, weights)
    return 2 * known.count * known.scatter


def pair_weight(weight, count, past):
    """The weight per pair, so that all pairs of eq. 7 together have `weight` times their mean.

    count: of the samples that move, whose own ordered pairs are count (count - 1).
    past: `Moments` of C0, which adds count |C0| pairs.  One weight thus serves every K and |C0|.
    """
    return weight / jnp.maximum(count * (count - 1) + count * past.count, 1)


def separable_pair_terms(points, count, mean, past):
    """Eq. 7 split over samples, `[k]`: summed over all `count` of them it is eq. 7.

    With the mean held constant the gradient is still exact, because deviations from the mean sum to
    zero: d/de_i = 4 n (e_i - mean) + 2 |C0| (e_i - mean C0).  Only the mean is shared, so a batch
    can be cut into micro-batches.
    """
    own = 2 * count * ((points - mean[None]) ** 2).sum(-1)
    return own + past.count * ((points - past.mean[None]) ** 2).sum(-1) + past.scatter


def points_of(distance, codes, observation):
    """What "distance" is taken between, `[K, F]`: encodings (6), pixels (eq. 5), codes (eq. 14).

    "none" (eq. 15) returns points without dimensions, whose pair sum is zero.
    """
    if distance == "encoder":
        return observation.features
    if distance == "image":
        return observation.images.reshape(observation.images.shape[0], -1)
    if distance == "code":
        return codes
    if distance == "none":
        return codes[:, :0]
    raise ValueError(f"expected a distance among {', '.join(DISTANCES)}, got {distance!r}")
