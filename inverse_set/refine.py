"""A sampling step that leaves the feasible region and comes back: predictor and corrector.

    c <- c + w (c' - c) + sigma n - beta d,  d = grad L / |grad L|,  n = (a - b) / |a - b|
                 d the direction of eq. 11, c' another chain's code, a and b codes of natural inputs
    c <- E(G(c))                                            the code of a picture that G draws
    c <- c - 2 h grad h / |grad h|^2,    h = |r|^2 / 2      until f lies at a level of its own

A step of eq. 11 that has to stay inside is short, and its samples are neighbours.  This one is as
long as the distance between natural pictures, and its random part is a way from one of them to
another, so that it changes what natural pictures differ in.  Going some way to another chain's code
keeps what the two share, the unit's features among it; re-encoding keeps the code among pictures
that G can draw, and the corrector (Newton's method on f along its own gradient) brings it back.
The last two take turns: a correction that pictures do not carry is lost at the next encoding, and
one that they do remains.  The levels are uniform in the interval, a new one for every sample, so
that the sample fills it.
"""

from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp

from inverse_set import constraints, observe
from inverse_set.types import STATIC


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Refinement:
    """How a step leaves and comes back.

    Structure, static:
    encodings: times that codes are replaced by E(G(c)) and then corrected; needs an E whose range
        are codes.  0 corrects once.

    Numbers, traced:
    noise: length of the random part, in lengths of the gradient's part.
    reach: longest correction, in the same unit.
    mixing: mean share w of the way to another code; each takes its own, up to half more or less.
    corrections: gradient steps back into the interval, at most.
    tolerance: share of the scale within which a level counts as reached.
    """

    encodings: int = field(default=0, metadata=STATIC)
    noise: Any = 10.0
    reach: Any = 3.0
    mixing: Any = 0.0
    corrections: Any = 8
    tolerance: Any = 0.1


def levels(key, count, target, tolerance):
    """A level for each of `count` codes and constraint, uniform in the accepted interval `[K, P]`.

    `tolerance` of the scale is kept from either end.  Uses the key up.
    """
    inset = tolerance * target.scale
    low, high = target.accept_low + inset, target.accept_high - inset
    share = jax.random.uniform(key, (count, low.shape[1]), low.dtype)
    return low + share * (high - low)


def random_directions(key, like, natural=None):
    """Random unit vectors of the shape of `like` `[K, D]`; uses the key up.

    From one to another of the natural codes `[M, D]`, M >= 2, each pair drawn at random; of any
    direction alike without them, and where the two are equal.
    """
    any_key, from_key, way_key = jax.random.split(key, 3)
    vectors = anywhere = jax.random.normal(any_key, like.shape, like.dtype)
    if natural is not None:
        count = len(natural)
        first = jax.random.randint(from_key, like.shape[:1], 0, count)
        second = (first + jax.random.randint(way_key, like.shape[:1], 1, count)) % count
        vectors = natural[second] - natural[first]
        vectors = jnp.where((vectors == 0).all(-1, keepdims=True), anywhere, vectors)
    return vectors / jnp.linalg.norm(vectors, axis=-1, keepdims=True)


def leave(key, codes, direction, length, refinement, alive, natural=None):
    """c + w (c' - c) + noise length n - length d for codes and unit directions `[K, D]`.

    c' is a code of a random order of the codes that walk (alive `[K]`), w uniform about `mixing`, n
    as of `random_directions`.  Uses the key up.
    """
    order_key, share_key, noise_key = jax.random.split(key, 3)
    others = codes[_another(order_key, alive)]
    share = jax.random.uniform(share_key, (len(codes), 1), codes.dtype, 0.5, 1.5)
    codes = codes + refinement.mixing * share * (others - codes)
    noise = random_directions(noise_key, codes, natural)
    return codes + length * (refinement.noise * noise - direction)


def _another(key, alive):
    """A random order of the rows that are alive, `[K]` indices; the others stay in their places.

    Uses the key up.
    """
    chance = jnp.where(alive, jax.random.uniform(key, alive.shape), jnp.inf)
    order = jnp.argsort(chance)  # those alive come first, in a random order
    place = jnp.cumsum(alive) - 1
    return jnp.where(alive, order[place], jnp.arange(len(alive)))


def encode(networks, codes, micro_batch):
    """E(G(c)), `[K, D]`."""
    return observe.observe_all(networks, codes, micro_batch).features


def newton(codes, gap, slope, longest, lower, upper):
    """c - 2 h grad h / |grad h|^2 of codes `[K, D]`, at most `longest` long.

    gap: h, `[K]`.  slope: grad h, `[K, D]`.  lower, upper: the box `[1, D]` or None; where a code
    lies on its border and would leave it, it stays, and the rest does its share.
    """
    if lower is not None:
        blocked = (codes <= lower) & (slope > 0) | (codes >= upper) & (slope < 0)
        slope = jnp.where(blocked, 0, slope)
    square = (slope**2).sum(-1)
    scale = 2 * gap / jnp.where(square > 0, square, 1)
    size = scale * jnp.sqrt(square)
    scale = scale * jnp.minimum(1, longest / jnp.where(size > 0, size, 1))
    return codes - scale[:, None] * slope


def correct(networks, codes, level, problem, refinement, longest, project, alive, micro_batch):
    """Codes `[K, D]` brought to their levels `[K, P]`; returns (codes, `Observation` of them).

    alive: `[K]`, the codes that are waited for.
    """
    target, tolerance = problem.target, refinement.tolerance

    def miss(codes, level):
        observation = observe.observe(networks, codes)
        r = constraints.residuals(observation.activations, level, target)
        gap = (r**2).sum(-1) / 2
        near = (jnp.abs(r) <= tolerance).all(-1)
        return gap.sum(), (gap, near, observation)

    def evaluate(codes):
        slope = jax.grad(miss, has_aux=True)
        # What is seen here is accepted or not: full float32, as in `observe.observe_exactly`.
        with jax.default_matmul_precision("highest"):
            if micro_batch is None:
                return slope(codes, level)
            return observe.map_batches(slope, micro_batch, codes, level)

    def away(carry):
        done, near, *_ = carry
        return (done <= refinement.corrections) & ~(near | ~alive).all()

    def again(carry):
        done, _, following, _, _ = carry
        slope, (gap, near, observation) = evaluate(following)
        moved = newton(following, gap, slope, longest, problem.lower, problem.upper)
        moved = jnp.where(near[:, None], following, project(problem, moved))
        return done + 1, near, moved, following, observation

    before = observe.blank(networks, codes)
    start = (0, jnp.zeros(len(codes), bool), codes, codes, before)
    *_, seen, observation = jax.lax.while_loop(away, again, start)
    return seen, observation
