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


def map_batches(function, size, *arrays):
    """`function` of consecutive batches of `size` rows, one after the other; results stacked.

    The last batch is padded with copies of the first row.  arrays: `[n, ...]`, n >= 1.
    """
    n = arrays[0].shape[0]
    batches = -(-n // size)

    def cut(array):
        filler = jnp.broadcast_to(array[:1], (batches * size - n, *array.shape[1:]))
        return jnp.concatenate([array, filler]).reshape(batches, size, *array.shape[1:])

    stacked = jax.lax.map(lambda batch: function(*batch), tuple(cut(array) for array in arrays))
    return jax.tree.map(lambda a: a.reshape(batches * size, *a.shape[2:])[:n], stacked)


def activations_of(networks, codes, micro=None):
    """Activations `[K, P]` of codes, at most `micro` codes at a time."""

    def run(codes):
        return observe(networks, codes).activations

    if micro is None or micro >= codes.shape[0]:
        return run(codes)
    return map_batches(run, micro, codes)
