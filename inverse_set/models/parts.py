"""The records that the zoo's models are built of, and the `Model` they make."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np

from inverse_set.models import certificate, pixels
from inverse_set.models.base import Model, eight_bits
from inverse_set.models.classifier import PROB, Classifier, names
from inverse_set.models.generator import Generator
from inverse_set.models.pixels import Pixels
from inverse_set.settings import Natural

ENCODER = "relu6"  # E: the code is fc6 after its ReLU


class Network(NamedTuple):
    """A classifier, whose units constraints name.

    plan: layer records.  weights: {layer: {kernel, bias}}.  pixels: what it reads of a picture.
    labels: names of the fc8 units.
    shapes: {layer: shape of one picture's activations}, layers in order.
    quantiles: `[Q]` percentiles at which natural activations are known.
    natural: {layer: `[Q, ...]`} activations of natural pictures at those percentiles.
    """

    name: str
    plan: tuple
    weights: Any
    pixels: Pixels
    labels: tuple
    shapes: dict
    quantiles: np.ndarray
    natural: dict

    @property
    def names(self):
        """{layer: names of its units}: classes have names, in the last layer and its softmax."""
        return dict.fromkeys((self.plan[-1].name, PROB), self.labels)


class Drawer(NamedTuple):
    """A generator G: its plan, its weights and the scale it draws in."""

    plan: Any
    weights: Any
    pixels: Pixels


class Parts(NamedTuple):
    """The records that a model of the zoo is built of.

    networks: the encoder's classifier first, the subject, f's, last; often one and the same.
    generator: `Drawer`.  resolution: pixels a side of a picture.
    codes: `Natural` of E, without examples.  starts: `[M, D]` codes of natural pictures, None where
        unknown.
    hashes: {file: SHA-256}.  record: what training or conversion wrote down.
    untrained: "random:SEED" if the weights are random, else None.
    """

    name: str
    networks: tuple
    generator: Drawer
    resolution: int
    codes: Natural
    starts: np.ndarray | None
    hashes: dict
    record: dict
    untrained: str | None = None


def assemble(parts):
    """The `Model` of `Parts`; layers of a network that is not the subject have its name before."""
    subject = parts.networks[-1]
    prefixes = ["" if n is subject else f"{n.name}." for n in parts.networks]
    readers = tuple(
        (prefix, n.plan, n.pixels) for prefix, n in zip(prefixes, parts.networks, strict=True)
    )
    drawer, partial = parts.generator, jax.tree_util.Partial
    return Model(
        partial(_generate(drawer.plan, drawer.pixels), drawer.weights),
        partial(_read(readers), tuple(n.weights for n in parts.networks)),
        prefixes[0] + ENCODER,
        code_size=parts.networks[0].shapes["fc6"][0],
        name=parts.name,
        finish=eight_bits,
        labels={layer: subject.labels for layer in subject.names},
        prior=parts.codes._replace(codes=parts.starts),
        quantiles=subject.quantiles,
        natural=subject.natural,
        inverts=True,
        recheck=functools.partial(_recheck, parts.networks, prefixes),
        digests=parts.hashes,
        parts=parts,
    )


@functools.cache
def _generate(plan, drawn):
    def generate(weights, codes):
        return pixels.to_pictures(drawn, Generator(plan).apply({"params": weights}, codes))

    return generate


@functools.cache
def _read(readers):
    """Every activation of every network; readers: (what stands before names, plan, pixels)."""

    def read(weights, images):
        found = {}
        for (prefix, plan, scale), own in zip(readers, weights, strict=True):
            x = pixels.from_pictures(scale, images)
            values = Classifier(plan).apply({"params": own}, x)
            found |= {prefix + name: value for name, value in values.items()}
        return found

    return read


def _recheck(networks, prefixes, images, wanted):
    """{layer: float64 activations} of 8-bit pictures `[n, H, W, 3]`, without JAX."""
    found = {}
    for prefix, network in zip(prefixes, networks, strict=True):
        known = [*network.shapes, *names(network.plan)]
        mine = {name for name in known if prefix + name in wanted}
        if mine:
            x = pixels.from_pictures(network.pixels, images / 255.0)
            outputs = certificate.forward(network.plan, network.weights, x, mine)
            found |= {prefix + name: value for name, value in outputs.items()}
    return found
