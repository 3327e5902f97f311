"""From a model and what is asked to a certified sample: the whole job as one function."""

import time
from typing import NamedTuple

import jax
import numpy as np

from inverse_set import report, results, run
from inverse_set.errors import UserError
from inverse_set.models import bind, units
from inverse_set.models.base import Model
from inverse_set.settings import Settings, resolve
from inverse_set.types import Status

ENCODINGS = 2  # of the refining walk: the range of a model's E are codes
WALK = 1  # folded into the seed's key, for the walk; the starting codes take it as it is
EARLY = ("start", "compile")  # phases of a run in which nothing has been found yet
GRACE = 20.0  # seconds that the certificate may go on when asked to stop: schedulers wait for 30
GUARD = 1e-3  # of the width: far more than two float programs differ, far less than anyone sees


class Request(NamedTuple):
    """What was asked of `sample`: the model, the constraints as texts, and how many samples.

    seed: None where a key was given.  key: the words of that key, None where a seed was given.
    start: the kind of the starting codes, "given" where they were.
    """

    model: Model
    asked: tuple
    num_samples: int
    num_seeds: int
    seed: int | None
    key: list | None
    start: str
    natural_codes: bool


class Found(NamedTuple):
    """A certified sample.

    samples: `results.SampleSet`, every input of which lies inside.
    constraints: what was asked, one `Constraint` per column of the activations.
    result: `run.Result`, how the sampling went, its pictures in 8 bits.
    settings: those it really used.
    status: its status, after the certificate.
    dropped: samples the certificate turned down (0 unless the two arithmetics disagree).
    unread: samples that it had not come to within `GRACE` seconds of a request to stop.
    seconds: {phase: wall time}.
    request: what was asked.
    """

    samples: results.SampleSet
    constraints: tuple
    result: run.Result
    settings: Settings
    status: Status
    dropped: int
    unread: int
    seconds: dict
    request: Request

    def save(self, folder, overwrite=False):
        """Writes pictures, arrays, table, gallery and run.json into a folder.

        Raises ResultsError for a folder that is not empty, unless it holds a run and `overwrite`.

            found.save("monarchs")
        """
        with results.claim(folder, overwrite) as place:
            report.save(self, place)

    def gallery(self):
        """The gallery as the text of one offline HTML page; ValueError if there are no samples."""
        return report.page(self)

    def _repr_html_(self):
        return report.notebook(self)

    def __repr__(self):
        told = f"{len(self.samples.images)} of {self.request.num_samples} samples"
        return f"<Found {report.title(self)}: {told}, {self.status.sentence}>"


def accepted(activations, constraints, rule):
    """Which rows `[n, P]` satisfy every constraint, `[n]`; the paper's rule has no upper end."""
    low = np.asarray([c.low for c in constraints])
    high = np.asarray([c.high if rule == "two_sided" else np.inf for c in constraints])
    return ((activations >= low) & (activations <= high)).all(1)


def sample(
    model,
    target,
    num_samples=500,
    num_seeds=10,
    seed=0,
    settings=None,
    start=None,
    natural_codes=True,
    progress=run.silent,
    key=None,
):
    """Samples the inverse set of one neuron, or the intersection of several (eqs. 1, 12).

    model: a `Model`, from `load` or of one's own.
    target: what `unit(...).between(low, high)` gives, joined by `&`; or a text such as
        "fc8/monarch:p95:p99.9", or several of them.
    num_samples, num_seeds: n and K of the paper, K samples per gradient step.
    seed: of the starting codes and of the walk; key: of `jax.random.key`, in its place.
    settings: `Settings`.  start: codes `[K, D]`, or a kind of `models.bind.STARTS`; None takes the
        best kind that the model offers.
    natural_codes: hold codes to the range of the model's prior (not under the paper rule).
    progress: see `run.sample`.
    Returns `Found`; each activation in it is that of the sample as it is saved, recomputed.
    Raises UserError for a target that the model has not, ValueError for settings that cannot work.

        found = sample(model, model.unit("fc8/monarch").between("p99", "p99.9"), num_samples=100)
    """
    seconds, clock = {}, _Clock()
    settings = Settings() if settings is None else settings
    if settings.encodings is None and settings.walk == "refine" and model.inverts:
        settings = settings._replace(encodings=ENCODINGS)
    asked = (target,) if isinstance(target, str) else tuple(target)
    settings = resolve(settings)
    if settings.rule == "two_sided":
        settings = settings._replace(guard=max(settings.guard, GUARD))
    pairs = [units.parse_constraint(model, text) for text in asked]
    chosen = [unit for unit, _ in pairs]
    constraints = tuple(
        constraint._replace(name=units.unit_name(model, unit)) for unit, constraint in pairs
    )
    if settings.rule == "paper" and not all(
        np.isfinite([c.low, c.high]).all() for c in constraints
    ):
        raise UserError("the paper's rule needs intervals with two ends", "give both, as numbers")
    natural = model.prior
    if not natural_codes or settings.rule == "paper":
        natural = natural._replace(lower=None, upper=None)
    if model.starts is not None and len(model.starts) < 2:
        natural = natural._replace(codes=None)
    count = num_samples if settings.method == "joint" else num_seeds
    progress("start", 0, 1, "starting codes")
    codes = bind.default_start(model) if start is None else start
    words = None if key is None else np.asarray(jax.random.key_data(key)).tolist()
    source = (seed, None) if key is None else (None, words)
    request = Request(model, asked, num_samples, num_seeds, *source, "given", natural_codes)
    if isinstance(codes, str):
        request = request._replace(start=codes)
        given = seed if key is None else key
        codes = bind.starting_codes(model, codes, count, given, chosen, constraints)
    progress("start", 1, 1, "starting codes")
    seconds["start"] = clock.lap()
    # Compiled before there is anything to lose: a run that is stopped must not wait for it.
    progress("compile", 0, 1, "the program of pictures before rounding")
    bind.raw_activations(model, chosen, np.asarray(codes)[:1])

    def timed(phase, done, total, note):
        seconds[phase] = seconds.get(phase, 0.0) + clock.lap()
        return progress(phase, done, total, note)

    networks = bind.networks(model, chosen)
    key = jax.random.fold_in(jax.random.key(seed) if key is None else key, WALK)
    result = run.sample(networks, constraints, codes, num_samples, settings, natural, timed, key)
    images = _bytes(result.images) if model.pictures else np.asarray(result.images, np.float32)
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
    told = status, dropped, unread, seconds, request
    return Found(samples, constraints, result, settings, *told)


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
