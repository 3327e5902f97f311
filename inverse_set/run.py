"""The whole method: starting codes in, a sample of the inverse set out.

Everything here runs on the host and only strings the compiled pieces together.
"""

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

    rule: "two_sided" (eq. 1) or "paper" (eqs. 8 to 11 to the letter: one-sided acceptance, raw sum
        over pairs, uncapped mu, plain steps).
    method: "incremental" (seeds, then steps) or "joint" (eq. 16: all n codes at once).
    distance: "encoder" (eq. 6), "image" (eq. 5), "code" (eq. 14) or "none" (eq. 15).
    memory: C0 is "replace"d (paper) or "accumulate"d.
    rate: Adam's learning rate, in natural standard deviations of a code's entry.
    optimiser: an optax transformation to use instead of Adam.
    step: length of a sampling step, as a share of the natural distance between two codes; under the
        paper rule the factor beta of the plain gradient.
    diversity: weight of the mean over pairs of (distance / natural distance)^2.
    margin: share of the interval's width the slack keeps from either end.
    guard: share of the width by which acceptance is stricter than the interval.
    seed_steps: budget of gradient steps for the seeds (or all codes, joint).
    stop: seeds end "inside" as soon as all are, or at a "plateau" of diversity.
    penalty, growth, penalty_cap: mu_0, alpha, largest mu (two-sided rule).
    patience: sampling gives up after this many steps in a row without a new sample.
    micro: codes a micro-batch of the joint method.
    """

    rule: str = "two_sided"
    method: str = "incremental"
    distance: str = "encoder"
    memory: str = "replace"
    rate: float = 0.1
    optimiser: Any = None
    step: float = 0.2
    diversity: float = 1.0
    margin: float = 0.2
    guard: float = 0.0
    seed_steps: int = 1000
    inner_steps: int = 100
    stop: str = "inside"
    penalty: float = 10.0
    growth: float = 10.0
    penalty_cap: float = 1e5
    patience: int = 20
    micro: int = 20


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
    penalty: mu*.  trials: share of the full step length that accepted samples kept, on average.
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


def silent(phase, done, total, note):
    """A progress callback that shows nothing; a callback that returns True stops the run."""


def sample(networks, asked, start, num_samples, settings=None, natural=None, progress=silent):
    """Samples the intersection of inverse sets (eqs. 6 to 16).

    networks: `Networks`.  asked: sequence of `Constraint`, in the order of the activations.
    start: `[K, D]` starting codes, K seeds; the joint method needs K = num_samples.
    progress: called as progress(phase, done, total, note) between compiled chunks.
    Returns a `Result`; raises ValueError for settings or shapes that cannot work.
    """
    settings = Settings() if settings is None else settings
    natural = Natural() if natural is None else natural
    start = jnp.asarray(start)
    _check(settings, start, num_samples)
    problem, descent, walk = _plan(networks, asked, start, settings, natural)
    state = seeds.init(problem, descent, start)
    phase = "seeds" if settings.method == "incremental" else "joint"
    stopped = False
    while int(state.status) == Status.RUNNING and not stopped:
        # At `max_steps` the loop takes one more turn, to judge the last codes.
        until = int(state.step) + settings.inner_steps
        state = seeds.advance(
            state, problem, descent, until if until < descent.max_steps else 2**30
        )
        seeds_inside = int(state.best.inside.sum())
        stopped = bool(
            progress(phase, int(state.step), descent.max_steps, f"{seeds_inside} inside")
        )
    best = jax.device_get(state.best)
    rows = np.flatnonzero(best.inside)
    found = [_rows(best.codes, best.observation, rows, 0, rows)]
    status = Status.INTERRUPTED if stopped else Status(int(state.status))
    steps, kept = 0, []
    walks = settings.method == "incremental" and len(rows) and not stopped
    if walks and status != Status.NON_FINITE:
        more, steps, kept, stopped = _walk(
            state, problem, walk, rows, num_samples - len(rows), settings, progress
        )
        found += more
    columns = [np.concatenate(column)[:num_samples] for column in zip(*found, strict=True)]
    if stopped:
        status = Status.INTERRUPTED
    elif status != Status.NON_FINITE and 0 < len(columns[0]) < num_samples:
        status = Status.PARTIAL
    return Result(
        *columns,
        status=status,
        seeds_inside=len(rows),
        seed_steps=int(state.step),
        sample_steps=steps,
        nearest=np.asarray(state.nearest),
        penalty=float(state.penalty),
        kept_length=float(np.mean(kept)) if kept else float("nan"),
    )


def _check(settings, start, num_samples):
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
    if start.ndim != 2 or start.shape[0] < 1:
        raise ValueError(f"expected starting codes [K, D], got shape {start.shape}")
    if num_samples < start.shape[0]:
        raise ValueError(f"expected at least as many samples as the {start.shape[0]} seeds")
    if settings.method == "joint" and start.shape[0] != num_samples:
        raise ValueError(
            f"joint sampling needs a start a sample: expected {num_samples}, got {start.shape[0]}"
        )


def _mean_square_distance(points):
    """Mean over i != j of |p_i - p_j|^2, and 1 where all points coincide."""
    count = points.shape[0]
    mean = float(diversity.pair_sum(points)) / max(count * (count - 1), 1)
    return mean if mean > 0 and np.isfinite(mean) else 1.0


def _plan(networks, asked, start, settings, natural):
    """The problem and the two configurations, in natural units."""
    paper = settings.rule == "paper"
    intervals = [(constraint.low, constraint.high) for constraint in asked]
    if paper:
        target = constraints.paper(intervals)
    else:
        target = constraints.two_sided(intervals, settings.margin, settings.guard)
    target = jax.tree.map(lambda bound: bound.astype(start.dtype), target)
    code_square = natural.code_square or _mean_square_distance(start)
    count, size = start.shape
    if paper:
        weight = 1.0
    else:
        square = code_square if settings.distance == "code" else natural.feature_square
        if square is None or settings.distance == "image":
            observation = jax.jit(observe.observe)(networks, start)
            points = diversity.points_of(settings.distance, start, observation)
            square = _mean_square_distance(points)
        weight = settings.diversity / (max(count * (count - 1), 1) * square)
    box = [
        None if bound is None else jnp.asarray(bound, start.dtype)[None]
        for bound in (natural.lower, natural.upper)
    ]
    problem = seeds.Problem(networks, target, jnp.asarray(weight, start.dtype), *box)
    deviation = (code_square / (2 * size)) ** 0.5
    descent = seeds.Descent(
        optimiser=settings.optimiser or optax.adam(settings.rate * deviation),
        distance=settings.distance,
        max_steps=settings.seed_steps,
        inner_steps=settings.inner_steps,
        penalty=settings.penalty,
        growth=settings.growth,
        penalty_cap=float("inf") if paper else settings.penalty_cap,
        stop=settings.stop,
        micro=settings.micro if settings.method == "joint" else None,
    )
    walk = sampler.Walk(
        distance=settings.distance,
        memory=settings.memory,
        length=settings.step if paper else settings.step * code_square**0.5,
        backtrack=not paper,
        mean_pairs=not paper,
    )
    return problem, descent, walk


def _walk(state, problem, walk, rows, wanted, settings, progress, capacity=10):
    """Sampling steps until `wanted` samples are found; returns (found, steps, lengths, stopped)."""
    best = state.best
    observation = jax.tree.map(lambda leaf: leaf[rows], best.observation)
    inside = jnp.ones(len(rows), bool)
    walker = sampler.init(
        walk, best.codes[rows], observation, state.multipliers[rows], state.penalty, inside
    )
    found, kept, gained, barren = [], [], 0, 0
    while gained < wanted and barren < settings.patience:
        steps = min(capacity, -(-(wanted - gained) // len(rows)))
        before = int(walker.step)
        walker, samples = sampler.advance(walker, problem, walk, steps, capacity)
        samples = jax.device_get(samples)
        for index in range(steps):
            row = jax.tree.map(lambda leaf, index=index: leaf[index], samples)
            accepted = np.flatnonzero(row.accepted)
            barren = 0 if len(accepted) else barren + 1
            gained += len(accepted)
            kept += list(row.length[accepted] / walk.length)
            found.append(
                _rows(row.codes, row.observation, accepted, before + index + 1, rows[accepted])
            )
        if progress("samples", min(gained, wanted), wanted, f"step {int(walker.step)}"):
            return found, int(walker.step), kept, True
    return found, int(walker.step), kept, False


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
