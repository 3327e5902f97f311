"""AlexNet's family of classifiers as data: a tuple of layer records, run by one module."""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from inverse_set.models import layers, pooling

PROB = "prob"  # the softmax of the last layer, by the name that Caffe's networks give it


class Conv(NamedTuple):
    """A convolution and its ReLU: `name` is read before, `relu` + the digits of `name` after it."""

    name: str
    features: int
    kernel: int
    stride: int = 1
    padding: int = 0
    groups: int = 1


class Pool(NamedTuple):
    """Caffe's max pooling (ceil mode)."""

    name: str
    window: int = 3
    stride: int = 2


class Norm(NamedTuple):
    """Caffe's local response normalisation across `size` channels; alpha is divided by `size`."""

    name: str
    size: int = 5
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0


class Dense(NamedTuple):
    """An inner product; every one but the last of a plan is followed by a ReLU."""

    name: str
    features: int


def names(plan):
    """Every name under which a plan's activations are read, in the order they are computed."""
    found = []
    for layer in plan:
        found.append(layer.name)
        if isinstance(layer, Conv | Dense) and layer is not plan[-1]:
            found.append(relu_name(layer.name))
    return [*found, PROB]


def relu_name(name):
    """The name under which a layer's post-ReLU values are read: `fc6` -> `relu6`."""
    return "relu" + "".join(c for c in name if c.isdigit())


class Affine(nn.Module):
    """Kernel and bias of one layer."""

    features: int

    @nn.compact
    def __call__(self, x, shape, apply):
        kernel = self.param("kernel", nn.initializers.he_normal(), shape, x.dtype)
        bias = self.param("bias", nn.initializers.zeros, (self.features,), x.dtype)
        y = apply(x, kernel)
        return y + jnp.expand_dims(bias, range(y.ndim - 1))


class Classifier(nn.Module):
    """Runs a plan of layers and keeps every activation by name.

    plan: tuple of `Conv`, `Pool`, `Norm` and `Dense` records, first layer first.
    """

    plan: tuple

    @nn.compact
    def __call__(self, x, until=None):
        """images `[N, H, W, 3]` in the network's own scale -> {layer name: activations}.

        Hidden layers appear twice: `conv5`, `fc6` before the ReLU, `relu5`, `relu6` after it.
        `prob` is the softmax of the last layer.
        until: stop after this name (E is a prefix of the classifier).
        """
        activations = {}
        last = self.plan[-1].name
        before_relu = None
        for layer in self.plan:
            if isinstance(layer, Pool):
                # Pooling and ReLU commute; in this order the gradient is five times faster.
                if before_relu is None:
                    x = pooling.max_pool(x, layer.window, layer.stride)
                else:
                    x = jax.nn.relu(pooling.max_pool(before_relu, layer.window, layer.stride))
                before_relu, activations[layer.name] = None, x
                if layer.name == until:
                    break
                continue
            if isinstance(layer, Norm):
                x = pooling.local_response_norm(x, layer.size, layer.alpha, layer.beta, layer.k)
                before_relu, activations[layer.name] = None, x
                if layer.name == until:
                    break
                continue
            if isinstance(layer, Conv):
                shape = (
                    layer.kernel,
                    layer.kernel,
                    x.shape[-1] // layer.groups,
                    layer.features,
                )

                def apply(x, kernel, layer=layer):
                    return layers.conv2d(x, kernel, layer.stride, layer.padding, layer.groups)
            else:
                x = x.reshape(x.shape[0], -1)
                shape, apply = (x.shape[-1], layer.features), jnp.matmul
            affine = Affine(layer.features, name=layer.name)
            x = activations[layer.name] = affine(x, shape, apply)
            if layer.name == until:
                break
            if layer.name != last:
                before_relu = x
                x = activations[relu_name(layer.name)] = jax.nn.relu(x)
                if relu_name(layer.name) == until:
                    break
        else:
            activations[PROB] = jax.nn.softmax(x)
        return activations
