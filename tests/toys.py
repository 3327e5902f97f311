"""Problems whose inverse sets are known in closed form."""

import jax
import jax.numpy as jnp

from inverse_set.types import networks


def _circle(codes):
    return jnp.concatenate([jnp.cos(codes), jnp.sin(codes)], axis=-1)


def _same(images):
    return images


def _first(images):
    return images[:, :1]


CIRCLE = networks(_circle, _same, _first)  # f = first coordinate: the inverse set is two arcs


def _affine(weights, offset, images):
    return images @ weights.T + offset[None]


def _logistic(weights, offset, images):
    return jax.nn.sigmoid(_affine(weights, offset, images))


def neuron(weights, offset, logistic=False):
    """Sec. 3.1: sigma(w.x + c) on the unit cube; weights `[P, D]`, offset `[P]`."""
    function = _logistic if logistic else _affine
    return networks(_same, _same, jax.tree_util.Partial(function, weights, offset))
