"""A second opinion: a classifier of the bundled model's classes that shares nothing with it.

Another architecture (3x3 convolutions with strides and residuals, no pooling but the mean at the
end, no hidden inner products), other initial weights and another order of the data.  It judges what
samples show; nothing is ever optimised against it.  Trained by experiments/train_mini.py.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from inverse_set.models import layers, mini, weights
from inverse_set.models.classifier import Affine

PATH = pathlib.Path(__file__).parent / "weights" / "judge.safetensors"
WIDTHS, BLOCKS = (64, 128, 256), 1
BATCH = 250  # pictures at a time


class Judge(nn.Module):
    """stem, then for each stage a convolution with stride 2 and residual ones, mean, fc8.

    widths: channels of the stages, each at half the pixels a side of the last; the stem has half
    the first's.  blocks: residual convolutions a stage.
    """

    classes: int
    widths: tuple = WIDTHS
    blocks: int = BLOCKS

    @nn.compact
    def __call__(self, x):
        """Pictures `[N, H, W, 3]` in mini's scale -> {"mean": `[N, F]`, "fc8": logits}."""

        def convolve(x, name, features, stride=1):
            shape = (3, 3, x.shape[-1], features)
            affine = Affine(features, name=name)
            run = functools.partial(layers.conv2d, stride=stride, padding=1, groups=1)
            return nn.relu(affine(x, shape, run))

        x = convolve(x, "stem", self.widths[0] // 2)
        for number, width in enumerate(self.widths):
            x = convolve(x, f"down{number}", width, stride=2)
            for block in range(self.blocks):
                x = x + convolve(x, residual(number, block), width)
        mean = x.mean((1, 2))
        head = Affine(self.classes, name="fc8")
        return {"mean": mean, "fc8": head(mean, (self.widths[-1], self.classes), jnp.matmul)}


def residual(stage, block):
    return f"residual{stage}" + (f"_{block}" if block else "")


def network_of(params):
    """The `Judge` whose weights these are, read off their names and shapes."""
    widths = []
    while f"down{len(widths)}" in params:
        widths.append(params[f"down{len(widths)}"]["kernel"].shape[-1])
    blocks = sum(name.startswith("residual0") for name in params)
    return Judge(params["fc8"]["bias"].size, tuple(widths), blocks)


def load():
    """{layer: {kernel, bias}} of the judge; its classes are the bundled model's, in that order."""
    file = weights.read(PATH, "restore the file, or train it with experiments/train_mini.py")
    return jax.device_put(weights.tree(file.tensors))


@jax.jit
def _look(params, images):
    outputs = network_of(params).apply({"params": params}, mini.preprocess(images))
    return outputs["mean"], outputs["fc8"]


def look(params, images):
    """(features `[n, F]`, logits `[n, C]`), float32, of 8-bit pictures `[n, H, W, 3]`."""
    width, classes = params["fc8"]["kernel"].shape
    features = np.zeros((len(images), width), np.float32)
    logits = np.zeros((len(images), classes), np.float32)
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        # The last batch is filled up, so that nothing compiles again.
        filled = np.zeros((BATCH, *images.shape[1:]), np.float32)
        filled[: len(batch)] = batch / np.float32(255)
        place = slice(start, start + len(batch))
        for found, array in zip((features, logits), _look(params, filled), strict=True):
            found[place] = array[: len(batch)]
    return features, logits


def classify(params, features):
    """Logits `[n, C]` of features `[n, F]` that `look` returned."""
    head = params["fc8"]
    return features @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
