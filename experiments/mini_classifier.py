"""Stage 1 of the bundled model: the classifier.

Random resized crops and mirror images, colour jitter, mixup, label smoothing, dropout; AdamW on one
cosine cycle; the weights exported are an exponential average.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import checkpoints
from inverse_set.models import mini
from inverse_set.models.classifier import Classifier


class TrainState(NamedTuple):
    """params, batch_stats and their averages; optimiser state; int32 step."""

    variables: Any
    average: Any
    opt_state: Any
    step: Any


def resize(images, resolution):
    """uint8 `[N, 64, 64, 3]` -> float images in [0, 1] at the model's resolution."""
    shape = (images.shape[0], resolution, resolution, 3)
    return jax.image.resize(images / 255.0, shape, "linear")


def augment(key, images, resolution, smallest=0.6):
    """Random crops of `smallest` to all of each side, mirrored half the time, colours jittered."""
    n, source = images.shape[:2]
    scale_key, place_key, flip_key, gain_key, shift_key = jax.random.split(key, 5)
    side = jax.random.uniform(scale_key, (n, 1), minval=smallest, maxval=1.0) * source
    start = jax.random.uniform(place_key, (n, 2)) * (source - side)
    scale = jnp.broadcast_to(resolution / side, (n, 2))

    def crop(image, scale, start):
        return jax.image.scale_and_translate(
            image, (resolution, resolution, 3), (0, 1), scale, -start * scale, "linear"
        )

    images = jax.vmap(crop)(images / 255.0, scale, start)
    flip = jax.random.bernoulli(flip_key, 0.5, (n, 1, 1, 1))
    images = jnp.where(flip, images[:, :, ::-1], images)
    gain = jax.random.uniform(gain_key, (n, 1, 1, 1), minval=0.75, maxval=1.25)
    shift = jax.random.uniform(shift_key, (n, 1, 1, 3), minval=-0.08, maxval=0.08)
    return jnp.clip((images - 0.5) * gain + 0.5 + shift, 0.0, 1.0)


def mixup(key, images, targets, strength=0.2):
    weight_key, order_key = jax.random.split(key)
    weight = jax.random.beta(weight_key, strength, strength)
    order = jax.random.permutation(order_key, images.shape[0])
    return (
        weight * images + (1 - weight) * images[order],
        weight * targets + (1 - weight) * targets[order],
    )


def accuracy(network, variables, images, labels, resolution, batch=250):
    """Share of pictures whose largest fc8 unit is their class."""

    @jax.jit
    def predict(variables, x):
        return network.apply(variables, mini.preprocess(resize(x, resolution)))["fc8"].argmax(-1)

    hits = [
        np.asarray(predict(variables, images[i : i + batch])) == labels[i : i + batch]
        for i in range(0, len(labels), batch)
    ]
    return float(np.concatenate(hits).mean())


def train(settings, schedule, train_data, valid_data, out):
    plan = mini.classifier_plan(len(settings["classes"]), settings["resolution"], settings["width"])
    network = Classifier(plan, batch_norm=True, dropout=0.4)
    fit(network, "classifier", settings, schedule, train_data, valid_data, out)


def fit(network, name, settings, schedule, train_data, valid_data, out):
    """Trains a network of flax that returns {layer: activations}, its logits as "fc8".

    settings: resolution, seed and the classes.  train_data, valid_data: pictures and labels.
    Keeps its state in `out/NAME.msgpack` and goes on from there; returns the averaged variables.
    """
    resolution, count = settings["resolution"], len(settings["classes"])
    steps = schedule["steps"]
    rate = optax.cosine_onecycle_schedule(steps, schedule["learning_rate"], pct_start=0.2)
    optimiser = optax.adamw(rate, weight_decay=0.05)
    root = jax.random.key(settings["seed"])

    def initial():
        variables = network.init(root, jnp.zeros((1, resolution, resolution, 3)))
        return TrainState(variables, variables, optimiser.init(variables["params"]), jnp.int32(0))

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, images, labels):
        keys = jax.random.split(jax.random.fold_in(root, state.step), 3)
        x = augment(keys[0], images, resolution)
        targets = optax.smooth_labels(jax.nn.one_hot(labels, count), 0.1)
        x, targets = mixup(keys[1], x, targets)

        def loss(params):
            outputs, changed = network.apply(
                {**state.variables, "params": params},
                mini.preprocess(x),
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": keys[2]},
            )
            return optax.softmax_cross_entropy(outputs["fc8"], targets).mean(), changed

        params = state.variables["params"]
        (value, changed), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        change, opt_state = optimiser.update(gradient, state.opt_state, params)
        variables = {"params": optax.apply_updates(params, change), **changed}
        keep = jnp.minimum(0.998, state.step / (state.step + 10.0))
        average = jax.tree.map(lambda a, v: keep * a + (1 - keep) * v, state.average, variables)
        return TrainState(variables, average, opt_state, state.step + 1), value

    path = out / f"{name}.msgpack"
    state = checkpoints.restore(path, jax.jit(initial)())
    log = checkpoints.Log(out / f"{name}.log")
    images, labels = train_data
    while state.step < steps:
        step = int(state.step)
        chosen = np.random.default_rng((settings["seed"], step)).choice(
            len(labels), schedule["batch"], replace=False
        )
        state, value = update(state, images[chosen], labels[chosen])
        if (step + 1) % schedule["log_every"] == 0:
            log(step + 1, loss=value)
        if (step + 1) % schedule["checkpoint_every"] == 0 or step + 1 == steps:
            checkpoints.save(path, state)
            log(step + 1, valid=accuracy(network, state.average, *valid_data, resolution))
    return state.average
