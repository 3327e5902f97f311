"""K codes brought into the interval, kept apart: coordinate descent of eq. 9 (sec. 3.4).

`init`, then `advance` until the status is no longer RUNNING.  All of it runs on the device, stop
test included; cutting a run into pieces does not change a bit of it.  With all n codes at once and
`stop="plateau"` the same descent is eq. 16.

What decides the compiled program is static (the shapes, the optimiser, the kind of distance); every
number is an argument, and another number compiles nothing.
"""

import functools
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inverse_set import constraints, diversity, lagrangian, observe
from inverse_set.types import STATIC, Observation, Status

STOPS = ("inside", "plateau")
NEVER = 2**30  # more steps than any run takes


class Problem(NamedTuple):
    """What is sampled.

    networks: `Networks`.  target: `Target`.
    weight: scalar, of the diversity: of the mean over ordered pairs, or of their raw sum (1 is the
        paper's), as `mean_pairs` of a `Descent` or a `Walk` says.
    code_scale: scalar, what the optimiser's updates are multiplied by.
    lower, upper: `[1, D]`, the box codes are projected to; None leaves them free.
    natural: `[M, D]` codes of natural inputs, for the "refine" walk (refine.py); None for none.
    """

    networks: Any
    target: Any
    weight: Any
    code_scale: Any = 1.0
    lower: Any = None
    upper: Any = None
    natural: Any = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Descent:
    """How the seeds are found.

    Structure, static:
    optimiser: any optax transformation.
    distance: what is kept apart, one of `diversity.DISTANCES`.
    mean_pairs: whether the problem's weight is that of the mean over pairs or of their raw sum.
    stop: "inside" as soon as all are, "plateau" when diversity has not grown by a thousandth for
        `plateau_steps` steps with all inside.
    micro_batch: codes per micro-batch, None for all at once.

    Numbers, traced:
    max_steps: budget of gradient steps.  inner_steps: of them between updates of lambda and mu.
    penalty, growth, penalty_cap: mu_0, alpha, and the largest mu.
    plateau_steps: see `stop`.
    give_up_after: with stop "inside", steps after the last gain at which codes that are still
        outside are given up, if some are inside; `NEVER` waits as long as there are steps.
    """

    optimiser: Any = field(metadata=STATIC)
    distance: str = field(default="encoder", metadata=STATIC)
    mean_pairs: bool = field(default=False, metadata=STATIC)
    stop: str = field(default="inside", metadata=STATIC)
    micro_batch: int | None = field(default=None, metadata=STATIC)
    max_steps: Any = 1000
    inner_steps: Any = 100
    penalty: Any = 10.0
    growth: Any = 10.0
    penalty_cap: Any = 1e5
    plateau_steps: Any = 300
    give_up_after: Any = NEVER


class Best(NamedTuple):
    """The best codes seen: most inside, then most diverse.

    codes: `[K, D]`.  observation: of them, None in micro-batches, whose memory must not grow.
    inside: `[K]`.  spread: their pair sum.  step: int32, when they were seen.
    """

    codes: jnp.ndarray
    observation: Observation | None
    inside: jnp.ndarray
    spread: jnp.ndarray
    step: jnp.ndarray


class SeedState(NamedTuple):
    """What the next gradient step needs.

    codes: `[K, D]`.  multipliers: `[K, P]` (lambda, eq. 9).  penalty: scalar mu > 0.
    opt_state: of the optimiser.  step: int32, gradient steps taken.  status: int32, a `Status`.
    best: the best codes so far.
    last_gain_step: int32, the step at which more were inside than ever before.
    alive: `[K]`, the codes at which nothing was NaN or infinite yet; the others stay where they are
        and are no part of anything.
    nearest: `[P]`, activations of the sample that came nearest to the target; gap: scalar, how far
    outside it was, in units of the target's scale.
    """

    codes: jnp.ndarray
    multipliers: jnp.ndarray
    penalty: jnp.ndarray
    opt_state: Any
    step: jnp.ndarray
    status: jnp.ndarray
    best: Best
    last_gain_step: jnp.ndarray
    alive: jnp.ndarray
    nearest: jnp.ndarray
    gap: jnp.ndarray


def init(problem, descent, codes):
    """The state before the first step, from starting codes `[K, D]`; lambda = 0, mu = mu_0."""
    codes = project(problem, codes)
    blank = observe.blank(problem.networks, codes)
    count, constrained = blank.activations.shape
    dtype = codes.dtype
    best = Best(
        codes,
        blank if descent.micro_batch is None else None,
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
        jnp.int32(0),
        jnp.ones(count, bool),
        jnp.full((constrained,), jnp.inf, dtype),
        jnp.asarray(jnp.inf, dtype),
    )


def project(problem, codes):
    """Codes `[K, D]` into the box of the problem."""
    if problem.lower is None:
        return codes
    return jnp.clip(codes, problem.lower, problem.upper)


@jax.jit
def advance(state, problem, descent, until):
    """Steps until `until` gradient steps have been taken or the status is no longer RUNNING."""

    def running(state):
        return (state.status == Status.RUNNING) & (state.step < until)

    return jax.lax.while_loop(running, lambda state: _step(state, problem, descent), state)


def _step(state, problem, descent):
    """Looks at the codes; stops, or moves them by one gradient step.

    A run of max_steps steps looks max_steps + 1 times: the last look moves nothing.
    """
    duals = functools.partial(_dual_update, state, problem, descent)
    size = lagrangian.point_size(problem.networks, state.codes, descent.distance)
    nothing = diversity.no_points(size, state.codes.dtype)
    common = (problem.networks, state.codes, duals, problem.target, nothing, problem.weight)
    common += ((descent.distance, descent.mean_pairs), state.alive)
    if descent.micro_batch is None:
        slope, observation, (multipliers, penalty), alive = lagrangian.gradient(*common)
        activations = observation.activations
        points = diversity.points_of(descent.distance, state.codes, observation)
        spread = diversity.pair_sum(points, alive).astype(state.codes.dtype)
    else:
        observation = None
        slope, activations, spread, (multipliers, penalty), alive = lagrangian.batched_gradient(
            *common, descent.micro_batch
        )
    inside = alive & constraints.inside(activations, problem.target)
    finite = alive.any() & jnp.isfinite(spread)
    seen = Best(state.codes, observation, inside, spread, state.step)
    best = _better(state.best, seen, finite)
    gained = best.inside.sum() > state.best.inside.sum()
    last_gain_step = jnp.where(gained, state.step, state.last_gain_step)
    nearest, gap = _nearer(state, activations, problem.target)
    looked = state._replace(
        best=best, last_gain_step=last_gain_step, alive=alive, nearest=nearest, gap=gap
    )
    looked = looked._replace(status=_judge(looked, inside, finite, descent))
    with jax.numpy_dtype_promotion("standard"):  # optax counts its steps in integers
        updates, opt_state = descent.optimiser.update(slope, state.opt_state, state.codes)
    codes = project(problem, state.codes + problem.code_scale * updates)
    moved = looked._replace(
        codes=jnp.where(alive[:, None], codes, state.codes),
        multipliers=multipliers,
        penalty=penalty,
        opt_state=opt_state,
        step=state.step + 1,
    )
    go_on = looked.status == Status.RUNNING
    return jax.tree.map(lambda new, old: jnp.where(go_on, new, old), moved, looked)


def _dual_update(state, problem, descent, activations):
    """Lambda, then mu, once every `inner_steps` steps, by the activations `[K, P]` of the codes.

    A run that stops here keeps the old ones: lambda* and mu* are what the last inner solve used.
    """
    multipliers = lagrangian.update_multipliers(
        activations, state.multipliers, state.penalty, problem.target
    )
    penalty = lagrangian.update_penalty(state.penalty, descent.growth, descent.penalty_cap)
    due = (state.step > 0) & (state.step % descent.inner_steps == 0)
    multipliers = jnp.where(due, multipliers, state.multipliers)
    return multipliers, jnp.where(due, penalty, state.penalty)


def _better(best, seen, finite):
    """The better of two looks: more inside, or as many and at least a thousandth more spread."""
    more = seen.inside.sum() > best.inside.sum()
    as_many = seen.inside.sum() == best.inside.sum()
    wider = seen.spread > best.spread + 1e-3 * jnp.abs(best.spread)
    take = finite & (more | (as_many & wider) | jnp.isneginf(best.spread))
    return jax.tree.map(lambda new, old: jnp.where(take, new, old), seen, best)


def _nearer(state, activations, target):
    """Activations `[P]` of the sample nearest to the target so far, and its gap."""
    gaps = constraints.violations(activations, target)
    gaps = jnp.where(jnp.isfinite(gaps), gaps, jnp.inf)
    winner = gaps.argmin()
    nearer = gaps[winner] < state.gap
    nearest = jnp.where(nearer, activations[winner], state.nearest)
    return nearest, jnp.where(nearer, gaps[winner], state.gap)


def _judge(state, inside, finite, descent):
    """The status after this look; codes that are alive no longer are not waited for."""
    best, step, lost = state.best, state.step, ~state.alive
    complete = (best.inside | lost).all() & best.inside.any()
    arrived = (inside | lost).all() & inside.any() & (descent.stop == "inside")
    settled = complete & (step - best.step >= descent.plateau_steps)
    waited = best.inside.any() & (step - state.last_gain_step >= descent.give_up_after)
    spent = step >= descent.max_steps
    short = jnp.where(best.inside.any(), int(Status.PARTIAL), int(Status.INFEASIBLE))
    ended = jnp.where(complete, int(Status.BUDGET), short)
    plateau, given_up = settled & (descent.stop == "plateau"), waited & (descent.stop == "inside")
    conditions = [~finite, arrived, plateau, spent, given_up]
    outcomes = [int(Status.NON_FINITE), int(Status.OK), int(Status.PLATEAU), ended, short]
    outcomes = [jnp.asarray(outcome, jnp.int32) for outcome in outcomes]
    return jnp.select(conditions, outcomes, jnp.int32(Status.RUNNING))
