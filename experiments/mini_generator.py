"""Stage 2 of the bundled model: a generator G that inverts the classifier's fc6, E.

Three losses, as DeePSiM and PPGN have them: pixels, features of the frozen classifier, and a
discriminator that sees picture and code.  A quarter of each batch are mixtures of two codes, an
eighth codes whose active units are weakened or strengthened at random; no picture exists for
either: they are held to E(G(h)) = h and to the discriminator alone, so that codes reached by
optimisation still give natural pictures.

The adversarial gradient is scaled, at the picture, to a fixed share of the reconstruction's: no
weight to tune, and neither side can drown the other.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from PIL import Image

from experiments import mini_classifier, training
from experiments.mini_critic import Discriminator
from inverse_set.models import mini
from inverse_set.models.classifier import Classifier
from inverse_set.models.generator import Generator

# Layer -> weight of its relative error.  fc8, which relu6 decides, is there for what the class
# hangs on, a part of relu6's variance that its own error hardly sees.
FEATURES = {"pool2": 0.25, "relu4": 0.5, "relu6": 0.5, "fc8": 0.25}
CODED = ("relu6", "fc8")  # those that a code without a picture has a target for
PIXELS = 2.0
ADVERSARIAL_SHARE = 0.6  # of the reconstruction's gradient norm
PENALISED = 16  # one real picture in as many bears the gradient penalty (R1) of a step
PENALTY = 1e-6  # of R1 in units of [0, 1], times the pixels of a picture
SPREAD = 0.3  # of the logarithm of what a perturbed code is multiplied by, each unit and all alike
SAMPLE = 4096  # pictures that variances are measured on


class TrainState(NamedTuple):
    """Generator variables and their average, discriminator parameters, optimiser states, step."""

    variables: Any
    average: Any
    critic: Any
    opt_state: Any
    critic_opt_state: Any
    step: Any


class Scales(NamedTuple):
    """Of natural pictures: variance of pixels and of {layer: features}; root mean square code."""

    pixels: Any
    features: dict
    code: Any


def frozen_classifier(settings, out):
    """The trained classifier without normalisation, in fp16's values: (network, variables)."""
    plan = mini.classifier_plan(len(settings["classes"]), settings["resolution"], settings["width"])
    params = training.load_folded(out / "classifier.safetensors", "classifier")
    return Classifier(plan), {"params": params}


def natural_scales(network, classifier, images, resolution, batch=256):
    """`Scales` over pictures spread over all of `images`, means of what batches have."""
    chosen = np.linspace(0, len(images) - 1, min(SAMPLE, len(images))).astype(int)

    @jax.jit
    def measure(classifier, x):
        x = mini_classifier.resize(x, resolution)
        outputs = network.apply(classifier, mini.preprocess(x))
        variances = {name: outputs[name].var() for name in FEATURES}
        return Scales(x.var(), variances, jnp.square(outputs["relu6"]).mean())

    parts = [
        jax.device_get(measure(classifier, images[chosen[i : i + batch]]))
        for i in range(0, len(chosen), batch)
    ]
    scales = jax.tree.map(lambda *values: np.float32(np.mean(values)), *parts)
    return scales._replace(code=np.sqrt(scales.code))


def without_pictures(key, codes, mixed, perturbed):
    """Codes `[mixed + perturbed, D]` for which no picture exists, made of natural ones `[N, D]`."""
    weight_key, unit_key, all_key = jax.random.split(key, 3)
    weight = jax.random.uniform(weight_key, (mixed, 1))
    mixtures = weight * codes[:mixed] + (1 - weight) * codes[mixed : 2 * mixed]
    noise = jax.random.normal(unit_key, (perturbed, codes.shape[1]))
    noise += jax.random.normal(all_key, (perturbed, 1))
    return jnp.concatenate([mixtures, codes[-perturbed:] * jnp.exp(SPREAD * noise)])


def relative_error(value, target, variance):
    return jnp.mean((value - target) ** 2) / variance


def train(settings, schedule, train_data, valid_data, out):
    """Stage "generator"."""
    resolution, batch = settings["resolution"], schedule["batch"]
    network, classifier = frozen_classifier(settings, out)
    generator = Generator(mini.generator_plan(resolution, settings["width"]), batch_norm=True)
    discriminator = Discriminator(settings["width"])
    scales = natural_scales(network, classifier, train_data[0], resolution)
    optimiser = optax.adam(1.0, b1=0.5, b2=0.99)
    root = jax.random.key(settings["seed"] + 1)
    mixed, perturbed = batch // 4, batch // 8
    paired = batch - mixed - perturbed  # the first of a batch, which have pictures

    def initial():
        codes = jnp.zeros((2, 32 * settings["width"]))
        variables = generator.init(root, codes)
        critic = discriminator.init(root, jnp.zeros((2, resolution, resolution, 3)), codes)
        states = optimiser.init(variables["params"]), optimiser.init(critic)
        return TrainState(variables, variables, critic, *states, jnp.int32(0))

    def judge(critic, images, codes):
        return discriminator.apply(critic, mini.preprocess(images), codes / scales.code)

    def real(step, key, images, classifier):
        """Pictures `[paired, ...]`, mirrored half the time, codes `[batch, D]`, and targets."""
        flip_key, code_key = jax.random.split(key)
        chosen = training.draw(root, step, len(images), batch)
        x = mini_classifier.resize(images[chosen], resolution)
        flip = jax.random.bernoulli(flip_key, 0.5, (batch, 1, 1, 1))
        x = jnp.where(flip, x[:, :, ::-1], x)
        outputs = network.apply(classifier, mini.preprocess(x))
        targets = {name: outputs[name][:paired] for name in FEATURES}
        others = without_pictures(code_key, outputs["relu6"], mixed, perturbed)
        head = network.plan[-2:]
        assert [layer.name for layer in head] == ["fc7", "fc8"]
        params = classifier["params"]
        hidden = jax.nn.relu(others @ params["fc7"]["kernel"] + params["fc7"]["bias"])
        logits = hidden @ params["fc8"]["kernel"] + params["fc8"]["bias"]
        codes = jnp.concatenate([targets["relu6"], others])
        targets |= {"relu6": codes, "fc8": jnp.concatenate([targets["fc8"], logits])}
        return x[:paired], codes, targets

    def reconstruction(classifier, fakes, targets, images):
        """Weighted relative errors; the last fakes have a code but no picture."""
        outputs = network.apply(classifier, mini.preprocess(fakes))
        errors = {"pixels": relative_error(fakes[:paired], images, scales.pixels)}
        for name in FEATURES:
            values = outputs[name] if name in CODED else outputs[name][:paired]
            errors[name] = relative_error(values, targets[name], scales.features[name])
        total = PIXELS * errors["pixels"]
        return total + sum(FEATURES[name] * errors[name] for name in FEATURES), errors

    def criticism(critic, images, fakes, codes):
        """Hinge loss, and R1 on a few of the pictures of every step: no branch, the same mean."""
        hinge = jax.nn.relu(1 - judge(critic, images, codes[:paired])).mean()
        hinge += jax.nn.relu(1 + judge(critic, fakes, codes)).mean()
        few = max(1, paired // PENALISED)
        slope = jax.grad(lambda x: judge(critic, x, codes[:few]).sum())(images[:few])
        penalty = PENALTY / 2 * resolution**2 * jnp.square(slope).sum((1, 2, 3)).mean()
        return hinge + penalty, {"critic": hinge, "penalty": penalty}

    def update(state, total, data):
        data_images, classifier = data
        key = jax.random.fold_in(root, state.step)
        images, codes, targets = real(state.step, key, data_images, classifier)

        def generate(params):
            return generator.apply(
                {**state.variables, "params": params}, codes, train=True, mutable=["batch_stats"]
            )

        params = state.variables["params"]
        fakes, pullback, changed = jax.vjp(generate, params, has_aux=True)
        rebuild, errors = jax.grad(
            lambda x: reconstruction(classifier, x, targets, images), has_aux=True
        )(fakes)
        deceive = jax.grad(lambda x: -judge(state.critic, x, codes).mean())(fakes)
        warm = jnp.clip(state.step / (0.1 * total) - 0.5, 0.0, 1.0)
        norm = jnp.maximum(optax.tree.norm(deceive), 1e-12)
        share = ADVERSARIAL_SHARE * warm * optax.tree.norm(rebuild) / norm
        (gradient,) = pullback(rebuild + share * deceive)
        slope, scores = jax.grad(criticism, has_aux=True)(state.critic, images, fakes, codes)
        speed = training.rate(state.step, total, schedule["learning_rate"], 0.05)
        change, opt_state = optimiser.update(gradient, state.opt_state)
        params = jax.tree.map(lambda p, c: p + speed * c, params, change)
        change, critic_opt_state = optimiser.update(slope, state.critic_opt_state)
        critic = jax.tree.map(lambda p, c: p + 0.5 * speed * c, state.critic, change)
        variables = {"params": params, **changed}
        average = training.averaged(state.average, variables, state.step, total)
        states = opt_state, critic_opt_state, state.step + 1
        return TrainState(variables, average, critic, *states), errors | scores

    def report(state, step, log):
        training.save_folded(out / "generator.safetensors", state.average)
        look(network, classifier, generator, state.average, valid_data, resolution, out, log, step)

    data = jax.device_put((train_data[0], classifier))
    training.run("generator", schedule, out, initial, update, data, report)


def look(network, classifier, generator, average, valid_data, resolution, out, log, step):
    """Reconstructions of valid pictures: errors, agreement of the classifier, and a picture."""
    images, labels = valid_data

    @jax.jit
    def rebuild(classifier, average, x):
        x = mini_classifier.resize(x, resolution)
        seen = network.apply(classifier, mini.preprocess(x))
        fakes = generator.apply(average, seen["relu6"])
        again = network.apply(classifier, mini.preprocess(fakes))
        tops = seen["fc8"].argmax(-1), again["fc8"].argmax(-1)
        return *tops, jnp.square(fakes - x).mean((1, 2, 3)), jnp.stack([x, fakes], 1)

    own, again, errors, total, shown = [], [], [], [], []
    wanted = np.linspace(0, len(labels) - 1, 48).astype(int)
    for start in range(0, len(labels), 250):
        found = jax.device_get(rebuild(classifier, average, images[start : start + 250]))
        own.append(found[0])
        again.append(found[1])
        errors.append(found[2])
        total.append(np.square(found[3][:, 0] - found[3][:, 0].mean()).mean())
        here = wanted[(wanted >= start) & (wanted < start + 250)] - start
        shown.append(np.round(found[3][here] * 255).astype(np.uint8))
    own, again, errors = map(np.concatenate, (own, again, errors))
    log(
        step,
        valid_pixels=errors.mean() / np.mean(total),
        valid_agreement=(again == labels).mean(),
        valid_own_agreement=(again == own).mean(),
    )
    sheet(np.concatenate(shown), out / f"reconstructions_{step:06d}.png")


def sheet(pairs, path):
    """A picture of 48 pairs uint8 `[48, 2, H, W, 3]`, each the natural one over the other."""
    side = pairs.shape[2]
    pairs = pairs.reshape(6, 8, 2, side, side, 3).transpose(0, 2, 3, 1, 4, 5)
    picture = Image.fromarray(pairs.reshape(12 * side, 8 * side, 3))
    size = (picture.width * 96 // side, picture.height * 96 // side)
    picture.resize(size, Image.Resampling.BICUBIC).save(path)
