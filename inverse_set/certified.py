"""From a model and what is asked to a certified sample: the whole job as one function."""

import time
from typing import NamedTuple

import jax
import numpy as np

from inverse_set import metrics, results, run
from inverse_set.models import bind, units
from inverse_set.settings import Settings, resolve
from inverse_set.types import Status

ENCODINGS = 2  # of the refining walk: the range of a model's E are codes
WALK = 1  # folded into the seed's key, for the walk; the starting codes take it as it is
EARLY = ("start", "compile")  # phases of a run in which nothing has been found yet
GRACE = 20.0  # seconds that the certificate may go on when asked to stop: schedulers wait for 30
GUARD = 1e-3  # of the width: far more than two float programs differ, far less than anyone sees


class Found(NamedTuple):
    """A certified sample.

    samples: `results.SampleSet`, every picture of which lies inside.
    constraints: what was asked, one `Constraint` a column of the activations.
    result: `run.Result`, how the sampling went, its images in 8 bits.
    settings: those it really used.
    status: its status, after the certificate.
    dropped: samples the certificate turned down (0 unless the two arithmetics disagree).
    unread: samples that it had not come to within `GRACE` seconds of a request to stop.
    seconds: {phase: wall time}.
    """

    samples: results.SampleSet
    constraints: tuple
    result: run.Result
    settings: Settings
    status: Status
    dropped: int
    unread: int
    seconds: dict


def accepted(activations, constraints, rule):
    """Which rows `[n, P]` satisfy every constraint, `[n]`; the paper's rule has no upper end."""
    low = np.asarray([c.low for c in constraints])
    high = np.asarray([c.high if rule == "two_sided" else np.inf for c in constraints])
    return ((activations >= low) & (activations <= high)).all(1)


def sample(
    model,
    asked,
    num_samples=500,
    num_seeds=10,
    seed=0,
    settings=None,
    start=None,
    natural_codes=True,
    progress=run.silent,
):
    """Samples the inverse set of one neuron, or the intersection of several.

    model: from `load`.  asked: texts such as "fc8/monarch:p95:p99.9".
    settings: `Settings`.  start: codes `[K, D]`, or a kind of `bind.starting_codes`; None
    takes the best kind that the model offers.
    natural_codes: hold codes to the range of E over natural pictures (not under the paper rule).
    Returns `Found`.  Every picture's activation is recomputed in NumPy float64 from its 8 bits.
    """
    seconds, clock = {}, _Clock()
    settings = Settings() if settings is None else settings
    if settings.encodings is None and settings.walk == "refine":
        settings = settings._replace(encodings=ENCODINGS)
    settings = resolve(settings)
    if settings.rule == "two_sided":
        settings = settings._replace(guard=max(settings.guard, GUARD))
    pairs = [units.parse_constraint(model, text) for text in asked]
    chosen = [unit for unit, _ in pairs]
    constraints = tuple(
        constraint._replace(name=units.unit_name(model, unit)) for unit, constraint in pairs
    )
    natural = model.codes
    if not natural_codes or settings.rule == "paper":
        natural = natural._replace(lower=None, upper=None)
    if model.starts is not None and len(model.starts) > 1:
        natural = natural._replace(codes=model.starts)
    count = num_samples if settings.method == "joint" else num_seeds
    progress("start", 0, 1, "starting codes")
    codes = bind.default_start(model) if start is None else start
    if isinstance(codes, str):
        intervals = [(c.low, c.high) for c in constraints]
        codes = bind.starting_codes(model, codes, count, seed, chosen, intervals)
    progress("start", 1, 1, "starting codes")
    seconds["start"] = clock.lap()
    # Compiled before there is anything to lose: a run that is stopped must not wait for it.
    progress("compile", 0, 1, "the program of pictures before rounding")
    bind.raw_activations(model, chosen, np.asarray(codes)[:1])

    def timed(phase, done, total, note):
        seconds[phase] = seconds.get(phase, 0.0) + clock.lap()
        return progress(phase, done, total, note)

    networks = bind.networks(model, chosen)
    key = jax.random.fold_in(jax.random.key(seed), WALK)
    result = run.sample(networks, constraints, codes, num_samples, settings, natural, timed, key)
    images = _bytes(result.images)
    result = result._replace(images=images)  # 500 full-size pictures are 390 MB in float32
    asked_to_stop = clock.last if result.status == Status.INTERRUPTED else None
    reached = len(images)

    def go_on(done):
        nonlocal asked_to_stop, reached
        stop = progress("certificate", done, len(images), "pictures")
        if stop and asked_to_stop is None:
            asked_to_stop = time.perf_counter()
        late = asked_to_stop is not None and time.perf_counter() - asked_to_stop >= GRACE
        reached = done if late else reached
        return not late

    activations = bind.measure(model, images, chosen, go_on=go_on)
    if len(images):
        progress("certificate", len(images), len(images), "pictures")
    keep = accepted(activations, constraints, settings.rule)
    raw = bind.raw_activations(model, chosen, result.codes)
    columns = (
        images,
        result.codes,
        activations.astype(np.float32),
        raw,
        result.features,
        result.step,
        result.chain,
    )
    samples = results.SampleSet(*(column[keep] for column in columns))
    dropped, unread = int((~keep[:reached]).sum()), len(images) - reached
    status = Status.INTERRUPTED if unread else result.status
    if dropped and status not in (Status.NON_FINITE, Status.INTERRUPTED):
        status = Status.PARTIAL if keep.any() else Status.INFEASIBLE
    seconds["certificate"] = clock.lap()
    return Found(samples, constraints, result, settings, status, dropped, unread, seconds)


def _bytes(images):
    """Pictures in [0, 1] as bytes, one after the other."""
    found = np.empty(images.shape, np.uint8)
    for image, row in zip(images, found, strict=True):
        row[...] = np.round(image * 255)
    return found


class _Clock:
    def __init__(self):
        self.last = time.perf_counter()

    def lap(self):
        now = time.perf_counter()
        self.last, passed = now, now - self.last
        return passed


def _left_out(found):
    """What the line on the certificate adds where not every sample went through it or lived."""
    unread = f"; {found.unread} more were not reached before the end" if found.unread else ""
    lost = found.result.chains_lost
    return unread + (f"; {lost} chains met NaN or infinity and ended" if lost else "")


def summary(found):
    """What a person wants to see, as {label: text}."""
    features = found.samples.features
    n, size = features.shape
    distance = metrics.mean_pair_distance(features)
    nearest = metrics.nearest_neighbour_distance(features)
    result = found.result

    def apart(value):
        if n < 2:
            return "there is one sample only" if n else "there is no sample"
        return f"{value:.4g} ({value / size**0.5:.4g} per dimension)"

    return {
        "status": found.status.sentence,
        "samples": f"{n} from {result.seeds_inside} seeds",
        "gradient steps": f"{result.seed_steps} to the seeds + {result.sample_steps} sampling",
        "starting codes": f"{result.start_distance:.4g} apart",
        "share inside": f"{n} of {n + found.dropped} by the certificate" + _left_out(found),
        "mean pairwise distance": apart(distance),
        "nearest-neighbour distance": apart(nearest),
        "seconds": ", ".join(f"{phase} {time:.1f}" for phase, time in found.seconds.items()),
    }
