"""A model of products alone, for tests of everything that does not depend on what was learnt.

Layers and labels are called as those of the bundled model, weights are random, and a run of it
compiles and samples in seconds: `--model=tests/tiny.py:model`.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import inverse_set
from inverse_set.models import zoo

PLACE = f"{pathlib.Path(__file__).resolve()}:model"
SIDE, CODES = 12, 32
SIZES = {
    "code": (CODES, SIDE * SIDE * 3),
    "conv5": (12, 8),
    "fc6": (288, CODES),
    "fc8": (CODES, 200),
}
GAIN = {"code": 0.5, "conv5": 3.0, "fc6": 1.0, "fc8": 4.0}


def generate(weights, codes):
    """Pictures `[K, 12, 12, 3]` in [0, 1]."""
    return jax.nn.sigmoid(codes @ weights).reshape(len(codes), SIDE, SIDE, 3)


def layers(weights, x, numbers=jnp):
    """{layer: activations}; a convolution of squares of 2x2 pixels, then two products."""
    n, half = len(x), SIDE // 2
    x = (x - 0.5).reshape(n, half, 2, half, 2, 3).transpose(0, 1, 3, 2, 4, 5)
    found = {"conv5": x.reshape(n, half, half, 12) @ weights["conv5"]}
    found["fc6"] = numbers.maximum(found["conv5"], 0).reshape(n, -1) @ weights["fc6"]
    found["relu6"] = numbers.maximum(found["fc6"], 0)
    found["fc8"] = found["relu6"] @ weights["fc8"]
    odds = numbers.exp(found["fc8"] - found["fc8"].max(-1, keepdims=True))
    return found | {"prob": odds / odds.sum(-1, keepdims=True)}


def recheck(weights, images, wanted):
    """The certificate: the same layers in NumPy and float64."""
    found = layers(weights, images / 255.0, np)
    return {name: found[name] for name in wanted}


@functools.cache
def model():
    rng = np.random.default_rng(0)
    weights = {
        name: (GAIN[name] * rng.normal(size=size) / size[0] ** 0.5).astype(np.float32)
        for name, size in SIZES.items()
    }
    drawer = weights.pop("code")
    labels = zoo.load("mini").encoder.labels
    own = inverse_set.Model(
        jax.tree_util.Partial(generate, jnp.asarray(drawer)),
        jax.tree_util.Partial(layers, jax.tree.map(jnp.asarray, weights)),
        "relu6",
        CODES,
        name="tiny",
        labels={"fc8": labels, "prob": labels},
        inverts=True,
        recheck=functools.partial(
            recheck, {k: np.asarray(v, np.float64) for k, v in weights.items()}
        ),
    )
    codes = np.maximum(rng.normal(size=(300, CODES)), 0).astype(np.float32)
    return inverse_set.measure(own, codes=codes)
