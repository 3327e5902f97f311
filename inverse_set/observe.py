"""Codes to images, features and activations in one forward pass."""

import jax
import jax.numpy as jnp

from inverse_set.types import Observation


@jax.custom_vjp
def _finished(images, finished):
    """The finished images forward; backward as if they were the raw ones."""
    return finished


_finished.defvjp(lambda images, finished: (finished, None), lambda _, slope: (slope, None))


def observe(networks, codes):
    """Observation of codes `[K, D]`, of the images as they will be saved.

    What is optimised is thereby what is accepted.  The gradient passes straight through the
    finishing (clipping and rounding have none worth following).
    """
    raw = networks.generate(codes)
    images = _finished(raw, jax.lax.stop_gradient(networks.finish(raw)))
    features, activations = networks.read(images)
    return Observation(images, features, activations)


def observe_exactly(networks, codes, micro=None):
    """`observe` in full float32, at most `micro` codes at a time: by this, samples are accepted.

    Accelerators multiply in fewer digits unless they are told (TF32, bfloat16), which is good
    enough for a gradient; the certificate, in float64, would turn such samples down.
    """
    with jax.default_matmul_precision("highest"):
        return observe_all(networks, codes, micro)


def finite(observation):
    """Which rows of an `Observation` are free of NaN and infinity, `[K]`.

    Pixels are left out: what they break, features and activations show.
    """
    parts = observation.features, observation.activations
    return jnp.stack([jnp.isfinite(part).all(-1) for part in parts]).all(0)


def blank(networks, codes):
    """An `Observation` of zeros of the shapes that codes `[K, D]` have, for loops to begin with."""
    shapes = jax.eval_shape(observe, networks, codes)
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def cut(size, *arrays):
    """Arrays `[n, ...]` as batches `[ceil(n / size), size, ...]`, the last filled up with zeros."""
    n = arrays[0].shape[0]
    batches = -(-n // size)

    def fold(array):
        filler = jnp.zeros((batches * size - n, *array.shape[1:]), array.dtype)
        array = jnp.concatenate([array, filler]) if filler.size else array
        return array.reshape(batches, size, *array.shape[1:])

    return tuple(fold(array) for array in arrays)


def map_batches(function, size, *arrays):
    """`function` of consecutive batches of `size` rows, one after the other; results `[n, ...]`."""
    n = arrays[0].shape[0]
    stacked = jax.lax.map(lambda batch: function(*batch), cut(size, *arrays))
    return jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:])[:n], stacked)


def observe_all(networks, codes, micro=None):
    """`observe`, at most `micro` codes at a time."""
    if micro is None:
        return observe(networks, codes)
    return map_batches(lambda batch: observe(networks, batch), micro, codes)


def activations_of(networks, codes, micro=None):
    """Activations `[K, P]` of codes, at most `micro` codes at a time."""

    def run(codes):
        return observe(networks, codes).activations

    return run(codes) if micro is None else map_batches(run, micro, codes)
