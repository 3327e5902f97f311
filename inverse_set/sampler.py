"""Walking inside the feasible region: a gradient step of eq. 11 for K new samples (sec. 3.3).

`init` from the seeds, then `advance`: a compiled loop of steps with lambda* and mu* fixed.  The
random key is part of the state and folded with the number of the step, so another key is another
sample, and a walk that is cut into pieces is the same walk.  Every number is an argument of the
compiled program, and so is which of the K codes walk: another number compiles nothing.
"""

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inverse_set import constraints, diversity, lagrangian, observe, refine, seeds
from inverse_set.types import STATIC, Observation

MEMORIES = ("replace", "accumulate")


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Walk:
    """How the region is walked.

    Structure, static:
    distance: what is kept apart, one of `diversity.DISTANCES`.
    memory: C0 is "replace"d by the newest samples (the paper) or "accumulate"s all of them.
    backtrack: halve each code's own step, at most `halvings` times, until its sample is inside.
    mean_pairs: the problem's weight is that of the mean over pairs, so that C0 does not raise it,
        or of their raw sum (the paper).
    micro_batch: codes per micro-batch, None for all at once.

    Traced:
    refinement: leave the region and come back instead (refine.py); None for neither.
    halvings: number, see `backtrack`.
    """

    distance: str = field(default="encoder", metadata=STATIC)
    memory: str = field(default="replace", metadata=STATIC)
    backtrack: bool = field(default=True, metadata=STATIC)
    mean_pairs: bool = field(default=True, metadata=STATIC)
    micro_batch: int | None = field(default=None, metadata=STATIC)
    refinement: refine.Refinement | None = None
    halvings: Any = 8


class WalkState(NamedTuple):
    """What the next step needs.

    codes: `[K, D]`.  past: `Moments` of C0.  multipliers: `[K, P]` (lambda*).  penalty: mu*.
    length: beta; the first trial's length in code space, or the factor of the plain gradient.
    step: int32, gradient steps taken.  images: `[K, ...]`, of the codes.
    alive: `[K]`, the codes that walk: those of seeds inside, at which nothing was NaN or infinite.
    key: of `jax.random.key`; step keys are folded out of it.
    """

    codes: jnp.ndarray
    past: diversity.Moments
    multipliers: jnp.ndarray
    penalty: jnp.ndarray
    length: jnp.ndarray
    step: jnp.ndarray
    images: jnp.ndarray
    alive: jnp.ndarray
    key: jax.Array


class Samples(NamedTuple):
    """What one step found.

    codes: `[K, D]`.  observation: of them.  accepted: `[K]`, which are samples.
    length: `[K]`, length of the accepted step after its halvings, 0 where the code stayed.
    alive: `[K]`, which codes walk on.
    """

    codes: jnp.ndarray
    observation: Observation
    accepted: jnp.ndarray
    length: jnp.ndarray
    alive: jnp.ndarray


def init(walk, codes, observation, multipliers, penalty, alive, length, key):
    """The state at the seeds `[K, D]`: their observation, lambda*, mu*, who walks, beta, a key."""
    points = diversity.points_of(walk.distance, codes, observation)
    past = diversity.moments(points, alive)
    length = jnp.asarray(length, codes.dtype)
    step, images = jnp.int32(0), observation.images
    return WalkState(codes, past, multipliers, penalty, length, step, images, alive, key)


@functools.partial(jax.jit, static_argnames="capacity")
def advance(state, problem, walk, steps, capacity):
    """Takes `steps` <= `capacity` steps; returns (state, `Samples` with a leading axis `capacity`).

    Rows at `steps` and beyond are zeros.  Rows of samples not accepted are no samples.
    """
    shapes = jax.eval_shape(lambda s: step(s, problem, walk)[1], state)
    empty = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape), leaf.dtype), shapes)

    def body(index, carry):
        state, found = carry
        state, samples = step(state, problem, walk)
        found = jax.tree.map(
            lambda all_rows, row: jax.lax.dynamic_update_index_in_dim(all_rows, row, index, 0),
            found,
            samples,
        )
        return state, found

    return jax.lax.fori_loop(0, steps, body, (state, empty))


def step(state, problem, walk):
    """One step: (`WalkState`, `Samples`) of K new samples, those that are accepted."""
    keys = jax.random.split(jax.random.fold_in(state.key, state.step + 1), 3)
    slope, sound = _slope(state, problem, walk)
    state = state._replace(alive=sound)
    if walk.refinement is not None:
        samples = _refine(keys, state, slope, problem, walk)
    elif walk.backtrack:
        samples = _backtrack(keys, state, slope, problem, walk)
    else:
        samples = _plain(state, slope, problem, walk)
    points = diversity.points_of(walk.distance, samples.codes, samples.observation)
    new = diversity.moments(points, samples.accepted)
    if walk.memory == "accumulate":
        past = diversity.merge(state.past, new)
    else:
        past = jax.tree.map(lambda a, b: jnp.where(new.count > 0, a, b), new, state.past)
    images = samples.observation.images
    if walk.backtrack or walk.refinement is not None:
        images = _rows(samples.accepted, images, state.images)
    moved = state._replace(
        codes=samples.codes, past=past, step=state.step + 1, images=images, alive=samples.alive
    )
    return moved, samples


def _rows(chosen, new, old):
    """Rows of `new` where `[K]` is true, of `old` elsewhere."""
    return jnp.where(chosen.reshape(-1, *(1,) * (old.ndim - 1)), new, old)


def _slope(state, problem, walk):
    """The gradient of eq. 11, `[K, D]`, and which codes walk on, `[K]`."""
    objective = walk.distance, walk.mean_pairs
    duals = state.multipliers, state.penalty
    common = (problem.networks, state.codes, lambda _: duals, problem.target)
    common += (state.past, problem.weight, objective, state.alive)
    if walk.micro_batch is None:
        slope, *_, sound = lagrangian.gradient(*common)
    else:
        slope, *_, sound = lagrangian.batched_gradient(*common, walk.micro_batch)
    return slope, sound


def _plain(state, slope, problem, walk):
    """Eq. 11 as printed: every code takes the plain step, wherever it leads."""
    codes = seeds.project(problem, state.codes - state.length * slope)
    observation = observe.observe_exactly(problem.networks, codes, walk.micro_batch)
    alive = state.alive & observe.finite(observation)
    accepted = alive & constraints.inside(observation.activations, problem.target)
    lengths = jnp.full(len(codes), state.length, codes.dtype)
    return Samples(codes, observation, accepted, lengths, alive)


def _backtrack(keys, state, slope, problem, walk):
    """Each code's own longest step, of length l, l / 2, ..., whose sample is inside and new.

    l is drawn for each code, log-uniform and at most a factor of sqrt(2) from beta.  A picture that
    has not changed is no sample.
    """
    codes, alive = state.codes, state.alive
    direction = _direction(keys[0], slope)

    def attempt(lengths):
        trial = seeds.project(problem, codes - lengths[:, None] * direction)
        observation = observe.observe_exactly(problem.networks, trial, walk.micro_batch)
        inside = constraints.inside(observation.activations, problem.target)
        changed = (observation.images != state.images).reshape(len(codes), -1).any(-1)
        return trial, observation, alive & inside & changed

    def unsettled(carry):
        halvings, (_, _, accepted), _ = carry
        return (halvings <= walk.halvings) & ~(accepted | ~alive).all()

    def halve(carry):
        halvings, (_, _, accepted), lengths = carry
        lengths = jnp.where(accepted, lengths, lengths / 2)
        return halvings + 1, attempt(lengths), lengths

    # The first trial is a halving too, of twice the length: the networks are compiled once.
    drawn = jax.random.uniform(keys[1], (len(codes),), codes.dtype, -0.5, 0.5)
    twice = 2 * state.length * jnp.exp2(drawn)
    before = codes, observe.blank(problem.networks, codes), jnp.zeros(len(codes), bool)
    carry = jax.lax.while_loop(unsettled, halve, (0, before, twice))
    _, (trial, observation, accepted), lengths = carry
    return Samples(
        codes=jnp.where(accepted[:, None], trial, codes),
        observation=observation,
        accepted=accepted,
        length=jnp.where(accepted, lengths, 0),
        alive=alive & observe.finite(observation),
    )


def resample_seeds(state, observation, problem, walk, capacity):
    """Seeds moved by one step of the "refine" walk, so that they are samples as the others are.

    observation: of them.  capacity: of `advance`, whose program this is, too.
    Returns (state, `Observation`); a seed that does not come back stays.
    """
    moved, found = advance(state._replace(step=state.step - 1), problem, walk, 1, capacity)
    return _resampled(moved, found, observation, walk.distance)


@functools.partial(jax.jit, static_argnames="distance")
def _resampled(moved, found, observation, distance):
    """C0 is all the seeds that walk, those that stayed where they were among them."""
    accepted = found.accepted[0]
    seen = jax.tree.map(
        lambda new, old: _rows(accepted, new[0], old), found.observation, observation
    )
    points = diversity.points_of(distance, moved.codes, seen)
    return moved._replace(past=diversity.moments(points, moved.alive)), seen


def _refine(keys, state, slope, problem, walk):
    """A long step and back; where it does not come back, the code stays."""
    direction_key, leave_key, level_key = keys
    direction = _direction(direction_key, slope)
    apart = state.length, walk.refinement, state.alive, problem.natural
    codes = refine.leave(leave_key, state.codes, direction, *apart)
    codes = seeds.project(problem, codes)
    codes, seen = _come_back(level_key, codes, problem, walk, state)
    alive = state.alive & observe.finite(seen)
    inside = constraints.inside(seen.activations, problem.target)
    changed = (seen.images != state.images).reshape(len(codes), -1).any(-1)
    accepted = alive & inside & changed
    codes = jnp.where(accepted[:, None], codes, state.codes)
    return Samples(codes, seen, accepted, jnp.where(accepted, state.length, 0), alive)


def _come_back(key, codes, problem, walk, state):
    """Codes re-encoded and corrected in turn; (codes, `Observation`)."""
    refinement = walk.refinement
    level = refine.levels(key, len(codes), problem.target, refinement.tolerance)
    longest = refinement.reach * state.length
    parts = (level, problem, refinement, longest, seeds.project, state.alive, walk.micro_batch)

    def encode(codes):
        return seeds.project(problem, refine.encode(problem.networks, codes, walk.micro_batch))

    if not refinement.encodings:
        return refine.correct(problem.networks, codes, *parts)

    def again(_, carry):
        return refine.correct(problem.networks, encode(carry[0]), *parts)

    before = codes, observe.blank(problem.networks, codes)
    return jax.lax.fori_loop(0, refinement.encodings, again, before)


def _direction(key, slope):
    """Unit vectors along the gradient `[K, D]`; where there is none, in a random direction."""
    chance = jax.random.normal(key, slope.shape, slope.dtype)
    length = jnp.linalg.norm(slope, axis=-1, keepdims=True)
    slope = jnp.where(length > 0, slope, chance)
    return slope / jnp.linalg.norm(slope, axis=-1, keepdims=True)
