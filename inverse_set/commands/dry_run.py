"""`inverse-set sample --dry_run`: what a run would take, without running it."""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

from inverse_set import run
from inverse_set.commands import lists
from inverse_set.models import bind, cost
from inverse_set.types import Constraint

SHARE = 0.5  # of the matmul rate that a gradient step reaches, measured on two cores
DOUBLE = 0.12  # of that rate, what the certificate in float64 reaches
SIZE = 1024  # of the square matrices whose product is timed


def main(model, units, settings, num_samples, num_seeds, start):
    """Prints FLOPs, memory and estimated time; returns the exit code."""
    joint = settings.method == "joint"
    count = num_samples if joint else num_seeds
    forward = cost.forward_flops(model, units)
    rate = SHARE * matmul_rate()
    # A sampling step takes a gradient (two forward passes' worth) and at least one look.
    walking = 0 if joint else -(-(num_samples - num_seeds) // num_seeds)
    choosing = len(model.starts) if start == "nearest" else 0  # codes of which some are taken
    again = 1 if settings.micro and (joint or settings.micro < count) else 0  # a pass for the mean
    descending = (2 + again) * count * forward
    passes = 3
    if settings.walk == "refine":  # also E(G(c)), and at least one gradient to come back by
        passes = 4 + settings.encodings
    sampling = (passes + again) * count * forward
    reading = num_samples * cost.reading_flops(model, units)
    memory = run.working_memory(
        bind.networks(model, units),
        [Constraint("", 0.0, 1.0)] * len(units),
        jax.ShapeDtypeStruct((count, model.code_size), jnp.float32),
        num_samples,
        settings,
    )
    table = Table(title="dry run: nothing was sampled", box=None, show_header=False)
    rows = {
        "forward pass of a picture": f"{forward / 1e9:.3g} GFLOP",
        "choice of starting codes": f"about {_seconds(choosing * forward / rate)}",
        f"gradient step of {count} codes": f"{descending / 1e9:.4g} GFLOP, "
        f"about {_seconds(descending / rate)}",
        "descent, at most": f"{settings.seed_steps} steps, "
        f"about {_seconds(settings.seed_steps * descending / rate)}",
        "sampling, at least": f"{walking} steps, about {_seconds(walking * sampling / rate)}",
        "certificate": f"about {_seconds(reading / (rate * DOUBLE))}",
        "weights": f"{cost.weight_bytes(model) / 2**20:,.0f} MiB",
        "working memory": f"{memory / 2**20:,.0f} MiB",
        "pictures kept until saved": f"{_kept(model, num_samples) / 2**20:,.0f} MiB",
        "estimated at": f"{rate / 1e9:.0f} GFLOP/s, half of what a matmul reaches now "
        f"on {jax.devices()[0].device_kind}",
    }
    for label, text in rows.items():
        table.add_row(label, text)
    lists.show(table)
    return 0


def _kept(model, count):
    """Bytes of `count` inputs at their most: in float32, twice, and in 8 bits."""
    return 9 * count * math.prod(model.image.shape)


def _seconds(value):
    return f"{value:.2g} s" if value < 100 else f"{value / 60:.0f} min"


def matmul_rate(rounds=5):
    """FLOP/s of a float32 matrix product here and now: the best of a few."""
    x, multiply = jnp.ones((SIZE, SIZE), jnp.float32), jax.jit(jnp.matmul)
    multiply(x, x).block_until_ready()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        multiply(x, x).block_until_ready()
        times.append(time.perf_counter() - start)
    return 2 * SIZE**3 / np.min(times)
