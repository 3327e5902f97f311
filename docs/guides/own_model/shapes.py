"""Small grey pictures of three shapes, and what every example here needs: data, G and training."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

NAMES = ("disc", "square", "cross")
SIDE, CODES = 16, 24


def pictures(count=600, seed=0):
    """(pictures `[count, 16, 16, 1]` in [0, 1], their classes `[count]`)."""
    draw = np.random.default_rng(seed)
    classes = np.arange(count) % 3
    rows, columns = np.mgrid[:SIDE, :SIDE]
    found = np.empty((count, SIDE, SIDE, 1), np.float32)
    for image, kind in zip(found, classes, strict=True):
        (y, x), size = draw.uniform(6, 10, 2), draw.uniform(3, 5)
        down, across = abs(rows - y), abs(columns - x)
        distance = (
            np.hypot(down, across),
            np.maximum(down, across),
            np.minimum(down, across) * 2.5 + np.maximum(np.maximum(down, across) - size, 0),
        )[kind]
        image[..., 0] = draw.uniform(0.6, 1) / (1 + np.exp(2 * (distance - size)))
    return found, classes


def decoder(images):
    """(G, E^-1): the principal components of the pictures, as a generator, and natural codes."""
    flat = images.reshape(len(images), -1)
    mean = flat.mean(0)
    _, deviations, components = np.linalg.svd(flat - mean, full_matrices=False)
    basis = components[:CODES] * deviations[:CODES, None] / len(images) ** 0.5
    codes = (flat - mean) @ np.linalg.pinv(basis)
    generate = functools.partial(_draw, jnp.asarray(basis), jnp.asarray(mean))
    return generate, codes.astype(np.float32)


def _draw(basis, mean, codes):
    return (mean[None] + codes @ basis).reshape(len(codes), SIDE, SIDE, 1)


def trained(weights, logits, inputs, classes, steps=150):
    """Weights after some steps of Adam; logits: (weights, inputs) -> `[N, classes]`."""
    adam = optax.adam(3e-3)

    def loss(weights, inputs, classes):
        values = logits(weights, inputs)  # each class on its own: a logit then has a meaning alone
        wanted = jax.nn.one_hot(classes, values.shape[1])
        return optax.sigmoid_binary_cross_entropy(values, wanted).sum(1).mean()

    @jax.jit
    def step(weights, state, rows):
        slope = jax.grad(loss)(weights, inputs[rows], classes[rows])
        updates, state = adam.update(slope, state)
        return optax.apply_updates(weights, updates), state

    inputs, classes = jnp.asarray(inputs), jnp.asarray(classes)
    state, draw = adam.init(weights), np.random.default_rng(0)
    for _ in range(steps):
        weights, state = step(weights, state, draw.integers(len(inputs), size=64))
    return weights
