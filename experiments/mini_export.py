"""Stage 3 of the bundled model: fold, halve, measure, and write what the package ships."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from experiments import checkpoints, mini_classifier, mini_generator
from inverse_set.models import mini
from inverse_set.models.classifier import fold_batch_norm
from inverse_set.models.generator import Generator

QUANTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9)
STARTS = 200  # codes of valid pictures that ship as natural starting points


def export(settings, valid_data, out):
    """Writes the two safetensors files of the package to `out`; prints what was measured."""
    resolution = settings["resolution"]
    network, classifier = mini_generator.frozen_classifier(settings, out)
    classifier = jax.tree.map(half, classifier)
    generator = Generator(mini.generator_plan(resolution, settings["width"]))
    average = checkpoints.restore(out / "generator.msgpack", None)["average"]
    drawn = {"params": jax.tree.map(half, fold_batch_norm(average))}
    images, labels = valid_data

    @jax.jit
    def run(classifier, generated, x):
        x = jnp.round(mini_classifier.resize(x, resolution) * 255) / 255
        outputs = network.apply(classifier, mini.preprocess(x))
        fakes = generator.apply(generated, outputs["relu6"])
        again = network.apply(classifier, mini.preprocess(fakes))["fc8"]
        kept = {name: outputs[name] for name in ("conv5", "fc6", "fc7", "fc8", "relu6")}
        return kept, again, jnp.square(fakes - x).mean((1, 2, 3)), x

    parts = [
        jax.device_get(run(classifier, drawn, images[i : i + 200]))
        for i in range(0, len(images), 200)
    ]
    outputs, again, errors, x = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    top1 = float((outputs["fc8"].argmax(-1) == labels).mean())
    agreement = float((again.argmax(-1) == labels).mean())
    codes = outputs["relu6"]
    natural = {
        f"natural/{layer}": np.percentile(outputs[layer], QUANTILES, axis=0).astype(np.float16)
        for layer in ("conv5", "fc6", "fc7", "fc8")
    }
    record = {
        "labels": settings["names"],
        "wordnet": settings["wordnet"],
        "resolution": resolution,
        "width": settings["width"],
        "quantiles": list(QUANTILES),
        "code_square": float(2 * codes.var(0).sum()),
        "top1": top1,
        "agreement": agreement,
        "relative_error": float(errors.mean() / x.var()),
    }
    chosen = np.random.default_rng(0).choice(len(codes), min(STARTS, len(codes)), replace=False)
    tensors = {
        **flat(classifier["params"]),
        **natural,
        "codes/upper": np.percentile(codes, 99.9, axis=0).astype(np.float16),
        "codes/starts": codes[chosen].astype(np.float16),
    }
    metadata = {"record": json.dumps(record)}
    for name, content in (("classifier", tensors), ("generator", flat(drawn["params"]))):
        path = out / f"mini_{name}.safetensors"
        safetensors.numpy.save_file(content, path, metadata)
        print(f"{path}  {path.stat().st_size / 2**20:.2f} MiB")
    print(f"top-1 {top1:.4f}  agreement of G(E(x)) with the label {agreement:.4f}")
    print(f"pixel error over variance {record['relative_error']:.4f}")


def half(weights):
    """Rounded to fp16, computed in float32."""
    return jnp.asarray(weights, jnp.float16).astype(jnp.float32)


def flat(tree):
    return {
        f"{layer}/{leaf}": np.asarray(value, np.float16)
        for layer, leaves in tree.items()
        for leaf, value in leaves.items()
    }
