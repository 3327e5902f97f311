"""Stage 1 of the bundled model: the classifier, and before it, at 64 pixels, its teacher.

Random resized crops and mirror images, colour jitter, mixup and cutmix, label smoothing, dropout;
AdamW on one cosine cycle; the weights exported are an exponential average.  Five convolutions learn
more from what a residual network makes of the same mixed picture than from its labels alone, so
where `out/teacher.safetensors` is there, most of the loss comes from it.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import augment, judge, training
from inverse_set.models import mini
from inverse_set.models.classifier import Classifier, fold_batch_norm

DECAY = 0.05  # weight decay, times the learning rate; of kernels only
SMOOTHING = 0.1  # share of every label that goes to all classes
TEACHER = 0.7  # share of the loss that is the teacher's
SOFTNESS = 2.0  # what the logits are divided by where the two are compared
TEACHER_WIDTHS, TEACHER_BLOCKS = (128, 256, 512), 2


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


@functools.partial(jax.jit, static_argnums=(0, 3))
def _predict(network, variables, images, resolution):
    images = jnp.round(resize(images, resolution) * 255) / 255
    return network.apply(variables, mini.preprocess(images))["fc8"].argmax(-1)


def accuracy(network, variables, images, labels, resolution, batch=250):
    """Share of pictures, seen in 8 bits, whose largest fc8 unit is their class."""
    hits = [
        np.asarray(_predict(network, variables, images[i : i + batch], resolution))
        == labels[i : i + batch]
        for i in range(0, len(labels), batch)
    ]
    return float(np.concatenate(hits).mean())


def train(settings, schedule, train_data, valid_data, out):
    """Stage "classifier"."""
    plan = mini.classifier_plan(len(settings["classes"]), settings["resolution"], settings["width"])
    path, teacher = out / "teacher.safetensors", None
    if path.exists():
        teacher = training.load_folded(path, "teacher")
    print("distilled from the teacher" if teacher else "trained without a teacher")
    data = (train_data, valid_data)
    return fit(plan_networks(plan), "classifier", settings, schedule, *data, out, teacher)


def plan_networks(plan, dropout=0.4):
    """(network as trained, network as exported) of a `Classifier` plan."""
    return Classifier(plan, batch_norm=True, dropout=dropout), Classifier(plan)


def train_teacher(settings, schedule, train_data, valid_data, out):
    """Stage "teacher"; another seed than the student's."""
    shape = (len(settings["classes"]), TEACHER_WIDTHS, TEACHER_BLOCKS)
    if settings["width"] < 16:  # a toy for a toy
        shape = (len(settings["classes"]), (8, 8, 8), 1)
    networks = judge.Judge(*shape, batch_norm=True, dropout=0.2), judge.Judge(*shape)
    settings = settings | {"seed": settings["seed"] + 500}
    return fit(networks, "teacher", settings, schedule, train_data, valid_data, out)


def losses_of(logits, targets, soft):
    """Mean loss over `[N, C]` logits.  targets: probabilities.  soft: teacher's logits or None."""
    hard = optax.softmax_cross_entropy(logits, targets).mean()
    if soft is None:
        return hard
    softened = optax.softmax_cross_entropy(logits / SOFTNESS, jax.nn.softmax(soft / SOFTNESS))
    return (1 - TEACHER) * hard + TEACHER * SOFTNESS**2 * softened.mean()


def fit(networks, name, settings, schedule, train_data, valid_data, out, teacher=None):
    """Trains a network of flax that returns {layer: activations}, its logits as "fc8".

    networks: with batch normalisation and without.  settings: resolution, seed and the classes.
    train_data, valid_data: pictures and labels.  teacher: weights of a `judge.Judge`, or None.
    Keeps its state in `out/NAME.msgpack` and goes on from there; `out/NAME.safetensors` are the
    averaged weights, folded, in fp16.  Returns the averaged variables.
    """
    network, plain = networks
    resolution, count = settings["resolution"], len(settings["classes"])
    optimiser = optax.adamw(
        1.0, weight_decay=DECAY, mask=lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    )
    root = jax.random.key(settings["seed"])
    dtype = jnp.dtype(schedule["precision"])

    def initial():
        variables = network.init(root, jnp.zeros((1, resolution, resolution, 3)))
        return TrainState(variables, variables, optimiser.init(variables["params"]), jnp.int32(0))

    def batch_of(step, data, key):
        """Pictures, targets and the teacher's logits of a step."""
        images, labels, teacher = data
        chosen = training.draw(root, step, len(labels), schedule["batch"])
        keys = jax.random.split(key)
        x = augment.augment(keys[0], images[chosen], resolution)
        targets = optax.smooth_labels(jax.nn.one_hot(labels[chosen], count), SMOOTHING)
        x, targets = augment.mix(keys[1], x, targets)
        x = mini.preprocess(x).astype(dtype)
        if teacher is None:
            return x, targets, None
        soft = judge.network_of(teacher).apply({"params": training.cast(teacher, dtype)}, x)
        return x, targets, soft["fc8"].astype(jnp.float32)

    def update(state, total, data):
        keys = jax.random.split(jax.random.fold_in(root, state.step))
        x, targets, soft = batch_of(state.step, data, keys[0])

        def loss(params):
            outputs, changed = network.apply(
                {**state.variables, "params": training.cast(params, dtype)},
                x,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": keys[1]},
            )
            return losses_of(outputs["fc8"].astype(jnp.float32), targets, soft), changed

        params = state.variables["params"]
        (value, changed), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        change, opt_state = optimiser.update(gradient, state.opt_state, params)
        speed = training.rate(state.step, total, schedule["learning_rate"], 0.2)
        params = jax.tree.map(lambda p, c: p + speed * c, params, change)
        variables = {"params": params, **changed}
        average = training.averaged(state.average, variables, state.step, total)
        return TrainState(variables, average, opt_state, state.step + 1), {"loss": value}

    def report(state, step, log):
        path = out / f"{name}.safetensors"
        training.save_folded(path, state.average)
        halved = {"params": training.load_folded(path, name)}
        log(
            step,
            valid=accuracy(network, state.average, *valid_data, resolution),
            valid_folded_fp16=accuracy(plain, halved, *valid_data, resolution),
        )

    data = jax.device_put((*train_data, teacher))
    state = training.run(name, schedule, out, initial, update, data, report)
    return jax.device_get(state.average)


def folded(average):
    """The averaged variables as they are exported: `{layer: {kernel, bias}}`, rounded to fp16."""
    return jax.tree.map(training.half, fold_batch_norm(average))
