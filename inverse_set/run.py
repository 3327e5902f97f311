"""The whole method: starting codes in, a sample of the inverse set out.

Everything here runs on the host and only strings the compiled pieces together.
"""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from inverse_set import constraints, natural_units, observe, sampler, seeds
from inverse_set.settings import Natural, Settings, check, resolve
from inverse_set.types import Status

SLICE = 1.0  # seconds after which the device comes back to be asked whether it should go on


class Result(NamedTuple):
    """A sample of an inverse set, and how it came about.

    images `[n, ...]` as saved, codes `[n, D]`, features `[n, F]`, activations `[n, P]`: NumPy.
    step `[n]`: sampling step that found it, 0 for seeds.  chain `[n]`: its seed's number.
    status: a `Status`.  seeds_inside: of the K seeds.  seed_steps, sample_steps: gradient steps.
    nearest: `[P]`, activations of the seed that came nearest to the target.
    penalty: mu*.  kept_length: accepted steps' mean length over beta; 1 if none was halved.
    start_distance: root mean squared distance between the starting codes.
    chains_lost: of those of the seeds inside, where a network returned NaN or infinity on the way.
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
    chains_lost: int = 0


def silent(phase, done, total, note):
    """A progress callback that shows nothing; a callback that returns True stops the run."""


def sample(
    networks, asked, start, num_samples, settings=None, natural=None, progress=silent, key=None
):
    """Samples the intersection of inverse sets (eqs. 6 to 16).

    networks: `Networks`.  asked: sequence of `Constraint`, in the order of the activations.
    start: `[K, D]` floating starting codes, K seeds; the joint method needs K = num_samples.
    progress: called as progress(phase, done, total, note) about once a second, between compiled
        steps; where it returns True, the run ends there and keeps what it found.
    key: of `jax.random.key`, the chance of the walk; None is that of seed 0.  Another key is
        another sample from the same start, except under the paper rule and by the joint method,
        which leave nothing to chance.
    Returns a `Result`; raises ValueError for settings or shapes that cannot work.
    """
    settings = resolve(Settings() if settings is None else settings)
    natural = Natural() if natural is None else natural
    key = jax.random.key(0) if key is None else key
    start = jnp.asarray(start)
    networks = jax.device_put(networks)  # once, not with every compiled chunk
    check(settings)
    natural_units.check(networks, asked, natural, start)
    _check_counts(settings, start, num_samples)
    problem, descent, walk, beta = natural_units.plan(networks, asked, start, settings, natural)
    # The refining walk moves the seeds too, whether or not more samples are wanted.
    moves = num_samples > len(start) or settings.walk == "refine"
    walks = settings.method == "incremental" and moves
    state = seeds.init(problem, descent, start)
    if _compile(state, problem, descent, walk if walks else None, key, progress):
        return _finish(Status.INTERRUPTED, state, start, [_nothing(state, problem, descent)])
    state, stopped = _descend(state, problem, descent, settings, progress)
    status = Status(int(state.status))
    if stopped and (walks or status == Status.RUNNING):
        status = Status.INTERRUPTED
    codes, observation = state.best.codes, _as_judged(state.best, problem, descent)
    inside = constraints.inside(observation.activations, problem.target)
    inside &= observe.finite(observation) & jnp.isfinite(state.best.spread)
    rows = np.flatnonzero(inside)
    if status in (Status.PLATEAU, Status.BUDGET, Status.OK) and len(rows) < len(start):
        status = Status.PARTIAL  # one was lost, or fell out when looked at in another program
    walked, more = None, []
    if walks and len(rows) and status not in (Status.INTERRUPTED, Status.NON_FINITE):
        duals = state.multipliers, state.penalty
        walker = sampler.init(walk, codes, observation, *duals, inside, beta, key)
        if walk.refinement is not None:
            capacity = _capacity(walker.images.nbytes)
            walker, observation = sampler.resample_seeds(
                walker, observation, problem, walk, capacity
            )
            codes = walker.codes
        wanted = num_samples - len(rows)
        more, walked = _walk(walker, problem, walk, wanted, settings.patience, progress)
        status = walked.status
    found = [_rows(codes, observation, rows, 0), *more]
    return _finish(status, state, start, found, num_samples, len(rows), walked)


def _compile(state, problem, descent, walk, key, progress):
    """Compiles the loops by runs of no step, while there is nothing to lose; True to stop there."""
    total = 1 if walk is None else 2
    if progress("compile", 0, total, "the seeds' program"):
        return True
    seeds.advance(state, problem, descent, 0)
    if _judged_apart(state.best):
        natural_units.observe_jitted(problem.networks, state.codes, descent.micro_batch)
    if walk is not None:
        if progress("compile", 1, total, "the walk's program"):
            return True
        blank = observe.blank(problem.networks, state.codes)
        nobody = jnp.zeros(len(state.codes), bool)
        duals = state.multipliers, state.penalty
        walker = sampler.init(walk, state.codes, blank, *duals, nobody, 0.0, key)
        sampler.advance(walker, problem, walk, 0, _capacity(walker.images.nbytes))
    return bool(progress("compile", total, total, "done"))


def _finish(status, state, start, found, num_samples=0, inside=0, walked=None):
    """`Result` of the rows found, at most num_samples of them."""
    columns = [np.concatenate(column)[:num_samples] for column in zip(*found, strict=True)]
    return Result(
        *columns,
        status=status,
        seeds_inside=inside,
        seed_steps=int(state.step),
        sample_steps=walked.steps if walked else 0,
        nearest=np.asarray(state.nearest),
        penalty=float(state.penalty),
        kept_length=walked.kept_length if walked else float("nan"),
        start_distance=natural_units.mean_square_distance(start) ** 0.5,
        chains_lost=inside - walked.alive if walked else 0,
    )


def _nothing(state, problem, descent):
    """No rows, in the shapes of some."""
    blank = observe.blank(problem.networks, state.codes)
    return _rows(state.codes, blank, np.zeros(0, int), 0)


def _as_judged(best, problem, descent):
    """`Observation` of the best codes in full float32, whatever the descent computed in.

    The descent's own is that on a CPU, where it is not thrown away in micro-batches.
    """
    if _judged_apart(best):
        return natural_units.observe_jitted(problem.networks, best.codes, descent.micro_batch)
    return best.observation


def _judged_apart(best):
    """Whether the best codes have to be looked at again, in a program of its own."""
    return best.observation is None or jax.default_backend() != "cpu"


def working_memory(networks, asked, start, num_samples, settings):
    """About what the compiled loops need beside the weights, in bytes; compiles, runs nothing.

    Arguments as of `sample`; start: a `jax.ShapeDtypeStruct`.
    """
    settings = resolve(settings)
    check(settings)
    anything = Natural(code_square=1.0, feature_square=1.0)
    natural_units.check(networks, asked, anything, start)
    _check_counts(settings, start, num_samples)
    # Pixel distances would be measured on the start; they need no other memory.
    measured = settings._replace(distance="encoder")
    problem, descent, _, _ = natural_units.plan(networks, asked, start, measured, anything)
    state = jax.eval_shape(lambda codes: seeds.init(problem, descent, codes), start)
    needed = seeds.advance.lower(state, problem, descent, 1).compile().memory_analysis()
    if settings.method == "joint":
        return needed.temp_size_in_bytes + needed.output_size_in_bytes
    count = start.shape[0]
    picture = jax.eval_shape(networks.generate, start).size // count * 4
    rows = _capacity(count * picture)
    return needed.temp_size_in_bytes + max(needed.output_size_in_bytes, rows * count * picture)


def _check_counts(settings, start, num_samples):
    if num_samples < start.shape[0]:
        raise ValueError(f"expected at least as many samples as the {start.shape[0]} seeds")
    if settings.method == "joint" and start.shape[0] != num_samples:
        raise ValueError(
            f"joint sampling needs a start per sample: expected {num_samples}, got {start.shape[0]}"
        )


def _capacity(step_bytes):
    """Steps that one call of the walk's program holds: 10, or what 256 MiB of pictures allow."""
    return max(1, min(10, 2**28 // max(step_bytes, 1)))


class _Pace:
    """How many steps take about a slice of time; a slice is where a run can be stopped."""

    def __init__(self):
        self.steps = 1

    def timed(self, steps, seconds):
        """Takes note that so many steps took so long."""
        self.steps = max(1, int(SLICE * steps / max(seconds, 1e-9)))


def _descend(state, problem, descent, settings, progress):
    """Seeds, or all codes of the joint method; returns (state, whether it was stopped)."""
    phase = "seeds" if settings.method == "incremental" else "joint"
    pace, count = _Pace(), len(state.codes)
    while True:
        # After max_steps the loop takes one more turn, to judge the last codes.
        before, began = int(state.step), time.perf_counter()
        state = seeds.advance(state, problem, descent, min(before + pace.steps, seeds.NEVER))
        running = int(state.status) == Status.RUNNING
        pace.timed(max(int(state.step) - before, 1), time.perf_counter() - began)
        note = f"{int(state.best.inside.sum())} of {count} inside"
        if progress(phase, int(state.step), settings.seed_steps, note):
            return state, True
        if not running:
            return state, False


class _Walked(NamedTuple):
    """How a walk ended: its `Status`, the steps it took, and the chains that live."""

    status: Status
    steps: int
    kept_length: float
    alive: int


def _walk(walker, problem, walk, wanted, patience, progress):
    """Steps until `wanted` samples are found; returns (found, `_Walked`).

    Where the walk ends does not depend on how it is cut into slices: `wanted` is never reached
    before the last step of a slice, and what lies behind any other end is dropped.
    """
    found, kept, gained, barren = [], [], 0, 0
    count, capacity, pace = int(walker.alive.sum()), _capacity(walker.images.nbytes), _Pace()
    beta, taken = float(walker.length), 0

    def ended(status):
        length = float(np.mean(kept) / beta) if kept else float("nan")
        return found, _Walked(status, taken, length, count)

    if count == 0 and wanted:
        return ended(Status.NON_FINITE)
    while gained < wanted:
        steps = min(capacity, pace.steps, -(-(wanted - gained) // count))
        began = time.perf_counter()
        walker, samples = sampler.advance(walker, problem, walk, steps, capacity)
        samples = jax.device_get(samples)
        pace.timed(steps, time.perf_counter() - began)
        for index in range(steps):
            row = jax.tree.map(lambda leaf, index=index: leaf[index], samples)
            accepted = np.flatnonzero(row.accepted)
            taken, count = taken + 1, int(row.alive.sum())
            barren = 0 if len(accepted) else barren + 1
            gained += len(accepted)
            kept += list(row.length[accepted])
            found.append(_rows(row.codes, row.observation, accepted, taken))
            if count == 0 and gained < wanted:
                return ended(Status.NON_FINITE)
            if barren >= patience:
                return ended(Status.PARTIAL)
        if progress("samples", min(gained, wanted), wanted, f"step {taken}") and gained < wanted:
            return ended(Status.INTERRUPTED)
    return ended(Status.OK)


def _rows(codes, observation, rows, step):
    """Chosen rows of one step, in the order of `Result`'s columns; a row's number is its chain."""
    return (
        np.asarray(observation.images)[rows],
        np.asarray(codes)[rows],
        np.asarray(observation.features)[rows],
        np.asarray(observation.activations)[rows],
        np.full(len(rows), step, np.int32),
        np.asarray(rows, np.int32),
    )
