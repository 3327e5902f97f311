"""Weights of one network: read from a file and not trusted, or drawn at random."""

import hashlib
import json
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from inverse_set.errors import WeightError
from inverse_set.models.generator import Deconv


class WeightFile(NamedTuple):
    """One safetensors file.

    name: of the file.  tensors: {name: float32 array}.  record: the JSON in its header.
    digest: its SHA-256.
    """

    name: str
    tensors: dict
    record: dict
    digest: str


def read(path, absent, broken=None):
    """`WeightFile`; WeightError for one that is missing, broken or not finite.

    absent, broken: what to do about it in either case; the same unless given.
    """
    remedy = broken or absent
    try:
        if path.exists() and not path.is_file():
            raise ValueError("it is no regular file")
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        tensors = safetensors.numpy.load(data)
        with safetensors.safe_open(path, "numpy") as file:
            record = json.loads((file.metadata() or {}).get("record", "{}"))
        if not isinstance(record, dict):
            raise ValueError("its record is no JSON object")
        tensors = {key: _float32(value) for key, value in tensors.items()}
    except FileNotFoundError:
        raise WeightError(path.name, "weights are missing", remedy=absent) from None
    except (OSError, ValueError, KeyError, TypeError, safetensors.SafetensorError) as error:
        wrong = f"not a whole weight file: {' '.join(str(error).split())}"
        raise WeightError(path.name, wrong, remedy=remedy) from error
    for key, value in tensors.items():
        # A sum is finite only if every part is; of an array this large it is worth one pass.
        with np.errstate(over="ignore", invalid="ignore"):
            total = value.sum(dtype=np.float64)
        if not np.isfinite(total):
            raise WeightError(path.name, f"{key} holds NaN or infinity", remedy=remedy)
    return WeightFile(path.name, tensors, record, digest)


def _float32(value):
    if value.dtype.kind != "f" and value.dtype.name != "bfloat16":
        raise ValueError(f"expected floating tensors, got {value.dtype}")
    return value.astype(np.float32, copy=False)


def tree(tensors):
    """{"conv1/kernel": a, ...} -> {"conv1": {"kernel": a}}; other names are left out."""
    layers = {}
    for key, value in tensors.items():
        layer, leaf = key.split("/")
        if leaf in ("kernel", "bias"):
            layers.setdefault(layer, {})[leaf] = value
    return layers


def shapes(network, size):
    """{layer: {leaf: shape}} of a Flax network that takes one input `[*size]`."""
    example = jax.ShapeDtypeStruct((1, *size), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), example)["params"]
    return {layer: {k: v.shape for k, v in leaves.items()} for layer, leaves in params.items()}


def check(expected, layers):
    """ValueError unless `layers` {layer: {leaf: array}} has exactly the shapes expected."""
    for layer in sorted(set(expected) | set(layers)):
        if layer not in layers or layer not in expected:
            side = "expected and not there" if layer not in layers else "there and not expected"
            raise ValueError(f"layer {layer} is {side}")
        for leaf, want in expected[layer].items():
            if leaf not in layers[layer]:
                raise ValueError(f"expected {layer}.{leaf} {want}, file has none")
            have = layers[layer][leaf].shape
            if have != want:
                raise ValueError(f"expected {layer}.{leaf} {want}, file has {have}")


def random(expected, seed, plan=(), scales=None):
    """Untrained tensors {"conv1/kernel": a, ...}; activations of order 1 stay so, biases are 0.

    expected: from `shapes`.  plan: records of the layers; an output of a strided deconvolution
    adds fewer terms than its kernel has.  scales: {layer: factor} where order 1 is not wanted.
    """
    rng = np.random.default_rng(seed)
    strides = {layer.name: layer.stride for layer in plan if isinstance(layer, Deconv)}
    tensors = {}
    for name, leaves in expected.items():
        terms = math.prod(leaves["kernel"][:-1]) / strides.get(name, 1) ** 2
        limit = (scales or {}).get(name, 1.0) * math.sqrt(6 / terms)
        kernel = rng.random(leaves["kernel"], np.float32)
        kernel -= np.float32(0.5)
        kernel *= np.float32(2 * limit)
        tensors[f"{name}/kernel"] = kernel
        tensors[f"{name}/bias"] = np.zeros(leaves["bias"], np.float32)
    return tensors


def digest(tensors):
    """SHA-256 over the names and values of tensors, in order."""
    total = hashlib.sha256()
    for name, value in tensors.items():
        total.update(name.encode())
        total.update(np.ascontiguousarray(value))
    return total.hexdigest()
