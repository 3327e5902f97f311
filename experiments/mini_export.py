"""Stage "export": measures the trained networks as JAX runs them, and writes what ships."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from experiments import fitting, judge, tiny_imagenet
from inverse_set.models import mini
from inverse_set.models.classifier import Classifier
from inverse_set.models.generator import Generator

QUANTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9)
LAYERS = ("conv5", "fc6", "fc7", "fc8")  # whose natural activations ship
LIMIT = 24.0  # MiB that the pair may have
BATCH = 200


def by_batches(function, images):
    """function of every batch of uint8 pictures in [0, 1], its arrays put together."""
    parts = [
        jax.device_get(function(images[i : i + BATCH] / np.float32(255)))
        for i in range(0, len(images), BATCH)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)


def flat(tree):
    """{layer: {leaf: array}} -> {"layer/leaf": fp16 array}, as weight files have it."""
    return {
        f"{layer}/{leaf}": np.asarray(value, np.float16)
        for layer, leaves in tree.items()
        for leaf, value in leaves.items()
    }


def natural(outputs):
    """{"natural/LAYER": percentiles of each unit, fp16}."""
    return {
        f"natural/{layer}": np.percentile(outputs[layer], QUANTILES, axis=0).astype(np.float16)
        for layer in LAYERS
    }


def write(path, tensors, record):
    safetensors.numpy.save_file(tensors, path, {"record": json.dumps(record)})
    size = path.stat().st_size / 2**20
    print(f"{path}  {size:.2f} MiB")
    return size


def pair(labels, wordnet, width, train, valid, out):
    """Writes `mini_classifier.safetensors` and `mini_generator.safetensors` to `out`.

    Returns what to exit with: None, or a complaint about the files' size.
    """
    images, truth = valid
    encoder, decoder = (
        fitting.load_folded(out / f"{name}.safetensors") for name in ("classifier", "generator")
    )
    network = Classifier(mini.classifier_plan(len(labels), width))
    generator = Generator(mini.generator_plan(width, residual=True))

    @jax.jit
    def run(x):
        outputs = network.apply({"params": encoder}, mini.preprocess(x))
        fakes = generator.apply({"params": decoder}, outputs["relu6"])
        again = network.apply({"params": encoder}, mini.preprocess(fakes))["fc8"]
        kept = {name: outputs[name] for name in (*LAYERS, "relu6")}
        return kept, again, jnp.square(fakes - x).mean((1, 2, 3))

    outputs, again, errors = by_batches(run, images)
    own, codes = outputs["fc8"].argmax(-1), outputs["relu6"]
    record = {
        "labels": labels,
        "wordnet": wordnet,
        "resolution": mini.SIDE,
        "width": width,
        "residual": True,
        "quantiles": list(QUANTILES),
        "code_square": float(2 * codes.var(0).sum()),
        "top1": float((own == truth).mean()),
        "agreement": float((again.argmax(-1) == truth).mean()),
        "own_agreement": float((again.argmax(-1) == own).mean()),
        "relative_error": float(errors.mean() / (images / 255.0).var()),
    }
    few = train[0][tiny_imagenet.of_each(train[1], tiny_imagenet.STARTS)]
    starts = by_batches(lambda x: run(x)[0]["relu6"], few)
    tensors = {
        **flat(encoder),
        **natural(outputs),
        "codes/upper": np.percentile(codes, 99.9, axis=0).astype(np.float16),
        "codes/starts": starts.astype(np.float16),
    }
    size = write(out / "mini_classifier.safetensors", tensors, record)
    size += write(out / "mini_generator.safetensors", flat(decoder), record)
    for name in ("top1", "agreement", "own_agreement", "relative_error"):
        print(f"{name}  {record[name]:.4f}")
    return None if size <= LIMIT else f"{size:.2f} MiB together, more than {LIMIT}"


def second(name, labels, width, valid, out):
    """Writes `mini_NAME.safetensors` to `out`, of the judge or of the scenes."""
    params = fitting.load_folded(out / f"{name}.safetensors")
    images, truth = valid
    record = {"labels": labels, "resolution": mini.SIDE}
    if name == "judge":
        _, logits = judge.look(params, images)
        measured = {}
    else:
        network = Classifier(mini.classifier_plan(len(labels), width))

        @jax.jit
        def run(x):
            outputs = network.apply({"params": params}, mini.preprocess(x))
            return {layer: outputs[layer] for layer in LAYERS}

        outputs = by_batches(run, images)
        measured, logits = natural(outputs), outputs["fc8"]
        record |= {"width": width, "quantiles": list(QUANTILES)}
    record["top1"] = float((logits.argmax(-1) == truth).mean())
    write(out / f"mini_{name}.safetensors", flat(params) | measured, record)
    print(f"top1  {record['top1']:.4f}")
