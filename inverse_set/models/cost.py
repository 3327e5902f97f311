"""What a picture costs: the useful FLOPs of a model's forward pass, and the size of its weights."""

import math

import jax
import jax.numpy as jnp

from inverse_set import observe
from inverse_set.models.bind import networks
from inverse_set.models.parts import ENCODER


def generator_flops(model):
    """FLOPs of drawing one picture: two for every entry of a kernel and input it is laid at."""
    plan, weights = model.generator.plan, model.generator.weights
    side = plan.spatial
    total = sum(weights[name]["kernel"].size for name, _ in plan.dense)
    for deconv in plan.deconvs:
        total += weights[deconv.name]["kernel"].size * side**2
        side = (side - 1) * deconv.stride + deconv.kernel - 2 * deconv.padding
    return 2 * total


def generator_layers(model):
    """[(copies kept of it, shape), ...] of the generator's layers for one picture's gradient."""
    plan = model.generator.plan
    layers, side = [(1, (features,)) for _, features in plan.dense], plan.spatial
    for deconv in plan.deconvs:
        side = (side - 1) * deconv.stride + deconv.kernel - 2 * deconv.padding
        layers.append((2, (side, side, deconv.features)))
    return layers


def classifier_flops(network, layers):
    """FLOPs of reading `layers` of one picture, as deep as the deepest: two an entry and output."""
    names = list(network.shapes)
    last = max(names.index(layer) for layer in layers)
    return 2 * sum(
        network.weights[name]["kernel"].size * math.prod(network.shapes[name][:-1])
        for name in names[: last + 1]
        if name in network.weights
    )


def readings(model, units):
    """[(network, layers read of it), ...] for E and the units constrained."""
    read = {network.name: [] for network in model.networks}
    read[model.encoder.name].append(ENCODER.replace("relu", "fc"))
    for unit in units:
        read[model.owner(unit).name].append(unit.layer)
    return [(network, read[network.name]) for network in model.networks if read[network.name]]


def forward_flops(model, units):
    """FLOPs of one sample's forward pass; the gradient to its code costs as much again.

    Of a model from the zoo those that are useful, of another what XLA counts.
    """
    if model.parts is None:
        return _counted(model, units)
    return generator_flops(model) + sum(
        classifier_flops(network, layers) for network, layers in readings(model, units)
    )


def weight_bytes(model):
    """Bytes of all weights as they are used, float32."""
    trees = model.generate, model.layers, None if isinstance(model.encode, str) else model.encode
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(trees))


def reading_flops(model, units):
    """Of them, those of reading the units of a picture that is there."""
    if model.parts is None:
        return forward_flops(model, units) / 2
    return forward_flops(model, units) - generator_flops(model)


def layer_bytes(model, units):
    """Bytes of all layers of one sample's forward pass, in float32, as its gradient keeps them."""
    if model.parts is None:
        shapes = [model.image.shape, *model.shapes.values()]
        return 4 * 3 * sum(math.prod(shape) for shape in shapes)  # G's layers are not known
    layers = generator_layers(model)
    for network, read in readings(model, units):
        names = list(network.shapes)
        last = max(names.index(layer) for layer in read)
        layers += [
            (2 if name in network.weights else 1, network.shapes[name])
            for name in names[: last + 1]
        ]
    return 4 * sum(copies * math.prod(shape) for copies, shape in layers)


def _counted(model, units):
    bare = networks(model, units)
    codes = jax.ShapeDtypeStruct((1, model.code_size), jnp.float32)
    counts = jax.jit(observe.observe).lower(bare, codes).cost_analysis() or {}
    return float(counts.get("flops", 0.0))
