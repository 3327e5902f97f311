"""The models by name: their networks, weights, labels and natural activations."""

import functools
import json
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from inverse_set import errors, run, types
from inverse_set.models import certificate, mini
from inverse_set.models.classifier import Classifier, relu_name
from inverse_set.models.generator import Generator

FOLDER = pathlib.Path(__file__).parent / "weights"
ENCODER = "relu6"  # E: the code is fc6 after its ReLU
NAMES = {"mini": "the bundled pair: needs nothing"}


class Model(NamedTuple):
    """A classifier f, its encoder E (a prefix of it) and a generator G.

    plan, generator_plan: layer records.  weights, generator_weights: {layer: {kernel, bias}}.
    labels: names of the fc8 units.  resolution: pixels a side.
    shapes: {layer: shape of one picture's activations}, layers in order.
    quantiles: `[Q]` percentiles at which natural activations are known.
    natural: {layer: `[Q, ...]`} activations of natural pictures at those percentiles.
    codes: `run.Natural` of E.  starts: `[M, D]` codes of natural pictures to start from.
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
    codes: run.Natural
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
    (tensors, record, _), (generator_tensors, _, _) = parts
    try:
        return _assemble(name, tensors, record, generator_tensors, parts)
    except (KeyError, ValueError) as error:
        raise errors.UserError(
            f"the weight files of {name} do not fit together: {error}",
            "reinstall the package: its weight files are damaged",
            errors.WEIGHTS,
        ) from error


def _assemble(name, tensors, record, generator_tensors, parts):
    plan = mini.classifier_plan(len(record["labels"]), record["resolution"], record["width"])
    generator_plan = mini.generator_plan(record["resolution"], record["width"])
    weights, generator_weights = _tree(tensors), _tree(generator_tensors)
    image = jax.ShapeDtypeStruct((1, record["resolution"], record["resolution"], 3), jnp.float32)
    code = jax.ShapeDtypeStruct((1, len(tensors["codes/upper"])), jnp.float32)
    _check_shapes(Classifier(plan), image, weights)
    _check_shapes(Generator(generator_plan), code, generator_weights)
    shapes = jax.eval_shape(Classifier(plan).apply, {"params": weights}, image)
    layers = [layer.name for layer in plan]
    codes = run.Natural(
        lower=np.zeros_like(tensors["codes/upper"]),
        upper=tensors["codes/upper"],
        code_square=record["code_square"],
        feature_square=record["code_square"],
    )
    return Model(
        name,
        plan,
        generator_plan,
        weights,
        generator_weights,
        tuple(record["labels"]),
        record["resolution"],
        {layer: shapes[layer].shape[1:] for layer in layers},
        np.asarray(record["quantiles"]),
        {layer: tensors[f"natural/{layer}"] for layer in layers if f"natural/{layer}" in tensors},
        codes,
        tensors["codes/starts"],
        {path.name: digest for path, (_, _, digest) in zip(files(name), parts, strict=True)},
        record,
    )


def _read(path):
    """Tensors in float32, the record in the header, and the file's SHA-256."""
    import hashlib

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
    return tensors, record, hashlib.sha256(data).hexdigest()


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
    return jnp.round(jnp.clip(images, 0.0, 1.0) * 255.0) / 255.0


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
    """`[count, D]` codes to start from.

    kind: "natural", codes of real pictures, drawn at random; "noise", uniform random pictures
    through E, as sec. 3.4 has it (nearly one code); "gaussian", N(0, 1) before the box.
    """
    key = jax.random.key(seed)
    if kind == "natural":
        total = len(model.starts)
        rounds = -(-count // total)
        order = np.concatenate(
            [jax.random.permutation(jax.random.fold_in(key, r), total) for r in range(rounds)]
        )
        return model.starts[order[:count]]
    if kind == "gaussian":
        return np.asarray(jax.random.normal(key, (count, model.starts.shape[1])))
    noise = jax.random.uniform(key, (count, model.resolution, model.resolution, 3))
    apply = jax.jit(Classifier(model.plan).apply, static_argnames="until")
    return np.asarray(
        apply({"params": model.weights}, mini.preprocess(noise), until=ENCODER)[ENCODER]
    )


def raw_activations(model, units, codes, batch=50):
    """Activations `[n, P]` of the generator's pictures before clipping and rounding."""
    bare = networks(model, units)
    run_batch = jax.jit(lambda net, codes: net.read(net.generate(codes))[1])
    parts = [np.asarray(run_batch(bare, codes[i : i + batch])) for i in range(0, len(codes), batch)]
    return np.concatenate(parts) if parts else np.zeros((0, len(units)), np.float32)
