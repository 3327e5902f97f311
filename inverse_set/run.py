"""The whole method: starting codes in, a sample of the inverse set out.

Everything here runs on the host and only strings the compiled pieces together.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from inverse_set import constraints, diversity, observe, refine, sampler, seeds
from inverse_set.settings import Natural, Settings, check, resolve
from inverse_set.types import Status

MIXING = 0.4  # of a step of the "refine" walk, the mean share of the way to another code
REACH = 0.3  # the longest correction of the "refine" walk, as a share of the natural distance
WAIT = 2  # updates of lambda and mu without another seed inside, before the rest is given up


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
    networks = jax.device_put(networks)  # once, not with every compiled chunk
    check(settings)
    _check_shapes(networks, asked, settings, start, num_samples)
    _check_natural(natural, start)
    problem, descent, walk, beta = _plan(networks, asked, start, settings, natural)
    state, stopped = _descend(problem, descent, start, settings, progress)
    status = Status.INTERRUPTED if stopped else Status(int(state.status))
    best = state.best
    observation = best.observation
    if observation is None:
        observation = _observe(networks, best.codes, _micro(settings, len(start)))
    rows = np.flatnonzero(constraints.inside(observation.activations, problem.target))
    rows = rows if np.isfinite(best.spread) else rows[:0]
    if status in (Status.PLATEAU, Status.BUDGET, Status.OK) and len(rows) < len(start):
        status = Status.PARTIAL  # looked at again in another program, one fell out
    codes, observation = jax.tree.map(lambda leaf: leaf[rows], (best.codes, observation))
    steps, kept, more = 0, [], []
    on = len(rows) and status not in (Status.INTERRUPTED, Status.NON_FINITE)
    if settings.method == "incremental" and on:
        duals = state.multipliers[rows], state.penalty
        problem = problem._replace(weight=_rescaled(problem.weight, len(start), len(rows), walk))
        everyone = jnp.ones(len(rows), bool)
        walker = sampler.init(walk, codes, observation, *duals, everyone, beta)
        wanted = num_samples - len(rows)
        capacity = _capacity(walker.images.nbytes, -(-wanted // len(rows)))
        if walk.refinement:
            walker, observation = sampler.settle(walker, observation, problem, walk, capacity)
            codes = walker.codes
        more, steps, kept, status = _walk(
            walker, problem, walk, rows, wanted, capacity, settings.patience, progress
        )
    found = [_rows(codes, observation, np.arange(len(rows)), 0, rows), *more]
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


def working_memory(networks, asked, start, num_samples, settings):
    """About what the compiled loops need beside the weights, in bytes; compiles, runs nothing.

    Arguments as of `sample`; start: a `jax.ShapeDtypeStruct`.
    """
    settings = resolve(settings)
    check(settings)
    _check_shapes(networks, asked, settings, start, num_samples)
    anything = Natural(code_square=1.0, feature_square=1.0)
    # Pixel distances would be measured on the start; they need no other memory.
    measured = settings._replace(distance="encoder")
    problem, descent, _, _ = _plan(networks, asked, start, measured, anything)
    state = jax.eval_shape(lambda codes: seeds.init(problem, descent, codes), start)
    needed = seeds.advance.lower(state, problem, descent, 1).compile().memory_analysis()
    if settings.method == "joint":
        return needed.temp_size_in_bytes + needed.output_size_in_bytes
    count = start.shape[0]
    picture = jax.eval_shape(networks.generate, start).size // count * 4
    rows = _capacity(count * picture, -(-(num_samples - count) // count))
    return needed.temp_size_in_bytes + max(needed.output_size_in_bytes, rows * count * picture)


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


def _check_natural(natural, start):
    if natural.codes is None:
        return
    shape = np.shape(natural.codes)
    if len(shape) != 2 or shape[0] < 2 or shape[1] != start.shape[1]:
        raise ValueError(f"expected natural codes [M >= 2, {start.shape[1]}], got {shape}")


def _mean_square_distance(points):
    """Mean over i != j of |p_i - p_j|^2."""
    count = points.shape[0]
    return float(diversity.pair_sum(points)) / max(count * (count - 1), 1)


_observe = jax.jit(observe.observe_all, static_argnames="micro")


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
            observation = _observe(networks, start, _micro(settings, count))
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
    if settings.walk == "refine" and natural.codes is not None:
        problem = problem._replace(natural=jnp.asarray(natural.codes, start.dtype))
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
        wait=None if paper or settings.method == "joint" else WAIT * settings.inner_steps,
        micro=_micro(settings, count),
    )
    refinement = None
    if settings.walk == "refine":
        shares = settings.noise / settings.step, REACH / settings.step
        refinement = refine.Refinement(*shares, settings.encodings, MIXING)
    walk = sampler.Walk(
        settings.distance,
        settings.memory,
        not paper,
        refinement=refinement,
        mean_pairs=not paper,
        micro=_micro(settings, count),
    )
    return problem, descent, walk, settings.step if paper else settings.step * code_square**0.5


def _micro(settings, count):
    """The micro-batch of `count` codes, None where all fit into one."""
    one = settings.micro is None or (settings.micro >= count and settings.method == "incremental")
    return None if one else min(settings.micro, count)


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


def _capacity(step_bytes, steps):
    """Steps of a compiled chunk: as many as there are, 10, or what 256 MiB of pictures hold."""
    return max(1, min(10, steps, 2**28 // max(step_bytes, 1)))


def _walk(walker, problem, walk, rows, wanted, capacity, patience, progress):
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
