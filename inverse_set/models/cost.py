"""What a picture costs: the useful FLOPs of a model's forward pass, and the size of its weights."""

import math

import jax

from inverse_set.models.bind import network_of
from inverse_set.models.zoo import ENCODER


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
        read[network_of(model, unit).name].append(unit.layer)
    return [(network, read[network.name]) for network in model.networks if read[network.name]]


def forward_flops(model, units):
    """Useful FLOPs of one sample's forward pass; the gradient to its code costs as much again."""
    return generator_flops(model) + sum(
        classifier_flops(network, layers) for network, layers in readings(model, units)
    )


def weight_bytes(model):
    """Bytes of all weights as they are used, float32."""
    trees = [network.weights for network in model.networks] + [model.generator.weights]
    return sum(4 * leaf.size for leaf in jax.tree.leaves(trees))
