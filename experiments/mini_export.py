"""Stage 3 of the bundled model: fold, halve, measure, and write what the package ships."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from experiments import mini_classifier, mini_generator, training
from inverse_set.models import mini, weights
from inverse_set.models.classifier import Classifier
from inverse_set.models.generator import Generator

QUANTILES = (1, 5, 10, 25, 50, 75, 90, 95, 99, 99.5, 99.9)
STARTS = 200  # codes of valid pictures that ship as natural starting points
LIMIT = 22.0  # MiB that both files may have together


def sizes(settings):
    """A line: weights of both networks, and what they take in fp16."""
    side, width = settings["resolution"], settings["width"]
    plan = mini.classifier_plan(len(settings["classes"]), side, width)
    counts = {
        "classifier": _count(Classifier(plan), (side, side, 3)),
        "generator": _count(Generator(mini.generator_plan(side, width)), (32 * width,)),
    }
    parts = [f"{name} {n / 1e6:.2f} M weights, {n / 2**19:.2f} MiB" for name, n in counts.items()]
    return f"{'; '.join(parts)} in fp16; together {sum(counts.values()) / 2**19:.2f} MiB"


def _count(network, size):
    shapes = weights.shapes(network, size).values()
    return sum(math.prod(shape) for leaves in shapes for shape in leaves.values())


def export(settings, valid_data, out):
    """Writes the two safetensors files of the package to `out`; prints what was measured.

    Returns what to exit with: None, or a complaint about the files' size.
    """
    resolution = settings["resolution"]
    network, classifier = mini_generator.frozen_classifier(settings, out)
    generator = Generator(mini.generator_plan(resolution, settings["width"]))
    drawn = {"params": training.load_folded(out / "generator.safetensors", "generator")}
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
    own_agreement = float((again.argmax(-1) == outputs["fc8"].argmax(-1)).mean())
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
        "own_agreement": own_agreement,
        "relative_error": float(errors.mean() / x.var()),
    }
    chosen = np.random.default_rng(0).choice(len(codes), min(STARTS, len(codes)), replace=False)
    tensors = {
        **training.flat(classifier["params"]),
        **natural,
        "codes/upper": np.percentile(codes, 99.9, axis=0).astype(np.float16),
        "codes/starts": codes[chosen].astype(np.float16),
    }
    metadata = {"record": json.dumps(record)}
    total = 0.0
    for name, content in (
        ("classifier", tensors),
        ("generator", training.flat(drawn["params"])),
    ):
        path = out / f"mini_{name}.safetensors"
        safetensors.numpy.save_file(content, path, metadata)
        total += (size := path.stat().st_size / 2**20)
        print(f"{path}  {size:.2f} MiB")
    print(f"top-1 {top1:.4f}  agreement of G(E(x)) with the label {agreement:.4f}")
    print(f"with the classifier's own label for x {own_agreement:.4f}")
    print(f"pixel error over variance {record['relative_error']:.4f}")
    return None if total <= LIMIT else f"{total:.2f} MiB together, more than {LIMIT}"
