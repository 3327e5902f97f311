"""Walking inside the feasible region: a gradient step of eq. 11 for K new samples (sec. 3.3).

`init` from the seeds, then `advance`: a compiled loop of steps with lambda* and mu* fixed.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from inverse_set import constraints, diversity, lagrangian, observe, refine, seeds
from inverse_set.types import Observation

MEMORIES = ("replace", "accumulate")


class Walk(NamedTuple):
    """How the region is walked.

    distance: what is kept apart, one of `diversity.DISTANCES`.
    memory: C0 is "replace"d by the newest samples (the paper) or "accumulate"s all of them.
    backtrack: halve each code's own step, at most `halvings` times, until its sample is inside.
    refinement: leave the region and come back instead (refine.py); None for neither.
    mean_pairs: scale the weight with the number of pairs, so that C0 does not raise it.
    micro: codes a micro-batch, None for all at once.
    """

    distance: str = "encoder"
    memory: str = "replace"
    backtrack: bool = True
    halvings: int = 8
    refinement: refine.Refinement | None = None
    mean_pairs: bool = True
    micro: int | None = None


class WalkState(NamedTuple):
    """What the next step needs.

    codes: `[K, D]`.  past: `Moments` of C0.  multipliers: `[K, P]` (lambda*).  penalty: mu*.
    length: beta; the first trial's length in code space, or the factor of the plain gradient.
    step: int32, gradient steps taken.  images: `[K, ...]`, of the codes.
    """

    codes: jnp.ndarray
    past: diversity.Moments
    multipliers: jnp.ndarray
    penalty: jnp.ndarray
    length: jnp.ndarray
    step: jnp.ndarray
    images: jnp.ndarray


class Samples(NamedTuple):
    """What one step found.

    codes: `[K, D]`.  observation: of them.  accepted: `[K]`, which are samples.
    length: `[K]`, what was left of beta.
    """

    codes: jnp.ndarray
    observation: Observation
    accepted: jnp.ndarray
    length: jnp.ndarray


def init(walk, codes, observation, multipliers, penalty, inside, length):
    """The state at the seeds `[K, D]`: their observation, lambda*, mu*, who is inside, beta."""
    points = diversity.points_of(walk.distance, codes, observation)
    past = diversity.moments(points, inside)
    length = jnp.asarray(length, codes.dtype)
    step, images = jnp.int32(0), observation.images
    return WalkState(codes, past, multipliers, penalty, length, step, images)


@functools.partial(jax.jit, static_argnames=("walk", "capacity"))
def advance(state, problem, walk, steps, capacity):
    """Takes `steps` <= `capacity` steps; returns (state, `Samples` with a leading axis `capacity`).

    Rows at `steps` and beyond are zeros.  Rows of samples not accepted are no samples.
    """
    shapes = jax.eval_shape(lambda s: _step(s, problem, walk)[1], state)
    empty = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), shapes)

    def body(index, carry):
        state, found = carry
        state, samples = _step(state, problem, walk)
        found = jax.tree.map(
            lambda all_rows, row: jax.lax.dynamic_update_index_in_dim(all_rows, row, index, 0),
            found,
            samples,
        )
        return state, found

    return jax.lax.fori_loop(0, steps, body, (state, empty))


def pair_weight(weight, count, past):
    """The weight per pair when C0 holds more pairs than the seeds' own, so that the mean over all
    pairs keeps the scale it had for the seeds (one weight for every K and |C0|)."""
    own = count * max(count - 1, 1)
    return weight * own / (own + count * past.count)


def _step(state, problem, walk):
    count = state.codes.shape[0]
    slope = _slope(state, problem, walk)
    if walk.refinement:
        samples = _refine(state, slope, problem, walk)
    elif walk.backtrack:
        samples = _backtrack(state, slope, problem, walk)
    else:
        codes = seeds.project(problem, state.codes - state.length * slope)
        observation = observe.observe_all(problem.networks, codes, walk.micro)
        accepted = constraints.inside(observation.activations, problem.target)
        lengths = jnp.full(count, state.length, codes.dtype)
        samples = Samples(codes, observation, accepted, lengths)
    points = diversity.points_of(walk.distance, samples.codes, samples.observation)
    new = diversity.moments(points, samples.accepted)
    if walk.memory == "accumulate":
        past = diversity.merge(state.past, new)
    else:
        past = jax.tree.map(lambda a, b: jnp.where(new.count > 0, a, b), new, state.past)
    images = samples.observation.images
    if walk.backtrack or walk.refinement:
        moved = samples.accepted.reshape(-1, *(1,) * (images.ndim - 1))
        images = jnp.where(moved, images, state.images)
    step = state.step + 1
    return state._replace(codes=samples.codes, past=past, step=step, images=images), samples


def _slope(state, problem, walk):
    """The gradient of eq. 11, `[K, D]`."""
    weight = problem.weight
    if walk.mean_pairs:
        weight = pair_weight(weight, state.codes.shape[0], state.past)
    common = (problem.networks, state.codes, state.multipliers, state.penalty, problem.target)
    common += (state.past, weight, walk.distance)
    if walk.micro is None:
        return lagrangian.gradient(*common)[0]
    return lagrangian.batched_gradient(*common, walk.micro)[0]


def _backtrack(state, slope, problem, walk):
    """Each code's own longest step, of length, length / 2, ..., whose sample is inside and new.

    A picture that has not changed is no sample.
    """
    codes = state.codes
    direction = _direction(state.step, slope)

    def attempt(lengths):
        trial = seeds.project(problem, codes - lengths[:, None] * direction)
        observation = observe.observe_all(problem.networks, trial, walk.micro)
        inside = constraints.inside(observation.activations, problem.target)
        changed = (observation.images != state.images).reshape(len(codes), -1).any(-1)
        return Samples(trial, observation, inside & changed, lengths)

    def unsettled(carry):
        halvings, samples = carry
        return (halvings <= walk.halvings) & ~samples.accepted.all()

    def halve(carry):
        halvings, samples = carry
        lengths = jnp.where(samples.accepted, samples.length, samples.length / 2)
        return halvings + 1, attempt(lengths)

    # The first trial is a halving too, of twice the length: the networks are compiled once.
    twice = jnp.full(len(codes), 2 * state.length, codes.dtype)
    nobody = jnp.zeros(len(codes), bool)
    before = Samples(codes, observe.blank(problem.networks, codes), nobody, twice)
    _, samples = jax.lax.while_loop(unsettled, halve, (0, before))
    stay = ~samples.accepted[:, None]
    return samples._replace(
        codes=jnp.where(stay, codes, samples.codes),
        length=jnp.where(samples.accepted, samples.length, 0),
    )


def settle(state, observation, problem, walk, capacity):
    """Seeds moved by one step of the "refine" walk, so that they are samples as the others are.

    observation: of them.  capacity: of `advance`, whose program this is, too.
    Returns (state, `Observation`); a seed that does not come back stays.
    """
    moved, found = advance(state._replace(step=state.step - 1), problem, walk, 1, capacity)
    return _settled(moved, found, observation, walk.distance)


@functools.partial(jax.jit, static_argnames="distance")
def _settled(moved, found, observation, distance):
    """C0 is all the seeds, those that stayed where they were among them."""
    accepted = found.accepted[0]

    def choose(new, old):
        return jnp.where(accepted.reshape(-1, *(1,) * (old.ndim - 1)), new[0], old)

    seen = jax.tree.map(choose, found.observation, observation)
    past = diversity.moments(diversity.points_of(distance, moved.codes, seen))
    return moved._replace(past=past), seen


def _refine(state, slope, problem, walk):
    """A long step and back; where it does not come back, the code stays."""
    key = jax.random.fold_in(jax.random.key(1), state.step + 1)
    leave_key, level_key = jax.random.split(key)
    direction = _direction(state.step, slope)
    apart = state.length, walk.refinement, problem.natural
    codes = refine.leave(leave_key, state.codes, direction, *apart)
    codes = seeds.project(problem, codes)
    codes, seen = _come_back(level_key, codes, problem, walk, state.length)
    inside = constraints.inside(seen.activations, problem.target)
    changed = (seen.images != state.images).reshape(len(codes), -1).any(-1)
    accepted = inside & changed
    codes = jnp.where(accepted[:, None], codes, state.codes)
    return Samples(codes, seen, accepted, jnp.where(accepted, state.length, 0))


def _come_back(key, codes, problem, walk, length):
    """Codes re-encoded and corrected in turn; (codes, `Observation`)."""
    refinement = walk.refinement
    level = refine.levels(key, len(codes), problem.target, refinement.tolerance)
    longest = refinement.reach * length
    parts = (level, problem, refinement, longest, seeds.project, walk.micro)

    def encode(codes):
        return seeds.project(problem, refine.encode(problem.networks, codes, walk.micro))

    if not refinement.encodings:
        return refine.correct(problem.networks, codes, *parts)

    def again(_, carry):
        return refine.correct(problem.networks, encode(carry[0]), *parts)

    before = codes, observe.blank(problem.networks, codes)
    return jax.lax.fori_loop(0, refinement.encodings, again, before)


def _direction(step, slope):
    """Unit vectors along the gradient `[K, D]`; where there is none, in a random direction."""
    key = jax.random.fold_in(jax.random.key(0), step)
    chance = jax.random.normal(key, slope.shape, slope.dtype)
    length = jnp.linalg.norm(slope, axis=-1, keepdims=True)
    slope = jnp.where(length > 0, slope, chance)
    return slope / jnp.linalg.norm(slope, axis=-1, keepdims=True)
