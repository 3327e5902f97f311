"""Stage 2 of the bundled model: a generator G that inverts the classifier's fc6, E.

Three losses, as DeePSiM and PPGN have them: pixels, features of the frozen classifier, and a
discriminator that sees picture and code.  A quarter of each batch are mixtures of two codes, for
which no picture exists: they are held to E(G(h)) = h and to the discriminator alone, so that codes
reached by optimisation still give natural pictures.

The adversarial gradient is scaled, at the picture, to a fixed share of the reconstruction's: no
weight to tune, and neither side can drown the other.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from experiments import checkpoints, mini_classifier
from inverse_set.models import layers, mini
from inverse_set.models.classifier import Classifier, fold_batch_norm
from inverse_set.models.generator import Generator

FEATURES = {"pool2": 0.25, "relu4": 0.5, "relu6": 0.5}  # layer -> weight of its relative error
PIXELS = 2.0
ADVERSARIAL_SHARE = 0.6  # of the reconstruction's gradient norm
CRITIC_EVERY = 1  # steps between updates of the discriminator
PENALTY_EVERY = 16  # steps between its gradient penalties (R1) on real pictures
PENALTY = 0.001


class Discriminator(nn.Module):
    """(images in [-2, 2] `[N, H, W, 3]`, codes `[N, D]`) -> how real and how fitting, `[N]`."""

    width: int

    @nn.compact
    def __call__(self, x, codes):
        def conv(x, features, name):
            shape = (3, 3, x.shape[-1], features)
            kernel = self.param(name, nn.initializers.he_normal(), shape)
            bias = self.param(name + "_bias", nn.initializers.zeros, (features,))
            return jax.nn.leaky_relu(layers.conv2d(x, kernel, 1, 1) + bias, 0.2)

        def fold(x):
            n, height, width, channels = x.shape
            x = x.reshape(n, height // 2, 2, width // 2, 2, channels)
            return x.transpose(0, 1, 3, 2, 4, 5).reshape(n, height // 2, width // 2, -1)

        def halve(x):
            n, height, width, channels = x.shape
            return x.reshape(n, height // 2, 2, width // 2, 2, channels).mean((2, 4))

        x = conv(fold(x), 2 * self.width, "conv1")
        x = conv(x, 3 * self.width, "conv2")
        while x.shape[1] > 8:
            x = halve(x)
        x = conv(x, 5 * self.width, "conv3")
        x = halve(x)
        x = jax.nn.leaky_relu(nn.Dense(256, name="dense")(x.reshape(x.shape[0], -1)), 0.2)
        view = nn.Dense(256, use_bias=False, name="code")(codes)
        return nn.Dense(1, name="score")(x)[:, 0] + (x * view).sum(-1) / 16


class TrainState(NamedTuple):
    """Generator variables and their average, discriminator parameters, optimiser states, step."""

    variables: Any
    average: Any
    critic: Any
    opt_state: Any
    critic_opt_state: Any
    step: Any


def frozen_classifier(settings, out):
    """The trained classifier without normalisation: (network, variables)."""
    plan = mini.classifier_plan(len(settings["classes"]), settings["resolution"], settings["width"])
    path = out / "classifier.msgpack"
    if not path.exists():
        raise SystemExit(f"{path} is missing: run --stage=classifier first")
    variables = checkpoints.restore(path, None)["average"]
    return Classifier(plan), {"params": fold_batch_norm(variables)}


def picture_features(network, variables, images, resolution, batch=250):
    """Pictures at the model's resolution and their features, fp16: what is frozen is cached."""

    @jax.jit
    def run(variables, x):
        x = mini_classifier.resize(x, resolution)
        outputs = network.apply(variables, mini.preprocess(x), until="relu6")
        return x, {name: outputs[name].astype(jnp.float16) for name in FEATURES}

    parts = []
    for start in range(0, len(images), batch):
        x, features = jax.device_get(run(variables, images[start : start + batch]))
        parts.append((np.round(x * 255).astype(np.uint8), features))
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def relative_error(value, target, variance):
    return jnp.mean((value - target) ** 2) / variance


def train(settings, schedule, train_data, valid_data, out):
    resolution, steps, batch = settings["resolution"], schedule["steps"], schedule["batch"]
    network, classifier = frozen_classifier(settings, out)
    generator = Generator(mini.generator_plan(resolution, settings["width"]), batch_norm=True)
    discriminator = Discriminator(settings["width"])
    real = np.concatenate([train_data[0], train_data[0][:, :, ::-1]])
    pictures, features = picture_features(network, classifier, real, resolution)
    sample = slice(None, None, 16)
    variance = {name: float(v[sample].astype(np.float32).var()) for name, v in features.items()}
    picture_variance = float((pictures[sample] / 255.0).var())
    code_scale = float(np.sqrt((features["relu6"][sample].astype(np.float32) ** 2).mean()))
    rate = optax.cosine_onecycle_schedule(steps, schedule["learning_rate"], pct_start=0.05)
    optimiser = optax.adam(rate, b1=0.5, b2=0.99)
    critic_optimiser = optax.adam(lambda step: 0.5 * rate(step), b1=0.5, b2=0.99)
    root = jax.random.key(settings["seed"] + 1)
    mixed = batch // 4

    def initial():
        codes = jnp.zeros((2, features["relu6"].shape[1]))
        variables = generator.init(root, codes)
        critic = discriminator.init(root, jnp.zeros((2, resolution, resolution, 3)), codes)
        return TrainState(
            variables,
            variables,
            critic,
            optimiser.init(variables["params"]),
            critic_optimiser.init(critic),
            jnp.int32(0),
        )

    def judge(critic, images, codes):
        return discriminator.apply(critic, mini.preprocess(images), codes / code_scale)

    def reconstruction(classifier, fakes, targets, images):
        """Weighted relative errors; the last `mixed` fakes have a code but no picture."""
        outputs = network.apply(classifier, mini.preprocess(fakes), until="relu6")
        paired = batch - mixed
        errors = {"pixels": relative_error(fakes[:paired], images, picture_variance)}
        for name in FEATURES:
            rows = batch if name == "relu6" else paired
            errors[name] = relative_error(outputs[name][:rows], targets[name], variance[name])
        total = PIXELS * errors["pixels"]
        return total + sum(FEATURES[name] * errors[name] for name in FEATURES), errors

    @functools.partial(jax.jit, donate_argnums=0)
    def update(state, classifier, images, targets):
        key = jax.random.fold_in(root, state.step)
        images = images / 255.0
        targets = {name: value.astype(jnp.float32) for name, value in targets.items()}
        codes = targets["relu6"]
        weight = jax.random.uniform(key, (mixed, 1))
        mixtures = weight * codes[:mixed] + (1 - weight) * codes[mixed : 2 * mixed]
        paired = batch - mixed
        targets = {name: value[:paired] for name, value in targets.items()}
        codes = targets["relu6"] = jnp.concatenate([codes[:paired], mixtures])

        def generate(params):
            return generator.apply(
                {**state.variables, "params": params}, codes, train=True, mutable=["batch_stats"]
            )

        params = state.variables["params"]
        fakes, pullback, changed = jax.vjp(generate, params, has_aux=True)
        rebuild, errors = jax.grad(
            lambda x: reconstruction(classifier, x, targets, images[:paired]), has_aux=True
        )(fakes)
        deceive = jax.grad(lambda x: -judge(state.critic, x, codes).mean())(fakes)
        warm = jnp.clip(state.step / (0.1 * steps) - 0.5, 0.0, 1.0)
        share = ADVERSARIAL_SHARE * warm * optax.tree.norm(rebuild) / optax.tree.norm(deceive)
        (gradient,) = pullback(rebuild + share * deceive)
        change, opt_state = optimiser.update(gradient, state.opt_state, params)
        variables = {"params": optax.apply_updates(params, change), **changed}
        keep = jnp.minimum(0.998, state.step / (state.step + 10.0))
        average = jax.tree.map(lambda a, v: keep * a + (1 - keep) * v, state.average, variables)

        state = state._replace(
            variables=variables, average=average, opt_state=opt_state, step=state.step + 1
        )
        return state, errors, (images[:paired], fakes, codes)

    # Separate programs, not branches of one: XLA:CPU's convolutions are slow inside a branch.
    @functools.partial(jax.jit, donate_argnums=0, static_argnames="penalise")
    def learn(state, images, fakes, codes, penalise):
        def loss(critic):
            matching = codes[: images.shape[0]]
            hinge = jax.nn.relu(1 - judge(critic, images, matching)).mean()
            hinge += jax.nn.relu(1 + judge(critic, fakes, codes)).mean()
            if not penalise:
                return hinge, hinge
            slope = jax.grad(lambda x: judge(critic, x, matching).sum())(images)
            penalty = (slope**2).sum((1, 2, 3)).mean()
            return hinge + PENALTY / 2 * PENALTY_EVERY / CRITIC_EVERY * penalty, hinge

        (_, hinge), slope = jax.value_and_grad(loss, has_aux=True)(state.critic)
        change, opt_state = critic_optimiser.update(slope, state.critic_opt_state)
        critic = optax.apply_updates(state.critic, change)
        return state._replace(critic=critic, critic_opt_state=opt_state), hinge

    path = out / "generator.msgpack"
    state = checkpoints.restore(path, jax.jit(initial)())
    log = checkpoints.Log(out / "generator.log")
    while state.step < steps:
        step = int(state.step)
        chosen = np.random.default_rng((settings["seed"], step)).choice(
            len(pictures), batch, replace=False
        )
        state, losses, seen = update(
            state, classifier, pictures[chosen], {k: v[chosen] for k, v in features.items()}
        )
        if step % CRITIC_EVERY == 0:
            state, losses["critic"] = learn(state, *seen, step % PENALTY_EVERY == 0)
        if step % schedule["log_every"] == 0:
            log(step, **losses)
        if (step + 1) % schedule["checkpoint_every"] == 0 or step + 1 == steps:
            checkpoints.save(path, state)
            report(network, classifier, generator, state.average, valid_data, out, log, step + 1)


def report(network, classifier, generator, average, valid_data, out, log, step):
    """Reconstructions of valid pictures: errors, agreement of the classifier, and a picture."""
    images, labels = valid_data
    resolution = generator.plan.spatial * 2 ** sum(d.stride == 2 for d in generator.plan.deconvs)
    pictures, features = picture_features(network, classifier, images, resolution)

    @jax.jit
    def rebuild(average, codes):
        fakes = generator.apply(average, codes.astype(jnp.float32))
        return fakes, network.apply(classifier, mini.preprocess(fakes))["fc8"].argmax(-1)

    fakes, predicted = jax.device_get(rebuild(average, features["relu6"]))
    error = ((fakes - pictures / 255.0) ** 2).mean() / (pictures / 255.0).var()
    log(step, valid_pixels=error, valid_agreement=(predicted == labels).mean())
    shown = np.linspace(0, len(labels) - 1, 48).astype(int)
    pairs = np.stack([pictures[shown], np.round(fakes[shown] * 255).astype(np.uint8)], 1)
    pairs = pairs.reshape(6, 8, 2, resolution, resolution, 3).transpose(0, 2, 3, 1, 4, 5)
    sheet = Image.fromarray(pairs.reshape(12 * resolution, 8 * resolution, 3))
    sheet.resize((sheet.width * 3, sheet.height * 3), Image.Resampling.BICUBIC).save(
        out / f"reconstructions_{step:06d}.png"
    )
