"""A network of plain functions, as Equinox and Haiku users have them, of their own weights.

inverse-set sample --model=docs/guides/own_model/plain_cnn.py:model ...
"""

import functools

import jax
import jax.numpy as jnp
import shapes

import inverse_set

SIZES = {"conv1": (3, 3, 1, 8), "conv2": (3, 3, 8, 16), "hidden": (256, 32), "logits": (32, 3)}


def network(weights, x):
    """Inputs `[K, 16, 16, 1]` -> {layer: activations}: a function that keeps what it computes."""
    found, axes = {}, ("NHWC", "HWIO", "NHWC")
    for name in ("conv1", "conv2"):
        x = jax.lax.conv_general_dilated(x, weights[name], (2, 2), "SAME", dimension_numbers=axes)
        found[name], x = x, jax.nn.relu(x)
    found["hidden"] = x.reshape(len(x), -1) @ weights["hidden"]
    return found | {"logits": jax.nn.relu(found["hidden"]) @ weights["logits"]}


def model():
    images, classes = shapes.pictures()
    generate, codes = shapes.decoder(images)
    keys = zip(SIZES.items(), jax.random.split(jax.random.key(0), 4), strict=True)
    weights = {name: 0.1 * jax.random.normal(key, size) for (name, size), key in keys}
    weights = shapes.trained(weights, lambda w, x: network(w, x)["logits"], images, classes)

    layers = functools.partial(network, jax.tree.map(jnp.asarray, weights))
    labels = {"logits": shapes.NAMES}
    own = inverse_set.Model(
        generate, layers, "hidden", shapes.CODES, name="plain_cnn", labels=labels
    )
    return inverse_set.measure(own, images, codes)
