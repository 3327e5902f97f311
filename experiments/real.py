"""Real pictures whose activation lies in an interval: what samples are held against.

A hundred training pictures (25 in a quick run) of each of the bundled model's classes.  The sampler
never sees them (its starting codes are of others), but the networks were trained on them.
"""

import functools
from typing import NamedTuple

import jax
import numpy as np

from experiments import judge, tiny_imagenet
from inverse_set.models import pixels
from inverse_set.models.classifier import Classifier
from inverse_set.models.parts import ENCODER


class Real(NamedTuple):
    """Encodings `[m, F]` by E, judged `[m, 256]` by the second classifier, logits `[m, C]`."""

    features: np.ndarray
    judged: np.ndarray
    logits: np.ndarray


@functools.cache
def reader(plan, scale):
    """(weights, pictures `[N, H, W, 3]` in [0, 1]) -> (encodings, logits), of every class."""

    @jax.jit
    def read(weights, images):
        outputs = Classifier(plan).apply({"params": weights}, pixels.from_pictures(scale, images))
        return outputs[ENCODER], outputs[plan[-1].name]

    return read


def load(model, folder, quick=False, batch=250):
    """`Real` of the pictures; None without a folder.

    Other models than the bundled one read other pictures: None as well.
    """
    if not folder or model.name != "mini" or model.untrained:
        return None
    order = [wordnet for wordnet, _ in tiny_imagenet.class_names(folder)]
    classes = [order.index(wordnet) for wordnet in model.record["wordnet"]]
    begin = tiny_imagenet.STARTS.stop
    each = slice(begin, begin + (25 if quick else 100))
    images, _ = tiny_imagenet.load(folder, "train", classes, each)
    network, params = model.encoder, judge.load()
    read = reader(network.plan, network.pixels)
    parts = []
    for start in range(0, len(images), batch):
        small = tiny_imagenet.resized(images[start : start + batch], model.resolution)
        features, logits = read(network.weights, small / np.float32(255))
        parts.append((np.asarray(features), judge.look(params, small)[0], np.asarray(logits)))
    return Real(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def inside(real, unit, low, high):
    """`Real` of the pictures that drive an fc8 unit to [low, high]."""
    rows = (real.logits[:, unit] >= low) & (real.logits[:, unit] <= high)
    return Real(*(column[rows] for column in real))
