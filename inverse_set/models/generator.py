"""Generators that invert a code, as data: inner products, then deconvolutions."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from inverse_set.models import layers
from inverse_set.models.classifier import Affine


class Deconv(NamedTuple):
    """Caffe's Deconvolution.

    residual: whether what it reads is added to what it gives, after the LeakyReLU.
    """

    name: str
    features: int
    kernel: int = 4
    stride: int = 2
    padding: int = 1
    residual: bool = False


class Plan(NamedTuple):
    """A generator: inner products, a reshape, deconvolutions.

    dense: ((name, features), ...); the last is reshaped to `[spatial, spatial, -1]`.
    deconvs: tuple of `Deconv`.
    slope: of the LeakyReLU after every layer but the last.
    sigmoid: whether the output is squashed to (0, 1); otherwise it is linear and unbounded.
    """

    dense: tuple
    spatial: int
    deconvs: tuple
    slope: float = 0.3
    sigmoid: bool = False


class Generator(nn.Module):
    """codes `[N, D]` -> images `[N, H, W, 3]` in the scale the generator was trained in."""

    plan: Plan

    @nn.compact
    def __call__(self, x):
        plan = self.plan
        for name, features in plan.dense:
            affine = Affine(features, name=name)
            x = affine(x, (x.shape[-1], features), jnp.matmul)
            x = jax.nn.leaky_relu(x, plan.slope)
        x = x.reshape(x.shape[0], plan.spatial, plan.spatial, -1)
        for layer in plan.deconvs:
            last = layer is plan.deconvs[-1]
            affine = Affine(layer.features, name=layer.name)

            def apply(x, kernel, layer=layer):
                return layers.deconv2d(x, kernel, layer.stride, layer.padding)

            shape = (layer.kernel, layer.kernel, x.shape[-1], layer.features)
            read, x = x, affine(x, shape, apply)
            if not last:
                x = jax.nn.leaky_relu(x, plan.slope)
            if layer.residual:
                x = x + read
        return jax.nn.sigmoid(x) if plan.sigmoid else x
