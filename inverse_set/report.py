"""What a finished run tells: its table, its record, its folder, and its view in a notebook."""

import base64
import html
import importlib.metadata
import os
import sys

import jax
import numpy as np

from inverse_set import gallery, metrics, pictures, results

INDEPENDENT = "other arithmetic: NumPy in float64"
REPEATED = "the same functions again, at the highest precision"
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "pillow")


def title(found):
    """What was asked, on one line."""
    text = " and ".join(f"{c.name} in [{c.low:.4g}, {c.high:.4g}]" for c in found.constraints)
    return f"[untrained networks] {text}" if found.request.model.untrained else text


def summary(found):
    """What a person wants to see, as {label: text}."""
    features = found.samples.features
    n, size = features.shape
    distance = metrics.mean_pair_distance(features)
    nearest = metrics.nearest_neighbour_distance(features)
    result, model = found.result, found.request.model

    def apart(value):
        if n < 2:
            return "there is one sample only" if n else "there is no sample"
        return f"{value:.4g} ({value / size**0.5:.4g} per dimension)"

    told = {
        "status": found.status.sentence,
        "samples": f"{n} from {result.seeds_inside} seeds",
        "gradient steps": f"{result.seed_steps} to the seeds + {result.sample_steps} sampling",
        "starting codes": f"{result.start_distance:.4g} apart",
        "share inside": f"{n} of {n + found.dropped} by the certificate" + _left_out(found),
        "mean pairwise distance": apart(distance),
        "nearest-neighbour distance": apart(nearest),
        "seconds": ", ".join(f"{phase} {time:.1f}" for phase, time in found.seconds.items()),
    }
    if model.recheck is None:
        told["certificate"] = REPEATED
    if model.untrained:
        told["weights"] = f"RANDOM ({model.untrained}): the networks are not trained"
    return told


def _left_out(found):
    """What the line on the certificate adds where not every sample went through it or lived."""
    unread = f"; {found.unread} more were not reached before the end" if found.unread else ""
    lost = found.result.chains_lost
    return unread + (f"; {lost} chains met NaN or infinity and ended" if lost else "")


def record(found, command=None):
    """What run.json holds: what was asked, how it went, and with what.

    command: the words of the command line, None for a run from Python.
    """
    result, request = found.result, found.request
    model = request.model
    return {
        "command": command,
        "model": model.name,
        "own": model.parts is None,
        "subject": None if model.subject is model.encoder else model.subject.name,
        "untrained": model.untrained,
        "asked": list(request.asked),
        "rule": found.settings.rule,
        "settings": {k: v for k, v in found.settings._asdict().items() if k != "optimiser"},
        "num_samples": request.num_samples,
        "num_seeds": request.num_seeds,
        "seed": request.seed,
        "key": request.key,
        "start": request.start,
        "start_distance": result.start_distance,
        "natural_codes": request.natural_codes,
        "certificate": REPEATED if model.recheck is None else INDEPENDENT,
        "status": found.status.name.lower(),
        "status_sentence": found.status.sentence,
        "dropped": found.dropped,
        "seeds_inside": result.seeds_inside,
        "seed_steps": result.seed_steps,
        "sample_steps": result.sample_steps,
        "nearest": [float(value) for value in np.atleast_1d(result.nearest)],
        "penalty": result.penalty,
        "kept_length": result.kept_length,
        "seconds": found.seconds,
        "weights": model.digests,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES}
        | {"python": sys.version.split()[0]},
        "device": jax.devices()[0].device_kind,
        "machine": machine(found.settings),
    }


def machine(settings):
    """What the bits of a result depend on beside what was asked."""
    options = ("enable_x64", "numpy_rank_promotion", "numpy_dtype_promotion", "platforms")
    options += ("default_matmul_precision", "threefry_partitionable")
    return {
        "platform": jax.default_backend(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
        "XLA_FLAGS": os.environ.get("XLA_FLAGS"),
        "jax": {name: getattr(jax.config, f"jax_{name}") for name in options},
        "batch": settings.micro,
    }


def save(found, place, command=None):
    """Writes a run's folder: place is one that `results.claim` gave, or a path."""
    told = record(found, command)
    results.save(place, found.samples, found.constraints, told, summary(found), title(found))


def page(found):
    """The gallery page, HTML; the samples there are at least one."""
    samples = found.samples
    if not len(samples.images):
        raise ValueError(f"there are no samples to show: {found.status.sentence}")
    seen = pictures.visible(samples.images)
    columns = samples.activations, found.constraints, summary(found), title(found), samples.step
    return gallery.page(seen, *columns)


def notebook(found):
    """The view of a run in a notebook, HTML: a grid of up to twenty samples beside the table."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
        f"<td style='text-align:left'>{html.escape(text)}</td></tr>"
        for label, text in summary(found).items()
    )
    sheet, images = "", found.samples.images
    if len(images):
        grid = pictures.png(pictures.grid(pictures.visible(images), 5, 20, None))
        data = base64.b64encode(grid).decode()
        sheet = f"<img alt='samples' style='max-width:30em' src='data:image/png;base64,{data}'>"
    return f"<p><b>{html.escape(title(found))}</b></p>{sheet}<table>{rows}</table>"
