"""Whether a step fits into the memory that is free, before anything is compiled for it."""

import math
import pathlib

import jax

from inverse_set.errors import UserError
from inverse_set.models import cost

SAFETY = 1.25  # of the sizes of all layers: compiled steps took 1.0 to 1.2 times as much
SHARE = 0.8  # of the free memory that a step may take
CGROUP = pathlib.Path("/sys/fs/cgroup")
MEMINFO = pathlib.Path("/proc/meminfo")


def per_code(model, units):
    """About the bytes that one code of a gradient step needs: every layer is kept, in float32."""
    return int(SAFETY * cost.layer_bytes(model, units))


def free():
    """Bytes free by the machine, its control group or the GPU; None where that is unknown."""
    device = jax.devices()[0]
    if device.platform != "cpu":
        known = device.memory_stats() or {}
        if "bytes_limit" not in known:
            return None
        return known["bytes_limit"] - known.get("bytes_in_use", 0)
    limits = [limit for limit in (_available(), _group()) if limit is not None]
    return min(limits) if limits else None


def _available():
    """What the system says could be had without swapping."""
    try:
        lines = MEMINFO.read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("MemAvailable:"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        return None


def _group():
    """What is left of the control group's limit (version 2, then 1)."""
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        try:
            return int((CGROUP / limit).read_text()) - int((CGROUP / used).read_text())
        except (OSError, ValueError):  # absent, or "max": no limit
            continue
    return None


def kept(model, num_samples, count):
    """About the bytes of the float32 inputs that stay in memory.

    Those of the samples are there twice while they are put together, those of the `count` codes
    that move three times, in the state of a step and in its result.
    """
    return 4 * math.prod(model.image.shape) * (2 * num_samples + 3 * count)


def fit(model, units, num_samples, count, batch, asked):
    """(codes at a time, a note or None) for steps of `count` codes; UserError if they cannot fit.

    num_samples: pictures asked for, which are kept until they are saved.
    batch: codes at a time without a limit, None for all.  asked: a person said so.
    """
    one, available, pictures = per_code(model, units), free(), kept(model, num_samples, count)
    if available is None:
        return batch, None
    if pictures > SHARE * available:
        raise UserError(
            f"the pictures of {num_samples} samples and {count} seeds need about "
            f"{_gib(pictures)}, {_gib(available)} are free",
            "ask for fewer with --num_samples and --num_seeds, or use a machine with more",
        )
    at_once = min(count, batch or count)
    if at_once * one <= SHARE * available - pictures:
        return batch, None
    size = int((SHARE * available - pictures) / one)
    told = (
        f"{at_once} codes need about {_gib(at_once * one)} in one step, {_gib(available)} are free"
    )
    if asked or size < 1:
        fitting = f"give --batch={size} or less" if size else "free some memory"
        raise UserError(told, f"{fitting}, or use a machine with more")
    return size, f"{told}: taken {size} at a time"


def _gib(size):
    return f"{size / 2**30:,.1f} GiB"
