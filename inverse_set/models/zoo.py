"""The models by name: their networks, weights, labels and natural activations."""

import functools
import hashlib
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from inverse_set import errors, types
from inverse_set.models import certificate, mini
from inverse_set.models.classifier import Classifier, relu_name
from inverse_set.models.generator import Generator
from inverse_set.settings import Natural

FOLDER = pathlib.Path(__file__).parent / "weights"
STARTS = ("natural", "noise", "gaussian")
ENCODER = "relu6"  # E: the code is fc6 after its ReLU
NAMES = {"mini": "the bundled pair: needs nothing"}


class Model(NamedTuple):
    """A classifier f, its encoder E (a prefix of it) and a generator G.

    plan, generator_plan: layer records.  weights, generator_weights: {layer: {kernel, bias}}.
    labels: names of the fc8 units.  resolution: pixels a side.
    shapes: {layer: shape of one picture's activations}, layers in order.
    quantiles: `[Q]` percentiles at which natural activations are known.
    natural: {layer: `[Q, ...]`} activations of natural pictures at those percentiles.
    codes: `Natural` of E.  starts: `[M, D]` codes of natural pictures to start from.
    hashes: {file: SHA-256}.  record: what training measured.
    """

    name: str
    plan: tuple
    generator_plan: Any
    weights: Any
    generator_weights: Any
    labels: tuple
    resolution: int
    shapes: dict
    quantiles: np.ndarray
    natural: dict
    codes: Natural
    starts: np.ndarray
    hashes: dict
    record: dict


class Unit(NamedTuple):
    """One neuron: a layer and an index into one picture's activations of that layer."""

    layer: str
    index: tuple

    @property
    def position(self):
        """The index as `[row, column, channel]`; rows and columns are 0 in inner-product layers."""
        return (0,) * (3 - len(self.index)) + self.index


def files(name):
    """The weight files of a model."""
    return (FOLDER / f"{name}_classifier.safetensors", FOLDER / f"{name}_generator.safetensors")


@functools.cache
def load(name="mini"):
    """The model called `name`; UserError for an unknown one or for missing or broken weights."""
    if name not in NAMES:
        raise errors.UserError(
            f"unknown model {name!r}",
            f"choose among: {', '.join(NAMES)} (`inverse-set models` describes them)",
        )
    parts = [_read(path) for path in files(name)]
    try:
        return _assemble(name, *parts)
    except (KeyError, ValueError, TypeError, ArithmeticError) as error:
        raise errors.UserError(
            f"the weight files of {name} do not fit together: {' '.join(str(error).split())}",
            "reinstall the package: its weight files are damaged",
            errors.WEIGHTS,
        ) from error


class WeightFile(NamedTuple):
    """One safetensors file: float32 tensors, the record in its header, its SHA-256."""

    name: str
    tensors: dict
    record: dict
    digest: str


def _assemble(name, classifier, generator):
    tensors, record = classifier.tensors, classifier.record
    labels = tuple(record["labels"])
    resolution, width = record["resolution"], record["width"]
    plan = mini.classifier_plan(len(labels), resolution, width)
    generator_plan = mini.generator_plan(resolution, width)
    weights, generator_weights = _tree(tensors), _tree(generator.tensors)
    quantiles = np.asarray(record["quantiles"], float)
    image = jax.ShapeDtypeStruct((1, resolution, resolution, 3), jnp.float32)
    _check_shapes(Classifier(plan), image, weights)
    outputs = jax.eval_shape(Classifier(plan).apply, {"params": weights}, image)
    shapes = {layer.name: outputs[layer.name].shape[1:] for layer in plan}
    code = outputs[ENCODER].shape[1:]
    expected = {f"natural/{layer}": (*quantiles.shape, *shapes[layer]) for layer in shapes}
    expected |= {"codes/upper": code, "codes/starts": (len(tensors["codes/starts"]), *code)}
    for key, want in expected.items():
        if key in tensors and tensors[key].shape != want:
            raise ValueError(f"expected {key} {want}, file has {tensors[key].shape}")
    _check_shapes(
        Generator(generator_plan), jax.ShapeDtypeStruct((1, *code), jnp.float32), generator_weights
    )
    square = float(record["code_square"])
    return Model(
        name,
        plan,
        generator_plan,
        weights,
        generator_weights,
        labels,
        resolution,
        shapes,
        quantiles,
        {layer: tensors[f"natural/{layer}"] for layer in shapes if f"natural/{layer}" in tensors},
        Natural(
            lower=np.zeros_like(tensors["codes/upper"]),
            upper=tensors["codes/upper"],
            code_square=square,
            feature_square=square,
        ),
        tensors["codes/starts"],
        {part.name: part.digest for part in (classifier, generator)},
        record,
    )


def _read(path):
    """`WeightFile`; UserError for one that is missing, broken or not finite."""
    try:
        data = path.read_bytes()
        tensors = safetensors.numpy.load(data)
        with safetensors.safe_open(path, "numpy") as file:
            record = json.loads((file.metadata() or {}).get("record", "{}"))
    except FileNotFoundError:
        raise errors.UserError(
            f"weights are missing: {path.name} is not in the package",
            "reinstall the package, or train the model with experiments/train_mini.py",
            errors.WEIGHTS,
        ) from None
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise errors.UserError(
            f"{path.name} is not a whole weight file: {error}",
            "reinstall the package: the file is damaged or truncated",
            errors.WEIGHTS,
        ) from error
    tensors = {key: value.astype(np.float32) for key, value in tensors.items()}
    for key, value in tensors.items():
        if not np.isfinite(value).all():
            raise errors.UserError(
                f"{path.name}: {key} holds NaN or infinity",
                "reinstall the package: the file is damaged",
                errors.WEIGHTS,
            )
    return WeightFile(path.name, tensors, record, hashlib.sha256(data).hexdigest())


def _tree(tensors):
    """{"conv1/kernel": a, ...} -> {"conv1": {"kernel": a}}; other names are left out."""
    tree = {}
    for key, value in tensors.items():
        layer, leaf = key.split("/")
        if leaf in ("kernel", "bias"):
            tree.setdefault(layer, {})[leaf] = value
    return tree


def _check_shapes(network, example, weights):
    expected = jax.eval_shape(network.init, jax.random.key(0), example)["params"]
    for layer in sorted(set(expected) | set(weights)):
        if layer not in weights or layer not in expected:
            side = "expected and not there" if layer not in weights else "there and not expected"
            raise ValueError(f"layer {layer} is {side}")
        for leaf in ("kernel", "bias"):
            want, have = expected[layer][leaf].shape, weights[layer][leaf].shape
            if want != have:
                raise ValueError(f"expected {layer}.{leaf} {want}, file has {have}")


@functools.cache
def _generate(plan):
    def generate(weights, codes):
        return Generator(plan).apply({"params": weights}, codes)

    return generate


@functools.cache
def _read_units(plan, until, layers):
    def read(weights, positions, images):
        outputs = Classifier(plan).apply({"params": weights}, mini.preprocess(images), until=until)
        columns = []
        for place, layer in enumerate(layers):
            values = outputs[layer]
            values = values.reshape(values.shape[0], *(1,) * (4 - values.ndim), *values.shape[1:])
            row, column, channel = positions[place]
            columns.append(values[:, row, column, channel])
        return outputs[ENCODER], jnp.stack(columns, axis=-1)

    return read


def quantise(images):
    """Images in [0, 1] as an 8-bit file keeps them."""
    levels = jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0)
    return levels * np.float32(257 / 65536) + levels * np.float32(1 / 255 - 257 / 65536)


def networks(model, units):
    """`types.Networks` of a model and the units constrained, E and f in one forward pass.

    Which unit of a layer is an argument of the compiled functions: another one compiles nothing.
    """
    layers = tuple(unit.layer for unit in units)
    order = []
    for layer in model.plan:
        order += [layer.name, relu_name(layer.name)]
    until = max((ENCODER, *layers), key=order.index)
    positions = jnp.asarray([unit.position for unit in units], jnp.int32)
    partial = jax.tree_util.Partial
    return types.Networks(
        partial(_generate(model.generator_plan), model.generator_weights),
        partial(_read_units(model.plan, until, layers), model.weights, positions),
        partial(quantise),
    )


def measure(model, images, units, batch=50):
    """The certificate: activations `[n, P]` of 8-bit images `[n, H, W, 3]`, NumPy float64."""
    columns = []
    for unit in units:
        parts = [
            certificate.forward(
                model.plan,
                model.weights,
                mini.preprocess(images[i : i + batch] / 255.0),
                unit.layer,
            )[(slice(None), *unit.index)]
            for i in range(0, len(images), batch)
        ]
        columns.append(np.concatenate(parts) if parts else np.zeros(0))
    return np.stack(columns, axis=-1)


def starting_codes(model, kind, count, seed):
    """`[count, D]` codes to start from; count >= 1.

    kind: "natural", codes of real pictures, drawn at random; "noise", uniform random pictures
    through E, as sec. 3.4 has it (nearly one code); "gaussian", N(0, 1) before the box.
    """
    key = jax.random.key(seed)
    if kind == "natural":
        total = len(model.starts)
        rounds = [jax.random.fold_in(key, r) for r in range(-(-count // total))]
        order = np.concatenate([jax.random.permutation(k, total) for k in rounds])
        return model.starts[order[:count]]
    if kind == "gaussian":
        return np.asarray(jax.random.normal(key, (count, model.starts.shape[1])))
    if kind != "noise":
        raise ValueError(f"expected a start among {', '.join(STARTS)}, got {kind!r}")
    noise = jax.random.uniform(key, (count, model.resolution, model.resolution, 3))
    return np.asarray(_encode(model.plan)(model.weights, noise))


@functools.cache
def _encode(plan):
    @jax.jit
    def encode(weights, images):
        images = mini.preprocess(images)
        return Classifier(plan).apply({"params": weights}, images, until=ENCODER)[ENCODER]

    return encode


@jax.jit
def _raw(networks, codes):
    return networks.read(networks.generate(codes))[1]


def raw_activations(model, units, codes, batch=50):
    """Activations `[n, P]` of the generator's pictures before clipping and rounding."""
    if not len(codes):
        return np.zeros((0, len(units)), np.float32)
    bare, size = networks(model, units), min(batch, len(codes))
    filled = np.concatenate([codes, np.repeat(codes[:1], -len(codes) % size, 0)])
    parts = [_raw(bare, filled[i : i + size]) for i in range(0, len(codes), size)]
    return np.concatenate(parts)[: len(codes)]
