"""What the rest of the package asks of a model: bundled, converted or a user's own, all alike."""

import contextlib
import functools
import hashlib
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from inverse_set.errors import UserError
from inverse_set.models import units
from inverse_set.settings import Natural
from inverse_set.types import as_partial


class Layers(NamedTuple):
    """The layers of one network, as constraints name them.

    name: of the network.  shapes: {layer: shape of one input's activations}, layers in order.
    names: {layer: names of its units}, of layers whose units have names.
    quantiles: `[Q]` percentiles at which natural activations are known.
    natural: {layer: `[Q, ...]`} activations of natural inputs at those percentiles.
    """

    name: str
    shapes: dict
    names: dict
    quantiles: np.ndarray
    natural: dict


@dataclass(frozen=True, eq=False)
class Model:
    """A generator, the networks whose units are constrained, and what is natural to them.

    generate: G, codes `[K, D]` -> inputs `[K, ...]`, pictures in [0, 1] or whatever the networks
        read.  Bind weights with `functools.partial` or `jax.tree_util.Partial`: arrays of a closure
        become constants of every compiled program.
    layers: inputs `[K, ...]` -> {layer: activations `[K, ...]`}, every unit that can be asked for.
        What nobody asks for costs nothing: the compiler drops it.
    encode: E, the layer whose activations are the features that distances are measured in, or a
        function of the inputs; activations of more than one axis are flattened.
    code_size: D.
    name: what the record of a run calls the model.
    finish: inputs as generated -> inputs as saved.  None rounds pictures (`[H, W, 1 or 3]`) to 8
        bits, `eight_bits`, and leaves anything else as it is, `as_is`.
    labels: {layer: names of its units}; may be empty.
    prior: `Natural`, the range and spread of natural codes, and examples of them.
    quantiles, natural: as in `Layers`; `measure` fills them.
    inverts: whether E(G(c)) is about c, so that features are codes.
    recheck: the certificate: (inputs as saved `[n, ...]`, NumPy; set of layers) -> {layer: float64
        activations}, by other arithmetic than `layers`.  None runs `layers` again at the highest
        precision, and the record of a run says so.
    digests: {file or part: SHA-256} of what the model is made of; empty takes those of the weights
        bound to `generate`, `layers` and `encode`.
    parts: of a model from the zoo, the records it was built of; else None.

        model = Model(partial(decoder.apply, variables), layers, "block3", code_size=64)
    """

    generate: Any
    layers: Any
    encode: Any
    code_size: int
    name: str = "own"
    finish: Any = None
    labels: dict = field(default_factory=dict)
    prior: Natural = field(default_factory=Natural)
    quantiles: Any = ()
    natural: dict = field(default_factory=dict)
    inverts: bool = False
    recheck: Any = None
    digests: dict = field(default_factory=dict)
    parts: Any = None

    def __post_init__(self):
        for name in ("generate", "layers"):
            object.__setattr__(self, name, as_partial(getattr(self, name)))
        if not isinstance(self.encode, str):
            object.__setattr__(self, "encode", as_partial(self.encode))
        if not self.digests:
            object.__setattr__(self, "digests", _digests(self))
        if isinstance(self.encode, str) and self.encode not in self.shapes:
            raise UserError(
                f"{self.name} has no layer {self.encode!r} to encode by",
                "its layers are " + ", ".join(self.shapes),
            )
        for layer, names in self.labels.items():
            if layer not in self.shapes or len(names) != self.shapes[layer][-1]:
                raise UserError(
                    f"{self.name} has {len(names)} labels of {layer}, "
                    f"whose shape is {self.shapes.get(layer)}",
                    "give a name per unit of the layer's last axis",
                )
        for layer in self.natural:
            if layer not in self.shapes:
                raise UserError(
                    f"{self.name} has natural activations of {layer!r} and no such layer",
                    "measure the model again",
                )
        for bound in (self.prior.lower, self.prior.upper):
            if bound is not None and np.shape(bound) != (self.code_size,):
                raise UserError(
                    f"{self.name} has codes of {self.code_size} numbers, "
                    f"and a bound of shape {np.shape(bound)}",
                    f"give bounds of shape ({self.code_size},)",
                )

    @functools.cached_property
    def image(self):
        """`jax.ShapeDtypeStruct` of one input."""
        codes = jax.ShapeDtypeStruct((1, self.code_size), jnp.float32)
        what = f"the generator of {self.name} does not take codes (1, {self.code_size})"
        with _explained(what, "it maps float32 codes [K, D] to inputs [K, ...]"):
            drawn = jax.eval_shape(self.generate, codes)
            return jax.ShapeDtypeStruct(drawn.shape[1:], drawn.dtype)

    @functools.cached_property
    def shapes(self):
        """{layer: shape of one input's activations}, layers in the order of the function."""
        order = []

        def read(images):
            found = self.layers(images)
            order.extend(found)
            return found

        image = jax.ShapeDtypeStruct((1, *self.image.shape), self.image.dtype)
        what = f"the layers of {self.name} cannot be read from an input {image.shape}"
        with _explained(what, "`layers` maps inputs [K, ...] to {layer: activations [K, ...]}"):
            found = jax.eval_shape(read, image)
            return {layer: found[layer].shape[1:] for layer in order}

    @functools.cached_property
    def finisher(self):
        """Partial: inputs as generated -> as saved."""
        if self.finish is None:
            return as_partial(eight_bits if _like_pictures(self.image.shape) else as_is)
        return as_partial(self.finish)

    @property
    def pictures(self):
        """Whether inputs are saved as pictures of 8 bits."""
        return self.finisher.func is eight_bits and _like_pictures(self.image.shape)

    @functools.cached_property
    def networks(self):
        """The networks whose units can be named; the encoder's first, the subject last."""
        if self.parts is not None:
            return self.parts.networks
        shapes, quantiles = self.shapes, np.asarray(self.quantiles, float)
        return (Layers(self.name, shapes, self.labels, quantiles, self.natural),)

    @property
    def encoder(self):
        """The network of which E is a part."""
        return self.networks[0]

    @property
    def subject(self):
        """The network that constraints mean unless they say otherwise."""
        return self.networks[-1]

    def unit(self, layer, number=None, at=None):
        """A unit, by a text such as "fc8/monarch" or by the parts of one; UserError for others.

        layer: of the network that constraints mean, or "NETWORK.LAYER".  number: 0-based, or a
        name.  at: position in a layer of more than one axis, `(row, column)`; None is the middle.

            model.unit("fc8/monarch").between("p99", "p99.9")
            model.unit("conv5", 12, at=(8, 8)).above(3.5)
        """
        text = layer if number is None else f"{layer}/{number}"
        if at is not None:
            text += "@" + ",".join(map(str, at))
        return units.Chosen(self, units.parse_unit(self, text))

    def owner(self, unit):
        """The network that a unit belongs to."""
        if unit.network is None:
            return self.subject
        return next(network for network in self.networks if network.name == unit.network)

    def key(self, unit):
        """The name of a unit's layer among `layers`: its network stands before it if another's."""
        owner = self.owner(unit)
        return unit.layer if owner is self.subject else f"{owner.name}.{unit.layer}"

    @property
    def codes(self):
        """`Natural` without its examples: the range and the spread of codes."""
        return self.prior._replace(codes=None)

    @property
    def starts(self):
        """`[M, D]` examples of natural codes; None where there are none."""
        return self.prior.codes

    @property
    def untrained(self):
        """The text that asked for random weights, "random:SEED", else None."""
        return None if self.parts is None else self.parts.untrained

    @property
    def generator(self):
        """Of a model from the zoo: plan, weights and scale of the generator."""
        return self.parts.generator

    @property
    def record(self):
        """Of a model from the zoo: what training or conversion wrote down; else empty."""
        return {} if self.parts is None else self.parts.record

    @property
    def resolution(self):
        """Pixels along a side of a square picture."""
        return self.image.shape[0]

    def __repr__(self):
        layers = ", ".join(f"{layer} {shape}" for layer, shape in list(self.shapes.items())[-3:])
        shape = "x".join(map(str, self.image.shape))
        return f"<Model {self.name}: codes of {self.code_size} -> {shape}; layers ... {layers}>"


@contextlib.contextmanager
def _explained(what, remedy):
    """Turns what a function provokes that does not fit into an error that says so."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        raise UserError(f"{what}: {' '.join(str(error).split())[:200]}", remedy) from error


def as_is(images):
    """Inputs as they were generated."""
    return images


def eight_bits(images):
    """Pictures in [0, 1] as an 8-bit file keeps them: multiples of 1/255, clipped."""
    levels = jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0)
    return levels * np.float32(257 / 65536) + levels * np.float32(1 / 255 - 257 / 65536)


def _like_pictures(shape):
    return len(shape) == 3 and shape[-1] in (1, 3)


def _digests(model):
    """SHA-256 of the arrays bound to each of the functions."""
    found, encode = {}, None if isinstance(model.encode, str) else model.encode
    functions = {"generate": model.generate, "layers": model.layers, "encode": encode}
    for name, function in functions.items():
        leaves = jax.tree.leaves(function)
        if leaves:
            digest = hashlib.sha256()
            for leaf in map(np.asarray, leaves):
                digest.update(f"{leaf.dtype.str}{leaf.shape}".encode())
                digest.update(np.ascontiguousarray(leaf).tobytes())
            found[name] = digest.hexdigest()
    return found
