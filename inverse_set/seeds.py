"""K codes brought into the interval, kept apart: coordinate descent of eq. 9 (sec. 3.4).

`init`, then `advance` until the status is no longer RUNNING.  All of it runs on the device, stop
test included; cutting a run into pieces does not change a bit of it.  With all n codes at once and
`stop="plateau"` the same descent is eq. 16.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inverse_set import constraints, diversity, lagrangian, observe
from inverse_set.types import Observation, Status

STOPS = ("inside", "plateau")


class Problem(NamedTuple):
    """What is sampled.

    networks: `Networks`.  target: `Target`.
    weight: of the sum over ordered pairs; 1 is the paper's.
    lower, upper: `[1, D]`, the box codes are projected to; None leaves them free.
    """

    networks: Any
    target: Any
    weight: Any
    lower: Any = None
    upper: Any = None


class Descent(NamedTuple):
    """How the seeds are found.

    optimiser: any optax transformation.
    distance: what is kept apart, one of `diversity.DISTANCES`.
    max_steps: budget of gradient steps.  inner_steps: of them between updates of lambda and mu.
    penalty, growth, penalty_cap: mu_0, alpha, and the largest mu.
    stop: "inside" as soon as all are, "plateau" when diversity has not grown by a thousandth for
        `patience` steps with all inside.
    micro: codes a micro-batch, None for all at once.
    """

    optimiser: Any
    distance: str = "encoder"
    max_steps: int = 1000
    inner_steps: int = 100
    penalty: float = 10.0
    growth: float = 10.0
    penalty_cap: float = 1e5
    stop: str = "inside"
    patience: int = 300
    micro: int | None = None


class Best(NamedTuple):
    """The best codes seen: most inside, then most diverse.

    codes: `[K, D]`.  observation: of them.  inside: `[K]`.  spread: their pair sum.
    step: int32, when they were seen.
    """

    codes: jnp.ndarray
    observation: Observation
    inside: jnp.ndarray
    spread: jnp.ndarray
    step: jnp.ndarray


class SeedState(NamedTuple):
    """What the next gradient step needs.

    codes: `[K, D]`.  multipliers: `[K, P]` (lambda, eq. 9).  penalty: scalar mu > 0.
    opt_state: of the optimiser.  step: int32, gradient steps taken.  status: int32, a `Status`.
    best: the best codes so far.  nearest: `[P]`, activations of the sample that came nearest to the
    target; gap: scalar, how far outside it was, in units of the target's scale.
    """

    codes: jnp.ndarray
    multipliers: jnp.ndarray
    penalty: jnp.ndarray
    opt_state: Any
    step: jnp.ndarray
    status: jnp.ndarray
    best: Best
    nearest: jnp.ndarray
    gap: jnp.ndarray


def init(problem, descent, codes):
    """The state before the first step, from starting codes `[K, D]`; lambda = 0, mu = mu_0."""
    codes = project(problem, codes)
    shapes = jax.eval_shape(observe.observe, problem.networks, codes)
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    count, constrained = blank.activations.shape
    dtype = codes.dtype
    best = Best(
        codes,
        blank,
        jnp.zeros(count, bool),
        jnp.asarray(-jnp.inf, dtype),
        jnp.int32(0),
    )
    return SeedState(
        codes,
        jnp.zeros((count, constrained), dtype),
        jnp.asarray(descent.penalty, dtype),
        descent.optimiser.init(codes),
        jnp.int32(0),
        jnp.int32(Status.RUNNING),
        best,
        jnp.full((constrained,), jnp.inf, dtype),
        jnp.asarray(jnp.inf, dtype),
    )


def project(problem, codes):
    """Codes `[K, D]` into the box of the problem."""
    if problem.lower is None:
        return codes
    return jnp.clip(codes, problem.lower, problem.upper)


@functools.partial(jax.jit, static_argnames="descent")
def advance(state, problem, descent, until):
    """Steps until `until` gradient steps have been taken or the status is no longer RUNNING."""

    def running(state):
        # A step beyond `until` looks at the last codes without moving them.
        return (state.status == Status.RUNNING) & (state.step < until)

    return jax.lax.while_loop(running, lambda state: _step(state, problem, descent), state)


def _step(state, problem, descent):
    """Looks at the codes; stops, or moves them by one gradient step.

    A run of max_steps steps looks max_steps + 1 times: the last look moves nothing.
    """
    multipliers, penalty = _dual_update(state, problem, descent)
    slope, observation = lagrangian.gradient(
        problem.networks,
        state.codes,
        multipliers,
        penalty,
        problem.target,
        _nothing_before(descent.distance, state),
        problem.weight,
        descent.distance,
        descent.micro,
    )
    finite = (
        jnp.isfinite(slope).all()
        & jnp.isfinite(observation.activations).all()
        & jnp.isfinite(observation.features).all()
    )
    best, nearest, gap = _remember(state, observation, finite, problem, descent)
    status = _judge(state, observation, finite, best, problem, descent)
    updates, opt_state = descent.optimiser.update(slope, state.opt_state, state.codes)
    moved = SeedState(
        project(problem, state.codes + updates),
        multipliers,
        penalty,
        opt_state,
        state.step + 1,
        status,
        best,
        nearest,
        gap,
    )
    stopped = state._replace(status=status, best=best, nearest=nearest, gap=gap)
    go_on = status == Status.RUNNING
    return jax.tree.map(lambda new, old: jnp.where(go_on, new, old), moved, stopped)


def _dual_update(state, problem, descent):
    """Lambda, then mu, once every `inner_steps` steps.

    A run that stops here keeps the old ones: lambda* and mu* are what the last inner solve used.
    """

    def update():
        activations = observe.activations_of(problem.networks, state.codes, descent.micro)
        multipliers = lagrangian.update_multipliers(
            activations, state.multipliers, state.penalty, problem.target
        )
        penalty = lagrangian.update_penalty(state.penalty, descent.growth, descent.penalty_cap)
        return multipliers, penalty

    due = (state.step > 0) & (state.step % descent.inner_steps == 0)
    return jax.lax.cond(due, update, lambda: (state.multipliers, state.penalty))


def _nothing_before(distance, state):
    shape = jax.eval_shape(
        lambda: diversity.points_of(distance, state.codes, state.best.observation)
    )
    return diversity.no_points(shape.shape[1], shape.dtype)


def _remember(state, observation, finite, problem, descent):
    """Best codes and nearest activation, this look included."""
    inside = constraints.inside(observation.activations, problem.target)
    points = diversity.points_of(descent.distance, state.codes, observation)
    spread = diversity.pair_sum(points).astype(state.codes.dtype)
    seen = Best(state.codes, observation, inside, spread, state.step)
    more = inside.sum() > state.best.inside.sum()
    wider = spread > state.best.spread + 1e-3 * jnp.abs(state.best.spread)
    first = jnp.isneginf(state.best.spread)
    better = finite & (more | first | ((inside.sum() == state.best.inside.sum()) & wider))
    best = jax.tree.map(lambda new, old: jnp.where(better, new, old), seen, state.best)
    gaps = constraints.violations(observation.activations, problem.target)
    gaps = jnp.where(jnp.isfinite(gaps), gaps, jnp.inf)
    winner = gaps.argmin()
    nearer = gaps[winner] < state.gap
    nearest = jnp.where(nearer, observation.activations[winner], state.nearest)
    return best, nearest, jnp.where(nearer, gaps[winner], state.gap)


def _judge(state, observation, finite, best, problem, descent):
    """The status after this look."""
    all_inside = constraints.inside(observation.activations, problem.target).all()
    arrived = all_inside & (descent.stop == "inside")
    settled = best.inside.all() & (state.step - best.step >= descent.patience)
    spent = state.step >= descent.max_steps
    ended = jnp.where(
        best.inside.all(),
        Status.BUDGET,
        jnp.where(best.inside.any(), Status.PARTIAL, Status.INFEASIBLE),
    )
    return jnp.select(
        [~finite, arrived, settled & (descent.stop == "plateau"), spent],
        [jnp.int32(s) for s in (Status.NON_FINITE, Status.OK, Status.PLATEAU)]
        + [ended.astype(jnp.int32)],
        jnp.int32(Status.RUNNING),
    )
