"""PPGN, noiseless joint PPGN-h (Nguyen et al. 2017): Langevin-like chains in code space.

    d = e1 (E(G(h)) - h) + e2 grad_h log p(y | h) + N(0, e3^2)
    h <- clip(h + lr d / mean |d|)

The mean is over the entries of a chain's own d, so lr is the mean change of an entry a step and e1,
e2, e3 matter only relative to each other.  Every step's image is a sample; no interval is aimed at.

All is read from images as they will be saved, the gradient passing straight through the rounding;
`networks._replace(finish=...)` with the identity gives chains that never round.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from inverse_set.baselines import trace


class Constants(NamedTuple):
    """The published constants, all arguments of the compiled functions.

    prior, condition, noise: e1, e2, e3 (e3 is a standard deviation).  rate: lr, in code units.
    lower, upper: codes are clipped to them; scalars or `[1, D]`.
    restart_prior: range from which a restarted chain draws its e1, uniformly.
    """

    prior: Any = 1e-5
    condition: Any = 1.0
    noise: Any = 1e-17
    rate: Any = 1.0
    lower: Any = 0.0
    upper: Any = 30.0
    restart_prior: Any = (1e-6, 1e-2)


class Plan(NamedTuple):
    """What kind of run it is.

    steps: of each chain, T.  restart_every: steps between fresh starts, None for none.
    softmax: condition on the class's probability among all P activations, which then have to be the
        logits of all classes; without it the activation's own gradient is followed.
    """

    steps: int = 200
    restart_every: int | None = None
    softmax: bool = True


HIDDEN = Plan(steps=1000, restart_every=100, softmax=False)


class PpgnState(NamedTuple):
    """What the next step needs.

    codes: `[K, D]`.  pull: `[K, D]`, E(G(h)) - h.  push: `[K, D]`, the gradient of log p(y | h).
    prior: `[K]`, e1.  keys: `[K]`, one a chain.  step: int32, steps since the last start.
    """

    codes: jnp.ndarray
    pull: jnp.ndarray
    push: jnp.ndarray
    prior: jnp.ndarray
    keys: jnp.ndarray
    step: jnp.ndarray


def log_probability(activations, unit):
    """log p(y = unit | h) up to its gradient, `[K]`, from logits `[K, P]`.

    The gradient goes through the unit's own logit alone, times 1 - p: what the other logits would
    add is left out, as published.
    """
    shares = jax.nn.softmax(activations, axis=-1)
    unit = jnp.broadcast_to(jnp.asarray(unit), activations.shape[:1])
    others = jnp.arange(activations.shape[1])[None] != unit[:, None]
    rest = jnp.where(others, shares, 0).sum(-1)  # 1 - p, without cancellation
    return jax.lax.stop_gradient(rest) * trace.pick(activations, unit)


def look(networks, codes, unit, plan):
    """(pull, push, activation of the unit `[K]`) at codes `[K, D]`, in one pass."""
    objective = log_probability if plan.softmax else trace.pick
    push, observation = trace.climb(networks, codes, lambda a: objective(a, unit))
    return observation.features - codes, push, trace.pick(observation.activations, unit)


def init(keys, codes, prior, networks, unit, plan):
    """The state at codes `[K, D]`, chains with keys `[K]` and e1 `[K]`."""
    pull, push, _ = look(networks, codes, unit, plan)
    return PpgnState(codes, pull, push, prior, keys, jnp.int32(0))


def step(state, networks, unit, constants, plan):
    """One step of every chain; returns (state, `Trace` without its axis T)."""
    noise = trace.gaussian(trace.fold(state.keys, state.step), state.codes.shape[1:])
    direction = state.prior[:, None] * state.pull + constants.condition * state.push
    direction = direction + constants.noise * noise
    codes = state.codes + constants.rate * trace.normalised(direction)
    codes = jnp.clip(codes, constants.lower, constants.upper)
    pull, push, activations = look(networks, codes, unit, plan)
    state = PpgnState(codes, pull, push, state.prior, state.keys, state.step + 1)
    return state, trace.Trace(codes, activations)


def draw(keys, size, restart, constants):
    """Where chains with keys `[K]` start: N(0, 1) codes `[K, D]` and e1 `[K]`.

    size: D.  restart: 0 for the first start, whose e1 is the given one.
    """
    codes = trace.gaussian(trace.fold(keys, 0), (size,))
    low, high = constants.restart_prior
    chance = jax.vmap(jax.random.uniform)(trace.fold(keys, 1))
    first = jnp.full_like(chance, constants.prior)
    return codes, jnp.where(restart == 0, first, low + (high - low) * chance)


@functools.partial(jax.jit, static_argnames=("size", "plan"))
def run(key, chains, size, networks, unit, constants=None, plan=None):
    """Every step of every chain, as a `Trace`; pure in the key, which it uses up.

    chains: int `[K]`, their numbers; a chain alone is the same chain among others.
    size: D.  networks: `Networks`; with `plan.softmax` their activations `[K, P]` are the logits of
        all classes.  unit: int or `[K]`, the column conditioned on and recorded.
    A NaN stays in its chain and is never inside an interval.
    """
    constants = Constants() if constants is None else constants
    plan = Plan() if plan is None else plan
    every = plan.restart_every or plan.steps
    if plan.steps % every:
        raise ValueError(f"expected steps a multiple of restart_every {every}, got {plan.steps}")

    def one_step(state, _):
        return step(state, networks, unit, constants, plan)

    def one_start(_, restart):
        keys = trace.fold(trace.chain_keys(key, chains), restart)
        codes, prior = draw(trace.fold(keys, 0), size, restart, constants)
        state = init(trace.fold(keys, 1), codes, prior, networks, unit, plan)
        return None, jax.lax.scan(one_step, state, length=every)[1]

    _, rows = jax.lax.scan(one_start, None, jnp.arange(plan.steps // every))
    return jax.tree.map(lambda leaf: leaf.reshape(plan.steps, *leaf.shape[2:]), rows)
