"""The whole method: starting codes in, a sample of the inverse set out.

Everything here runs on the host and only strings the compiled pieces together.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from inverse_set import constraints, diversity, observe, sampler, seeds
from inverse_set.types import Status

METHODS = ("incremental", "joint")


class Settings(NamedTuple):
    """How to sample; the defaults serve every unit and K alike.

    rule: "two_sided" (eq. 1), or "paper" (eqs. 8 to 11 as printed: one-sided acceptance, raw sum
        over pairs, raw residuals, plain steps).
    method: "incremental" (seeds, then steps) or "joint" (eq. 16: all n codes at once).
    distance: "encoder" (eq. 6), "image" (eq. 5), "code" (eq. 14) or "none" (eq. 15).
    memory: C0 is "replace"d (paper) or "accumulate"d.
    stop: the descent ends "inside", as soon as all codes are, or at a "plateau" of diversity; None
        is "inside" for seeds and "plateau" for the joint method.
    optimiser: an optax transformation; None is Adam, in units of the natural spread of codes.
    rate: Adam's learning rate in natural standard deviations of a code's entry.
    step: beta.  A share of the natural distance between two codes; under the paper rule the factor
        of the plain gradient.  None is 0.2, under the paper rule 1e-4.
    diversity: weight of the mean over pairs of (distance / natural distance)^2.
    margin: share of the interval's width the slack keeps from either end, below a half.
    guard: share of the width by which acceptance is stricter than the interval, below a half.
    seed_steps: budget of gradient steps of the descent.  inner_steps: of them between updates of
        lambda and mu.
    penalty, growth, penalty_cap: mu_0, alpha, largest mu.
    plateau: steps without a thousandth more diversity that make a plateau.
    patience: sampling gives up after this many steps in a row without a new sample.
    micro: codes a micro-batch of the joint method.
    """

    rule: str = "two_sided"
    method: str = "incremental"
    distance: str = "encoder"
    memory: str = "replace"
    stop: str | None = None
    optimiser: Any = None
    rate: float = 0.1
    step: float | None = None
    diversity: float = 1.0
    margin: float = 0.2
    guard: float = 0.0
    seed_steps: int = 1000
    inner_steps: int = 100
    penalty: float = 10.0
    growth: float = 10.0
    penalty_cap: float | None = None
    plateau: int = 300
    patience: int = 20
    micro: int = 20


def resolve(settings):
    """Settings with everything that follows from the rule and the method filled in.

    The paper's mu has no cap; 1e15 keeps its squares finite in float32.
    """
    paper, joint = settings.rule == "paper", settings.method == "joint"
    defaults = {
        "stop": "plateau" if joint else "inside",
        "step": 1e-4 if paper else 0.2,
        "penalty_cap": 1e15 if paper else 1e5,
    }
    missing = {key: value for key, value in defaults.items() if getattr(settings, key) is None}
    return settings._replace(**missing)


class Natural(NamedTuple):
    """The natural range and spread of codes and encodings.

    lower, upper: `[D]` box for the codes, None for none.
    code_square, feature_square: mean squared distance between two natural codes or encodings; None
        measures them on the starting codes.
    """

    lower: Any = None
    upper: Any = None
    code_square: Any = None
    feature_square: Any = None


class Result(NamedTuple):
    """A sample of an inverse set, and how it came about.

    images `[n, ...]` as saved, codes `[n, D]`, features `[n, F]`, activations `[n, P]`: NumPy.
    step `[n]`: sampling step that found it, 0 for seeds.  chain `[n]`: its seed's number.
    status: a `Status`.  seeds_inside: of the K seeds.  seed_steps, sample_steps: gradient steps.
    nearest: `[P]`, activations of the seed that came nearest to the target.
    penalty: mu*.  kept_length: accepted steps' mean length over beta; 1 if none was halved.
    start_distance: root mean squared distance between the starting codes.
    """

    images: np.ndarray
    codes: np.ndarray
    features: np.ndarray
    activations: np.ndarray
    step: np.ndarray
    chain: np.ndarray
    status: Status
    seeds_inside: int
    seed_steps: int
    sample_steps: int
    nearest: np.ndarray
    penalty: float
    kept_length: float
    start_distance: float


def silent(phase, done, total, note):
    """A progress callback that shows nothing; a callback that returns True stops the run."""


def sample(networks, asked, start, num_samples, settings=None, natural=None, progress=silent):
    """Samples the intersection of inverse sets (eqs. 6 to 16).

    networks: `Networks`.  asked: sequence of `Constraint`, in the order of the activations.
    start: `[K, D]` floating starting codes, K seeds; the joint method needs K = num_samples.
    progress: called as progress(phase, done, total, note) between compiled chunks.
    Returns a `Result`; raises ValueError for settings or shapes that cannot work.
    """
    settings = resolve(Settings() if settings is None else settings)
    natural = Natural() if natural is None else natural
    start = jnp.asarray(start)
    check(settings)
    _check_shapes(networks, asked, settings, start, num_samples)
    problem, descent, walk, beta = _plan(networks, asked, start, settings, natural)
    state, stopped = _descend(problem, descent, start, settings, progress)
    status = Status.INTERRUPTED if stopped else Status(int(state.status))
    best = state.best
    observation = best.observation
    if observation is None:
        observation = _observe_all(networks, best.codes, settings.micro)
    rows = np.flatnonzero(constraints.inside(observation.activations, problem.target))
    rows = rows if np.isfinite(best.spread) else rows[:0]
    found = [_rows(best.codes, observation, rows, 0, rows)]
    steps, kept = 0, []
    on = len(rows) and status not in (Status.INTERRUPTED, Status.NON_FINITE)
    if settings.method == "incremental" and on:
        observation = jax.tree.map(lambda leaf: leaf[rows], observation)
        walker = sampler.init(
            walk,
            best.codes[rows],
            observation,
            state.multipliers[rows],
            state.penalty,
            jnp.ones(len(rows), bool),
            beta,
        )
        problem = problem._replace(weight=_rescaled(problem.weight, len(start), len(rows), walk))
        more, steps, kept, status = _walk(
            walker, problem, walk, rows, num_samples - len(rows), settings.patience, progress
        )
        found += more
    columns = [np.concatenate(column)[:num_samples] for column in zip(*found, strict=True)]
    return Result(
        *columns,
        status=status,
        seeds_inside=len(rows),
        seed_steps=int(state.step),
        sample_steps=steps,
        nearest=np.asarray(state.nearest),
        penalty=float(state.penalty),
        kept_length=float(np.mean(kept) / beta) if kept else float("nan"),
        start_distance=_mean_square_distance(start) ** 0.5,
    )


def check(settings):
    """Raises ValueError for resolved settings that cannot work."""
    choices = (
        ("rule", constraints.RULES),
        ("method", METHODS),
        ("distance", diversity.DISTANCES),
        ("memory", sampler.MEMORIES),
        ("stop", seeds.STOPS),
    )
    for field, allowed in choices:
        if getattr(settings, field) not in allowed:
            raise ValueError(
                f"expected {field} among {', '.join(allowed)}, got {getattr(settings, field)!r}"
            )
    for field in ("seed_steps", "inner_steps", "plateau", "patience", "micro", "growth"):
        if not getattr(settings, field) >= 1:
            raise ValueError(f"expected {field} >= 1, got {getattr(settings, field)}")
    for field in ("rate", "step", "penalty", "penalty_cap"):
        if not 0 < getattr(settings, field) < np.inf:
            raise ValueError(f"expected a finite {field} > 0, got {getattr(settings, field)}")
    for field in ("margin", "guard"):
        if not 0 <= getattr(settings, field) < 0.5:
            raise ValueError(f"expected 0 <= {field} < 0.5, got {getattr(settings, field)}")


def _check_shapes(networks, asked, settings, start, num_samples):
    if start.ndim != 2 or start.shape[0] < 1 or not jnp.issubdtype(start.dtype, jnp.floating):
        raise ValueError(f"expected floating codes [K, D], got {start.dtype}{start.shape}")
    if num_samples < start.shape[0]:
        raise ValueError(f"expected at least as many samples as the {start.shape[0]} seeds")
    if settings.method == "joint" and start.shape[0] != num_samples:
        raise ValueError(
            f"joint sampling needs a start a sample: expected {num_samples}, got {start.shape[0]}"
        )
    seen = jax.eval_shape(observe.observe, networks, start)
    want = (start.shape[0], len(asked))
    if seen.activations.shape != want or seen.features.ndim != 2:
        raise ValueError(
            f"expected activations {want} and features [K, F], "
            f"got {seen.activations.shape} and {seen.features.shape}"
        )


def _mean_square_distance(points):
    """Mean over i != j of |p_i - p_j|^2."""
    count = points.shape[0]
    return float(diversity.pair_sum(points)) / max(count * (count - 1), 1)


def _observe_all(networks, codes, size):
    return _observe_batches(networks, codes, min(size, codes.shape[0]))


@functools.partial(jax.jit, static_argnames="size")
def _observe_batches(networks, codes, size):
    return observe.map_batches(functools.partial(observe.observe, networks), size, codes)


@functools.cache
def _adam(rate):
    """One object a rate: a new one would be a new static argument, and compile everything again."""
    return optax.adam(rate)


def _plan(networks, asked, start, settings, natural):
    """(problem, descent, walk, beta): the configuration in natural units."""
    paper = settings.rule == "paper"
    intervals = [(constraint.low, constraint.high) for constraint in asked]
    if paper:
        target = constraints.paper(intervals)
    else:
        target = constraints.two_sided(intervals, settings.margin, settings.guard)
    target = jax.tree.map(lambda bound: bound.astype(start.dtype), target)
    # Codes that all start alike have no spread of their own to measure by.
    code_square = natural.code_square or _mean_square_distance(start) or 1.0
    count, size = start.shape
    weight = 1.0
    if not paper:
        square = code_square if settings.distance == "code" else natural.feature_square
        if square is None or settings.distance == "image":
            observation = _observe_all(networks, start, settings.micro)
            points = diversity.points_of(settings.distance, start, observation)
            square = _mean_square_distance(points) or 1.0
        weight = settings.diversity / (max(count * (count - 1), 1) * square)
    box = [
        None if bound is None else jnp.asarray(bound, start.dtype)[None]
        for bound in (natural.lower, natural.upper)
    ]
    deviation = (code_square / (2 * size)) ** 0.5
    unit = 1.0 if settings.optimiser else deviation
    problem = seeds.Problem(
        networks, target, jnp.asarray(weight, start.dtype), jnp.asarray(unit, start.dtype), *box
    )
    descent = seeds.Descent(
        optimiser=settings.optimiser or _adam(settings.rate),
        distance=settings.distance,
        max_steps=settings.seed_steps,
        inner_steps=settings.inner_steps,
        penalty=settings.penalty,
        growth=settings.growth,
        penalty_cap=settings.penalty_cap,
        stop=settings.stop,
        patience=settings.plateau,
        micro=settings.micro if settings.method == "joint" else None,
    )
    walk = sampler.Walk(settings.distance, settings.memory, not paper, mean_pairs=not paper)
    return problem, descent, walk, settings.step if paper else settings.step * code_square**0.5


def _rescaled(weight, asked, walking, walk):
    """The weight per pair when fewer seeds walk than were asked for."""
    if not walk.mean_pairs:
        return weight
    return weight * max(asked * (asked - 1), 1) / max(walking * (walking - 1), 1)


def _descend(problem, descent, start, settings, progress):
    """Seeds, or all codes of the joint method; returns (state, whether it was stopped)."""
    state = seeds.init(problem, descent, start)
    phase = "seeds" if settings.method == "incremental" else "joint"
    while True:
        # After max_steps the loop takes one more turn, to judge the last codes.
        until = int(state.step) + settings.inner_steps
        until = until if until <= descent.max_steps else descent.max_steps + 1
        state = seeds.advance(state, problem, descent, until)
        running = int(state.status) == Status.RUNNING
        note = f"{int(state.best.inside.sum())} of {len(start)} inside"
        stop = progress(phase, int(state.step), descent.max_steps, note)
        if stop or not running:
            return state, bool(stop) and running


def _walk(walker, problem, walk, rows, wanted, patience, progress, capacity=10):
    """Steps until `wanted` samples are found; returns (found, steps, lengths, status)."""
    found, kept, gained, barren = [], [], 0, 0
    while gained < wanted and barren < patience:
        steps = min(capacity, -(-(wanted - gained) // len(rows)))
        before = int(walker.step)
        walker, samples = sampler.advance(walker, problem, walk, steps, capacity)
        samples = jax.device_get(samples)
        for index in range(steps):
            row = jax.tree.map(lambda leaf, index=index: leaf[index], samples)
            if not np.isfinite(row.observation.activations).all():
                return found, before + index + 1, kept, Status.NON_FINITE
            accepted = np.flatnonzero(row.accepted)
            barren = 0 if len(accepted) else barren + 1
            gained += len(accepted)
            kept += list(row.length[accepted])
            found.append(
                _rows(row.codes, row.observation, accepted, before + index + 1, rows[accepted])
            )
        note = f"step {int(walker.step)}"
        if progress("samples", min(gained, wanted), wanted, note) and gained < wanted:
            return found, int(walker.step), kept, Status.INTERRUPTED
    status = Status.OK if gained >= wanted else Status.PARTIAL
    return found, int(walker.step), kept, status


def _rows(codes, observation, rows, step, chain):
    """Chosen rows of one step, in the order of `Result`'s columns."""
    return (
        np.asarray(observation.images)[rows],
        np.asarray(codes)[rows],
        np.asarray(observation.features)[rows],
        np.asarray(observation.activations)[rows],
        np.full(len(rows), step, np.int32),
        np.asarray(chain, np.int32),
    )
